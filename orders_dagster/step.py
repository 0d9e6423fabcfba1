"""The step behind the API: a page of orders becomes rows of tables, and moves the watermark.

The watermark is in dlt's state of the resource, and so becomes durable with the rows. It is not kept by
dlt's `incremental`, which takes the second change within one timestamp for the first, and follows one
order dated 2099 there, so that no change before then is ever read (test_upstream.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import dlt

from orders_dagster.api.paging import OrdersPaginator
from orders_dagster.columns import ORDERS, declare_decimal
from orders_dagster.cursor import value_at
from orders_dagster.rows import REJECTED_TABLE, Rejected, Rows
from orders_dagster.values import Path

WATERMARK = "watermark"
COLUMNS = "columns"


def page_step(
    rows: Rows,
    paginator: OrdersPaginator,
    started_at: datetime,
    on_page: Callable[[int], None],
) -> Callable[..., Iterator[Any]]:
    """Build the step.

    Args:
        paginator: says whether a page is the last one.
        started_at: the time the watermark never passes, UTC.
        on_page: called for each page with its number of orders.
    """
    declared: set[Path] = set()
    rejected_hints = dlt.mark.make_hints(
        table_name=REJECTED_TABLE,
        primary_key="rejected_id",
        write_disposition="merge",
        columns={"order_id": {"data_type": "text"}},
    )

    # The next page starts with the last rows of this one: they wait until they have been read again,
    # since of two versions with one timestamp the one that is read later is the newer one.
    held: dict[Any, dict[str, Any]] = {}

    def key_of(row: dict[str, Any]) -> Any:
        return value_at(row, rows.primary_key)

    def time_of(row: dict[str, Any]) -> datetime:
        return cast(datetime, value_at(row, rows.cursor_path))

    def step(page: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG001, dlt passes it
        merged: dict[Any, dict[str, Any]] = {}
        for order in page:
            row = rows.row(order)
            if isinstance(row, Rejected):
                kept = row.row(rows.primary_key, datetime.now(UTC))
                yield dlt.mark.with_hints(kept, rejected_hints, create_table_variant=True)
                continue
            known = merged.get(key_of(row))
            if known is None or time_of(row) >= time_of(known):
                merged[key_of(row)] = row
        for key, row in held.items():
            if key not in merged or time_of(merged[key]) < time_of(row):
                merged[key] = row
        held.clear()
        if paginator.has_next_page and merged:
            last = max(map(time_of, merged.values()))
            held.update({key: row for key, row in merged.items() if time_of(row) == last})
        schema = dlt.current.source_schema()
        for path in rows.values.decimal_paths - declared:
            declare_decimal(schema, path)
        declared.update(rows.values.decimal_paths)
        state = dlt.current.resource_state(ORDERS)
        state[COLUMNS] = [[list(path), names] for path, names in rows.columns.items()]
        if rows.newest is not None:
            newest = min(rows.newest, started_at)
            state[WATERMARK] = max(newest, state.get(WATERMARK, newest))
        on_page(len(page))
        ready = [row for key, row in merged.items() if key not in held]
        if ready:
            yield ready

    return step
