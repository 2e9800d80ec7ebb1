"""The order form: who, and how many of what."""

from collections.abc import Iterable
from typing import Any

from django import forms

from .models import Product


class OrderForm(forms.Form):
    """One number field for each product."""

    customer = forms.CharField(
        label="Your name",
        max_length=80,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    email = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    jam_printer = forms.BooleanField(
        label="Let the label printer jam",
        help_text="One receiver will fail. The others run all the same.",
        required=False,
    )

    def __init__(self, *args: Any, products: Iterable[Product], **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)
        self.products = list(products)
        for product in self.products:
            self.fields[self.field_name(product)] = forms.IntegerField(
                label=product.name, min_value=0, max_value=99, required=False
            )

    @staticmethod
    def field_name(product: Product) -> str:
        """What the product's number is called in the form."""
        return f"product_{product.pk}"

    @property
    def rows(self) -> list[tuple[Product, forms.BoundField]]:
        """Each product with its field, for the template."""
        return [(product, self[self.field_name(product)]) for product in self.products]

    @property
    def quantities(self) -> dict[Product, int]:
        """What was asked for."""
        wanted = {p: self.cleaned_data.get(self.field_name(p)) or 0 for p in self.products}
        return {product: quantity for product, quantity in wanted.items() if quantity}

    def clean(self) -> dict[str, Any]:
        """Refuse an order of nothing."""
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and not self.quantities:
            raise forms.ValidationError("Choose at least one thing.")
        return cleaned
