"""The step behind the API: the orders of a window become rows in the files of the load, and when all
windows of the load are read, the watermark moves.

The watermark is in dlt's state of the resource, and so becomes durable with the rows. It is not kept by
dlt's `incremental`, which takes the second change within one timestamp for the first, and follows one
order dated 2099 there, so that no change before then is ever read (test_upstream.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import dlt
from dlt.common.configuration.container import Container
from dlt.common.storages.load_package import LoadPackageStateInjectableContext, PackageStorage
from dlt.extract.hints import TResourceHints

from orders_dagster.load_files import LoadFiles
from orders_dagster.personal import PersonalData
from orders_dagster.places import DELETED_AT, ORDERS
from orders_dagster.rejected import MODIFIED_AT, ORDER_ID, REJECTED_TABLE, Rejected
from orders_dagster.rows import Rows, Stored
from orders_dagster.windows import Windows

WATERMARK = "watermark"
COLUMNS = "columns"
IN_LISTS = "in_lists"
IN_LISTS_BEFORE = "in_lists_before"
"""How many lists each table held before everything was read again, until it is read."""
BY_OFFSET = "by_offset"


class Found(NamedTuple):
    """What is in the warehouse before a load.

    Attributes:
        stored: those of the orders that were asked for, by the key.
        holders: the keys of the orders with elements in a table of lists, by the table; none where there
            are too many for a load to empty it.
    """

    stored: dict[int | str, Stored]
    holders: dict[str, set[int | str]]


LookUp = Callable[[Iterable[int | str], Mapping[str, int]], Found]
"""Given the keys of orders, and how many lists some tables have held."""


class Step:
    """One load, while it is extracted. dlt calls it from one thread.

    Args:
        personal: covers what is personal in the orders, before anything is made of them.
        started_at: the time the watermark never passes, UTC; None for a run that does not move it.
        by_offset: whether pages may have missed orders that moved, which every run by offset reads again.
        look_up: asks the warehouse, before the load.
        on_orders: called with the number of orders that have arrived.
    """

    def __init__(
        self,
        rows: Rows,
        personal: PersonalData,
        windows: Windows,
        started_at: datetime | None,
        by_offset: bool,
        look_up: LookUp,
        on_orders: Callable[[int], None],
    ) -> None:
        self._rows = rows
        self._personal = personal
        self._windows = windows
        self._started_at = started_at
        self._by_offset = by_offset
        self._look_up = look_up
        self._on_orders = on_orders
        self._files: LoadFiles | None = None
        self._in_lists_before = Counter(rows.in_lists)
        self._is_finished = False

    def __call__(self, orders: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG002
        """The orders of a window in the order they were read; yields those that are rejected."""
        assert not self._is_finished, "orders arrived after the files of the load were closed"
        made = self._rows.of(self._personal.protect(orders))
        for rejected in made.rejected:
            yield rejected_row(rejected, self._rows.primary_key)
        if made.batches:
            self._files = self._files or _load_files()
            self._files.write(made.batches)
        self._windows.arrived()
        self._on_orders(len(orders))

    def finish(self) -> None:
        """All windows of the load are read: close its files, move the watermark.

        An older version never overwrites a newer one: an API that answers from several copies of its
        data may show it, and so may a replay beside another run.
        """
        self._is_finished = True
        state = dlt.current.resource_state(ORDERS)
        replaced, filled = frozenset[int | str](), set[str]()
        if self._files is not None:
            self._files.close()
            in_load = self._rows.in_load
            replaced = in_load - self._drop_older(self._files)
            filled = self._files.filled(self._rows.key_column, self._rows.cursor_column)
        known: Counter[str] = Counter(state.get(IN_LISTS, {}))
        in_lists = known | self._rows.in_lists  # of each table the larger number
        read_before: Counter[str] = Counter(state.get(IN_LISTS_BEFORE, {}))
        unfilled = {
            name: max(held, read_before[name])
            for name, held in in_lists.items()
            if name not in filled
        }
        before = known + self._in_lists_before
        empty = [name for name in unfilled if not before[name]]
        if replaced:
            empty += _emptied(self._look_up([], unfilled).holders, replaced)
        for name in empty:
            in_lists[name] = self._rows.in_lists[name] = 0
        state[IN_LISTS] = dict.fromkeys(known, 0) | dict(+in_lists)  # also the names of empty ones
        # As text: a name may hold half a character, which dlt cannot write.
        state[COLUMNS] = json.dumps([[*one] for one in self._rows.columns.items()])
        unread_from = self._windows.unread_from
        is_all_read = unread_from is None and self._started_at is not None
        if is_all_read:
            state.pop(IN_LISTS_BEFORE, None)
        if self._by_offset:
            state[BY_OFFSET] = True
        elif is_all_read:
            state.pop(BY_OFFSET, None)
        if self._rows.newest is not None and self._started_at is not None:
            unread_from = unread_from or self._started_at
            read_until = min(self._rows.newest, self._started_at, unread_from)
            state[WATERMARK] = max(read_until, state.get(WATERMARK, read_until))

    def _drop_older(self, files: LoadFiles) -> Set[int | str]:
        """Take out the orders of which the warehouse has a newer version. Returns their keys."""
        rows = self._rows
        newer = rows.hold_against(self._look_up(rows.read_again, {}).stored)
        if newer:
            rows.in_lists -= files.drop(rows.key_column, rows.cursor_column, newer)
        return newer.keys()


def _emptied(holders: Mapping[str, Set[int | str]], replaced: Set[int | str]) -> list[str]:
    """The tables of lists that hold nothing after a load, since no order has such a list any more: nobody
    else will have emptied them.

    One that is empty already was emptied by somebody, while this run was reading.
    """
    return [name for name, keys in holders.items() if keys and keys <= replaced]


def rejected_row(rejected: Rejected, primary_key: str) -> Any:
    """A row of `orders_rejected`, as dlt takes it from the resource of another table."""
    row = rejected.row(primary_key, datetime.now(UTC))
    return dlt.mark.with_hints(row, _rejected_hints(), create_table_variant=True)


@cache
def _rejected_hints() -> TResourceHints:
    return dlt.mark.make_hints(
        table_name=REJECTED_TABLE,
        primary_key="rejected_id",
        write_disposition="merge",
        columns={
            ORDER_ID: {"data_type": "text"},
            MODIFIED_AT: {"data_type": "timestamp"},
            DELETED_AT: {"data_type": "timestamp"},
        },
    )


def _load_files() -> LoadFiles:
    """Files in the package that dlt is extracting into."""
    package = Container()[LoadPackageStateInjectableContext]
    directory = Path(
        package.storage.storage.storage_path,
        package.storage.get_package_path(package.load_id),
        PackageStorage.NEW_JOBS_FOLDER,
    )
    return LoadFiles(dlt.current.source_schema(), directory, package.load_id)
