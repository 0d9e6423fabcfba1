"""One synchronisation: read what changed since the watermark, merge it, count what happened.

The cursor and the data move together: dlt keeps its state in the load package, and restores it from
the destination. So whatever happens to this process or its working directory, the next run starts
from what is durably in the warehouse. The working directory is therefore disposable, and is emptied
at the start of each run.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import PipelineStepFailed

from orders_dagster.before import have_read_again, look, state, watermark
from orders_dagster.cancel import after_this, stopping
from orders_dagster.columns import WIDENING, column_type, naming_for, parents
from orders_dagster.cursor import step_of
from orders_dagster.destination import file_format, orders_pipeline, where
from orders_dagster.errors import (
    DiskFull,
    OrdersError,
    WarehouseBusy,
    WarehouseRefused,
    causes,
    is_disk_full,
    no_values_in_logs,
    orders_error_in,
)
from orders_dagster.fit import Left, fit_tables
from orders_dagster.places import ORDERS, path_of
from orders_dagster.progress import Progress
from orders_dagster.rows import Rows
from orders_dagster.settings import OrdersSettings
from orders_dagster.source import Reading, orders_source
from orders_dagster.span import EARLIEST, Span
from orders_dagster.step import BY_OFFSET, COLUMNS, Found
from orders_dagster.tables import Counts, is_common
from orders_dagster.tally import check_tally
from orders_dagster.values import Values
from orders_dagster.warehouse import Warehouse, kind_of, open_warehouse
from orders_dagster.windows import AHEAD

LATEST = datetime.max.replace(tzinfo=UTC)
LOGGERS = ("dlt", "urllib3.connection", "urllib3.connectionpool")


@dataclass(frozen=True)
class Synchronisation:
    """What one synchronisation did. Times are UTC.

    Attributes:
        loaded: orders merged; new + updated + unchanged (read again because of the lag).
        rejected: orders that went to `orders_rejected`.
        rows_in_table: rows of `orders` afterwards.
        lag_seconds: from the newest order's modification to the end of this run, None if no order.
        pages, requests, retries, bytes: what went over the wire, token requests included.
        schema: the tables and columns afterwards, None before the first order.
        warehouse: where the tables are; a file's path, or the destination and dataset.
        seen_but_not_loaded: the keys of orders that were rejected, or are in the warehouse in a newer
            version.
        was_gone: the tables, and columns as `table.column`, that were not in the warehouse any more:
            everything was read.
    """

    loaded: int
    new: int
    updated: int
    unchanged: int
    rejected: int
    rows_in_table: int
    watermark_before: datetime | None
    watermark_after: datetime | None
    lag_seconds: float | None
    pages: int
    requests: int
    retries: int
    bytes: int
    extract_seconds: float
    normalize_seconds: float
    load_seconds: float
    schema: dlt.Schema | None
    warehouse: str
    seen_but_not_loaded: frozenset[int | str] = frozenset()
    was_gone: tuple[str, ...] = ()


def synchronise(
    settings: OrdersSettings,
    log: Callable[[str], None] = lambda message: None,
    *,
    span: Span | None = None,
) -> Synchronisation:
    """Bring the warehouse in step with the API.

    Args:
        log: gets a line of progress every few seconds.
        span: read only the orders modified in it, and leave the watermark where it is. An older version
            never overwrites a newer one. If a table of orders is gone, everything is read nevertheless.

    Raises:
        OrdersError: what to do about it is in its message; nothing is half loaded.
    """
    try:
        with (
            orders_pipeline(settings.warehouse_wait_seconds, log) as pipeline,
            no_values_in_logs(*LOGGERS),
            _collecting_seldom(),
        ):
            run = _Run(pipeline, settings, log, span)
            while not run.is_complete:
                run.load_checkpoint()
            return run.result()
    except PipelineStepFailed as error:
        # dlt's wrapping says where in dlt it was, not what to do; and what a warehouse says about
        # a load may quote customers' data.
        found = orders_error_in(error)
        if found is None and is_disk_full(error):
            found = DiskFull(step=error.step)
        if found is None and error.step == "extract":
            raise
        *_, reason = causes(error)
        if isinstance(reason, KeyboardInterrupt):  # told to end twice
            raise reason from None
        raise found or WarehouseRefused(step=error.step, reason=reason) from None
    except OrdersError:
        raise
    except Exception as error:  # beside dlt's steps: where a column becomes decimal, say
        if is_disk_full(error):
            raise DiskFull(step="load") from None
        if not isinstance(error, DatabaseException):
            raise
        *_, reason = causes(error)
        raise WarehouseRefused(step="load", reason=reason) from None


class _Run:
    """One synchronisation: complete loads of about `checkpoint_orders` each, oldest first.

    After each of them the watermark is durable, so that whatever happens to this process, the next one
    goes on from there; and no load is larger than a checkpoint, whatever the history.
    """

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        settings: OrdersSettings,
        log: Callable[[str], None],
        span: Span | None,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._log = log
        started_at = datetime.now(UTC)  # before it waits: what changes meanwhile is read again
        self._client = pipeline.sql_client()
        self._capabilities = self._client.capabilities
        self._naming = naming_for(self._capabilities)
        with self._warehouse() as warehouse:
            self._before = before = look(pipeline, warehouse, settings, self._naming, started_at)
            self._left = Left.now(warehouse, before.schema)
        if span is not None:
            span = span.on_steps(step_of(settings.cursor_format))
        self._start = self._starts(span)
        if before.gone:
            span = None  # what is outside of it would be missing, and nothing would tell
            log(
                f"{', '.join(before.gone)} is not in the warehouse any more, empty, or rebuilt in part: "
                "all orders are read again."
            )
        self._progress = Progress(log)
        # All that a span holds may be in the warehouse already, in any version.
        self._rows = self._new_rows(started_at, LATEST if span else before.newest)
        self._rows.in_lists.update(before.lists)
        self._reading = Reading(
            settings,
            self._start,
            started_at,
            self._rows,
            end=span.end if span else None,
            look_up=self._look_up,
            on_orders=self._progress.arrived,
        )
        self._progress.starts(self._reading.windows)
        self._loads: list[str] = []
        self._after: tuple[int, int, datetime | None] = (0, 0, None)
        self._extract = self._normalize = self._load = 0.0

    @property
    def is_complete(self) -> bool:
        return self._reading.windows.is_complete

    def load_checkpoint(self) -> None:
        """Read the oldest windows that are not read yet, up to the next checkpoint, and load them."""
        is_rebuilt = bool(self._before.tables) and not self._loads
        stop = self._reading.connection.session.stop
        with _timed() as seconds, stopping(stop):
            self._pipeline.extract(
                orders_source(self._reading),
                loader_file_format=file_format(self._capabilities),
                refresh="drop_sources" if is_rebuilt else None,
                workers=self._settings.workers,
                max_parallel_items=AHEAD * self._settings.workers,
            )
            check_tally(self._reading)
        self._extract += seconds()
        self._progress.line("Read")
        with _timed() as seconds, after_this():
            self._pipeline.normalize()
        self._normalize += seconds()
        self._log(f"Normalized in {seconds():.1f} s, loading.")
        schema = self._pipeline.schemas[ORDERS]
        with self._warehouse() as warehouse:
            with _timed() as seconds:
                gone = self._before if is_rebuilt else None
                rejects = bool(self._rows.rejected)
                fit_tables(warehouse, schema, self._left, gone, rejects=rejects)
                if self._before.gone and not self._loads:  # it may be killed from here on
                    have_read_again(warehouse, self._start, is_made_anew=is_rebuilt)
                with after_this():
                    self._loads += self._pipeline.load().loads_ids
            self._load += seconds()
            self._look_after(schema.clone())
            is_in_file = warehouse.checkpoint()
        if not is_in_file:
            with suppress(WarehouseBusy), self._warehouse():
                pass  # opening it is enough, and whoever holds it has opened it

    def result(self) -> Synchronisation:
        if self._before.watermark is None and self._rows.orders:
            for path in sorted(self._reading.personal.unseen):
                self._log(f"personal_data: no order has {path}. Is it spelt as in the response?")
        rows, loaded, newest = self._after
        # Fewer than before, where a merge removed what somebody had put there twice.
        new = max(0, rows - self._before.rows)
        return Synchronisation(
            loaded=loaded,
            new=new,
            updated=max(0, loaded - new - self._rows.unchanged),
            unchanged=self._rows.unchanged,
            rejected=len(self._rows.rejected),
            rows_in_table=rows,
            watermark_before=self._before.watermark,
            watermark_after=watermark(self._pipeline),
            lag_seconds=_seconds_since(newest),
            pages=self._reading.windows.pages,
            requests=self._reading.traffic.requests,
            retries=self._reading.traffic.retries,
            bytes=self._reading.traffic.bytes,
            extract_seconds=self._extract,
            normalize_seconds=self._normalize,
            load_seconds=self._load,
            schema=self._pipeline.schemas.get(ORDERS),
            warehouse=where(self._pipeline, self._client),
            seen_but_not_loaded=frozenset(self._rows.not_loaded),
            was_gone=tuple(self._before.gone),
        )

    def _look_after(self, schema: dlt.Schema) -> None:
        """How a load has left the tables: the next one has to fit into the columns that it has made. After
        the last one, what is there: orders, those of this run, the newest date.

        Asked over a connection of its own, which sees what dlt's has loaded; beside the open one, since
        opening the file takes longer than counting.
        """
        wait = self._settings.warehouse_wait_seconds
        with open_warehouse(self._pipeline, wait, self._log) as warehouse:
            self._left = Left.now(warehouse, schema)
            if self.is_complete:
                after = Counts(warehouse, self._settings)
                self._after = after.rows(), after.loaded_by(self._loads), after.newest()

    def _look_up(self, keys: Iterable[int | str], held: Mapping[str, int]) -> Found:
        """Those of some orders that are in the warehouse, and who has the lists of some tables: of those
        that would be taken for emptied by somebody, if they were empty."""
        asked = list(keys)
        lists = [name for name, count in held.items() if is_common(count, self._before.rows)]
        if not (asked or lists):
            return Found({}, {})
        with self._warehouse() as warehouse:
            counts = Counts(warehouse, self._settings)
            holders = {name: counts.holders(name) for name in lists}
            return Found(counts.stored(asked, self._loads), holders)

    def _new_rows(self, now: datetime, watermark: datetime | None) -> Rows:
        """Rows that know which columns there are, and of which type."""
        schema, naming, settings = self._left.schema, self._naming, self._settings
        key = column_type(schema, naming.place(path_of(settings.primary_key)))
        columns = [] if self._before.tables else state(self._pipeline, COLUMNS) or []
        if isinstance(columns, str):  # what an earlier version left is a list
            columns = json.loads(columns)
        return Rows(
            settings.primary_key,
            settings.cursor_path,
            settings.cursor_format,
            settings.soft_delete_path,
            key_type={"bigint": int, "text": str}.get(key or ""),
            columns={tuple(path): dict(names) for path, names in columns},
            parents=parents(schema),
            naming=naming,
            values=Values(
                lambda column: column_type(self._left.schema, column),
                widens=kind_of(self._pipeline) in WIDENING,
            ),
            watermark=watermark,
            now=now,
        )

    def _starts(self, span: Span | None) -> datetime:
        """Where to read from: the watermark minus the lag; the beginning, where pages may miss orders.
        Where everything is read again, also what somebody had read from before the beginning."""
        start, newest = self._settings.initial_value, self._before.watermark
        if self._before.gone:
            asked = span.start if span else start
            return min(filter(None, (start, asked, self._before.oldest)))
        if span is not None:
            return span.start
        if newest is None or self._settings.paging == "offset" or state(self._pipeline, BY_OFFSET):
            return start  # what moved while it was read is behind any watermark
        lag = timedelta(seconds=self._settings.lag_seconds)
        first = start if start <= newest else EARLIEST  # such a reading was killed
        return newest - lag if newest > first + lag else first

    def _warehouse(self) -> AbstractContextManager[Warehouse]:
        wait = self._settings.warehouse_wait_seconds
        return open_warehouse(self._pipeline, wait, self._log, self._client)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """A page is thousands of objects, none of them in a cycle: looking for cycles after every 700 of
    them took a quarter of the time of a load, and found nothing."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 50_000) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    started = time.monotonic()
    seconds = 0.0
    try:
        yield lambda: seconds
    finally:
        seconds = time.monotonic() - started


def _seconds_since(time: datetime | None) -> float | None:
    """How long ago a time is; 0 if it is in the future."""
    return None if time is None else max(0.0, (datetime.now(UTC) - time).total_seconds())
