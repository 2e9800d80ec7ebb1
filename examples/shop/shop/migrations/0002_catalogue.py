"""Puts goods on the shelves."""

from decimal import Decimal

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

GOODS = [
    # name, icon, price, stock, blurb
    ("Teapot", "teapot", "24.50", 12, "Round, brown and patient. Holds six cups and no grudges."),
    ("Mug", "mug", "9.90", 30, "Large enough for a morning, small enough for a desk."),
    ("Kettle", "kettle", "39.00", 5, "Sings in A flat when the water is ready."),
    ("Assam", "tin", "7.25", 40, "A tin of second flush, malty and wide awake."),
    ("Lemon biscuits", "biscuit", "4.80", 25, "Twelve in a box, in theory."),
    ("Tea cosy", "cosy", "14.00", 4, "A jumper for the teapot, knitted by hand."),
]


def stock_the_shelves(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(
        product(name=name, icon=icon, price=Decimal(price), stock=stock, blurb=blurb)
        for name, icon, price, stock, blurb in GOODS
    )


def clear_the_shelves(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("shop", "Product").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(stock_the_shelves, clear_the_shelves)]
