"""The parcels, for the demo."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from .models import Parcel


@require_GET
def parcels_json(request: HttpRequest) -> JsonResponse:
    """Every row that a signal of the warehouse has made."""
    fields = (
        "order_id",
        "insured_for",
        "packed_at",
        "said_by",
        "packed_by",
        "message",
        "queue",
        "written_by",
    )
    return JsonResponse({"parcels": list(Parcel.objects.order_by("order_id").values(*fields))})
