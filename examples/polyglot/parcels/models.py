"""What the shop keeps of a parcel."""

from django.db import models


class Parcel(models.Model):
    """One order, packed."""

    order = models.OneToOneField("shop.Order", models.CASCADE, related_name="parcel")
    insured_for = models.DecimalField(max_digits=8, decimal_places=2)
    packed_at = models.DateTimeField()
    #: Who says so, and the process in which it was packed.
    said_by = models.CharField(max_length=40)
    packed_by = models.PositiveIntegerField()
    #: The message that said so, the queue it came by, and the process that wrote this row.
    message = models.CharField(max_length=40)
    queue = models.CharField(max_length=80)
    written_by = models.PositiveIntegerField()

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"Parcel of order {self.order_id}"
