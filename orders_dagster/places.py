"""Where the fields of orders go: the tables, and the column of each field.

Tables and columns are named as dlt's relational normalizer names them: `customer__email` is a column
of an object in the order, a list is a table of its own. Where those names would put two fields into
one column, or two lists into one table, the one that comes later gets another name. A place is worked
out when a field is seen for the first time, and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orders_dagster.values import VARIANTS, Column, clean

Path = tuple[str, ...]
LIST = "[]"
"""Stands in a path between the name of a list and the fields of its elements."""

DEEPEST = 60
"""Levels of an order; what is nested deeper is nobody's order, and ends Python's recursion."""

ORDERS = "orders"
DELETED_AT = "deleted_at"
"""The column of `orders` that says since when the shop no longer has an order. A field of that name in
the API's answers is another thing, and gets a column of another name."""

# Beside the column of a field: a variant, and what is in a list that has the name of another one.
_BESIDE = re.compile(rf"v_({'|'.join(VARIANTS)}|[0-9]+)")


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
        join: the name of a field inside objects, from those of the levels.
        table: the name of the table of a list, likewise.
    """

    identifier: Callable[[str], str] = str
    join: Callable[..., str] = lambda *names: "__".join(names)
    table: Callable[..., str] = lambda *names: "__".join(names)

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
        return self.table(*table), self.join(*names) if names else "value"


def path_of(setting: str) -> Path:
    """The path of a field from a setting, `meta.updated_at` or `$.meta.updated_at`."""
    return tuple(setting.removeprefix("$.").split("."))


class TooDeep(ValueError):
    """An order is nested more than `DEEPEST` levels deep."""


@dataclass
class Places:
    """The places of one run.

    Attributes:
        naming: names the columns and tables.
        ours: the paths of the key and the cursor, whose columns are not made from their fields.
        given: the name in a row of each field there has been, by the path of its object: what was
            given once is kept, or the fields of two spellings would swap their columns.
        parents: the parent of each table there has been; None, or an empty text, for one without.
        tables: what the tables hold so far, parents first.
    """

    naming: Naming
    ours: frozenset[Path]
    given: dict[Path, dict[str, str]]
    parents: dict[str, str | None] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = ObjectPlace((), self._table((), None))

    def field(self, known: ObjectPlace, name: str, others: Iterable[str]) -> FieldPlace:
        """The place of a field in its object, beside the other fields seen with it."""
        place = known.fields.get(name)
        if place is None:
            is_ours = (*known.path, name) in self.ours
            leads = name in self._leading(known.path)
            column = name if leads else self._name(name, known.path, others)
            path = (*known.path, column)
            place = FieldPlace(path, known.table, self.naming.place(path)[1], is_ours)
            known.fields[name] = place
        return place

    def object(self, of: FieldPlace) -> ObjectPlace:
        """The fields of the objects that a field holds."""
        if of.object is None:
            of.object = ObjectPlace(of.path, of.table)
        return of.object

    def list(self, of: FieldPlace) -> ListPlace:
        """The elements of the lists that a field holds."""
        if of.list is None:
            path = (*of.path, LIST)
            _check_depth(path)
            table = self._table(path, of.table.name)
            mark = f".{[*self.tables].index(table.name):x}."  # no id is in two tables
            of.list = ListPlace(path, table, mark, ObjectPlace(path, table))
        return of.list

    def _table(self, path: Path, parent: str | None) -> Table:
        """The table of a list. `lines.taxes` has the name of one table if `lines` is an object, and if
        it is a list; but what is in them need not have the same types, and dlt knows one parent."""
        wanted = self.naming.place(path)[0]
        names = [wanted, *(self.naming.join(wanted, f"v_{n}") for n in self._numbers())]
        known = (name for name in names if self.parents.get(name, "") == parent)
        name = next(known, None) or next(name for name in names if name not in self.parents)
        self.parents[name] = parent
        return self.tables.setdefault(name, Table(name, parent))

    def _numbers(self) -> Iterable[int]:
        """Of tables beside one: the first may be free, and a later one taken by an earlier run."""
        return range(2, len(self.parents) + 3)

    def _name(self, name: str, path: Path, others: Iterable[str]) -> str:
        """The name of a field in its row, which no other field of the object becomes a column of.

        `shipTo` and `ship_to` would be one column, and the value of one of them lost: the one that is
        spelt like the column keeps it. What dlt writes beside the fields has names of its own.
        """
        given = self.given.setdefault(path, {})
        if name in given:
            return given[name]
        # Two underscores are dlt's: they stand between the levels of an object, and before a variant.
        wanted = re.sub("__+", "_", clean(name))
        if not any(character.isalnum() for character in wanted):
            wanted = "unnamed"
        identifier = self.naming.identifier
        column = identifier(wanted)
        if column.startswith("_dlt_"):
            wanted = f"api{column}"
        elif _BESIDE.fullmatch(column) if path else column == DELETED_AT:
            wanted = f"api_{column}"
        column = wanted
        spelt_so = identifier(wanted)
        taken = {identifier(one) for one in given.values()}
        taken |= {identifier(one) for one in self._leading(path)}
        if spelt_so in others and spelt_so != name:
            taken.add(spelt_so)
        n = 2
        while identifier(column) in taken:
            column, n = f"{wanted}_{n}", n + 1
        given[name] = column
        return column

    def _leading(self, path: Path) -> set[str]:
        """The fields of an object that lead to the key or the cursor, or are it: they keep their names."""
        depth = len(path)
        return {own[depth] for own in self.ours if own[:depth] == path and len(own) > depth}


@dataclass(slots=True, eq=False)
class FieldPlace:
    """Where a field goes: its column; if it holds objects their columns, if lists their table.

    Attributes:
        is_ours: whether it is the key or the cursor.
    """

    path: Path
    table: Table
    column: str
    is_ours: bool = False
    object: ObjectPlace | None = None
    list: ListPlace | None = None
    at: Column = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.table.name, self.column


@dataclass(slots=True, eq=False)
class ObjectPlace:
    """The fields of the objects at one path."""

    path: Path
    table: Table
    fields: dict[str, FieldPlace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_depth(self.path)


@dataclass(slots=True, eq=False)
class ListPlace:
    """The elements of the lists at one path: rows of one table.

    Attributes:
        mark: stands in their ids, between the id of the row that holds the list and the index.
        elements: their fields; of those that are no objects `value`, or `list`.
    """

    path: Path
    table: Table
    mark: str
    elements: ObjectPlace


def _check_depth(path: Path) -> None:
    if len(path) > DEEPEST:
        raise TooDeep(f"the order is nested more than {DEEPEST} levels deep")
