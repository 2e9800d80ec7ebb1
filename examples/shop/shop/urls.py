"""The shop's addresses."""

from django.urls import path

from . import views

app_name = "shop"
urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("order/", views.new_order, name="new_order"),
    path("orders/<int:pk>/", views.order_page, name="order"),
    path("orders/<int:pk>.json", views.order_json, name="order_json"),
    path("activity/", views.activity_page, name="activity"),
    path("activity.json", views.activity_json, name="activity_json"),
]
