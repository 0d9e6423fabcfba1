"""What a run finds in the warehouse, and whether it can go on from there.

dlt keeps its state, the watermark among it, in the load package, and so it moves with the data. What dlt
does not notice is found here: tables that somebody dropped or emptied, rows of a run that did not come to
its end, and tables that were made by other settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dlt
from dlt.common.schema.typing import (
    LOADS_TABLE_NAME,
    PIPELINE_STATE_TABLE_NAME,
    VERSION_TABLE_NAME,
)
from dlt.common.versioned_state import compress_state, decompress_state
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.state_sync import force_state_extract

from orders_dagster.columns import column_name
from orders_dagster.cursor import UnreadableTime
from orders_dagster.errors import ColumnsAltered, LoadedByAnother, TablesUnknown
from orders_dagster.places import ORDERS, Naming, path_of
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import EARLIEST
from orders_dagster.step import COLUMNS, IN_LISTS, IN_LISTS_BEFORE, WATERMARK
from orders_dagster.tables import (
    Counts,
    emptied,
    is_of_dlt,
    knows,
    lists_in,
    mend,
    missing,
    orders_tables,
    remove_orphans,
    rows_of_lists,
)
from orders_dagster.warehouse import Warehouse

BEGINS_ANEW = "begins_anew"
"""In dlt's state of the resource: no load was completed since a run began to read everything again; from
which time on, if that is known."""


@dataclass(frozen=True)
class Before:
    """The tables before a run.

    Attributes:
        gone: the tables, and columns as `table.column`, that are not there any more, or not whole: all
            orders are read again.
        rows: how many orders.
        watermark: the newest modification date that is durably loaded with all before it, UTC.
        oldest: where everything is read again, the oldest one that is known to have been loaded, UTC.
        newest: the newest one in the tables that is not in the future, UTC; a run that failed after some of
            its loads has left newer ones than the watermark. The earliest time, if all are in the future.
        lists: how many lists there are in tables of which dlt's state tells too few.
        schema: dlt's schema, as it is.
        tables: those that are to be made anew, whether there or not, `orders` last; the other attributes
            are those of empty tables then. None where what is there can stay, though some of it is missing.
        is_forgotten: whether dlt does not know those of them that are there.
    """

    gone: list[str]
    rows: int = 0
    watermark: datetime | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    lists: Mapping[str, int] = field(default_factory=dict)
    schema: dlt.Schema | None = None
    tables: tuple[str, ...] = ()
    is_forgotten: bool = False


def look(
    pipeline: dlt.Pipeline,
    warehouse: Warehouse,
    settings: OrdersSettings,
    naming: Naming,
    now: datetime,
) -> Before:
    """Bring the pipeline in step with the warehouse, and see what is there.

    Raises:
        LoadedByAnother: the tables were filled by another primary key or modification date.
        ColumnsAltered: the modification dates are none any more.
        TablesUnknown: there are orders of which dlt knows nothing.
    """
    pipeline.sync_destination()
    schema = _restored_schema(pipeline, warehouse)
    gone = missing(warehouse, schema)
    mend(warehouse, schema, gone)
    counts = Counts(warehouse, settings)
    others = list(_other_fields(schema, settings, naming))
    is_known = watermark(pipeline) is not None
    is_unknown = not knows(schema)
    is_forgotten = is_unknown and state(pipeline, COLUMNS) is not None
    if is_forgotten and warehouse.columns(ORDERS):
        gone = [VERSION_TABLE_NAME]
    is_ours = is_forgotten and is_of_dlt(warehouse, ORDERS)
    rows, began_at = counts.rows(), state(pipeline, BEGINS_ANEW)
    if is_unknown and not is_ours and rows:
        raise TablesUnknown(table=warehouse.name(ORDERS))
    if not gone and (is_known or others) and not rows:
        gone = [ORDERS]  # emptied by hand, or never filled
    if gone:
        tables = (*(state(pipeline, IN_LISTS) or {}), *reversed(orders_tables(schema)))
        _begin_anew(pipeline)
        oldest = _earlier(began_at, counts.oldest())
        return Before(gone, oldest=oldest, tables=tables, is_forgotten=is_forgotten)
    if others:
        raise LoadedByAnother(**others[0], table=warehouse.name(ORDERS))
    rows_of = rows_of_lists(warehouse, schema)
    if is_known:
        gone = emptied(rows_of, _held(pipeline), rows)
        by_load = None if began_at or not gone else _lists_of_killed_load(pipeline, warehouse)
        if by_load is not None:
            _forget(pipeline, [name for name in gone if not by_load.get(name)])
            gone = [name for name in gone if by_load.get(name)]
    if not gone and began_at:
        gone = [ORDERS]
    oldest = None
    if gone:  # what the shop has deleted stays, since it has no copy of that any more
        _begin_anew(pipeline, keeps=True)
        remove_orphans(warehouse, schema)  # lists in elements that are gone
        rows_of = rows_of_lists(warehouse, schema)
        oldest = _earlier(began_at, counts.oldest())
    return Before(
        gone,
        rows,
        watermark(pipeline),
        oldest,
        _newest(warehouse, counts, settings, now) or (EARLIEST if rows else None),
        lists_in(warehouse, rows_of, state(pipeline, IN_LISTS) or {}, rows),
        schema and schema.clone(),  # dlt changes its own from here on
    )


def _newest(
    warehouse: Warehouse, counts: Counts, settings: OrdersSettings, now: datetime
) -> datetime | None:
    try:
        return counts.newest(now)
    except (UnreadableTime, DatabaseException):
        column = column_name(settings.cursor_path)
        kind = warehouse.types([ORDERS])[ORDERS].get(column, "timestamp")
        if kind == "timestamp":
            raise
        raise ColumnsAltered([(f"{ORDERS}.{column}", kind, "timestamp")]) from None


def watermark(pipeline: dlt.Pipeline) -> datetime | None:
    """The newest modification date that is durably loaded, UTC; None before the first load."""
    newest = state(pipeline, WATERMARK)
    return newest.astimezone(UTC) if isinstance(newest, datetime) else None


def state(pipeline: dlt.Pipeline, name: str) -> Any:
    """What step.py has left in dlt's state of the resource, or None."""
    return _of_orders(pipeline.state, name)


def _of_orders(state: Any, name: str) -> Any:
    return (_resource(state) or {}).get(name)


def _resource(state: Any) -> Any:
    for key in ("sources", ORDERS, "resources", ORDERS):
        state = state.get(key) if isinstance(state, dict) else None
    return state


def _lists_of_killed_load(pipeline: dlt.Pipeline, warehouse: Warehouse) -> Mapping[str, int] | None:
    """How many lists there are after a load that was merged, but killed before it was complete: it may have
    taken the last ones out of a table, which the state of before does not tell. None without such a load.
    """
    name, column = warehouse.name, warehouse.column
    load_id, of_load = column("load_id"), column("_dlt_load_id")
    complete = (
        f"SELECT MAX({load_id}) FROM {name(LOADS_TABLE_NAME)} WHERE {column('status')} = 0 "
        f"AND {column('schema_name')} = %s"
    )
    left = warehouse.query(
        f"SELECT {column('state')} FROM {name(PIPELINE_STATE_TABLE_NAME)} "
        f"WHERE {column('pipeline_name')} = %s AND {of_load} > ({complete}) "
        f"AND {of_load} IN (SELECT {of_load} FROM {name(ORDERS)}) ORDER BY {of_load} DESC",
        pipeline.pipeline_name,
        ORDERS,
    )
    return (_of_orders(decompress_state(left[0][0]), IN_LISTS) or {}) if left else None


def _held(pipeline: dlt.Pipeline) -> dict[str, int]:
    """How many lists each table has held. While everything is read again, as many as before, as soon as
    some have come: what a load has brought it will not bring once more."""
    before = state(pipeline, IN_LISTS_BEFORE) or {}
    in_lists = (state(pipeline, IN_LISTS) or {}).items()
    return {name: held and max(held, before.get(name, 0)) for name, held in in_lists}


def _forget(pipeline: dlt.Pipeline, lists: list[str]) -> None:
    """Have dlt's state say that some tables hold no list any more."""
    with pipeline.managed_state() as state:
        _of_orders(state, IN_LISTS).update(dict.fromkeys(lists, 0))


def _begin_anew(pipeline: dlt.Pipeline, *, keeps: bool = False) -> None:
    """Have dlt's state say that nothing was read, and the next load bring it, even if it ends as it was.

    Args:
        keeps: whether the tables stay as they are.
    """
    held = Counter(state(pipeline, IN_LISTS_BEFORE)) | Counter(state(pipeline, IN_LISTS))
    with pipeline.managed_state() as changed:
        resource: dict[str, Any] = _resource(changed) or {}
        in_lists = resource.pop(IN_LISTS, {})
        for name in (WATERMARK, IN_LISTS_BEFORE, BEGINS_ANEW):
            resource.pop(name, None)
        if keeps:
            resource |= {IN_LISTS: dict.fromkeys(in_lists, 0), IN_LISTS_BEFORE: dict(held)}
        force_state_extract(changed)


def have_read_again(
    warehouse: Warehouse, start: datetime | None = None, *, is_made_anew: bool = False
) -> None:
    """Have the next run read everything and merge it into what is there, unless a load is completed first.

    Args:
        start: from when on, UTC, if there may be no order any more that tells.
        is_made_anew: whether the tables are made anew from here on, and their columns have no names yet.
    """
    found = newest_state(warehouse)
    changed: Any = decompress_state(found[1]) if found else None
    resource = _resource(changed)
    if found and resource is not None:
        resource[BEGINS_ANEW] = start or resource.get(BEGINS_ANEW) or True
        if is_made_anew:
            resource[COLUMNS] = "[]"
        name, column = warehouse.name, warehouse.column
        warehouse.execute(
            f"UPDATE {name(PIPELINE_STATE_TABLE_NAME)} SET {column('state')} = %s "
            f"WHERE {column('pipeline_name')} = %s AND {column('_dlt_load_id')} = %s",
            *(compress_state(changed), warehouse.pipeline.pipeline_name, found[0]),
        )


def newest_state(warehouse: Warehouse) -> tuple[str, str] | None:
    """The state that dlt takes, as it is stored, behind the id of its load; None if there is none."""
    name, column, pipeline = warehouse.name, warehouse.column, warehouse.pipeline.pipeline_name
    table, of_load = name(PIPELINE_STATE_TABLE_NAME), column("_dlt_load_id")
    complete = (
        f"SELECT {column('load_id')} FROM {name(LOADS_TABLE_NAME)} WHERE {column('status')} = 0"
    )
    of_pipeline = f"WHERE {column('pipeline_name')} = %s AND {of_load}"
    found = warehouse.query_if_there(
        f"SELECT {of_load}, {column('state')} FROM {table} {of_pipeline} = "
        f"(SELECT MAX({of_load}) FROM {table} {of_pipeline} IN ({complete}))",
        *(pipeline, pipeline),
    )
    return (found[0][0], found[0][1]) if found else None


def _earlier(began_at: Any, oldest: datetime | None) -> datetime | None:
    """The earlier of a time, if it is one, and another."""
    began = began_at.astimezone(UTC) if isinstance(began_at, datetime) else None
    return min(filter(None, (began, oldest)), default=None)


def _restored_schema(pipeline: dlt.Pipeline, warehouse: Warehouse) -> dlt.Schema | None:
    """dlt's schema, taken from the warehouse also if no load into its tables was ever completed.

    dlt restores it with the state, so not after a first load that was killed: the tables that it had
    made would be taken for ones that are yet to be made, and values be cast to fit their columns.
    """
    schema = pipeline.schemas.get(ORDERS)
    if schema is None and (stored := warehouse.stored_schema(ORDERS)) is not None:
        pipeline.schemas.save_schema(stored)
        schema = pipeline.schemas[ORDERS]
    return schema


def _other_fields(
    schema: dlt.Schema | None, settings: OrdersSettings, naming: Naming
) -> Iterator[dict[str, Any]]:
    """By which other fields than those of the settings the tables were made: a watermark says nothing of
    another date, and rows with another key are not known again."""
    columns = schema.tables.get(ORDERS, {}).get("columns", {}) if schema else {}
    for setting, hint in (("primary_key", "primary_key"), ("cursor_path", "dedup_sort")):
        path = getattr(settings, setting)
        names = {column_name(path), naming.place(path_of(path))[1]}
        before = [name for name, hints in columns.items() if hints.get(hint)]
        if len(before) > 1 or not names.issuperset(before):
            yield {"setting": setting, "column": column_name(path), "loaded_by": before}
