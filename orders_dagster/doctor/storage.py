"""Probes of the destination: is it there, does another hold it, can tables be made in it?

Nothing is left behind. The table that is made and dropped has a name of its own; where there is no
dataset yet, it is made in another one that goes away with it. The tables of orders are not touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from dlt.common.destination.exceptions import UnknownDestinationModule

from orders_dagster.destination import orders_pipeline, where
from orders_dagster.doctor.finding import Finding, Unjudged, fail, ok, warn
from orders_dagster.errors import SettingsError, WarehouseBusy, causes, is_disk_full, without_values
from orders_dagster.warehouse import Warehouse, database_file, kind_of, open_warehouse


@dataclass
class Storage:
    """What is known of the destination.

    Attributes:
        name: dlt's name of the destination, which is its type unless it was given one.
        kind: its type.
        place: where it is, without credentials.
        holder: who holds it.
        is_run: whether that is a synchronisation.
        error: why it could not be opened.
    """

    name: str = "duckdb"
    kind: str = "duckdb"
    dataset: str = ""
    place: str = ""
    holder: str | None = None
    is_run: bool = False
    error: Exception | None = None
    warehouse: Warehouse | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        return (f"destination.{self.name}.credentials",)

    @property
    def opened(self) -> Warehouse:
        if self.warehouse is None:
            raise Unjudged("the warehouse could not be opened")
        return self.warehouse


@contextmanager
def opened() -> Iterator[Storage]:
    """The destination, opened as a run would open it, but without waiting."""
    storage = Storage()
    with ExitStack() as stack:
        try:
            pipeline = stack.enter_context(orders_pipeline(wait_seconds=0))
            stack.callback(shutil.rmtree, pipeline.working_dir, ignore_errors=True)
            storage.name = pipeline.destination.destination_name
            storage.kind = kind_of(pipeline)
            client = pipeline.sql_client()
            storage.dataset, storage.place = pipeline.dataset_name, where(pipeline, client)
            stack.enter_context(_no_new_file(database_file(pipeline, client)))
            storage.warehouse = stack.enter_context(
                open_warehouse(pipeline, wait_seconds=0, client=client)
            )
        except WarehouseBusy as error:
            storage.holder, storage.is_run = error.holder, "lock file" in error.holder
        except Exception as error:
            storage.error = error
        yield storage


@contextmanager
def _no_new_file(file: Path | None) -> Iterator[None]:
    """DuckDB makes the file that it is to open."""
    is_new = file is not None and not file.exists()
    try:
        yield
    finally:
        if is_new and file:
            for path in (file, file.with_name(f"{file.name}.wal")):
                with suppress(OSError):  # it could not be made either
                    path.unlink()


def reached(storage: Storage) -> Finding:
    """Whether a connection could be made."""
    error = storage.error
    if error is not None:
        if isinstance(error, SettingsError):
            return fail(error.problems[0], *storage.settings)
        if isinstance(error, OSError):
            return fail(f"dlt's working files: {_in_words(error)}", "DLT_DATA_DIR")
        if isinstance(error, UnknownDestinationModule):
            return fail("dlt knows no such destination", "pipelines.orders.destination_type")
        place = f"{storage.place}: " if storage.place else ""
        return fail(f"{place}{_in_words(error)}", *storage.settings)
    if storage.is_run:
        raise Unjudged("a synchronisation is using it")
    return ok(storage.place)


def free(storage: Storage) -> Finding:
    """Whether a run would have to wait for somebody."""
    if storage.error is not None:
        raise Unjudged("the warehouse could not be opened")
    if storage.is_run:
        return warn(
            "a synchronisation is running; ask again when it has ended", "warehouse_wait_seconds"
        )
    if storage.holder:
        return fail(f"held by {storage.holder}: close it there", "warehouse_wait_seconds")
    return ok("nobody holds it")


def writable(storage: Storage) -> Finding:
    """Whether a table can be made, filled and dropped."""
    if storage.holder:
        raise Unjudged(f"held by {storage.holder}")
    warehouse = storage.opened
    client, dataset = warehouse.client, warehouse.pipeline.dataset_name
    name = f"orders_doctor_{uuid4().hex[:12]}"
    try:
        if client.has_dataset():
            _make_and_drop(warehouse, name)
            return ok(f"a table was made and dropped in {dataset}")
        with client.with_alternative_dataset_name(name):
            client.create_dataset()
            client.drop_dataset()
        return ok(f"a dataset was made and dropped; {dataset} is made by the first run")
    except Exception as error:
        return fail(_in_words(error), *storage.settings)


def _make_and_drop(warehouse: Warehouse, name: str) -> None:
    table = warehouse.name(name)
    warehouse.execute(f"CREATE TABLE {table} (n INT)")
    try:
        warehouse.execute(f"INSERT INTO {table} VALUES (1)")
        assert warehouse.scalar(f"SELECT n FROM {table}") == 1
    finally:
        warehouse.execute(f"DROP TABLE {table}")


def _in_words(error: Exception) -> str:
    """What the destination says, without what it quotes: passwords, above all."""
    if is_disk_full(error):
        return "there is no room on the disk"
    *_, reason = causes(error)
    text = without_values(str(reason)).strip().partition("\n")[0]
    return f"{type(reason).__name__}: {text[:300]}"
