"""Orders, made up and changed, as an awkward API would give them.

Amounts are exact Decimals, sometimes whole and sometimes not; any field may be null; customers are
nested; items come and go, some with a list of their own; now and then a new field appears. Dates are
datetimes here; `on_the_wire` writes them as the server does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from orders_dagster.sandbox.times import from_datetime, iso, write_time

Order = dict[str, Any]

CURSOR = "last_modified_date"
_STATUSES = ("pending", "paid", "shipped", "delivered", "refunded")
_NOTES = (
    None,
    None,
    "",
    "007",
    "ring the bell",
    "「ギフト」 für Ökonomen",
    'it\'s "quoted", \\',
    "null",
)
_EXTRAS: tuple[Callable[[Random], Any], ...] = (
    lambda rng: rng.randrange(1000),
    lambda rng: Decimal(rng.randrange(10**6)) / 1000,
    lambda rng: rng.choice((True, False)),
    lambda rng: f"text {rng.randrange(100)}",
    lambda rng: {"carrier": rng.choice(("DHL", "UPS")), "weight": _amount(rng)},
    lambda rng: [f"tag {n}" for n in range(rng.randrange(4))],
)


def on_the_wire(order: Order, style: str) -> Order:
    """The order as JSON holds it: the cursor in the style of the server, other dates in ISO 8601."""

    def written(name: str, value: Any) -> Any:
        if not isinstance(value, datetime):
            return value
        us = from_datetime(value)
        return write_time(us, style) if name == CURSOR else iso(us)

    return {name: written(name, value) for name, value in order.items()}


def new_order(
    rng: Random, key: int | str, modified: datetime, whole_amounts: bool = False
) -> Order:
    """An order that was placed at some time before its modification."""
    placed = modified - timedelta(milliseconds=rng.randrange(10**8))
    order: Order = {
        "order_id": key,
        "status": rng.choice(_STATUSES),
        "currency": rng.choice(("EUR", "GBP", None)),
        "order_date": placed.astimezone(UTC),
        CURSOR: modified,
        "customer": rng.choice((None, _customer(rng), _customer(rng))),
        "is_gift": rng.choice((True, False, None)),
        "note": rng.choice(_NOTES),
        "reference": rng.choice((rng.randrange(10**6), f"R-{rng.randrange(1000)}", None)),
        "tags": rng.sample(("new", "vip", "b2b", "fragile"), rng.choice((0, 0, 1, 3))),
        "items": [_item(rng, n + 1, whole_amounts) for n in range(rng.choice((0, 1, 2, 3, 9)))],
    }
    _add_up(order)
    return order


def modified(order: Order, rng: Random, at: datetime, edit: str) -> Order:
    """A later version of an order."""
    version = copy.deepcopy(order)
    version[CURSOR] = at
    items = version["items"]
    if edit == "add item":
        items.insert(rng.randint(0, len(items)), _item(rng, 1 + len(items) * 7 + rng.randrange(6)))
    elif edit == "remove item" and items:
        items.pop(rng.randrange(len(items)))
    elif edit == "remove all items":
        items.clear()
    elif edit == "cancel":
        version["status"] = "cancelled"
    elif edit == "new field":
        kind = rng.randrange(len(_EXTRAS))
        version[f"extra_{kind}"] = _EXTRAS[kind](rng)
    elif edit == "null":
        version[rng.choice(("customer", "note", "currency", "is_gift", "reference"))] = None
    else:
        version["status"] = rng.choice(_STATUSES)
        version["note"] = f"version {rng.randrange(10**9)}"
        for item in items[:1]:
            item["quantity"] += 1
    _add_up(version)
    return version


EDITS = ("modify",) * 5 + (
    "add item",
    "add item",
    "remove item",
    "remove item",
    "remove all items",
    "cancel",
    "new field",
    "null",
)


def _item(rng: Random, line: int, whole_amounts: bool = False) -> Order:
    item: Order = {
        "line": line,
        "sku": f"SKU-{rng.randrange(50)}",
        "quantity": rng.randint(1, 9),
        "unit_price": Decimal(rng.randint(1, 90)) if whole_amounts else _amount(rng),
        "discount": rng.choice((None, None, Decimal("0.1"), Decimal(1))),
    }
    if rng.random() < 0.1:
        item["serials"] = [f"{rng.randrange(10**9):09}" for _ in range(rng.randint(1, 3))]
    return item


def _amount(rng: Random) -> Decimal:
    return Decimal(rng.randrange(10**6)).scaleb(-rng.choice((0, 1, 2, 2, 2, 4, 9)))


def _customer(rng: Random) -> Order:
    number = rng.randrange(500)
    email = rng.choice((None, f"c{number}@example.com"))
    return {"customer_id": number, "email": email, "address": {"city": rng.choice(("Ulm", None))}}


def _add_up(order: Order) -> None:
    order["total"] = sum((i["unit_price"] * i["quantity"] for i in order["items"]), Decimal(0))
