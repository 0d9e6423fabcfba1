"""What happens to an order between the API and the tables. Knows nothing of windows or of HTTP.

An order becomes one row of `orders` and one row of a child table for each element of its lists, or, if
it cannot be merged, one row of `orders_rejected` with the reason and its JSON. None is dropped.

Rows are flat and named as dlt's relational normalizer names them: `customer__email` is a column, a list
is a table, its rows are linked by `_dlt_parent_id` and `_dlt_root_id`. They are made here and not there,
in one pass that remembers where each field goes, since there it took most of the time of a load.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

from orders_dagster.cursor import UnreadableTime, read_time, value_at
from orders_dagster.values import LIST, Path, Values, clean, fits_decimal, fits_integer

ORDERS = "orders"
REJECTED_TABLE = "orders_rejected"
DEEPEST = 60  # levels; what is nested deeper is nobody's order, and ends Python's recursion

ROW_ID, PARENT_ID, ROOT_ID, LIST_INDEX = (
    "_dlt_id",
    "_dlt_parent_id",
    "_dlt_root_id",
    "_dlt_list_idx",
)
"""How dlt links the rows of an order. Its merge takes all rows of a root for one order."""

Row = dict[str, Any]


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

    def row(self, primary_key: str, rejected_at: datetime) -> Row:
        """The row of `orders_rejected`."""
        key = value_at(self.order, primary_key)
        return {
            "rejected_id": self.id,
            "reason": self.reason,
            "order_id": None if key is None or isinstance(key, (dict, list)) else clean(str(key)),
            "order_json": exact_json(self.order),
            "rejected_at": rejected_at,
        }


@dataclass(frozen=True, slots=True)
class OrderRows:
    """All rows of one order: that of `orders`, and those of its lists with the name of their table."""

    key: int | str
    time: datetime
    row: Row
    children: list[tuple[str, Row]]

    def of(self, table: str) -> list[Row]:
        """Its rows in one table."""
        if table == ORDERS:
            return [self.row]
        return [row for name, row in self.children if name == table]


@dataclass
class Table:
    """What the rows of one table hold so far.

    Attributes:
        parent: the table whose rows hold the lists; None for `orders`.
        columns: dlt's type of each column that has had a value.
    """

    name: str
    parent: str | None
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Naming:
    """How fields become columns and tables.

    Attributes:
        identifier: the name of the column that a field's name becomes.
        join: the name of a field inside objects, or of a list, from those of the levels.
    """

    identifier: Callable[[str], str] = str
    join: Callable[..., str] = lambda *names: "__".join(names)

    def place(self, path: Path) -> tuple[str, str]:
        """The table and column of a field, as dlt's normalizer names them: a list is a table, a list in
        a list is its table's `list`, and an element that is no object its `value`."""
        names: list[str] = []
        table = [ORDERS]
        for part in path:
            if part == LIST:
                table += names or ["list"]
                names = []
            else:
                names.append(self.identifier(part))
        return self.join(*table), self.join(*names) if names else "value"


@dataclass
class Rows:
    """Turns the orders of one run into rows, and remembers what has to be known about them.

    Attributes:
        key_type: the type of the primary key (int or str), None before the first order.
        values: decides which column holds a value.
        naming: names the columns and tables.
        watermark: the newest modification date in the tables, UTC.
        now: the start of the run, UTC; orders dated later are read again by every run.
        read_again: the orders not newer than the watermark, or later than now, with the newest time
            they were seen with: those that this load may have read only once more.
        columns: the name in a row of each field there has been, by the path of its object: what was
            given once is kept, or the fields of two spellings would swap their columns.
        tables: what the tables hold so far, parents first.
        newest: the newest modification date seen, UTC.
        orders: how many, repeated reads included.
        rejected: the ids of those that were rejected.
    """

    primary_key: str
    cursor_path: str
    cursor_format: str = "iso"
    key_type: type | None = None
    values: Values = field(default_factory=Values)
    naming: Naming = field(default_factory=Naming)
    watermark: datetime | None = None
    now: datetime | None = None
    read_again: dict[int | str, datetime] = field(default_factory=dict)
    newest: datetime | None = None
    orders: int = 0
    rejected: set[str] = field(default_factory=set)
    columns: dict[Path, dict[str, str]] = field(default_factory=dict, repr=False)
    tables: dict[str, Table] = field(default_factory=dict, repr=False)
    _changed: set[int | str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        key, cursor = path_of(self.primary_key), path_of(self.cursor_path)
        self._ours = frozenset({key, cursor})
        self._key_column = self.naming.place(key)[1]
        self._cursor_column = self.naming.place(cursor)[1]
        self._orders = self._table((), None)
        self._root = _Object((), self._orders)
        self._run = secrets.token_urlsafe(8)
        self._numbers = count()

    def row(self, order: Any) -> OrderRows | Rejected:
        """The rows of an order, with its cursor a UTC datetime, or the rejection."""
        try:
            if not isinstance(order, dict):
                raise _Unmergeable("the order is no object")
            found = self._key(order)
            time = self._time(order)
            row_id = f"{self._run}{next(self._numbers):x}"
            rows = OrderRows("", time, {ROW_ID: row_id}, [])
            self._fill(order, self._root, rows.row, row_id, rows)
            key = self._same_type(found)  # last: a rejected order must not decide the type
        except _Unmergeable as fault:
            rejected = Rejected(str(fault), order)
            self.rejected.add(rejected.id)
            return rejected
        rows.row[self._key_column] = key
        rows.row[self._cursor_column] = time
        self.orders += 1
        self._remember(key, time)
        if self.newest is None or time > self.newest:
            self.newest = time
        return OrderRows(key, time, rows.row, rows.children)

    def next_load(self) -> None:
        """What was read before is loaded: it is not read again, and nothing waits to be counted."""
        self.read_again.clear()
        self._changed.clear()

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
        if self._key_column not in self._orders.columns:
            self._orders.columns[self._key_column] = "text" if self.key_type is str else "bigint"
            self._orders.columns[self._cursor_column] = "timestamp"
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

    def _fill(
        self, fields: dict[str, Any], known: _Object, row: Row, row_id: str, rows: OrderRows
    ) -> None:
        """Put an object into a row, every value where a column holds it without loss.

        Nulls are left out: the column is null without them. So are the two fields that `row` sets.
        """
        places = known.fields
        for name, value in fields.items():
            if value is None:
                continue
            place = places.get(name) or self._new_field(known, name, fields)
            kind = type(value)
            if kind is place.plain and place.fits(value):
                row[place.column] = value
            elif kind is dict:
                self._fill(value, place.object(), row, row_id, rows)
            elif kind is list:
                self._fill_list(value, place.list(self), row_id, rows)
            elif not place.is_ours:
                self._put(value, place, row)

    def _fill_list(
        self, elements: list[Any], known: _List, parent_id: str, rows: OrderRows
    ) -> None:
        """A row of the list's table for each element, linked to the row that holds the list."""
        table = known.table.name
        for index, element in enumerate(elements):
            row_id = f"{parent_id}{known.mark}{index:x}"
            row = {
                ROW_ID: row_id,
                PARENT_ID: parent_id,
                ROOT_ID: rows.row[ROW_ID],
                LIST_INDEX: index,
            }
            rows.children.append((table, row))
            if isinstance(element, dict):
                self._fill(element, known.elements, row, row_id, rows)
            elif isinstance(element, list):
                self._fill_list(element, known.inner(self), row_id, rows)
            elif element is not None:
                self._put(element, known.value, row)

    def _put(self, value: Any, place: _Field, row: Row) -> None:
        """Put a value into its column, or beside it into one of its own type."""
        suffix, exact = self.values.place(value, place.path)
        column = place.column + suffix
        of_field = self.values.type_of(place.path) or ""
        place.table.columns[column] = suffix.removeprefix("__v_") or of_field
        if not suffix:
            place.plain, place.fits = _PLAIN.get(of_field, (None, _never))
        row[column] = exact

    def _table(self, path: Path, parent: str | None) -> Table:
        name = self.naming.place(path)[0]
        return self.tables.setdefault(name, Table(name, parent))

    def _new_field(self, known: _Object, name: str, fields: dict[str, Any]) -> _Field:
        given = self.columns.setdefault(known.path, {})
        is_ours = (*known.path, name) in self._ours
        column = name if is_ours else given.get(name) or self._column(name, known.path, fields)
        path = (*known.path, column)
        made = _Field(path, known.table, self.naming.place(path)[1], is_ours)
        known.fields[name] = made
        return made

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
        identifier = self.naming.identifier
        spelt_so = identifier(wanted)
        taken = {identifier(given) for given in self.columns[path].values()}
        taken |= {identifier(own[-1]) for own in self._ours if own[:-1] == path}
        if spelt_so in fields and spelt_so != name:
            taken.add(spelt_so)
        n = 2
        while identifier(column) in taken:
            column, n = f"{wanted}_{n}", n + 1
        self.columns[path][name] = column
        return column


def _never(_: Any) -> bool:
    return False


# Values of these types go into a column of that type as they are, if they fit.
_PLAIN: dict[str, tuple[type | None, Callable[[Any], bool]]] = {
    "text": (str, str.isascii),  # others may hold half characters
    "bool": (bool, lambda _: True),
    "bigint": (int, fits_integer),
    "decimal": (Decimal, fits_decimal),
}


@dataclass(slots=True, eq=False)
class _Field:
    """Where a field goes: a column, the columns of an object, or the table of a list.

    Attributes:
        plain, fits: the type whose values go into the column as they are, and those that do; None
            before the first value.
    """

    path: Path
    table: Table
    column: str
    is_ours: bool = False
    plain: type | None = None
    fits: Callable[[Any], bool] = _never
    _object: _Object | None = None
    _list: _List | None = None

    def object(self) -> _Object:
        if self._object is None:
            self._object = _Object(self.path, self.table)
        return self._object

    def list(self, rows: Rows) -> _List:
        if self._list is None:
            self._list = _List((*self.path, LIST), self.table, rows)
        return self._list


class _Object:
    """The fields of the objects at one path."""

    __slots__ = ("fields", "path", "table")

    def __init__(self, path: Path, table: Table) -> None:
        if len(path) > DEEPEST:
            raise _Unmergeable(f"the order is nested more than {DEEPEST} levels deep")
        self.path = path
        self.table = table
        self.fields: dict[str, _Field] = {}


class _List:
    """The elements of the lists at one path: rows of one table."""

    __slots__ = ("_inner", "elements", "mark", "path", "table", "value")

    def __init__(self, path: Path, parent: Table, rows: Rows) -> None:
        if len(path) > DEEPEST:
            raise _Unmergeable(f"the order is nested more than {DEEPEST} levels deep")
        self.path = path
        self.table = rows._table(path, parent.name)
        self.mark = f".{list(rows.tables).index(self.table.name):x}."  # no id is in two tables
        self.elements = _Object(path, self.table)
        self.value = _Field(path, self.table, rows.naming.place(path)[1])
        self._inner: _List | None = None

    def inner(self, rows: Rows) -> _List:
        """A list in a list."""
        if self._inner is None:
            self._inner = _List((*self.path, LIST), self.table, rows)
        return self._inner


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
