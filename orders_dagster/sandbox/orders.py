"""The little that the sandbox reads out of an order.

Here: order_id, modification time and number of items of any JSON value that stands for an order,
however awkward. Not here: how an order comes about (`generate.py`, `files.py`) or changes
(`changes.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .index import UNDATED, Rank
from .times import from_datetime, read_time


def key_of(order: Any) -> str | None:
    """The order_id as text, by which orders are found; None for a row that has no usable one."""
    order_id = order.get("order_id") if isinstance(order, dict) else None
    if isinstance(order_id, bool) or not isinstance(order_id, str | int):
        return None
    return str(order_id)


def rank_of(order: Any, seq: int) -> Rank:
    """What an order sorts by: numbers by value, then texts, then rows without an order_id."""
    order_id = order.get("order_id") if isinstance(order, dict) else None
    if isinstance(order_id, str):
        return (1, 0, order_id, seq)
    if isinstance(order_id, int) and not isinstance(order_id, bool):
        return (0, order_id, "", seq)
    return (2, 0, "", seq)


def modified_of(order: Any) -> int:
    """When an order was modified, in microseconds; UNDATED where that cannot be read."""
    value = order.get("last_modified_date") if isinstance(order, dict) else None
    if isinstance(value, datetime):  # out of a Parquet file
        return from_datetime(value)
    found = read_time(value)
    return UNDATED if found is None else found


def items_in(order: Any) -> int:
    """How many items an order has."""
    items = order.get("items") if isinstance(order, dict) else None
    return len(items) if isinstance(items, list) else 0
