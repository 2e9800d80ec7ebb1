"""One page, so that a request has somewhere to go."""

import os

from django.http import HttpRequest, HttpResponse
from django.urls import path

from shopapp.signals import order_placed


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("shop")


def order(request: HttpRequest) -> HttpResponse:
    """Sends a signal, and says which process did."""
    order_placed.send(sender="web", order_id=int(request.GET["id"]))
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("", index), path("order", order)]
