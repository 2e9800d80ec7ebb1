"""The shop's pages, and the parcels as JSON."""

from django.urls import include, path

from parcels.views import parcels_json

urlpatterns = [
    path("parcels.json", parcels_json),
    path("", include("shop.urls")),
]
