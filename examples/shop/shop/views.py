"""The pages, and the same facts as JSON for the demo."""

import os
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from .checkout import place_order
from .forms import OrderForm
from .models import (
    Email,
    Invoice,
    Order,
    OrderLine,
    Product,
    ReceiverRun,
    Shipment,
    StockMovement,
)
from .receivers import OF_AN_ORDER

#: The tables whose rows the activity page counts.
COUNTED: tuple[type[Model], ...] = (
    Order,
    OrderLine,
    Invoice,
    Shipment,
    StockMovement,
    Email,
    ReceiverRun,
)


@dataclass
class Expected:
    """A receiver that an order's page waits for, and its run once there is one."""

    signal: str
    receiver: str
    explanation: str
    run: ReceiverRun | None = None


@require_GET
def catalogue(request: HttpRequest) -> HttpResponse:
    """Everything there is to buy."""
    return render(request, "shop/catalogue.html", {"products": Product.objects.all()})


@require_http_methods(["GET", "HEAD", "POST"])
def new_order(request: HttpRequest) -> HttpResponse:
    """The order form. ``?product=3`` puts one of that into the basket."""
    products = Product.objects.all()
    if request.method == "POST":
        form = OrderForm(request.POST, products=products)
        if form.is_valid():
            order = place_order(
                customer=form.cleaned_data["customer"],
                email=form.cleaned_data["email"],
                jam_printer=form.cleaned_data["jam_printer"],
                quantities=form.quantities,
            )
            return redirect(order)
    else:
        chosen = request.GET.get("product", "")
        form = OrderForm(products=products, initial={f"product_{chosen}": 1})
    status = 422 if form.errors else 200
    return render(request, "shop/new_order.html", {"form": form}, status=status)


@require_GET
def order_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One order, and which of its receivers have run."""
    order = get_object_or_404(Order, pk=pk)
    expected = _expected(order)
    context = {
        "order": order,
        "expected": expected,
        "waiting": sum(each.run is None for each in expected),
        "site_pid": os.getpid(),
        "refresh_url": reverse("shop:order", args=[pk]),
    }
    return render(request, "shop/order.html", context)


@require_GET
def activity_page(request: HttpRequest) -> HttpResponse:
    """The latest runs of all receivers."""
    context = {
        "runs": ReceiverRun.objects.select_related("order")[:60],
        "counts": _counts(),
        "site_pid": os.getpid(),
        "refresh_url": reverse("shop:activity"),
        "waiting": True,
    }
    return render(request, "shop/activity.html", context)


@require_GET
def order_json(request: HttpRequest, pk: int) -> JsonResponse:
    """What the receivers of one order have done."""
    order = get_object_or_404(Order, pk=pk)
    email, invoice, shipment = (kind.objects.filter(order=order).first() for kind in (Email, Invoice, Shipment))
    return JsonResponse(
        {
            "order": order.pk,
            "customer": order.customer,
            "total": order.total,
            "discount": order.discount,
            "placed_at": order.placed_at,
            "paid": order.paid_at is not None,
            "email": email and {"to": email.to, "subject": email.subject},
            "invoice": invoice and {"number": invoice.number, "total": invoice.total, "dated": invoice.dated},
            "shipment": shipment and {"courier": shipment.courier, "price": shipment.price},
            "movements": [
                {"product": movement.product.name, "quantity": movement.quantity}
                for movement in order.movements.select_related("product")
            ],
            "expected": [each.receiver for each in _expected(order)],
            "runs": [_run_as_dict(run) for run in reversed(order.runs.all())],
        }
    )


@require_GET
def activity_json(request: HttpRequest) -> JsonResponse:
    """All runs, oldest first, and how many rows there are of each kind."""
    runs = ReceiverRun.objects.order_by("pk")
    emails = Email.objects.filter(order=None).values("to", "subject")
    return JsonResponse(
        {
            "site_pid": os.getpid(),
            "runs": [_run_as_dict(run) for run in runs],
            "letters_to_suppliers": list(emails),
            "counts": _counts(),
        }
    )


def _expected(order: Order) -> list[Expected]:
    runs = {run.receiver: run for run in reversed(order.runs.all())}
    return [
        Expected(
            signal=signal,
            receiver=receiver.__name__,
            explanation=(receiver.__doc__ or "").strip().replace("`", ""),
            run=runs.get(receiver.__name__),
        )
        for signal, receivers in OF_AN_ORDER.items()
        for receiver in receivers
    ]


def _counts() -> dict[str, int]:
    return {model.__name__: model.objects.count() for model in COUNTED}


def _run_as_dict(run: ReceiverRun) -> dict[str, Any]:
    return {
        "receiver": run.receiver,
        "signal": run.signal,
        "about": run.about,
        "order": run.order_id,
        "message": run.message,
        "queue": run.queue,
        "pid": run.pid,
        "process": run.process,
        "sent_at": run.sent_at,
        "waited_ms": round(run.waited_ms, 1),
        "took_ms": round(run.took_ms, 1),
        "failure": run.failure,
    }
