"""One synchronisation: read what changed since the watermark, merge it, count what happened.

The cursor and the data move together: dlt keeps its state in the load package, and restores it from
the destination. So whatever happens to this process or its working directory, the next run starts
from what is durably in the warehouse. The working directory is therefore disposable, and is emptied
at the start of each run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.pipeline.configuration import PipelineConfiguration
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from orders_dagster.columns import (
    ORDERS,
    WIDENING,
    column_type,
    identifier,
    widen_to_decimal,
)
from orders_dagster.errors import (
    WarehouseBusy,
    WarehouseRefused,
    causes,
    no_values_in_logs,
    orders_error_in,
)
from orders_dagster.progress import Progress
from orders_dagster.rows import Rows, path_of
from orders_dagster.settings import OrdersSettings
from orders_dagster.source import orders_source
from orders_dagster.step import WATERMARK
from orders_dagster.tables import Counts, missing_tables
from orders_dagster.values import Values
from orders_dagster.warehouse import open_warehouse

PIPELINE = "orders"
DATASET = "ecommerce"


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


def pipeline_config() -> PipelineConfiguration:
    """dlt's own configuration of the pipeline, `[pipelines.orders]`."""
    return resolve_configuration(
        PipelineConfiguration(pipeline_name=PIPELINE), sections=("pipelines", PIPELINE)
    )


@contextmanager
def orders_pipeline(
    wait_seconds: float, log: Callable[[str], None] = lambda message: None
) -> Iterator[dlt.Pipeline]:
    """The pipeline, for one user of its working directory at a time.

    Its destination is dlt's `destination_type` (DuckDB unless set), its dataset `dataset_name`
    (`ecommerce`).

    Two processes that use one working directory corrupt each other's files. Dagster's pool orders
    the runs of one instance; the lock also holds for the command line and for other instances. It
    goes away with the process, however that ends.

    Raises:
        WarehouseBusy: another process used it for longer than `wait_seconds`.
    """
    config = pipeline_config()
    directory = Path(config.pipelines_dir or get_dlt_pipelines_dir())
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / f"{PIPELINE}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"Another synchronisation is running; waiting up to {wait_seconds:.0f} s.")
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout:
            holder = f"another synchronisation (lock file {lock.lock_file})"
            raise WarehouseBusy(holder=holder, waited_seconds=wait_seconds) from None
    try:
        yield _pipeline(config, directory)
    finally:
        lock.release()


def inert_pipeline() -> dlt.Pipeline:
    """The pipeline as Dagster needs it to define the asset: its destination and its dataset.

    dlt makes a working directory for every pipeline; that of this one is gone when this returns.
    """
    with TemporaryDirectory() as directory:
        return _pipeline(pipeline_config(), Path(directory))


def _pipeline(config: PipelineConfiguration, directory: Path) -> dlt.Pipeline:
    return dlt.pipeline(
        PIPELINE,
        pipelines_dir=str(directory),
        destination=config.destination_name or config.destination_type or "duckdb",
        dataset_name=config.dataset_name or DATASET,
    )


def synchronise(
    settings: OrdersSettings, log: Callable[[str], None] = lambda message: None
) -> Synchronisation:
    """Bring the warehouse in step with the API.

    Args:
        log: gets a line of progress every few seconds.

    Raises:
        OrdersError: what to do about it is in its message; nothing was loaded.
    """
    try:
        with (
            orders_pipeline(settings.warehouse_wait_seconds, log) as pipeline,
            no_values_in_logs("dlt"),
        ):
            return _synchronise(pipeline, settings, log)
    except PipelineStepFailed as error:
        # dlt's wrapping says where in dlt it was, not what to do; and what a warehouse says about
        # a load may quote customers' data.
        found = orders_error_in(error)
        if found is None and error.step == "extract":
            raise
        *_, reason = causes(error)
        raise found or WarehouseRefused(step=error.step, reason=reason) from None


def _synchronise(
    pipeline: dlt.Pipeline, settings: OrdersSettings, log: Callable[[str], None]
) -> Synchronisation:
    wait = settings.warehouse_wait_seconds
    pipeline.drop()
    with open_warehouse(pipeline, wait, log) as warehouse:
        pipeline.sync_destination()
        gone = missing_tables(warehouse)
    watermark_before = None if gone else watermark(pipeline)
    if gone:
        log(f"{', '.join(gone)} is not in the warehouse any more: all orders are read again.")
    started_at = datetime.now(UTC)
    schema = None if gone else pipeline.schemas.get(ORDERS)
    rows = _rows(pipeline, settings, schema, watermark_before, started_at)
    progress = Progress(log)
    source = orders_source(
        settings,
        watermark=watermark_before,
        rows=rows,
        on_page=progress.page,
        started_at=started_at,
    )
    progress.source = source

    with _timed() as extract_seconds:
        pipeline.extract(
            source.dlt_source,
            loader_file_format=_file_format(pipeline),
            refresh="drop_sources" if gone else None,
        )
    progress.line("Read")
    with _timed() as normalize_seconds:
        pipeline.normalize()
    log(f"Normalized in {normalize_seconds():.1f} s, loading.")
    with open_warehouse(pipeline, wait, log) as warehouse, _timed() as load_seconds:
        before = Counts(warehouse, settings)
        rows_before = before.rows()
        unchanged = before.unchanged(rows)
        for path in rows.values.decimal_paths:
            if rows.values.column_type(path) == "bigint":
                widen_to_decimal(warehouse, path)
        loads = pipeline.load().loads_ids
    with open_warehouse(pipeline, wait, log) as warehouse:  # a new one, which sees what was loaded
        after = Counts(warehouse, settings)
        rows_after, loaded, newest = after.rows(), after.loaded_by(loads), after.newest()
    new = rows_after - rows_before
    return Synchronisation(
        loaded=loaded,
        new=new,
        updated=loaded - new - unchanged,
        unchanged=unchanged,
        rejected=len(rows.rejected),
        rows_in_table=rows_after,
        watermark_before=watermark_before,
        watermark_after=watermark(pipeline),
        lag_seconds=_seconds_since(newest),
        pages=source.paginator.pages,
        requests=source.traffic.requests,
        retries=source.traffic.retries,
        bytes=source.traffic.bytes,
        extract_seconds=extract_seconds(),
        normalize_seconds=normalize_seconds(),
        load_seconds=load_seconds(),
        schema=pipeline.schemas.get(ORDERS),
        warehouse=where(pipeline),
    )


def watermark(pipeline: dlt.Pipeline) -> datetime | None:
    """The newest modification date that is durably loaded, UTC; None before the first load."""
    state: Any = pipeline.state
    for key in ("sources", ORDERS, "resources", ORDERS, WATERMARK):
        state = state.get(key) if isinstance(state, dict) else None
    return state.astimezone(UTC) if isinstance(state, datetime) else None


def where(pipeline: dlt.Pipeline) -> str:
    """Where the tables are, for people. Without credentials."""
    client = pipeline.destination_client()
    credentials = getattr(client.config, "credentials", None)
    database = getattr(credentials, "database", None)
    name = pipeline.destination.destination_name
    is_file = name == "duckdb" and isinstance(database, str)
    return (
        f"{Path(database).resolve()}"
        if is_file and database
        else f"{name}, {pipeline.dataset_name}"
    )


def _rows(
    pipeline: dlt.Pipeline,
    settings: OrdersSettings,
    known: dlt.Schema | None,
    since: datetime | None,
    now: datetime,
) -> Rows:
    """Rows that know the types the columns have already."""
    schema = known.clone() if known else None  # as it was: dlt changes its own while it extracts
    key = column_type(schema, path_of(settings.primary_key))
    return Rows(
        settings.primary_key,
        settings.cursor_path,
        settings.cursor_format,
        key_type={"bigint": int, "text": str}.get(key or ""),
        identifier=identifier,
        values=Values(
            lambda path: column_type(schema, path),
            widens=pipeline.destination.destination_name in WIDENING,
        ),
        watermark=since,
        now=now,
    )


def _file_format(pipeline: dlt.Pipeline) -> Any:
    """Parquet, where it can be loaded: its columns have types.

    From JSON lines DuckDB guesses the types by a sample of each file, and takes an id for a UUID or a
    date; INSERT statements, dlt's default there, round decimals and are five times slower.
    """
    formats = pipeline.destination.capabilities().supported_loader_file_formats
    return "parquet" if "parquet" in formats else None


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
