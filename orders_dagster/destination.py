"""The dlt pipeline: where it loads to, in which files, and for one user at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.destination import AnyDestination, Destination
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.destinations.sql_client import SqlClientBase
from dlt.pipeline.configuration import PipelineConfiguration
from filelock import FileLock, Timeout

from orders_dagster.cancel import HEARS_SIGNALS
from orders_dagster.errors import WarehouseBusy
from orders_dagster.settings import set_default
from orders_dagster.warehouse import (
    Warehouse,
    database_file,
    in_working_files,
    kind_of,
    open_warehouse,
)

PIPELINE = "orders"
DATASET = "ecommerce"
EMPTIES_STAGING = "load.truncate_staging_dataset"
"""dlt's option to empty the tables that it has merged from; it would keep every order twice."""


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
        SettingsError: the warehouse itself is in it.
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
        _remove(directory / PIPELINE)
        yield _pipeline(config, directory)
    finally:
        lock.release()


@contextmanager
def orders_warehouse(
    wait_seconds: float, log: Callable[[str], None] = lambda message: None
) -> Iterator[Warehouse]:
    """The pipeline's warehouse, open, and its working directory, for one user at a time.

    Raises:
        WarehouseBusy: either was used by others for longer than `wait_seconds`.
    """
    with (
        orders_pipeline(wait_seconds, log) as pipeline,
        open_warehouse(pipeline, wait_seconds, log) as warehouse,
    ):
        yield warehouse


def _remove(working: Path) -> None:
    """Everything in it comes back from the destination, and what a killed process or a full disk has
    left there may be half a file, over which dlt would stumble before it could drop it.

    Raises:
        SettingsError: there is a database in it, where dlt's `:pipeline:` has it.
    """
    if working.is_dir() and not working.is_symlink():
        for file in working.iterdir():
            if _is_database(file):
                raise in_working_files(file)
        shutil.rmtree(working)
    else:
        working.unlink(missing_ok=True)


def _is_database(file: Path) -> bool:
    """Whether a file begins as DuckDB's do."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(12)[8:] == b"DUCK"


def inert_pipeline() -> dlt.Pipeline:
    """The pipeline as Dagster needs it to define the asset: its destination and its dataset.

    dlt makes a working directory for every pipeline; that of this one is gone when this returns.
    """
    with TemporaryDirectory() as directory:
        return _pipeline(pipeline_config(), Path(directory))


def _pipeline(config: PipelineConfiguration, directory: Path) -> dlt.Pipeline:
    set_default(EMPTIES_STAGING, True)
    set_default(HEARS_SIGNALS, False)
    kind, name = config.destination_type or config.destination_name, config.destination_name
    destination = Destination.from_reference(kind or "duckdb", destination_name=name)
    assert destination is not None
    _ask_once(destination)
    return dlt.pipeline(
        PIPELINE,
        pipelines_dir=str(directory),
        destination=destination,
        dataset_name=config.dataset_name or DATASET,
    )


def _ask_once(destination: AnyDestination) -> None:
    """Keep what a destination can do. dlt asks ten times in a run, each time out of all files and the whole
    environment, which was a sixth of the work of a run in which nothing has changed."""
    ask = destination.capabilities
    told: dict[str | None, DestinationCapabilitiesContext] = {}

    def capabilities(
        config: Any = None, naming: NamingConvention | None = None
    ) -> DestinationCapabilitiesContext:
        if config is not None:
            return ask(config, naming)
        by = None if naming is None else naming.name()
        if by not in told:
            told[by] = ask(None, naming)
        return deepcopy(told[by])  # dlt changes what it is told

    destination.capabilities = capabilities  # type: ignore[method-assign]


def where(pipeline: dlt.Pipeline, client: SqlClientBase[Any]) -> str:
    """Where the tables are, for people. Without credentials."""
    file = database_file(pipeline, client)
    return f"{file.resolve()}" if file else f"{kind_of(pipeline)}, {pipeline.dataset_name}"


def is_missing(pipeline: dlt.Pipeline) -> bool:
    """Whether the warehouse is a file that is not there; whoever opens it would make an empty one."""
    file = database_file(pipeline, pipeline.sql_client())
    return file is not None and not file.is_file()


def file_format(capabilities: DestinationCapabilitiesContext) -> Any:
    """Parquet, where it can be loaded: its columns have types.

    From JSON lines DuckDB guesses the types by a sample of each file, and takes an id for a UUID or a
    date; INSERT statements, dlt's default there, round decimals and are five times slower.
    """
    return "parquet" if "parquet" in capabilities.supported_loader_file_formats else None
