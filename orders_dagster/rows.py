"""What happens to an order between the API and the tables. Knows nothing of windows or of HTTP.

An order becomes one row of `orders` (its lists become child tables in dlt's normalizer), or, if it
cannot be merged, one row of `orders_rejected` with the reason and its JSON. None is dropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from orders_dagster.cursor import UnreadableTime, read_time, value_at
from orders_dagster.values import LIST, Path, Values, clean, fits_integer

REJECTED_TABLE = "orders_rejected"
DEEPEST = 60  # dlt's normalizer and its writers end at about 100


@dataclass(frozen=True)
class Rejected:
    """An order that cannot be merged: `reason` in words, `order` as it came."""

    reason: str
    order: Any

    @property
    def id(self) -> str:
        """The same order with the same fault has the same id."""
        text = f"{self.reason}\n{exact_json(self.order)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def row(self, primary_key: str, rejected_at: datetime) -> dict[str, Any]:
        """The row of `orders_rejected`."""
        key = value_at(self.order, primary_key)
        return {
            "rejected_id": self.id,
            "reason": self.reason,
            "order_id": None if key is None or isinstance(key, (dict, list)) else clean(str(key)),
            "order_json": exact_json(self.order),
            "rejected_at": rejected_at,
        }


@dataclass
class Rows:
    """Turns the orders of one run into rows, and remembers what has to be known about them.

    Attributes:
        key_type: the type of the primary key (int or str), None before the first order.
        values: decides which column holds a value.
        identifier: the name of the column that a field's name becomes.
        watermark: the newest modification date in the tables, UTC.
        now: the start of the run, UTC; orders dated later are read again by every run.
        read_again: the orders not newer than the watermark, or later than now, with the newest time
            they were seen with: those that this run may have read only once more.
        columns: the name in a row of each field there has been, by the path of its object: what was
            given once is kept, or the fields of two spellings would swap their columns.
        newest: the newest modification date seen, UTC.
        orders: how many, repeated reads included.
        rejected: the ids of those that were rejected.
    """

    primary_key: str
    cursor_path: str
    cursor_format: str = "iso"
    key_type: type | None = None
    values: Values = field(default_factory=Values)
    identifier: Callable[[str], str] = str
    watermark: datetime | None = None
    now: datetime | None = None
    read_again: dict[int | str, datetime] = field(default_factory=dict)
    newest: datetime | None = None
    orders: int = 0
    rejected: set[str] = field(default_factory=set)
    columns: dict[Path, dict[str, str]] = field(default_factory=dict, repr=False)
    _changed: set[int | str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._ours = frozenset({path_of(self.primary_key), path_of(self.cursor_path)})

    def row(self, order: Any) -> dict[str, Any] | Rejected:
        """The row for `orders`, with its cursor a UTC datetime, or the rejection."""
        try:
            if not isinstance(order, dict):
                raise _Unmergeable("the order is no object")
            found = self._key(order)
            time = self._time(order)
            row = self._exact(order, ())
            key = self._same_type(found)  # last: a rejected order must not decide the type
        except _Unmergeable as fault:
            rejected = Rejected(str(fault), order)
            self.rejected.add(rejected.id)
            return rejected
        _set(row, self.primary_key, key)
        _set(row, self.cursor_path, time)
        self.orders += 1
        self._remember(key, time)
        if self.newest is None or time > self.newest:
            self.newest = time
        return row

    def _remember(self, key: int | str, time: datetime) -> None:
        if self.watermark is None:
            return
        is_future = self.now is not None and time > self.now
        if time > self.watermark and not is_future:
            self._changed.add(key)
            self.read_again.pop(key, None)
        elif key not in self._changed:
            self.read_again[key] = max(time, self.read_again.get(key, time))

    def _key(self, order: dict[str, Any]) -> int | str:
        key = value_at(order, self.primary_key)
        if key is None or (isinstance(key, str) and not key.strip()):
            raise _Unmergeable(f"{self.primary_key} is missing")
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise _Unmergeable(f"{self.primary_key} is neither text nor a whole number")
        return key

    def _same_type(self, key: int | str) -> int | str:
        # One column has one type: with two, the merge would no longer know an order again.
        if self.key_type is None:
            self.key_type = int if isinstance(key, int) and fits_integer(key) else str
        if self.key_type is str:
            return clean(str(key))
        if isinstance(key, str):
            if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", key):
                raise _Unmergeable(f"{self.primary_key} is text where others are whole numbers")
            return int(key)
        if not fits_integer(key):
            raise _Unmergeable(f"{self.primary_key} is larger than a column of whole numbers holds")
        return key

    def _time(self, order: dict[str, Any]) -> datetime:
        value = value_at(order, self.cursor_path)
        if value is None:
            raise _Unmergeable(f"{self.cursor_path} is missing")
        try:
            return read_time(value, self.cursor_format)
        except UnreadableTime as fault:
            raise _Unmergeable(f"{self.cursor_path} {fault}") from None

    def _exact(self, fields: dict[str, Any], path: Path) -> dict[str, Any]:
        """An object with every value where a column holds it without loss.

        Nulls are left out: the column is null without them, and dlt warns of fields that are all
        null. So are the two fields that `row` sets.
        """
        if len(path) > DEEPEST:
            raise _Unmergeable(f"the order is nested more than {DEEPEST} levels deep")
        row: dict[str, Any] = {}
        columns = self.columns.setdefault(path, {})
        for name, value in fields.items():
            if value is None:
                continue
            if (*path, name) in self._ours and not isinstance(value, (dict, list)):
                continue
            column = columns.get(name) or self._column(name, path, fields)
            here = (*path, column)
            if isinstance(value, dict):
                row[column] = self._exact(value, here)
            elif isinstance(value, list):
                row[column] = self._exact_list(value, (*here, LIST))
            else:
                suffix, exact = self.values.place(value, here)
                row[column + suffix] = exact
        return row

    def _column(self, name: str, path: Path, fields: dict[str, Any]) -> str:
        """The name of a field in its row, which no other field of the object becomes a column of.

        `shipTo` and `ship_to` would be one column, and the value of one of them lost: the one that is
        spelt like the column keeps it. What dlt writes beside the fields has names of its own.
        """
        wanted = f"api{name}" if name.startswith("_dlt_") else clean(name)
        # Two underscores are dlt's: they stand between the levels of an object, and before a variant.
        wanted = re.sub("__+", "_", wanted)
        if not any(character.isalnum() for character in wanted):
            wanted = "unnamed"
        column = wanted
        spelt_so = self.identifier(wanted)
        taken = {self.identifier(given) for given in self.columns[path].values()}
        taken |= {self.identifier(own[-1]) for own in self._ours if own[:-1] == path}
        if spelt_so in fields and spelt_so != name:
            taken.add(spelt_so)
        n = 2
        while self.identifier(column) in taken:
            column, n = f"{wanted}_{n}", n + 1
        self.columns[path][name] = column
        return column

    def _exact_list(self, elements: list[Any], path: Path) -> list[Any]:
        exact: list[Any] = []
        for element in elements:
            if isinstance(element, dict):
                exact.append(self._exact(element, path))
            elif isinstance(element, list):
                exact.append(self._exact_list(element, (*path, LIST)))
            elif element is None:
                exact.append(None)
            else:
                suffix, value = self.values.place(element, path)
                exact.append({f"value{suffix}": value} if suffix else value)
        return exact


def exact_json(value: Any) -> str:
    """JSON text with every number as it came; json writes Decimals only as text."""

    def mark(number: Any) -> str:
        if isinstance(number, Decimal):
            return f"\0{number}\0"
        raise TypeError(type(number).__name__)

    text = json.dumps(value, default=mark, ensure_ascii=False, sort_keys=True)
    return clean(re.sub(r'"\\u0000([-+.\dE]+)\\u0000"', r"\1", text))


def path_of(setting: str) -> Path:
    """The path of a field from a setting, `meta.updated_at` or `$.meta.updated_at`."""
    return tuple(setting.removeprefix("$.").split("."))


class _Unmergeable(ValueError):
    """Why an order cannot be merged; becomes `Rejected.reason`. Holds no value of the order."""


def _set(row: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, in place."""
    *parents, name = path_of(path)
    for part in parents:
        row = row[part]
    row[name] = value
