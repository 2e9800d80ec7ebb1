"""One page, so that a request has somewhere to go."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from shopapp.signals import order_placed


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("shop")


def order(request: HttpRequest) -> HttpResponse:
    sent = order_placed.send(sender="web", order_id=int(request.GET["id"]))
    return HttpResponse(str(sent.id))


urlpatterns = [path("", index), path("order", order)]
