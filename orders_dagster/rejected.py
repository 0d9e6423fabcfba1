"""An order that cannot be merged, and the row of `orders_rejected` that keeps it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from orders_dagster.cursor import value_at
from orders_dagster.places import DEEPEST, DELETED_AT
from orders_dagster.values import clean

REJECTED_TABLE = "orders_rejected"
ORDER_ID, MODIFIED_AT = "order_id", "modified_at"


@dataclass(frozen=True)
class Rejected:
    """An order that cannot be merged.

    Attributes:
        reason: in words.
        order: as it came.
        modified_at: its modification date, UTC, if it can be read.
    """

    reason: str
    order: Any
    modified_at: datetime | None = None

    @property
    def id(self) -> str:
        """The same order with the same fault has the same id."""
        text = f"{self.reason}\n{exact_json(self.order)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def row(self, primary_key: str, rejected_at: datetime) -> dict[str, Any]:
        """The row of `orders_rejected`."""
        key = value_at(self.order, primary_key)
        is_id = key is not None and not isinstance(key, (dict, list)) and str(key).strip()
        return {
            "rejected_id": self.id,
            "reason": self.reason,
            ORDER_ID: clean(str(key)) if is_id else None,
            MODIFIED_AT: self.modified_at,
            "order_json": exact_json(self.order),
            "rejected_at": rejected_at,
            DELETED_AT: None,
        }


def _down_to(value: Any, levels: int) -> Any:
    """What can be shown of an order that is nested so deep that nothing can write it out."""
    if isinstance(value, dict):
        return {k: _down_to(v, levels - 1) for k, v in value.items()} if levels else "..."
    if isinstance(value, list):
        return [_down_to(one, levels - 1) for one in value] if levels else "..."
    return value


def exact_json(value: Any) -> str:
    """JSON text with every number as it came; json writes Decimals only as text."""

    def mark(number: Any) -> str:
        if isinstance(number, Decimal):
            return f"\0{number}\0"
        raise TypeError(type(number).__name__)

    try:
        text = json.dumps(value, default=mark, ensure_ascii=False, sort_keys=True)
    except RecursionError:
        return exact_json(_down_to(value, DEEPEST))
    return clean(re.sub(r'"\\u0000([-+.\dE]+)\\u0000"', r"\1", text))
