"""What happens to orders between the API and the tables. Knows nothing of windows or of HTTP.

An order becomes one row of `orders` and one row of a child table for each element of its lists, or, if
it cannot be merged, one row of `orders_rejected` with the reason and its JSON. None is dropped.

Rows are those that dlt's relational normalizer makes, linked by `_dlt_parent_id` and `_dlt_root_id`.
They are made here and not there, field by field over many orders and not order by order, since there
it took most of the time of a load.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, chain, count
from typing import Any, NamedTuple, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from orders_dagster.arrays import array_at_once, array_of
from orders_dagster.cursor import UnreadableTime, read_time, value_at
from orders_dagster.places import (
    DEEPEST,
    DELETED_AT,
    FieldPlace,
    ListPlace,
    Naming,
    ObjectPlace,
    Path,
    Places,
    Table,
    TooDeep,
    path_of,
)
from orders_dagster.rejected import Rejected
from orders_dagster.seen import Seen
from orders_dagster.values import Values, clean, fits_integer

ROW_ID, PARENT_ID, ROOT_ID, LIST_INDEX = (
    "_dlt_id",
    "_dlt_parent_id",
    "_dlt_root_id",
    "_dlt_list_idx",
)
"""How dlt links the rows of an order. Its merge takes all rows of a root for one order."""

Order = dict[str, Any]
_EMPTY: Order = {}
_NO_LIST: list[Any] = []
_CONTAINERS = frozenset({dict, list})


NO_MARK = frozenset({"", "0", "0.0", "false", "f", "no", "n", "off", "null", "none"})
NO_DATE = ("0000-", "0001-01-01", "1970-01-01t00:00:00", "1970-01-01 00:00:00", "9999-")
"""How databases and languages write that there is no date."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one table.

    Attributes:
        ids, roots: the id of each row, and that of the order that it belongs to.
        columns: the values of each column, null where a row has none; all of one length.
    """

    table: Table
    ids: pa.StringArray
    roots: pa.StringArray
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Made:
    """What some orders became: rows, parents before their children, and the rejected ones."""

    batches: list[Batch]
    rejected: list[Rejected]


class Stored(NamedTuple):
    """The version of an order that is in the tables.

    Attributes:
        time: its modification date, UTC.
        is_ours: whether an earlier load of this run has brought it.
    """

    time: datetime
    is_ours: bool


@dataclass
class Rows:
    """Turns the orders of one run into rows, and remembers what has to be known about them.

    Attributes:
        soft_delete_path: the field by which the API marks an order deleted, if there is one.
        key_type: the type of the primary key (int or str), None before the first order.
        values: decides which column holds a value.
        naming: names the columns and tables.
        watermark: the newest modification date in the tables that is not in the future, UTC. A run that
            failed after a part of its loads has left newer ones than dlt's state tells.
        now: the start of the run, UTC; orders dated later are read again by every run.
        read_again: the orders not newer than the watermark or than what earlier loads of the run have
            brought, or later than now, with the newest time they were seen with: those that this load may
            have read only once more, or in an older version.
        columns: the name in a row of each field there has been, by the path of its object.
        parents: the parent of each table there has been, None for one without.
        newest: the newest modification date seen, UTC.
        orders: how many, repeated reads included.
        in_lists: how many lists there were for each table but that of the orders, repeated reads included.
        rejected: the ids of those that were rejected.
        not_loaded: the keys of orders that were seen, but rejected or older than what is in the tables.
    """

    primary_key: str
    cursor_path: str
    cursor_format: str = "iso"
    soft_delete_path: str | None = None
    key_type: type | None = None
    values: Values = field(default_factory=Values)
    naming: Naming = field(default_factory=Naming)
    watermark: datetime | None = None
    now: datetime | None = None
    read_again: dict[int | str, datetime] = field(default_factory=dict)
    newest: datetime | None = None
    orders: int = 0
    in_lists: Counter[str] = field(default_factory=Counter)
    rejected: set[str] = field(default_factory=set)
    not_loaded: set[int | str] = field(default_factory=set, repr=False)
    columns: dict[Path, dict[str, str]] = field(default_factory=dict, repr=False)
    parents: dict[str, str | None] = field(default_factory=dict, repr=False)
    _changed: set[int | str] = field(default_factory=set, repr=False)
    _same: Seen = field(default_factory=Seen, repr=False)
    _loaded_until: datetime | None = None

    def __post_init__(self) -> None:
        key, cursor = path_of(self.primary_key), path_of(self.cursor_path)
        self._places = Places(self.naming, frozenset({key, cursor}), self.columns, self.parents)
        self.key_column = self.naming.place(key)[1]
        self.cursor_column = self.naming.place(cursor)[1]
        self._run = secrets.token_urlsafe(8)
        self._numbers = count()

    @property
    def unchanged(self) -> int:
        """How many of those that were read again were in the tables before, in the same version."""
        return len(self._same)

    @property
    def tables(self) -> dict[str, Table]:
        """The tables and columns that there have been rows for, parents first."""
        return self._places.tables

    def of(self, orders: Sequence[Any]) -> Made:
        """The rows of some orders, their cursor a UTC datetime, and those that are rejected.

        Of several versions of an order the newest becomes a row; of two with one timestamp, the one
        that comes later.
        """
        made, key_type = _Making(self), self.key_type
        try:
            made.orders(orders)
        except TooDeep as fault:
            # Which one it was is not known, and a rejected order must not decide the type of the key.
            self.key_type = key_type
            made = _Making(self, too_deep=str(fault))
            made.orders(orders)
        self._count(made.read)
        self.in_lists += made.in_lists
        for rejected in made.rejected:
            self.rejected.add(rejected.id)
            key = value_at(rejected.order, self.primary_key)
            if isinstance(key, (int, str)):
                self.not_loaded.add(key)
        return Made(made.batches, made.rejected)

    @property
    def in_load(self) -> frozenset[int | str]:
        """The keys of the orders of this load; none in a first one, before which there is nothing."""
        return frozenset(self.read_again) | self._changed

    def hold_against(self, stored: Mapping[int | str, Stored]) -> dict[int | str, datetime]:
        """Count the orders that are in the tables in the version that was read again, and begin anew.

        Args:
            stored: those of `read_again` that are in the tables.

        Returns: those that the tables have in a newer version, with its date.
        """
        newer = {}
        for key, (time, is_ours) in stored.items():
            read = self.read_again.get(key)
            if time == read:
                self._same.add([] if is_ours else [key])
            elif read is not None and time > read:
                newer[key] = time
            elif is_ours:
                self._changed.add(key)  # since an earlier load of this run
        self._same.discard(self._changed)
        self.not_loaded.update(newer)
        self.read_again.clear()
        self._changed.clear()
        self._loaded_until = self.newest
        return newer

    def _count(self, read: list[tuple[int | str, datetime]]) -> None:
        self.orders += len(read)
        if read:
            newest = max(time for _, time in read)
            self.newest = newest if self.newest is None else max(self.newest, newest)
        there = [time for time in (self.watermark, self._loaded_until) if time is not None]
        if there:
            until = max(there)
            for key, time in read:
                self._remember(key, time, until)

    def _remember(self, key: int | str, time: datetime, until: datetime) -> None:
        is_future = self.now is not None and time > self.now
        if time > until and not is_future:
            self._changed.add(key)
            self.read_again.pop(key, None)
        elif key not in self._changed:
            self.read_again[key] = max(time, self.read_again.get(key, time))

    def _key(self, order: Any) -> int | str:
        key = value_at(order, self.primary_key)
        if key is None or (isinstance(key, str) and not key.strip()):
            raise _Unmergeable(f"{self.primary_key} is missing")
        if not is_key(key):
            raise _Unmergeable(f"{self.primary_key} is neither text nor a whole number")
        return key

    def _same_type(self, key: int | str) -> int | str:
        # One column has one type: with two, the merge would no longer know an order again.
        if self.key_type is None:
            self.key_type = int if isinstance(key, int) and fits_integer(key) else str
        if self.key_type is str:
            return clean(str(key))
        if isinstance(key, str):
            if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", key):
                raise _Unmergeable(f"{self.primary_key} is text where others are whole numbers")
            key = int(key)
        if not fits_integer(key):
            raise _Unmergeable(f"{self.primary_key} is larger than a column of whole numbers holds")
        return key

    def _time(self, order: Any) -> datetime:
        value = value_at(order, self.cursor_path)
        if value is None:
            raise _Unmergeable(f"{self.cursor_path} is missing")
        try:
            return read_time(value, self.cursor_format)
        except UnreadableTime as fault:
            raise _Unmergeable(f"{self.cursor_path} {fault}") from None

    def _time_if_any(self, order: Any) -> datetime | None:
        with suppress(_Unmergeable):
            return self._time(order)
        return None

    def _deleted_at(self, order: Order, modified: datetime) -> datetime | None:
        """Since when the API says that an order is deleted, as of its last modification; None if it
        is not. A mark is anything but null, false, 0, what is empty, or a text that means one of these; a
        date is taken for the time, unless it stands for none."""
        mark = value_at(order, self.soft_delete_path or "")
        if not mark:
            return None
        if isinstance(mark, str):
            text = mark.strip().lower()
            if text in NO_MARK or text.startswith(NO_DATE):
                return None
            with suppress(UnreadableTime):
                return min(read_time(mark), modified)
        return modified


class _Making:
    """The rows of some orders while they are made.

    Args:
        too_deep: the reason to reject orders that are; without one they are not looked for.

    Attributes:
        read: key and time of each order that can be merged, every version of it.
        in_lists: how many lists there are for each table but that of the orders.
    """

    def __init__(self, rows: Rows, too_deep: str | None = None) -> None:
        self._rows = rows
        self._too_deep = too_deep
        self._places = rows._places
        self._values = rows.values
        self.batches: list[Batch] = []
        self.rejected: list[Rejected] = []
        self.read: list[tuple[int | str, datetime]] = []
        self.in_lists: Counter[str] = Counter()

    def orders(self, orders: Sequence[Any]) -> None:
        """Rows of `orders`, and of what is in them."""
        latest: dict[int | str, tuple[datetime, Order]] = {}
        rows = self._rows
        for order in orders:
            try:
                if not isinstance(order, dict):
                    raise _Unmergeable("the order is no object")
                found, time = rows._key(order), rows._time(order)
                if self._too_deep and _is_too_deep(order):
                    raise _Unmergeable(self._too_deep)
                key = rows._same_type(found)  # last: a rejected order must not decide the type
            except _Unmergeable as fault:
                self.rejected.append(Rejected(str(fault), order, rows._time_if_any(order)))
                continue
            self.read.append((key, time))
            known = latest.get(key)
            if known is None or time >= known[0]:
                latest[key] = time, order
        if latest:
            self._orders(latest)

    def _orders(self, latest: dict[int | str, tuple[datetime, Order]]) -> None:
        rows, root = self._rows, self._places.root
        ids = [f"{rows._run}{number:x}" for number, _ in zip(rows._numbers, latest, strict=False)]
        batch = self._batch(root.table, array_of(ids, "text"))
        self._put(batch, rows.key_column, [*latest], "text" if rows.key_type is str else "bigint")
        self._put(batch, rows.cursor_column, [time for time, _ in latest.values()], "timestamp")
        if rows.soft_delete_path:
            marks = [rows._deleted_at(order, time) for time, order in latest.values()]
            batch.columns[DELETED_AT] = array_of(marks, "timestamp")
        self._objects([order for _, order in latest.values()], root, batch)

    def _objects(self, objects: list[Order], known: ObjectPlace, batch: Batch) -> None:
        """The fields of objects, one in each row of a batch: an empty one where there is none."""
        columns = _columns(objects)
        for name, values in columns.items():
            place = known.fields.get(name) or self._places.field(known, name, columns)
            self._field(values, place, batch)

    def _field(self, values: Sequence[Any], place: FieldPlace, batch: Batch) -> None:
        """The values of a field, one in each row of a batch."""
        kinds = set(map(type, values))
        kinds.discard(type(None))
        if dict in kinds:
            objects = [value if type(value) is dict else _EMPTY for value in values]
            self._objects(objects, self._places.object(place), batch)
        if list in kinds:
            self._lists(values, self._places.list(place), batch)
        if not (place.is_ours or kinds <= _CONTAINERS):
            self._scalars(values, kinds, place, batch)

    def _lists(self, values: Sequence[Any], known: ListPlace, parents: Batch) -> None:
        """A row of the list's table for each element, linked to the row that holds the list."""
        lists = [value if type(value) is list else _NO_LIST for value in values]
        elements = list(chain.from_iterable(lists))
        if not elements:
            return
        self.in_lists[known.table.name] += sum(map(bool, lists))
        lengths = [*map(len, lists)]
        index = array_of([*chain.from_iterable(map(range, lengths))], "bigint")
        offsets = pa.array([*accumulate(lengths, initial=0)], pa.int32())
        holders = pc.list_parent_indices(pa.ListArray.from_arrays(offsets, pa.nulls(len(elements))))
        parent_ids, roots = parents.ids.take(holders), parents.roots.take(holders)
        numbers = array_of([f"{number:x}" for number in range(max(lengths))], "text").take(index)
        ids = pc.binary_join_element_wise(parent_ids, numbers, known.mark)
        batch = self._batch(known.table, ids, roots)
        batch.columns[PARENT_ID] = parent_ids
        batch.columns[ROOT_ID] = roots
        batch.columns[LIST_INDEX] = index
        if {*map(type, elements)} != {dict}:
            elements = [_as_object(one) for one in elements]
        self._objects(elements, known.elements, batch)

    def _scalars(
        self, values: Sequence[Any], kinds: set[type], place: FieldPlace, batch: Batch
    ) -> None:
        """What is neither an object nor a list, each value where a column holds it without loss."""
        if kinds & _CONTAINERS:
            values = [None if type(value) in _CONTAINERS else value for value in values]
            kinds = kinds - _CONTAINERS
        column = self._values.type_of(place.at)
        if column is None:  # the first value of a field decides
            self._values.place(next(one for one in values if one is not None), place.at)
            column = self._values.type_of(place.at)
        array = array_at_once(values, kinds, column) if column else None
        if array is None:
            self._one_by_one(values, place, batch)
        else:
            self._add(batch, place.column, array, column or "")

    def _one_by_one(self, values: Sequence[Any], place: FieldPlace, batch: Batch) -> None:
        """Each value in the column of its field, or beside it in one of its own type."""
        found: dict[str, list[Any]] = {}
        for index, value in enumerate(values):
            if value is not None:
                variant, exact = self._values.place(value, place.at)
                if variant not in found:
                    found[variant] = [None] * len(values)
                found[variant][index] = exact
        for variant, exactly in found.items():
            kind = variant or self._values.type_of(place.at) or ""
            join = self._rows.naming.join
            column = join(place.column, f"v_{variant}") if variant else place.column
            self._put(batch, column, exactly, kind)

    def _batch(self, table: Table, ids: pa.Array, roots: pa.Array | None = None) -> Batch:
        batch = Batch(table, ids, ids if roots is None else roots, {ROW_ID: ids})
        self.batches.append(batch)
        return batch

    def _put(self, batch: Batch, column: str, values: list[Any], kind: str) -> None:
        self._add(batch, column, array_of(values, kind), kind)

    @staticmethod
    def _add(batch: Batch, column: str, values: pa.Array, kind: str) -> None:
        assert column not in batch.columns, "two fields have one column"
        batch.table.columns[column] = kind
        batch.columns[column] = values


def _as_object(element: Any) -> Order:
    """An element of a list as an object: dlt's names for what is none are those of two fields."""
    if type(element) is dict:
        return element
    if element is None:
        return _EMPTY
    return {"list" if type(element) is list else "value": element}


def _columns(objects: list[Order]) -> dict[str, Sequence[Any]]:
    """The values of each field, None for those that are not in an object."""
    names = tuple(objects[0])
    if all(map(names.__eq__, map(tuple, objects))):  # usually; and much faster
        return dict(zip(names, zip(*map(dict.values, objects), strict=True), strict=True))
    fields = dict.fromkeys(chain.from_iterable(objects))
    return {name: [one.get(name) for one in objects] for name in fields}


def _is_too_deep(order: Any) -> bool:
    """Whether an order is nested deeper than places.py has places for: each field that leads further
    in is a level, and so is each list."""
    open_ends = [(order, 0)]
    while open_ends:
        value, levels = open_ends.pop()
        if levels > DEEPEST:
            return True
        inside, of_object = (value.values(), 1) if type(value) is dict else (value, 0)
        open_ends += [
            (inner, levels + (2 if type(inner) is list else of_object))
            for inner in inside
            if type(inner) in _CONTAINERS
        ]
    return False


def is_key(value: Any) -> TypeGuard[int | str]:
    """Whether orders can be told apart by such a value: text or a whole number."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


class _Unmergeable(ValueError):
    """Why an order cannot be merged; becomes `Rejected.reason`. Holds no value of the order."""
