"""What happens to an order in a shop: it moves on, its amounts change, items come and go.

Here: changing one order, given as a dictionary, so that its total is exact again afterwards. Not
here: which orders change and when (`shop.py`).

Orders out of a file may lack any of the fields of a generated one. A change then touches what is
there, and at least `status`, so that it shows in every order.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any

Order = dict[str, Any]

_NEXT = {
    "pending": ("paid", "cancelled"),
    "paid": ("shipped", "shipped", "cancelled"),
    "shipped": ("delivered", "delivered", "refunded"),
    "delivered": ("refunded",),
}
_EXTRA_ITEM = {"sku": "X20001", "name": "Gift wrap", "quantity": 1, "discount": None}
_EXTRA_PRICE = Decimal("3.5")


def modify(order: Order, rng: Random) -> None:
    """Move the order to another status, or change how many of one item were ordered."""
    lines = [item for item in items_of(order) if isinstance(item.get("quantity"), int)]
    if lines and rng.random() < 0.4:
        line = rng.choice(lines)
        line["quantity"] += rng.choice((1, 2))
        settle(order)
    else:
        now = order.get("status")
        order["status"] = rng.choice(_NEXT.get(str(now), ("pending", "paid")))


def remove_item(order: Order, rng: Random) -> None:
    """Take one item out; the others keep their line numbers, as in a real shop."""
    order["items"].pop(rng.randrange(len(order["items"])))
    settle(order)


def add_item(order: Order, rng: Random) -> None:
    """Append an item with the fields that the order's other items have."""
    others = items_of(order)
    item = {**_EXTRA_ITEM, "unit_price": _EXTRA_PRICE, "quantity": rng.choice((1, 2))}
    if others:
        item = {key: item.get(key) for key in others[-1]}
    if "line" in item:
        lines = [other["line"] for other in others if isinstance(other.get("line"), int)]
        item["line"] = 1 + max(lines, default=0)
    if not isinstance(order.get("items"), list):
        order["items"] = []
    order["items"].append(item)
    settle(order)


def items_of(order: Order) -> list[Order]:
    """The items that are objects; a file may hold others."""
    items = order.get("items")
    if not isinstance(items, list):
        return []
    return [item for item in items if isinstance(item, dict)]


def settle(order: Order) -> None:
    """Make subtotal and total agree with the items again, where the order has such amounts."""
    if "subtotal" not in order or "total" not in order:
        return
    try:
        subtotal = sum((_amount(item) for item in items_of(order)), Decimal(0))
        charges = _number(order, "shipping") + _number(order, "tax")
        # Removing items must not make a total negative.
        discount = min(_number(order, "discount"), subtotal)
    except (InvalidOperation, TypeError, ValueError):
        return  # amounts that are no numbers, from a file: there is nothing to add up
    if order.get("discount") is not None:
        order["discount"] = plain(discount)
    order["subtotal"] = plain(subtotal)
    order["total"] = plain(subtotal + charges - discount)


def _amount(item: Order) -> Decimal:
    return _number(item, "unit_price") * _number(item, "quantity") - _number(item, "discount")


def _number(holder: Order, name: str) -> Decimal:
    return Decimal(holder.get(name) or 0)


def plain(amount: Decimal) -> Decimal | int:
    """The amount without trailing zeros: 10, 10.5."""
    if amount == amount.to_integral_value():
        return int(amount)
    return amount.normalize()
