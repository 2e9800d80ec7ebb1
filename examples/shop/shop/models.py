"""What the shop keeps: the catalogue, the orders, and what receivers made of them."""

from decimal import Decimal

from django.db import models
from django.urls import reverse
from django.utils import timezone


class Product(models.Model):
    """Something to buy."""

    name = models.CharField(max_length=60, unique=True)
    blurb = models.CharField(max_length=160)
    icon = models.SlugField(max_length=20)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.IntegerField()
    reorder_at = models.IntegerField(default=3)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """What one customer bought at one time."""

    customer = models.CharField(max_length=80)
    email = models.EmailField()
    discount = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    total = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    jam_printer = models.BooleanField(default=False)
    placed_at = models.DateTimeField(default=timezone.now)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def get_absolute_url(self) -> str:
        """The order's page."""
        return reverse("shop:order", args=[self.pk])


class OrderLine(models.Model):
    """One product of an order, at the price it had."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product}"

    @property
    def price(self) -> Decimal:
        """Of the whole line."""
        return self.unit_price * self.quantity


class Email(models.Model):
    """A letter that would have been sent."""

    order = models.OneToOneField(Order, models.CASCADE, null=True, related_name="email_sent")
    to = models.EmailField()
    subject = models.CharField(max_length=120)
    sent_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.subject


class Invoice(models.Model):
    """The invoice of an order."""

    order = models.OneToOneField(Order, models.CASCADE, related_name="invoice")
    number = models.CharField(max_length=20)
    total = models.DecimalField(max_digits=8, decimal_places=2)
    dated = models.DateTimeField()

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.number


class Shipment(models.Model):
    """The courier who gave the best price."""

    order = models.OneToOneField(Order, models.CASCADE, related_name="shipment")
    courier = models.CharField(max_length=40)
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.courier


class StockMovement(models.Model):
    """Goods that left a shelf, or will arrive on it."""

    product = models.ForeignKey(Product, models.CASCADE, related_name="movements")
    order = models.ForeignKey(Order, models.CASCADE, null=True, related_name="movements")
    quantity = models.IntegerField()

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=("order", "product"), name="one_movement_per_line"),)

    def __str__(self) -> str:
        return f"{self.quantity:+} {self.product}"


class ReceiverRun(models.Model):
    """One run of one receiver: where it was and how long it took."""

    receiver = models.CharField(max_length=80)
    signal = models.CharField(max_length=120)
    message = models.CharField(max_length=40, blank=True)
    queue = models.CharField(max_length=80, blank=True)
    order = models.ForeignKey(Order, models.CASCADE, null=True, related_name="runs")
    about = models.CharField(max_length=80)
    pid = models.PositiveIntegerField()
    process = models.CharField(max_length=60)
    sent_at = models.DateTimeField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    failure = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-started_at", "-pk")

    def __str__(self) -> str:
        return f"{self.receiver} of {self.about}"

    @property
    def waited_ms(self) -> float:
        """From the send to the start."""
        return (self.started_at - self.sent_at).total_seconds() * 1000

    @property
    def took_ms(self) -> float:
        """From the start to the end."""
        return (self.finished_at - self.started_at).total_seconds() * 1000

    @property
    def in_worker(self) -> bool:
        """Whether a message brought it here."""
        return bool(self.message)
