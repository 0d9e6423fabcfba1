"""The destination: opening it when others may hold it, and asking it about the tables.

All SQL goes through dlt's own client, so that it runs on any SQL destination; DuckDB's one-writer
lock is the reason for the waiting.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
from dlt.common.schema.typing import TColumnType
from dlt.destinations.sql_client import SqlClientBase
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_exponential

from orders_dagster.errors import SettingsError, WarehouseBusy, WarehouseRefused, causes

DUCKDB_HEADERS = 3 * 4096  # bytes: every file of DuckDB starts with three headers

# DuckDB holds some blocks of each column while it writes its log into its file.
CHECKPOINT_LIMIT = """
    SELECT least(parse_formatted_bytes(current_setting('memory_limit')), (64 + count(*)) << 20)
    FROM duckdb_columns() WHERE NOT internal
"""

_LOCKED = re.compile(r"could not set lock|conflicting lock|used by another process", re.IGNORECASE)
_HOLDER = re.compile(r"lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", re.IGNORECASE)


@dataclass(frozen=True)
class Warehouse:
    """An open connection to the dataset of a pipeline.

    Attributes:
        pipeline: the pipeline whose destination this is.
        client: dlt's SQL client, connected.
    """

    pipeline: dlt.Pipeline
    client: SqlClientBase[Any]

    def name(self, table: str) -> str:
        """A table's name as SQL of this destination needs it."""
        return self.client.make_qualified_table_name(table)

    def column(self, name: str) -> str:
        return self.client.escape_column_name(name)

    def hashed(self, column: str) -> str | None:
        """A whole number of 64 bits for a value, None where there is no such function."""
        is_duckdb = self.client.capabilities.sqlglot_dialect == "duckdb"
        return f"hash({column})" if is_duckdb else None

    def moment(self, time: datetime) -> datetime:
        """A time as an argument of a query: without its zone where the destination keeps none."""
        capabilities = self.client.capabilities
        has_zones = capabilities.supports_tz_aware_datetime
        if has_zones and capabilities.sqlglot_dialect != "sqlite":
            return time
        return time.astimezone(UTC).replace(tzinfo=None)

    def query(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """All rows of a query; `%s` stands for an argument."""
        with self.client.execute_query(sql, *args) as cursor:
            return list(cursor.fetchall())

    def query_if_there(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """All rows of a query, none if a table of it is not there."""
        try:
            return self.query(sql, *args)
        except Exception as error:
            if is_undefined(error):
                return []
            raise

    def execute(self, sql: str, *args: Any) -> None:
        self.client.execute_sql(sql, *args)

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Ask the dataset that dlt merges from, for as long as this is open."""
        with self.client.with_staging_dataset():
            yield

    def checkpoint(self) -> bool:
        """Write DuckDB's log into its file, in memory that does not grow with the tables.

        Left to itself, DuckDB does it when the file is closed, and takes as much of the machine's memory
        as the tables have blocks: the peak of a whole synchronisation. Nothing to do elsewhere.

        Returns:
            False if the memory was too little, or others write. DuckDB then refuses the file until it is
            closed; what was loaded is in its log, which the next to open the file writes.
        """
        if database_file(self.pipeline, self.client) is None:
            return True
        try:
            before = self.scalar("SELECT current_setting('memory_limit')")
            self.execute(f"SET memory_limit = '{self.scalar(CHECKPOINT_LIMIT)}B'")
            self.execute("CHECKPOINT")
            self.execute(f"SET memory_limit = '{before}'")
        except Exception:
            return False
        return True

    def scalar(self, sql: str, *args: Any) -> Any:
        rows = self.query(sql, *args)
        return rows[0][0] if rows else None

    def head(self, sql: str, count: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The column names of a query, and its first rows. LIMIT is not SQL everywhere."""
        with self.client.execute_query(sql) as cursor:
            names = list(cursor.columns_schema)
            return names, [tuple(row) for row in cursor.fetchmany(count)]

    def columns(self, table: str) -> Sequence[str]:
        """The columns of a table as it is now, none if there is no such table.

        Asked of the destination, not of dlt's schema: a table may have been dropped by hand.
        """
        try:
            return self.head(f"SELECT * FROM {self.name(table)} WHERE 1 = 0", 1)[0]
        except Exception as error:
            if is_undefined(error):
                return []
            raise

    def column_types(self, tables: Sequence[str]) -> dict[tuple[str, str], tuple[str, TColumnType]]:
        """The columns of some tables as they are now, all names in lower case, with the destination's and
        dlt's type of each; for destinations with an information schema."""
        rows = self.query(
            "SELECT lower(table_name), lower(column_name), data_type, numeric_precision, numeric_scale "
            "FROM information_schema.columns WHERE table_catalog = current_database() "
            f"AND lower(table_schema) = %s AND lower(table_name) IN ({', '.join(['%s'] * len(tables))})",
            self.client.dataset_name.lower(),
            *(table.lower() for table in tables),
        )
        type_of = self.client.capabilities.get_type_mapper().from_destination_type
        return {
            (str(table), str(name)): (str(kind), type_of(kind, *digits))
            for table, name, kind, *digits in rows
        }

    def types(self, tables: Sequence[str]) -> dict[str, dict[str, str]]:
        """The columns of those tables that exist, with dlt's type of each. Asked of the destination."""
        with self.pipeline.destination_client() as client:
            found = dict(client.get_storage_tables(tables))  # type: ignore[attr-defined]
        return {
            table: {name: str(column.get("data_type")) for name, column in columns.items()}
            for table, columns in found.items()
            if columns
        }

    def stored_schema(self, name: str) -> dlt.Schema | None:
        """dlt's schema of the tables as they are, also if no load into them was ever completed."""
        with self.pipeline.destination_client() as client:
            try:
                stored = client.get_stored_schema(name)  # type: ignore[attr-defined]
            except Exception as error:
                if is_undefined(error):
                    return None
                raise
        return None if stored is None else dlt.Schema.from_dict(json.loads(stored.schema))


@contextmanager
def open_warehouse(
    pipeline: dlt.Pipeline,
    wait_seconds: float,
    on_wait: Callable[[str], None] = lambda message: None,
    client: SqlClientBase[Any] | None = None,
) -> Iterator[Warehouse]:
    """Connect, waiting with backoff while another process holds the file.

    While it is open, DuckDB keeps its lock for this process, and dlt's own connections share it.

    Args:
        on_wait: told who holds the file.
        client: of an earlier connection, now closed: dlt takes 8 ms to configure another one.

    Raises:
        WarehouseBusy: still held after `wait_seconds`; names the holder.
        SettingsError: the file cannot be there, or be called so.
    """
    started = time.monotonic()
    client = client or pipeline.sql_client()
    if file := database_file(pipeline, client):
        _check_place(file, pipeline, client)
        _remove_stump(file)

    def connect() -> None:
        try:
            client.open_connection()
        except Exception as error:
            holder = _holder(error)
            if holder is None:
                *_, reason = causes(error)
                raise WarehouseRefused(step="open the warehouse for", reason=reason) from None
            raise _Held(holder) from None

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Held) and state.attempt_number in (1, 10):
            on_wait(f"The warehouse is held by {error.holder}; waiting up to {wait_seconds:.0f} s.")

    try:
        Retrying(
            retry=retry_if_exception_type(_Held),
            stop=stop_after_delay(wait_seconds),
            wait=wait_exponential(multiplier=0.1, max=5),
            before_sleep=report,
            reraise=True,
        )(connect)
    except _Held as held:
        raise WarehouseBusy(holder=held.holder, waited_seconds=time.monotonic() - started) from None
    try:
        yield Warehouse(pipeline, client)
    finally:
        client.close_connection()


def _check_place(file: Path, pipeline: dlt.Pipeline, client: SqlClientBase[Any]) -> None:
    """Whether a file of DuckDB can be where it is to be.

    Raises:
        SettingsError: it would be removed with dlt's working files; or DuckDB would call it as it calls the
            dataset, and take the one for the other.
    """
    if file.resolve().is_relative_to(Path(pipeline.working_dir).resolve()):
        raise in_working_files(file)
    name = next((part for part in file.name.split(".") if part), "")
    datasets = (client.dataset_name, client.staging_dataset_name, "information_schema")
    if name.casefold() in {dataset.casefold() for dataset in datasets}:
        raise SettingsError(
            [
                f"DuckDB calls a database by the name of its file, and {file.name} is called as a schema "
                f"in it, {name}: it cannot tell them apart. Give the file another name "
                "(destination.duckdb.credentials), or the dataset "
                f"(pipelines.{pipeline.pipeline_name}.dataset_name)."
            ]
        )


def in_working_files(file: Path) -> SettingsError:
    """What to do about a warehouse that would be removed with dlt's working files."""
    return SettingsError(
        [
            f"The warehouse {file.name} is to be among dlt's working files, which are removed at the start "
            f"of each run: {file.parent}. Set destination.duckdb.credentials to a file elsewhere."
        ]
    )


def _remove_stump(file: Path) -> None:
    """A file of DuckDB that is shorter than its headers: the process that made it was killed, or the
    disk was full. It holds nothing, and nobody can open it. DuckDB holds its lock while it makes one."""
    if file.is_file() and file.stat().st_size < DUCKDB_HEADERS and _is_of_duckdb(file.read_bytes()):
        with file.open("rb+") as stump, suppress(OSError):
            fcntl.lockf(stump, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _is_of_duckdb(start: bytes) -> bool:
    """Whether a file begins as DuckDB's do; what is somebody else's is not ours to remove."""
    return not start.strip(b"\0") or start[8:12] == b"DUCK"


def kind_of(pipeline: dlt.Pipeline) -> str:
    """dlt's type of the destination, such as `duckdb`, whatever `destination_name` calls it."""
    return str(pipeline.destination.destination_type).rpartition(".")[2]


def database_file(pipeline: dlt.Pipeline, client: SqlClientBase[Any]) -> Path | None:
    """The file that holds the tables, also if it is not there yet; None if they are in no file."""
    database = getattr(client.credentials, "database", None)
    return Path(str(database)) if kind_of(pipeline) == "duckdb" and database else None


class _Held(Exception):
    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def _holder(error: Exception) -> str | None:
    """Who holds the file, if that is what the error is about."""
    for cause in causes(error):
        text = str(cause)
        if _LOCKED.search(text):
            found = _HOLDER.search(text)
            return f"{found['program']} (process {found['pid']})" if found else "another process"
    return None


def is_undefined(error: Exception) -> bool:
    """Whether an error says that a table, or the dataset, is not there."""
    from dlt.destinations.exceptions import DatabaseUndefinedRelation

    return any(isinstance(cause, DatabaseUndefinedRelation) for cause in causes(error))
