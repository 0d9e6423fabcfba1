"""What is relied on in dlt, Dagster and DuckDB, one fact a test, so that an upgrade tells what changed.

None of this is a promise to the project's user. A test that fails here after an upgrade names the
place in the project to look at; where upstream has become better, that place can become simpler.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_plus

import dagster_dlt
import dlt
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from dagster import (
    AssetCheckSpec,
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    DagsterInstance,
    FreshnessPolicy,
    MetadataValue,
    multi_asset_check,
)
from dlt.common.configuration.container import Container
from dlt.common.data_types import coerce_value
from dlt.common.storages.load_package import (
    LoadPackageStateInjectableContext,
    PackageStorage,
    ParsedLoadJobFileName,
)
from dlt.extract.resource import DltResource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources.helpers.rest_client.auth import APIKeyAuth, OAuth2ClientCredentials
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import OffsetPaginator, SinglePagePaginator
from dlt.sources.rest_api import rest_api_source
from pydantic import SecretStr
from requests.adapters import BaseAdapter

from orders_dagster import elt
from orders_dagster.api.connect import connect
from orders_dagster.api.session import Traffic
from orders_dagster.load_files import declare
from orders_dagster.places import Table
from orders_dagster.settings import ApiKey, OrdersSettings
from orders_dagster.warehouse import _holder
from orders_dagster_tests.small_api import Api

NewPipeline = Callable[[], dlt.Pipeline]

JAN = datetime(2024, 1, 1, tzinfo=UTC)


class Answers(BaseAdapter):
    """A transport that answers each request with the next body, and keeps the requests."""

    def __init__(self, *bodies: Any) -> None:
        super().__init__()
        self.bodies = list(bodies)
        self.requests: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.requests.append(request)
        return answer(self.bodies.pop(0), request)

    def close(self) -> None:
        pass


def answer(body: Any, request: requests.PreparedRequest | None = None) -> requests.Response:
    response = requests.Response()
    response.status_code = 200
    response._content = json.dumps(body).encode()
    if request is not None:
        response.request, response.url = request, request.url or ""
    return response


def session_with(answers: Answers) -> requests.Session:
    session = requests.Session()
    session.mount("http://", answers)
    return session


def orders_config(session: requests.Session, **parts: Any) -> dict[str, Any]:
    """The least that `rest_api_source` takes."""
    client: dict[str, Any] = {"base_url": "http://shop.test", "session": session}
    endpoint = {"path": "orders", "data_selector": "orders", "paginator": SinglePagePaginator()}
    return {
        "client": client | parts.pop("client", {}),
        "resources": [{"name": "orders", "endpoint": endpoint | parts}],
    }


@pytest.fixture
def new_pipeline(tmp_path: Path) -> NewPipeline:
    """The same pipeline each time, as a new process would make it."""

    def new() -> dlt.Pipeline:
        return dlt.pipeline(
            "upstream",
            destination=dlt.destinations.duckdb(str(tmp_path / "upstream.duckdb")),
            dataset_name="data",
            pipelines_dir=str(tmp_path / "pipelines"),
        )

    return new


def query(pipeline: dlt.Pipeline, sql: str) -> list[tuple[Any, ...]]:
    with pipeline.sql_client() as client, client.execute_query(sql) as cursor:
        return [tuple(row) for row in cursor.fetchall()]


def resource(*pages: Any, **hints: Any) -> DltResource:
    """A resource `orders` with these pages."""

    def orders() -> Iterator[Any]:
        yield from pages

    return dlt.resource(orders, name="orders", **hints)


class Reading:
    """Loads pages with dlt's incremental, one a run, and sees where it starts and what is left."""

    def __init__(self, pipeline: dlt.Pipeline, **incremental: Any) -> None:
        self.pipeline = pipeline
        self.incremental = dlt.sources.incremental("at", **incremental)

    def load(self, *rows: dict[str, Any]) -> Any:
        """Where this run started."""
        starts = []

        def orders(at: Any = self.incremental) -> Iterator[Any]:
            starts.append(at.start_value)
            yield list(rows)

        self.pipeline.run(dlt.resource(orders, name="orders", primary_key="id"))
        return starts[0]

    def statuses(self) -> list[str]:
        """What has got into the table, in the order of its loads."""
        found = query(self.pipeline, "SELECT status FROM orders ORDER BY _dlt_load_id")
        return [status for (status,) in found]


def test_dlt_applies_a_lag_for_max_only(new_pipeline: NewPipeline) -> None:
    """source.py, the watermark: with a function that caps it, dlt's lag would silently be none."""
    with_max = Reading(new_pipeline(), initial_value=0, lag=10)
    with_max.load({"id": 1, "at": 100})
    assert with_max.load() == 90

    capped = Reading(
        new_pipeline().drop(), initial_value=0, lag=10, last_value_func=lambda at: min(max(at), 200)
    )
    capped.load({"id": 1, "at": 150})
    assert capped.load() == 150


def test_dlt_takes_the_second_change_within_one_timestamp_for_the_first(
    new_pipeline: NewPipeline,
) -> None:
    """source.py, _page_step(): T6. dlt's incremental knows it by its key, unless the key is empty."""
    paid, sent = {"id": 1, "at": 100, "status": "paid"}, {"id": 1, "at": 100, "status": "sent"}

    by_key = Reading(new_pipeline(), initial_value=0)
    by_key.load(paid)
    assert by_key.load(sent) == 100
    assert by_key.statuses() == ["paid"]

    keyless = Reading(new_pipeline(), initial_value=0, primary_key=[])
    assert keyless.load(sent) == 100
    assert keyless.statuses() == ["paid", "sent"]


def test_dlt_follows_one_order_into_the_future(new_pipeline: NewPipeline) -> None:
    """source.py, _page_step(): no change before 2099 would ever be read, so we cap the watermark."""
    reading = Reading(new_pipeline(), initial_value=JAN)
    future = JAN.replace(year=2099)

    reading.load({"id": 1, "at": future, "status": "from the future"})

    assert reading.load({"id": 2, "at": JAN.replace(month=2), "status": "of today"}) == future
    assert reading.statuses() == ["from the future"]


def test_dlt_fails_on_a_row_without_a_cursor(new_pipeline: NewPipeline) -> None:
    """rows.py: T8. One order without a date would end the run, so it is rejected before."""
    with pytest.raises(PipelineStepFailed, match="`at` was not found"):
        Reading(new_pipeline(), initial_value=0).load({"id": 1, "at": 100}, {"id": 2})


class Paged(SinglePagePaginator):
    """Reads as many pages as its window says, and tells which copies there have been."""

    copies: ClassVar[list[Paged]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Paged:
        Paged.copies.append(Paged())
        return Paged.copies[-1]

    def init_request(self, request: requests.Request) -> None:
        self.left = int(request.params.pop("pages"))

    def update_state(
        self,
        response: requests.Response,  # noqa: ARG002, dlt passes them
        data: list[Any] | None = None,  # noqa: ARG002
    ) -> None:
        self.left -= 1
        self._has_next_page = self.left > 0


def test_the_windows_of_a_parent_resource_are_read_in_parallel(new_pipeline: NewPipeline) -> None:
    """source.py: a window is one list for the step, an empty one too; a parent that yields None is
    asked again; and each window has a copy of the paginator."""
    chunks: list[int] = []
    threads: set[str] = set()

    class Shared(Answers):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            threads.add(threading.current_thread().name)
            orders = [] if "empty" in str(request.url) else [{"id": 1}, {"id": 2}]
            return answer({"orders": orders}, request)

    @dlt.resource(name="windows", selected=False)
    def windows() -> Iterator[Any]:
        yield [{"number": "full", "pages": 3}]
        yield [{"number": "empty", "pages": 1}]
        while len(chunks) < 2:
            yield None

    def step(chunk: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG001, dlt passes it
        chunks.append(len(chunk))
        yield from ()

    Paged.copies.clear()
    params = {"window": "{resources.windows.number}", "pages": "{resources.windows.pages}"}
    config = orders_config(session_with(Shared()), paginator=Paged(), params=params)
    config["resources"][0]["parallelized"] = True
    config["resources"].insert(0, windows())
    source = rest_api_source(config, name="shop")  # type: ignore[arg-type]
    source.resources["orders"].add_step(step, insert_at=1)
    new_pipeline().extract(source, workers=2)

    assert sorted(chunks) == [0, 6]
    assert all("extract" in name for name in threads)
    assert len(Paged.copies) >= 2


def test_a_file_in_the_package_is_loaded_into_its_table(new_pipeline: NewPipeline) -> None:
    """load_files.py: Parquet files beside those of dlt are normalized as they are, and a table whose
    schema has a parent is merged as the list of its parent, without any nested object."""

    def write(table: str, **columns: Any) -> None:
        package = Container()[LoadPackageStateInjectableContext]
        directory = Path(
            package.storage.storage.storage_path,
            package.storage.get_package_path(package.load_id),
            PackageStorage.NEW_JOBS_FOLDER,
        )
        name = ParsedLoadJobFileName(table, ParsedLoadJobFileName.new_file_id(), 0, "parquet")
        pq.write_table(pa.table(columns), directory / name.file_name())

    def load(row_id: str, lines: list[int]) -> None:
        def step(page: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG001
            schema = dlt.current.source_schema()
            declare(schema, Table("orders", None, {"id": "bigint"}))
            declare(schema, Table("orders__items", "orders", {"line": "bigint"}))
            write("orders", id=[1], _dlt_load_id=["x"], _dlt_id=[row_id])
            n = len(lines)
            write(
                "orders__items",
                line=pa.array(lines, pa.int64()),
                _dlt_root_id=[row_id] * n,
                _dlt_parent_id=[row_id] * n,
                _dlt_list_idx=pa.array(range(n), pa.int64()),
                _dlt_id=[f"{row_id}.{line}" for line in range(n)],
            )
            yield from ()

        source = rest_api_source(
            orders_config(session_with(Answers({"orders": [{"id": 1}]}))),  # type: ignore[arg-type]
            name="shop",
        )
        orders = source.resources["orders"]
        orders.apply_hints(primary_key="id", write_disposition="merge")
        source.schema.update_table(orders.compute_table_schema())
        orders.add_step(step, insert_at=1)
        new_pipeline().run(source, loader_file_format="parquet")

    load("a", [1, 2, 3])
    load("b", [4])

    assert query(new_pipeline(), "SELECT id, _dlt_id FROM orders") == [(1, "b")]
    assert query(new_pipeline(), "SELECT line, _dlt_root_id FROM orders__items") == [(4, "b")]


def test_rest_api_source_copies_its_configuration_deeply() -> None:
    """api/session.py and api/auth.py define __deepcopy__: a copied session counts for itself, and an
    auth with a lock cannot be copied at all."""
    copied = []

    class Session(requests.Session):
        def __deepcopy__(self, memo: dict[int, Any]) -> Session:
            copied.append(self)
            return self

    session = Session()
    auth = OAuth2ClientCredentials(access_token_url="x", client_id="i", client_secret="s")
    auth.lock = threading.Lock()  # type: ignore[attr-defined]

    rest_api_source(orders_config(session))  # type: ignore[arg-type]
    assert set(copied) == {session}
    with pytest.raises(TypeError, match="lock"):
        rest_api_source(orders_config(session, client={"auth": auth}))  # type: ignore[arg-type]


def test_rest_api_source_masks_secrets_in_its_copy_of_the_auth() -> None:
    """api/auth.py, __deepcopy__: the copy has to be another object, or the secret would be lost."""
    auths = []

    class Auth(OAuth2ClientCredentials):
        def __deepcopy__(self, memo: dict[int, Any]) -> Auth:
            auths.append(copy.copy(self))
            return auths[0]

    auth = Auth(access_token_url="x", client_id="i", client_secret="a-long-secret-value")
    auth.resolve()

    rest_api_source(orders_config(requests.Session(), client={"auth": auth}))  # type: ignore[arg-type]

    assert auths[0].client_secret == "a*****e"
    assert auth.client_secret == "a-long-secret-value"


def test_dlt_looks_an_unresolved_auth_up_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """source.py, connect(): settings are ours to read, so each auth is marked as resolved."""
    monkeypatch.setenv("CREDENTIALS__NAME", "From-The-Environment")
    settings = OrdersSettings(auth=ApiKey(type="api_key", api_key=SecretStr("k"), name="X-Key"))
    theirs = APIKeyAuth(name="X-Key", api_key="k", location="header")
    ours = connect(settings, Traffic())[1]
    assert ours is not None

    signed = []
    for auth in (theirs, ours):
        rest_api_source(orders_config(requests.Session(), client={"auth": auth}))  # type: ignore[arg-type]
        signed.append(auth(requests.Request("GET", "http://shop.test/orders").prepare()).headers)

    assert signed == [{"From-The-Environment": "k"}, {"X-Key": "k"}]


def test_rest_api_source_takes_braces_in_a_parameter_for_a_placeholder() -> None:
    """source.py, first_request() doubles them: a filter in JSON has braces of its own."""
    where = '{"at": {"gte": "2024"}}'
    answers = Answers({"orders": []})
    doubled = where.replace("{", "{{").replace("}", "}}")

    config = orders_config(session_with(answers), params={"where": doubled})
    list(rest_api_source(config))  # type: ignore[arg-type]

    assert unquote_plus(answers.requests[0].url or "").endswith('?where={"at": {"gte": "2024"}}')
    with pytest.raises(ValueError, match="escape them by doubling them"):
        rest_api_source(
            orders_config(session_with(answers), params={"where": where})  # type: ignore[arg-type]
        )


def test_python_takes_what_comes_before_an_answer_for_it() -> None:
    """So do requests and dlt. If this fails, api/answers.py can go."""
    with Api(lambda query: {"orders": []}).running() as api, requests.Session() as session:
        api.interim = 103, 1

        assert session.get(api.url, timeout=10).status_code == 103


def test_dlts_offset_paginator_steps_by_the_limit() -> None:
    """api/paging.py: T1. A server that gives 100 where 200 are asked for loses every second page."""
    paginator = OffsetPaginator(limit=200, total_path="total")
    request = requests.Request("GET", "http://shop.test/orders")
    paginator.init_request(request)
    rows = [{"id": n} for n in range(100)]

    paginator.update_state(answer({"orders": rows, "total": 1000}), rows)
    paginator.update_request(request)

    assert request.params["offset"] == 200


def test_dlts_client_credentials_take_a_missing_token_for_the_text_none() -> None:
    """api/auth.py: T13. The API answers 401 then, and the error names the wrong setting."""
    auth = OAuth2ClientCredentials(
        access_token_url="http://shop.test/token",
        client_id="i",
        client_secret="s",
        session=session_with(Answers({"error": "not today"})),
    )

    request = auth(requests.Request("GET", "http://shop.test/orders").prepare())

    assert request.headers["Authorization"] == "Bearer None"


def test_dlt_takes_a_body_without_the_selector_for_an_empty_page() -> None:
    """api/page.py, _check_selector(): T2. The run would be green, with nothing loaded."""
    client = RESTClient("http://shop.test")

    assert client.extract_response(answer({"error": "try later"}), "orders") == []
    assert client.extract_response(answer({"orders": [{"id": 1}]}), "orders") == [{"id": 1}]


def test_a_step_gets_whole_pages_where_it_is_inserted(new_pipeline: NewPipeline) -> None:
    """source.py, _page_step(): one call a page, rows of another table, and dlt's schema and state."""
    pages: list[Any] = []
    hints = dlt.mark.make_hints(table_name="beside", primary_key="id", write_disposition="merge")

    def step(page: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG001, dlt passes it
        pages.append(page)
        dlt.current.resource_state("orders")["pages"] = len(pages)
        assert dlt.current.source_schema().name == "shop"
        yield dlt.mark.with_hints({"id": len(pages)}, hints, create_table_variant=True)
        yield page

    answers = Answers({"orders": [{"id": 1}, {"id": 2}]}, {"orders": [{"id": 3}]})
    config = orders_config(session_with(answers), paginator=OffsetPaginator(2, total_path=None))
    answers.bodies.append({"orders": []})
    source = rest_api_source(config, name="shop")  # type: ignore[arg-type]
    source.resources["orders"].add_step(step, insert_at=1)
    pipeline = new_pipeline()
    pipeline.run(source)

    assert pages[:2] == [[{"id": 1}, {"id": 2}], [{"id": 3}]]
    assert query(pipeline, "SELECT id FROM orders ORDER BY id") == [(1,), (2,), (3,)]
    assert query(pipeline, "SELECT id FROM beside ORDER BY id")[:2] == [(1,), (2,)]
    state: Any = pipeline.state
    assert state["sources"]["shop"]["resources"]["orders"]["pages"] == len(pages)


def test_state_is_restored_from_the_destination(new_pipeline: NewPipeline) -> None:
    """pipeline.py: the working directory is disposable, and times come back as times with an offset."""
    at = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    def remember(row: dict[str, Any]) -> dict[str, Any]:
        dlt.current.resource_state("orders")["watermark"] = at
        return row

    new_pipeline().run(resource([{"id": 1}]).add_map(remember))
    new_pipeline().drop()
    restored = new_pipeline()
    assert "sources" not in restored.state
    restored.sync_destination()

    state: Any = restored.state
    (source,) = state["sources"].values()
    watermark = source["resources"]["orders"]["watermark"]
    assert isinstance(watermark, datetime)
    assert watermark == at
    assert watermark.tzinfo is not None


def test_state_that_was_not_loaded_is_not_restored(new_pipeline: NewPipeline) -> None:
    """pipeline.py: cursor and data move together, also for a run that is killed before its load."""
    counted = iter(range(10))

    def remember(row: dict[str, Any]) -> dict[str, Any]:
        dlt.current.resource_state("orders")["run"] = next(counted)
        return row

    new_pipeline().run(resource([{"id": 1}]).add_map(remember))
    killed = new_pipeline()
    killed.extract(resource([{"id": 2}]).add_map(remember))
    killed.normalize()

    fresh = new_pipeline().drop()
    fresh.sync_destination()

    state: Any = fresh.state
    (source,) = state["sources"].values()
    assert source["resources"]["orders"]["run"] == 0
    assert query(fresh, "SELECT id FROM orders") == [(1,)]


def test_dlt_splits_a_number_that_is_whole_here_and_not_there(new_pipeline: NewPipeline) -> None:
    """columns.py: T18. Every sum over `total` would be wrong, so its column is declared decimal."""
    pipeline = new_pipeline()
    rows = [{"id": 1, "total": 10}, {"id": 2, "total": Decimal("10.5")}]

    pipeline.run(resource(rows))

    found = query(pipeline, "SELECT total, total__v_decimal FROM orders ORDER BY id")
    assert found == [(10, None), (None, Decimal("10.5"))]


def test_dlt_makes_a_number_of_a_text_in_a_column_of_numbers() -> None:
    """rows.py: "007" would be 7, so it goes to the column `__v_text` beside it."""
    assert coerce_value("bigint", "text", "007") == 7
    assert coerce_value("decimal", "text", "007") == 7
    assert coerce_value("double", "text", "007") == 7
    with pytest.raises(ValueError, match="A-7"):
        coerce_value("bigint", "text", "A-7")


def test_of_several_versions_in_one_load_the_newest_is_merged(new_pipeline: NewPipeline) -> None:
    """source.py, `dedup_sort`: T5. Without it, the version that came first wins."""
    versions = [
        {"id": 1, "at": n, "status": status} for n, status in [(1, "a"), (3, "c"), (2, "b")]
    ]
    merge: dict[str, Any] = {"primary_key": "id", "write_disposition": "merge"}
    pipeline = new_pipeline()

    pipeline.run(resource(versions, columns={"at": {"dedup_sort": "desc"}}, **merge))

    assert query(pipeline, "SELECT status FROM orders") == [("c",)]


def test_json_lines_keep_decimals_exactly_and_are_not_dlts_default(
    new_pipeline: NewPipeline,
) -> None:
    """pipeline.py, _file_format(): dlt's default for DuckDB, INSERT statements, is five times slower."""
    pipeline = new_pipeline()
    formats = pipeline.destination.capabilities()
    exact = Decimal("12345678901234567890.123456789")

    pipeline.run(resource([{"id": 1, "total": exact}]), loader_file_format="jsonl")

    assert query(pipeline, "SELECT total FROM orders") == [(exact,)]
    assert formats.preferred_loader_file_format == "insert_values"
    assert "jsonl" in (formats.supported_loader_file_formats or [])


HOLD = """
import sys, duckdb

with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_duckdb_says_which_process_holds_the_file(tmp_path: Path) -> None:
    """warehouse.py, _holder(): T10. The message that a user gets names the program to close."""
    path = str(tmp_path / "held.duckdb")
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(duckdb.IOException) as error:
            duckdb.connect(path, read_only=True)
        holder.communicate(timeout=30)

    assert (_holder(error.value) or "").endswith(f"(process {holder.pid})")
    assert "python" in (_holder(error.value) or "")
    with duckdb.connect(path):
        pass  # the lock goes away with the process


def test_what_a_checkpoint_of_duckdb_has_no_memory_for_is_still_in_its_log(tmp_path: Path) -> None:
    """Warehouse.checkpoint(): too small a limit costs the open database, and no row."""
    file = tmp_path / "orders.duckdb"
    log = tmp_path / "orders.duckdb.wal"
    columns = ", ".join(f"uuid()::TEXT AS note_{number}" for number in range(50))
    orders = f"SELECT i AS order_id, {columns} FROM range(1_000) numbers(i)"
    with duckdb.connect(file) as connection:
        connection.execute(f"CREATE TABLE orders AS {orders}")
    with duckdb.connect(file) as connection:
        connection.execute("DELETE FROM orders WHERE order_id % 2 = 0")
        connection.execute(f"INSERT INTO orders {orders}")
        connection.execute("SET memory_limit = '4MB'")
        with pytest.raises(duckdb.FatalException, match="Failed to create checkpoint"):
            connection.execute("CHECKPOINT")
        with pytest.raises(duckdb.FatalException, match="must be restarted"):
            connection.execute("FROM orders")
    assert log.exists()

    with duckdb.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchall() == [(1_500,)]
    assert not log.exists()


def test_the_embedded_elt_package_is_the_dlt_integration_under_its_old_name() -> None:
    """elt.py: what is imported there, and the warning that is silenced there and nowhere else."""
    message = "dagster-embedded-elt.*Use `dagster-dlt` instead"
    with pytest.warns(DeprecationWarning, match=message):
        embedded = importlib.reload(sys.modules["dagster_embedded_elt.dlt"])

    for name in ("dlt_assets", "DagsterDltTranslator"):
        assert getattr(elt, name) is getattr(embedded, name) is getattr(dagster_dlt, name)


def test_assets_and_checks_take_a_pool() -> None:
    """assets.py and checks.py: the pool of one is what keeps two runs off the same file."""

    @multi_asset_check(specs=[AssetCheckSpec("one", asset=AssetKey("orders"))], pool="warehouse")
    def checks() -> Any: ...

    assert checks.op.pool == "warehouse"
    assert "pool" in inspect.signature(elt.dlt_assets).parameters


def test_a_freshness_policy_is_kept_by_the_asset() -> None:
    """assets.py: the policy of Dagster that replaces the freshness checks, set on the spec."""
    policy = FreshnessPolicy.time_window(fail_window=timedelta(hours=24))

    assert AssetSpec("orders", freshness_policy=policy).freshness_policy == policy


def test_the_last_materialization_is_found_with_its_metadata() -> None:
    """automation.py, last_watermark(): the sensor knows the watermark without opening the warehouse."""
    with DagsterInstance.ephemeral() as instance:
        key = AssetKey("orders")
        assert instance.get_latest_materialization_event(key) is None
        for month in (1, 2):
            at = MetadataValue.timestamp(JAN.replace(month=month))
            instance.report_runless_asset_event(
                AssetMaterialization(key, metadata={"watermark_after": at})
            )
        event = instance.get_latest_materialization_event(key)

    assert event is not None
    assert event.asset_materialization is not None
    found = event.asset_materialization.metadata["watermark_after"].value
    assert datetime.fromtimestamp(found, UTC) == JAN.replace(month=2)  # type: ignore[arg-type]
