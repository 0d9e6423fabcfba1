"""Fixtures: a shop over real HTTP, and a place of its own for every test's state.

No test sees the configuration of the machine it runs on: dlt looks for `.dlt` in an empty folder,
and variables of the project are removed first.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typing_extensions

if TYPE_CHECKING:
    from dagster import DagsterInstance

# Their assertions tell what they compare, as those of the tests do.
pytest.register_assert_rewrite(
    *(f"orders_dagster_tests.{name}" for name in ("content", "scenarios", "world"))
)

# Before anything imports dlt, which reads its configuration files when it is first used.
os.environ["DLT_PROJECT_DIR"] = tempfile.mkdtemp(prefix="orders-no-config-")
atexit.register(shutil.rmtree, os.environ["DLT_PROJECT_DIR"], ignore_errors=True)
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "WARNING"

RETAILER = Path(__file__).resolve().parents[2] / "shared" / "data" / "online_retail_orders.parquet"
OURS = ("SOURCES__", "DESTINATION", "PIPELINES__", "DLT_DATA_DIR", "DAGSTER_HOME", "EXTRACT__")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with a warehouse file and a working directory of its own, and no settings."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    project = Project(tmp_path, monkeypatch)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(project.database))
    project.set(retry__backoff_factor=0.01)  # the waits, not the number of retries
    return project


@pytest.fixture(scope="session")
def empty_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a new Dagster instance: making its databases takes longer than most tests."""
    directory = tmp_path_factory.mktemp("dagster")
    with dagster_instance(directory) as instance:
        instance.get_runs()
        instance.all_asset_keys()
        instance.all_instigator_state()
    return directory


@pytest.fixture
def instance(tmp_path: Path, empty_records: Path) -> Iterator[DagsterInstance]:
    """A Dagster instance on disk."""
    with dagster_instance(shutil.copytree(empty_records, tmp_path / "dagster")) as instance:
        yield instance


def dagster_instance(directory: Path) -> DagsterInstance:
    from dagster import DagsterInstance

    telemetry = {"telemetry": {"enabled": False}}
    return DagsterInstance.local_temp(str(directory), overrides=telemetry)


@pytest.fixture(scope="session")
def closing() -> Iterator[Closing]:
    """Closes sandboxes behind the tests' backs, all of them before the end."""
    closing = Closing()
    yield closing
    closing.finish()


@pytest.fixture
def shop(project: Project, closing: Closing) -> Iterator[Callable[..., Shop]]:
    """Starts a sandbox API with the given options and points the project at it."""
    from orders_dagster.sandbox import running

    with closing.later() as stack:

        def start(**options: Any) -> Shop:
            shop = Shop(stack.enter_context(running(**options)).url)
            project.point_at(shop.url)
            return shop

        yield start


@pytest.fixture
def serve(project: Project) -> Iterator[Callable[[Answering], Api]]:
    """Starts an API that answers as a function says, without login, and points the project at it."""
    with ExitStack() as stack:

        def start(answer: Answering) -> Api:
            api = stack.enter_context(Api(answer).running())
            project.point_at(api.url, login=False)
            return api

        yield start


from orders_dagster_tests.small_api import Answering, Api  # noqa: E402
from orders_dagster_tests.world import Closing, Project, Shop  # noqa: E402


def remember_what_depends_on_a_type_alone() -> None:
    """A tenth of the tests' time: dlt asks it of each field in each place where a setting may be."""
    from dlt.common import typing as types
    from dlt.common import validation
    from dlt.common.configuration import is_secret_hint
    from dlt.common.configuration.specs import base_configuration as specs

    for function in (
        is_secret_hint,
        specs.extract_inner_hint,
        specs.is_hint_not_resolvable,
        specs.is_valid_hint,
        types.extract_type_if_modifier,
        types.is_literal_type,
        types.is_optional_type,
        types.is_subclass,
        types.is_union_type,
    ):
        remember(function)

    @functools.cache
    def fields_of(spec: type) -> dict[str, Any]:
        return typing_extensions.get_type_hints(spec, vars(sys.modules[spec.__module__]))

    setattr(validation, "get_type_hints", lambda spec, **_: fields_of(spec))  # noqa: B010


def remember(function: Callable[..., Any]) -> None:
    """Have all modules that know a function keep its answers."""
    known = functools.cache(function)

    @functools.wraps(function)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        try:
            return known(*args, **kwargs)
        except TypeError:  # what cannot be hashed
            return function(*args, **kwargs)

    for module in list(sys.modules.values()):
        if vars(module).get(function.__name__) is function:
            setattr(module, function.__name__, remembering)


remember_what_depends_on_a_type_alone()


LONG = ("test_runbook", "test_page", "test_commands", "test_bench", "test_readme")
"""What starts processes and browsers. Begun last, one of them would go on while the other workers wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
