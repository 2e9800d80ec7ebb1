"""Every page belongs to the shop."""

from django.urls import include, path

urlpatterns = [path("", include("shop.urls"))]
