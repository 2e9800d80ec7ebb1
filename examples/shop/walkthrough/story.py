"""Who orders what, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Visit:
    """One customer and one basket."""

    name: str
    email: str
    basket: dict[str, int]
    remark: str
    jam_printer: bool = False
    discount: str = "0.00"


VISITS = (
    Visit("Ada", "ada@example.org", {"Teapot": 1, "Mug": 2}, "an ordinary order"),
    Visit(
        "Grace",
        "grace@example.org",
        {"Assam": 3, "Lemon biscuits": 1},
        "three of a kind: a synchronous receiver gives the discount",
        discount="2.18",
    ),
    Visit(
        "Edsger",
        "edsger@example.org",
        {"Kettle": 2},
        "the last kettles: a receiver sends stock_low from the worker",
    ),
    Visit(
        "Barbara",
        "barbara@example.org",
        {"Tea cosy": 1, "Mug": 1},
        "the label printer jams: one receiver fails, the others run",
        jam_printer=True,
    ),
)

SUPPLIER_LETTERS = ("Please send more Kettle: 3 left", "Please send more Tea cosy: 3 left")


@dataclass(frozen=True)
class Effect:
    """Something that must be true in the end."""

    text: str
    there: bool


@dataclass(frozen=True)
class Queues:
    """Where the asynchronous signals go."""

    default: str
    urgent: str
    rush: str


def effects_of_order(
    visit: Visit, facts: dict[str, Any], site_pid: int, is_worker: Callable[[int], bool], q: Queues
) -> list[Effect]:
    """Everything that one order must lead to."""
    number = f"order {facts['order']}"
    runs = {run["receiver"]: run for run in facts["runs"]}
    effects = []
    for receiver in facts["expected"]:
        run = runs.get(receiver)
        effects.append(Effect(f"{number}: {receiver} ran", run is not None))
        if run is None:
            continue
        here = run["pid"] == site_pid
        if run["signal"] == "basket_priced":
            effects.append(Effect(f"{number}: {receiver} ran in the request", here))
        else:
            queue = q.urgent if run["signal"] == "payment_taken" else q.default
            in_worker = not here and is_worker(run["pid"])
            effects.append(Effect(f"{number}: {receiver} ran in the worker", in_worker))
            effects.append(Effect(f"{number}: {receiver} came by the queue {queue}", run["queue"] == queue))
        should_fail = visit.jam_printer and receiver == "print_label"
        outcome = "failed, as it was told to" if should_fail else "did not fail"
        effects.append(Effect(f"{number}: {receiver} {outcome}", bool(run["failure"]) == should_fail))
    for name in ("payment_taken", "order_placed"):
        messages = {run["message"] for run in facts["runs"] if run["signal"] == name}
        effects.append(Effect(f"{number}: {name} was one message", len(messages) == 1))

    email, invoice = facts["email"] or {}, facts["invoice"] or {}
    taken = {each["product"]: -each["quantity"] for each in facts["movements"]}
    effects += [
        Effect(f"{number}: paid", facts["paid"]),
        Effect(f"{number}: an e-mail to {visit.email}", email.get("to") == visit.email),
        Effect(f"{number}: an invoice over {facts['total']}", _agrees(invoice, facts)),
        Effect(f"{number}: a courier is booked", facts["shipment"] is not None),
        Effect(f"{number}: the goods have left the shelf", taken == visit.basket),
        Effect(
            f"{number}: a discount of {visit.discount}",
            Decimal(facts["discount"]) == Decimal(visit.discount),
        ),
    ]
    return effects


def effects_of_all(activity: dict[str, Any], is_worker: Callable[[int], bool]) -> list[Effect]:
    """What receivers of receivers' signals must lead to."""
    subjects = {letter["subject"] for letter in activity["letters_to_suppliers"]}
    reorders = [run for run in activity["runs"] if run["receiver"] == "reorder"]
    return [
        *(Effect(f"a letter “{text}”", text in subjects) for text in SUPPLIER_LETTERS),
        Effect(
            "reorder ran in the worker",
            bool(reorders) and all(is_worker(run["pid"]) for run in reorders),
        ),
    ]


def _agrees(invoice: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether the ``Decimal`` and the ``datetime`` crossed the wire unharmed."""
    return (invoice.get("total"), invoice.get("dated")) == (facts["total"], facts["placed_at"])
