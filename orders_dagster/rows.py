"""What happens to an order between the API and the tables. Knows nothing of windows or of HTTP.

An order becomes one row of `orders` (its lists become child tables in dlt's normalizer), or, if it
cannot be merged, one row of `orders_rejected` with the reason and its JSON. None is dropped.

Values are kept exactly. Numbers with a fraction are decimals. What the column of a field cannot hold
goes, as text, into the column dlt would make for another type, `<field>__v_text`: a number with more
digits than a decimal has, and text in a column of numbers, where dlt would turn "007" into 7.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from orders_dagster.cursor import UnreadableTime, read_time, value_at

REJECTED_TABLE = "orders_rejected"

# dlt's default for a decimal column is DECIMAL(38, 9).
_SCALE = 9
_LARGEST_DECIMAL = Decimal(10) ** 29
_LARGEST_INTEGER = 2**63 - 1

Path = tuple[str, ...]
LIST = "[]"
"""Stands in a path between the name of a list and the fields of its elements."""


@dataclass(frozen=True)
class Rejected:
    """An order that cannot be merged: `reason` in words, `order` as it came."""

    reason: str
    order: Any

    def row(self, primary_key: str, rejected_at: datetime) -> dict[str, Any]:
        """The row of `orders_rejected`. The same order with the same fault is the same row."""
        text = json.dumps(self.order, default=str, ensure_ascii=False, sort_keys=True)
        text = text.encode("utf-8", "replace").decode()
        key = value_at(self.order, primary_key)
        return {
            "rejected_id": hashlib.sha256(f"{self.reason}\n{text}".encode()).hexdigest(),
            "reason": self.reason,
            "order_id": None if key is None or isinstance(key, (dict, list)) else str(key),
            "order_json": text,
            "rejected_at": rejected_at,
        }


@dataclass
class Rows:
    """Turns the orders of one run into rows, and remembers what the tables need to know.

    Attributes:
        key_type: the type of the primary key (int or str), None before the first order.
        column_type: dlt's type of the column a field has in the tables, None for a new field.
        watermark: the newest modification date in the tables, UTC.
        read_again: the orders not newer than the watermark, with the newest time they were seen
            with: those that the lag alone made this run read.
        decimal_paths: the fields in which a number with a fraction has been seen, so that their
            columns are decimal even if other orders, or earlier runs, had whole numbers there.
        newest: the newest modification date seen, UTC.
        orders, rejected: how many, repeated reads included.
    """

    primary_key: str
    cursor_path: str
    cursor_format: str = "iso"
    key_type: type | None = None
    column_type: Callable[[Path], str | None] = lambda path: None
    watermark: datetime | None = None
    read_again: dict[int | str, datetime] = field(default_factory=dict)
    decimal_paths: set[Path] = field(default_factory=set)
    newest: datetime | None = None
    orders: int = 0
    rejected: int = 0
    _number_paths: dict[Path, bool] = field(default_factory=dict, repr=False)

    def row(self, order: Any) -> dict[str, Any] | Rejected:
        """The row for `orders`, with its cursor a UTC datetime, or the rejection."""
        try:
            self._check_key(order)
            time = self._time(order)
        except _Unmergeable as fault:
            self.rejected += 1
            return Rejected(str(fault), order)
        row: dict[str, Any] = self._exact(order, ())
        _set(row, self.cursor_path, time)
        self.orders += 1
        self._remember(value_at(row, self.primary_key), time)
        if self.newest is None or time > self.newest:
            self.newest = time
        return row

    def _remember(self, key: int | str, time: datetime) -> None:
        known = self.read_again.get(key)
        if known is not None:
            self.read_again[key] = max(known, time)
        elif self.watermark is not None and time <= self.watermark:
            self.read_again[key] = time

    def _check_key(self, order: Any) -> None:
        if not isinstance(order, dict):
            raise _Unmergeable("the order is no object")
        key = value_at(order, self.primary_key)
        if key is None or (isinstance(key, str) and not key.strip()):
            raise _Unmergeable(f"{self.primary_key} is missing")
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise _Unmergeable(f"{self.primary_key} is neither text nor a whole number")
        # One column has one type: with two, the merge would no longer know an order again.
        if self.key_type is str and isinstance(key, int):
            _set(order, self.primary_key, str(key))
        elif self.key_type is int and isinstance(key, str):
            if not key.isdecimal() or str(int(key)) != key:
                raise _Unmergeable(f"{self.primary_key} is text where others are whole numbers")
            _set(order, self.primary_key, int(key))
        elif self.key_type is None:
            self.key_type = type(key)

    def _time(self, order: dict[str, Any]) -> datetime:
        value = value_at(order, self.cursor_path)
        if value is None:
            raise _Unmergeable(f"{self.cursor_path} is missing")
        try:
            return read_time(value, self.cursor_format)
        except UnreadableTime as fault:
            raise _Unmergeable(f"{self.cursor_path} {fault}") from None

    def _exact(self, order: dict[str, Any], path: Path) -> dict[str, Any]:
        """An object with every value in a form that its column holds without loss."""
        row: dict[str, Any] = {}
        for key, value in order.items():
            here = (*path, key)
            if value is None:
                continue  # the column is null without it, and dlt warns of fields that are all null
            if isinstance(value, dict):
                row[key] = self._exact(value, here)
            elif isinstance(value, list):
                row[key] = self._exact_list(value, (*here, LIST))
            else:
                fits, exact = self._exact_value(value, here)
                row[key if fits else f"{key}__v_text"] = exact
        return row

    def _exact_list(self, values: list[Any], path: Path) -> list[Any]:
        return [
            self._exact(value, path)
            if isinstance(value, dict)
            else self._exact_list(value, (*path, LIST))
            if isinstance(value, list)
            else self._exact_value(value, path)[1]
            for value in values
        ]

    def _exact_value(self, value: Any, path: Path) -> tuple[bool, Any]:
        """Whether the field's own column holds the value, and the value."""
        if isinstance(value, str):
            # A lone surrogate is legal in JSON and in no database.
            text = value if value.isascii() else value.encode("utf-8", "replace").decode()
            return not self._holds_numbers(path), text
        if isinstance(value, bool) or value is None:
            return True, value
        if isinstance(value, Decimal):
            if not fits_decimal(value):
                return False, str(value)
            self.decimal_paths.add(path)
        elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            return False, str(value)
        if not self._number_paths.get(path):
            # A column that holds text already takes a number as text, without loss.
            self._number_paths[path] = self.column_type(path) != "text"
        return True, value

    def _holds_numbers(self, path: Path) -> bool:
        if path not in self._number_paths:
            self._number_paths[path] = self.column_type(path) in ("bigint", "decimal", "double")
        return self._number_paths[path]


def fits_decimal(value: Decimal) -> bool:
    """Whether DECIMAL(38, 9) holds the value exactly."""
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_SCALE and abs(value) < _LARGEST_DECIMAL


class _Unmergeable(ValueError):
    """Why an order cannot be merged; becomes `Rejected.reason`. Holds no value of the order."""


def _set(order: dict[str, Any], path: str, value: Any) -> None:
    """Replace the value at a dotted path, in place."""
    *parents, name = path.removeprefix("$.").split(".")
    for part in parents:
        order = order[part]
    order[name] = value


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)
