"""The disk fills up while a run writes: it fails, says so, and once there is space the next run repairs
everything by itself.

On a real full file system where this machine lets a process have one of its own; and everywhere with a
limit to the size of files, which is all that an unprivileged process can do to itself (victim.py).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orders_dagster_tests.content import assert_the_tables_equal_the_shop
from orders_dagster_tests.test_kills import AT_ANY_TIME, PIPELINE
from orders_dagster_tests.victim import At, End, Zygote, can_mount, zygote
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]

MERGED = "merged, but not in _dlt_loads"
FULL = {
    "before extract": AT_ANY_TIME["before extract"],
    "before normalize": At(call=f"{PIPELINE}.normalize"),
    "before load": AT_ANY_TIME["before load"],
    MERGED: AT_ANY_TIME[MERGED],
}
FILLER = "filler"
CLIENT = "dlt.destinations.impl.duckdb.sql_client:DuckDbSqlClient"


@pytest.fixture(scope="module")
def victims() -> Iterator[Zygote]:
    with zygote() as started:
        yield started


@pytest.fixture(autouse=True)
def _few_retries_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt tries again, a second apart, what a full disk has refused; that is its own affair."""
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "2")


class Disk:
    """Where the project writes, and what makes it full."""

    def __init__(self, victims: Zygote, project: Project, mounted: Path | None = None) -> None:
        self._victims = victims
        self._project = project
        self._mounted = mounted

    def synchronise(self, full_at: At | None = None) -> End:
        """A run, on a disk that fills up when it gets there."""
        filler = "limit" if self._mounted is None else str(self._mounted / FILLER)
        end = self._victims.synchronise(full_at and replace(full_at, then=filler))
        if self._mounted is not None:
            self._copy_the_warehouse(self._mounted)
        return end

    def has_space_again(self) -> None:
        if self._mounted is not None:
            self._seen(self._mounted / FILLER).unlink()

    def _seen(self, path: Path) -> Path:
        return self._victims.root / path.relative_to("/")

    def _copy_the_warehouse(self, mounted: Path) -> None:
        """To where a test can see it: DuckDB resolves the path to the other process's files."""
        for name in (self._project.database.name, f"{self._project.database.name}.wal"):
            copy, original = self._project.directory / name, self._seen(mounted / name)
            copy.unlink(missing_ok=True)
            if original.exists():
                shutil.copy(original, copy)


@contextmanager
def disk(kind: str, victims: Zygote, project: Project) -> Iterator[Disk]:
    if kind == "limit":
        yield Disk(victims, project)
        return
    if not can_mount():
        pytest.skip("no process may mount a file system here; a limit stands in for it")
    mounted = project.directory / "disk"
    mounted.mkdir()
    # The fixture of the project takes them back.
    os.environ["DLT_DATA_DIR"] = str(mounted / "dlt")
    os.environ["DESTINATION__DUCKDB__CREDENTIALS"] = str(mounted / project.database.name)
    with zygote(mounted) as on_disk:
        yield Disk(on_disk, project, mounted)


CASES = [("limit", point) for point in FULL] + [("disk", "before load"), ("disk", MERGED)]
NAMED = {("limit", "before extract"), ("limit", "before normalize"), ("disk", "before load")}


@pytest.mark.parametrize(("kind", "point"), CASES)
def test_the_disk_fills_up(
    project: Project, shop: OpenShop, victims: Zygote, kind: str, point: str
) -> None:
    """Nothing is half loaded, and nothing has to be cleaned up by hand."""
    store = shop(orders=100)
    with disk(kind, victims, project) as full:
        assert full.synchronise().error == ""
        before = project.orders()
        store.change(new=10, modify=10, remove_items=5)

        end = full.synchronise(full_at=FULL[point])

        assert end.error
        if (kind, point) in NAMED:
            assert_a_full_disk_is_named(end)
        now, after = project.orders(), expected(store.orders())
        if point == MERGED:
            assert now in (before, after)
        else:
            assert now == before
        full.has_space_again()
        assert full.synchronise().error == ""
        assert_the_tables_equal_the_shop(project, store)


def assert_a_full_disk_is_named(end: End) -> None:
    """What to do is to make room; and what was to be written is nobody's business."""
    assert end.is_orders_error, f"{end.error}: {end.message}"
    assert re.search(r"(?i)free .*space|make room", end.message), end.message
    assert "Nothing is half loaded" in end.message
    assert "ORD-" not in end.message


@pytest.mark.parametrize("at", [At(call=f"{CLIENT}.open_connection", then="limit"), At(byte=5000)])
def test_a_warehouse_that_was_cut_off_when_it_was_made_is_made_again(
    project: Project, shop: OpenShop, victims: Zygote, at: At
) -> None:
    """DuckDB's first write was its last: the file holds nothing, and no run could ever open it."""
    store = shop(orders=10)
    victims.synchronise(at)
    assert project.database.stat().st_size < 3 * 4096

    project.synchronise()

    assert_the_tables_equal_the_shop(project, store)
