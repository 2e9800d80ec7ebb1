"""What the warehouse tells the shop."""

from async_signals import AsyncSignal

#: A parcel is ready to go. Sent by the warehouse, which calls the signal by this name.
parcel_packed = AsyncSignal(
    providing_args=("order", "insured_for", "packed_at", "packed_by"),
    name="warehouse.signals.parcel_packed",
)
