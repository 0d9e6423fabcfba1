"""The source: dlt's `rest_api_source` with the reference configuration, one dictionary.

A parent resource plans windows of modification dates (windows.py), and the orders of each window are
read in parallel. What differs from stock dlt is in three places of the dictionary: `auth` renews its
token (api/auth.py), `session` retries what time can cure (api/session.py), and `paginator` skips no
order that moves while it is read (api/seek.py). A step behind them makes rows of orders, sends what
cannot be merged to `orders_rejected`, and keeps the watermark (step.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
from dlt.extract.resource import DltResource
from dlt.extract.source import DltSource
from dlt.sources.rest_api import rest_api_source

from orders_dagster.api.connect import Connection, connect
from orders_dagster.api.page import PageShape, compiled
from orders_dagster.api.paging import WINDOW, OffsetPaginator, OrdersPaginator, Paging
from orders_dagster.api.query import can_end, depending_on, templates
from orders_dagster.api.seek import SeekPaginator
from orders_dagster.api.session import ApiSession, Traffic
from orders_dagster.columns import column_name
from orders_dagster.cursor import step_of, write_time
from orders_dagster.personal import PersonalData
from orders_dagster.places import ORDERS
from orders_dagster.rows import Rows
from orders_dagster.settings import OrdersSettings
from orders_dagster.step import Found, LookUp, Step
from orders_dagster.windows import Windows, WindowSize

WINDOWS = "windows"


@dataclass
class Reading:
    """One reading of the API, from a start to now; a run may load it in several parts.

    Attributes:
        start: where it starts, UTC.
        started_at: when the run started, UTC; the watermark never passes that.
        rows: what turns orders into rows.
        end: where it ends, UTC, if it is only a span that is read again: the watermark stays where it is.
        look_up: asks the warehouse, before a load.
        on_orders: called with the number of orders that have arrived, in the thread that extracts.
    """

    settings: OrdersSettings
    start: datetime
    started_at: datetime
    rows: Rows
    end: datetime | None = None
    look_up: LookUp = lambda keys, held: Found({}, {})
    on_orders: Callable[[int], None] = lambda orders: None

    def __post_init__(self) -> None:
        settings = self.settings
        self.traffic = Traffic()
        self.connection: Connection = connect(settings, self.traffic)
        self.personal = personal_data(settings)
        self.shape = PageShape.of(settings, self.connection.session.redact)
        self.windows = Windows(self.start, self.started_at, window_size(settings), self.end)


def orders_source(reading: Reading) -> DltSource:
    """Build the source of the next load. Touches neither the network nor the warehouse until it is
    iterated."""
    settings, windows, session = reading.settings, reading.windows, reading.connection.session
    step = Step(
        reading.rows,
        reading.personal,
        windows,
        reading.started_at if reading.end is None else None,
        settings.paging == "offset",
        reading.look_up,
        reading.on_orders,
    )
    config: dict[str, Any] = {
        "client": {
            "base_url": settings.base_url,
            "auth": reading.connection.auth,
            "session": session,
        },
        "resource_defaults": {
            "primary_key": column_name(settings.primary_key),
            "write_disposition": "merge",
        },
        "resources": [
            windows_resource(settings, windows, step),
            {
                "name": ORDERS,
                "endpoint": {
                    # As they are sent; dlt would take them for a placeholder of its own.
                    "path": settings.path.replace("{", "%7B").replace("}", "%7D"),
                    "data_selector": compiled(settings.data_selector),
                    "params": depending_on(WINDOWS, templates(settings.params))
                    | {WINDOW: f"{{resources.{WINDOWS}.number}}"},
                    "paginator": paginator(settings, reading.shape, windows, session),
                    # No "incremental": step.py keeps the watermark, and says why.
                },
                "parallelized": True,
            },
        ],
    }
    source = rest_api_source(config, name=ORDERS)  # type: ignore[arg-type]
    orders = source.resources[ORDERS]
    source.schema.remove_type_detection("iso_timestamp")  # values.py has decided
    table = orders.compute_table_schema()  # step.py adds the columns
    cursor = column_name(settings.cursor_path)
    # Of several versions of an order in one load, the newest is merged. Not a hint of the resource:
    # orders_rejected would have it, too, and a warning with each load.
    table["columns"][cursor] = {"name": cursor, "dedup_sort": "desc"}
    source.schema.update_table(table)
    orders.add_step(stopping_others(step, session), insert_at=1)
    return source


def windows_resource(settings: OrdersSettings, windows: Windows, step: Step) -> DltResource:
    """The windows of one load, oldest first, as fast as they are read."""

    @dlt.resource(name=WINDOWS, selected=False)
    def windows_of_load() -> Iterator[list[dict[str, Any]] | None]:
        windows.start_load(settings.checkpoint_orders)
        while True:
            window = windows.take()
            if window is not None:
                start, end = (
                    time and write_time(time, settings.cursor_format)
                    for time in (window.start, window.end)
                )
                yield [{"number": window.number, "start": start, "end": end or ""}]
            elif not windows.is_drained:
                yield None  # dlt goes on with what is under way, and comes back
            else:
                break
        step.finish()

    return windows_of_load()


def inert_source() -> DltSource:
    """The source as Dagster needs it to define the asset: its names, no settings, no secrets."""
    settings = OrdersSettings()
    rows = Rows(settings.primary_key, settings.cursor_path, settings.cursor_format)
    return orders_source(Reading(settings, settings.initial_value, datetime.now(UTC), rows))


def window_size(settings: OrdersSettings) -> WindowSize:
    """How the windows are cut, as the settings say."""
    return WindowSize.of(
        settings.page_size,
        settings.checkpoint_orders,
        settings.workers,
        step_of(settings.cursor_format),
        can_end(templates(settings.params)),
    )


def personal_data(settings: OrdersSettings) -> PersonalData:
    """What is personal in an order, and what is done with it, as the settings say."""
    key = settings.personal_data_key
    return PersonalData(settings.personal_data, key.get_secret_value().encode() if key else b"")


def stopping_others(step: Step, session: ApiSession) -> Callable[..., Iterator[Any]]:
    """The step, which ends the windows in other threads if it fails: dlt would wait for them."""

    def rows_of(orders: list[Any], meta: Any = None) -> Iterator[Any]:
        try:
            yield from step(orders, meta)
        except Exception as error:
            session.stop(error)
            raise

    return rows_of


def paginator(
    settings: OrdersSettings, shape: PageShape, windows: Windows, session: ApiSession
) -> OrdersPaginator:
    """What pages through a window; dlt copies it for each one."""
    paging = Paging(
        limit_param=settings.limit_param,
        offset_param=settings.offset_param,
        page_size=settings.page_size,
        params=templates(settings.params),
        shape=shape,
        lag=timedelta(seconds=settings.lag_seconds),
        stop=session.stop,
    )
    kind = OffsetPaginator if settings.paging == "offset" else SeekPaginator
    return kind(paging, windows)
