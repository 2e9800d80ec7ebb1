"""The table of the parcels."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Parcel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("insured_for", models.DecimalField(decimal_places=2, max_digits=8)),
                ("packed_at", models.DateTimeField()),
                ("said_by", models.CharField(max_length=40)),
                ("packed_by", models.PositiveIntegerField()),
                ("message", models.CharField(max_length=40)),
                ("queue", models.CharField(max_length=80)),
                ("written_by", models.PositiveIntegerField()),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="parcel", to="shop.order"
                    ),
                ),
            ],
            options={"ordering": ("pk",)},
        ),
    ]
