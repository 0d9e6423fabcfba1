"""The process is killed: the next run repairs everything by itself.

Each kill is at a named point (victim.py), never after a time. Its effect is judged by the next run
alone: afterwards every field of every order is as in the shop, nothing is there twice, and no load is
half there (content.py).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orders_dagster.span import Span
from orders_dagster_tests.content import assert_the_tables_equal_the_shop
from orders_dagster_tests.small_api import Answering, Api, at, order, page
from orders_dagster_tests.victim import At, End, Zygote, zygote
from orders_dagster_tests.world import Project, Shop, expected, loaded

OpenShop = Callable[..., Shop]

SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "1"))
"""How many kills at random files: `KILLS=400 pytest -k random` tries most of them."""

UNREADABLE = {"order_id": "U", "last_modified_date": "never"}

PIPELINE = "dlt.pipeline.pipeline:Pipeline"
LOAD = "dlt.load.load:Load"
STORAGE = "dlt.common.storages.load_storage:LoadStorage"
API = "dlt.sources.helpers.rest_client.client:RESTClient"

STAGING = r'INSERT INTO "ecommerce_staging".*read_parquet'
MERGE = r'DELETE FROM "ecommerce"\."orders" '
LOADS = r'INSERT INTO "ecommerce"\."_dlt_loads"'

AT_ANY_TIME = {
    "before extract": At(call=f"{PIPELINE}.extract"),
    "between two pages": At(call=f"{API}._send_request", nth=2, when="after"),
    "after extract": At(call=f"{PIPELINE}.extract", when="after"),
    "in normalize": At(touch=r"load/new/.*\.insert_values"),
    "normalized twice": At(touch=r"normalize/extracted/[\d.]+$"),
    "before load": At(call=f"{PIPELINE}.load"),
    "in the staging tables": At(sql=STAGING, nth=2, when="during"),
    "before the merge": At(sql=MERGE),
    "in the merge": At(sql=MERGE, when="during"),
    "after the merge": At(sql=MERGE, when="after"),
    "merged, but not in _dlt_loads": At(sql=LOADS),
    "while it gets into _dlt_loads": At(sql=LOADS, when="during"),
    "in _dlt_loads, but not complete": At(call=f"{STORAGE}.complete_load_package"),
    "after load": At(call=f"{PIPELINE}.load", when="after"),
}
IN_THE_FIRST_LOAD = {
    "while the tables are made": At(sql='CREATE TABLE.*"ecommerce"', when="during"),
    "the tables are made, but not in _dlt_version": At(
        sql='INSERT INTO "ecommerce"."_dlt_version"'
    ),
    "no staging tables": At(sql='CREATE SCHEMA "ecommerce_staging"'),
    "in the staging tables": AT_ANY_TIME["in the staging tables"],
    "in the merge": AT_ANY_TIME["in the merge"],
    "merged, but not in _dlt_loads": AT_ANY_TIME["merged, but not in _dlt_loads"],
    "in _dlt_loads, but not complete": AT_ANY_TIME["in _dlt_loads, but not complete"],
}


@pytest.fixture(scope="module")
def victims() -> Iterator[Zygote]:
    with zygote() as started:
        yield started


class Stocked:
    """A shop that goes on changing, and a copy of what a first load of it has left."""

    def __init__(self, shop: Shop, project: Project, directory: Path) -> None:
        self.shop = shop
        self._loaded = directory / "loaded.duckdb"
        project.point_at(shop.url)
        project.synchronise()
        shutil.copy(project.database, self._loaded)

    def give(self, project: Project) -> Shop:
        """The project as it is after the first load, and then the shop changed."""
        shutil.copy(self._loaded, project.database)
        project.point_at(self.shop.url)
        project.set(page_size=50)  # several pages also of an increment
        self.shop.change(new=15, modify=15, modify_twice=3, remove_items=5)
        self.shop.put(UNREADABLE)  # it may be among the modified ones, with a time then
        return self.shop


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Project], Stocked]]:
    """Makes the shop and its first load when the first test asks for it."""
    from orders_dagster.sandbox import running

    made: list[Stocked] = []
    with ExitStack() as stack:

        def make(project: Project) -> Stocked:
            if not made:
                shop = Shop(stack.enter_context(running(orders=200)).url)
                shop.put(UNREADABLE)
                made.append(Stocked(shop, project, tmp_path_factory.mktemp("loaded")))
            return made[0]

        yield make


@pytest.fixture
def changed(project: Project, stock: Callable[[Project], Stocked]) -> Shop:
    """A shop that has changed since it was loaded."""
    return stock(project).give(project)


def assert_the_next_run_repairs(project: Project, shop: Shop, rejected: int = 1) -> None:
    result = project.synchronise()
    assert_the_tables_equal_the_shop(project, shop, rejected)
    newest = project.scalar("SELECT max(last_modified_date) FROM ecommerce.orders")
    assert result.watermark_after == newest
    assert left_over(project) == []


def left_over(project: Project) -> list[str]:
    """Packages in dlt's working directory that are not loaded."""
    working = project.directory / "dlt" / "pipelines" / "orders"
    packages = (working / "normalize").glob("*/*.*"), (working / "load").glob("n*/*.*")
    return [str(package) for found in packages for package in found]


def was_killed(end: End) -> bool:
    """At a point that is never reached, nothing would be tested."""
    return end.signal in (signal.SIGKILL, signal.SIGXFSZ)


@pytest.mark.parametrize("point", AT_ANY_TIME)
def test_killed_in_an_increment(
    project: Project, changed: Shop, victims: Zygote, point: str
) -> None:
    """Changes that are half loaded are loaded whole by the next run, and none of them twice."""
    assert was_killed(victims.synchronise(AT_ANY_TIME[point]))

    assert_the_next_run_repairs(project, changed)


@pytest.mark.parametrize("point", IN_THE_FIRST_LOAD)
def test_killed_in_the_first_load(
    project: Project, shop: OpenShop, victims: Zygote, point: str
) -> None:
    """The tables may be there, or some of them, and no load that tells of them."""
    store = shop(orders=120)
    store.put(UNREADABLE)
    assert was_killed(victims.synchronise(IN_THE_FIRST_LOAD[point]))

    assert_the_next_run_repairs(project, store)


@pytest.mark.parametrize("point", ["in the merge", "in _dlt_loads, but not complete"])
def test_killed_between_two_checkpoints(
    project: Project, shop: OpenShop, victims: Zygote, point: str
) -> None:
    """T15: the checkpoint before the kill is durable, and the next run goes on from there."""
    store = shop(orders=400)
    project.set(checkpoint_orders=100, page_size=50, workers=2)
    at = AT_ANY_TIME[point]
    end = victims.synchronise(At(at.call, at.sql, at.touch, at.when, nth=3))
    assert was_killed(end)
    kept = set(project.orders())
    assert len(kept) >= 100

    result = project.synchronise()

    assert result.watermark_before is not None
    assert_the_tables_equal_the_shop(project, store)


@pytest.mark.parametrize("paging", ["seek", "offset"])
@pytest.mark.parametrize(
    ("point", "nth"), [("in the merge", 3), ("in _dlt_loads, but not complete", 2)]
)
def test_killed_between_two_loads_of_one_timestamp(
    project: Project, shop: OpenShop, victims: Zygote, point: str, nth: int, paging: str
) -> None:
    """What a bulk change has left comes in parts: those before the kill are durable, and none of the rest
    is taken for loaded because its date is."""
    store = shop(orders=400, days=0)
    project.set(checkpoint_orders=100, page_size=20, paging=paging)
    at = AT_ANY_TIME[point]
    assert was_killed(victims.synchronise(At(at.call, at.sql, at.touch, at.when, nth=nth)))
    kept = len(project.orders())
    assert 100 <= kept < 400

    result = project.synchronise()

    assert_the_tables_equal_the_shop(project, store)
    assert result.new == 400 - kept


def test_killed_again_and_again(project: Project, changed: Shop, victims: Zygote) -> None:
    """A machine that keeps crashing: each run starts on what the one before has left."""
    for point in ("after the merge", "in normalize", "while it gets into _dlt_loads"):
        assert was_killed(victims.synchronise(AT_ANY_TIME[point]))
        changed.change(modify=5)

    assert_the_next_run_repairs(project, changed)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_while_it_drops_tables_that_dlt_has_forgotten(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote, nth: int, when: str
) -> None:
    """What is left of them would be taken for what is yet to be made: items twice, 7 of "007"."""
    orders = [order(n, n, tags=["a"], items=[{"line": 1, "code": 7}]) for n in range(20)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute("DROP TABLE ecommerce._dlt_version")
    orders = [order(n, 100 + n, items=[{"line": 1, "code": "007"}]) for n in range(20)]

    ours = At(sql='^DROP TABLE "ecommerce"', when=when, nth=nth)
    assert was_killed(victims.synchronise(ours))
    project.synchronise()

    assert project.orders() == expected(orders)
    codes = project.query("SELECT code FROM ecommerce.orders__items")
    assert codes == [("007",)] * 20
    assert project.synchronise().was_gone == ()


@pytest.mark.parametrize(
    "kills", [["merged, but not in _dlt_loads"], ["merged, but not in _dlt_loads", "in normalize"]]
)
def test_killed_when_the_last_elements_of_a_list_are_gone_but_not_complete(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote, kills: list[str]
) -> None:
    """Nobody has emptied that table: read again, the orders that the shop has deleted would be missing. Who
    empties one after such a kill is noticed."""
    orders = [order(n, n, returns=[{"n": 1}], tags=["new"]) for n in range(6)]
    serve(lambda query: page(orders, query))
    project.set(lag_seconds=0)
    project.synchronise()
    orders[0] = order(0, 10, returns=[], tags=["new"])
    project.synchronise()
    deleted = orders.pop(0)
    orders[:] = [order(n, 20 + n, returns=[], tags=["new"]) for n in range(1, 6)]
    for point in kills:
        assert was_killed(victims.synchronise(AT_ANY_TIME[point]))
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__returns") == 0

    after = [project.synchronise().was_gone, project.synchronise().was_gone]

    assert after == [(), ()]
    ids = project.query("SELECT order_id FROM ecommerce.orders ORDER BY order_id")
    assert ids == [(one["order_id"],) for one in (deleted, *orders)]
    orders.append(order(7, 40, tags=["new"]))
    assert was_killed(victims.synchronise(AT_ANY_TIME[kills[0]]))
    project.execute("DELETE FROM ecommerce.orders__tags")
    assert project.synchronise().was_gone == ("orders__tags",)


def test_killed_while_a_column_becomes_decimal(
    project: Project, shop: OpenShop, victims: Zygote
) -> None:
    """T18: the column is wider than dlt's schema says, and the order that made it so has changed."""
    store = shop(orders=0)
    store.put({"order_id": "A", "total": 10, "items": []})
    project.synchronise()
    store.put({"order_id": "B", "total": 0.25, "items": []})
    assert was_killed(victims.synchronise(At(sql='ALTER TABLE "ecommerce"', when="after")))
    store.put({"order_id": "B", "total": 1, "items": []})
    assert_the_next_run_repairs(project, store, rejected=0)

    store.put({"order_id": "C", "total": 2.75, "items": []})

    assert_the_next_run_repairs(project, store, rejected=0)


@pytest.mark.parametrize("table", ["orders__items", "_dlt_pipeline_state"])
def test_killed_while_a_dropped_table_is_rebuilt(
    project: Project, changed: Shop, victims: Zygote, table: str
) -> None:
    """All orders are read again; until they are loaded, that is still to be done."""
    project.execute(f"DROP TABLE ecommerce.{table}")
    assert was_killed(victims.synchronise(At(sql='CREATE TABLE.*"ecommerce"', when="after")))
    assert was_killed(victims.synchronise(At(sql=MERGE, when="during")))

    assert_the_next_run_repairs(project, changed)


def test_killed_when_part_of_a_rebuilding_is_merged_but_not_complete(
    project: Project, changed: Shop, victims: Zygote
) -> None:
    """dlt's state is that of before then: with its watermark, the rest would never be read again."""
    project.set(checkpoint_orders=len(changed.orders()) // 2, page_size=10, workers=2)
    project.execute("DROP TABLE ecommerce.orders__items")
    end = victims.synchronise(At(call="dlt.load.load:Load.complete_package"))
    assert was_killed(end)
    assert 0 < len(project.orders()) < len(changed.orders())

    assert_the_next_run_repairs(project, changed)


@pytest.mark.parametrize("later", [0, 1000])
def test_killed_when_a_load_has_brought_each_order_anew_but_is_not_complete(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote, later: int
) -> None:
    """All have changed, or all lie within the lag. No order is of a load that was complete, as in a
    rebuilding that was killed; but nothing is gone."""
    orders = [order(n, n) for n in range(5)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    orders[:] = [order(n, later + n) for n in range(5)]
    assert was_killed(victims.synchronise(AT_ANY_TIME["merged, but not in _dlt_loads"]))
    del orders[2]

    result = project.synchronise()

    assert (result.was_gone, result.watermark_before is None) == ((), False)
    assert loaded(project) == {0, 1, 2, 3, 4}


def load_and_empty_tags(project: Project, checkpoint_orders: int) -> None:
    """All orders, loaded, and their tags gone, by somebody's hand."""
    project.set(checkpoint_orders=checkpoint_orders, page_size=5, workers=1, lag_seconds=0)
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders__tags")


@pytest.mark.parametrize(
    ("point", "loads"),
    [
        (AT_ANY_TIME["merged, but not in _dlt_loads"], 1),
        (At(call="dlt.load.load:Load.run", nth=1), 0),
        (At(call="dlt.load.load:Load.run", nth=3), 2),
    ],
)
def test_killed_while_a_list_that_was_emptied_is_filled_again(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote, point: At, loads: int
) -> None:
    """The next run reads what was not read again, and keeps what the shop has deleted."""
    orders = [order(n, n, tags=["new"]) for n in range(50)]
    serve(lambda query: page(orders, query))
    load_and_empty_tags(project, checkpoint_orders=10)
    del orders[2]
    assert was_killed(victims.synchronise(point))
    assert bool(project.scalar("SELECT count(*) FROM ecommerce.orders__tags")) == bool(loads)

    after = [project.synchronise(), project.synchronise()]

    assert [bool(one.was_gone) for one in after] == [loads < 2, False]
    assert after[1].loaded < 10, "everything is read once"
    assert loaded(project) == set(range(50))
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 49


def test_killed_while_a_list_is_filled_again_and_emptied_once_more(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote
) -> None:
    """One checkpoint has brought few lists. If those were all there are, nobody would miss them."""
    orders = [order(n, n, tags=["new"]) for n in range(100)]
    serve(lambda query: page(orders, query))
    load_and_empty_tags(project, checkpoint_orders=5)
    assert was_killed(victims.synchronise(At(call="dlt.load.load:Load.run", nth=2)))
    project.execute("DELETE FROM ecommerce.orders__tags")

    after = [project.synchronise(), project.synchronise()]

    assert [one.was_gone for one in after] == [("orders__tags",), ()]
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 100


def test_killed_twice_while_a_list_is_filled_again_of_which_the_first_load_has_none(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote
) -> None:
    """That load was merged, and tells of no list; it has not reached them yet."""
    orders = [order(n, n, **({"tags": ["new"]} if n >= 5 else {})) for n in range(100)]
    serve(lambda query: page(orders, query))
    load_and_empty_tags(project, checkpoint_orders=5)
    assert was_killed(victims.synchronise(AT_ANY_TIME["merged, but not in _dlt_loads"]))
    assert was_killed(victims.synchronise(At(call="dlt.load.load:Load.run", nth=3)))
    assert 0 < project.scalar("SELECT count(*) FROM ecommerce.orders__tags") < 10
    project.execute("DELETE FROM ecommerce.orders__tags")

    after = [project.synchronise(), project.synchronise()]

    assert [one.was_gone for one in after] == [("orders__tags",), ()]
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 95


@pytest.mark.parametrize("harm", ["DELETE FROM", "DROP TABLE"])
@pytest.mark.parametrize("load", [1, 2])
def test_killed_while_orders_of_before_the_initial_value_are_read_again(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote, harm: str, load: int
) -> None:
    """Somebody has read them by a span. They come back, and with what was emptied."""
    orders = [order(n, n, tags=["a"]) for n in range(50)]
    serve(lambda query: page(orders, query))
    first = at(orders[20])
    project.set(checkpoint_orders=10, page_size=5, workers=1, lag_seconds=0)
    project.set(initial_value=first.isoformat())
    project.synchronise()
    project.synchronise(span=Span(at(orders[0]), first))
    assert loaded(project) == set(range(50))
    project.execute(f"{harm} ecommerce.orders__tags")
    assert was_killed(victims.synchronise(At(call="dlt.load.load:Load.run", nth=load)))

    after = [project.synchronise(), project.synchronise()]

    assert loaded(project) == set(range(50))
    assert project.scalar("SELECT count(*) FROM ecommerce.orders__tags") == 50
    assert after[1].loaded < 10


def test_killed_before_tables_that_were_emptied_are_made_anew(
    project: Project, serve: Callable[[Answering], Api], victims: Zygote
) -> None:
    """Their columns get the types of today; those of before hold no text."""
    orders = [order(n, n, code=7) for n in range(20)]
    serve(lambda query: page(orders, query))
    project.synchronise()
    project.execute("DELETE FROM ecommerce.orders")
    orders[:] = [order(n, n, code="007") for n in range(20)]
    assert was_killed(victims.synchronise(At(call="dlt.load.load:Load.run", nth=1)))

    project.synchronise()

    assert set(project.query("SELECT code FROM ecommerce.orders")) == {("007",)}


@pytest.mark.parametrize("byte", [60_000, 90_000])
def test_killed_in_the_middle_of_a_write_of_duckdb(
    project: Project, changed: Shop, victims: Zygote, byte: int
) -> None:
    """Native code dies between two bytes of its log, in the staging tables or in the merge."""
    changed.change(modify=100)  # enough for as many bytes
    end = victims.synchronise(At(byte=byte))
    assert was_killed(end)
    assert log_of(project).stat().st_size == byte, "it died in another file"

    assert_the_next_run_repairs(project, changed)


def test_killed_while_duckdb_moves_its_log_into_the_file(
    project: Project, changed: Shop, victims: Zygote
) -> None:
    """The last connection closes: all is committed, and the blocks of the file are being written."""
    end = victims.synchronise(At(byte=project.database.stat().st_size + 100_000))
    assert was_killed(end)
    assert log_of(project).exists()

    assert_the_next_run_repairs(project, changed)


def log_of(project: Project) -> Path:
    return project.database.with_name(project.database.name + ".wal")


LEFT_OVER = {
    "state": {"state.json": b'{"_state_version": 7, "_state_eng'},
    "no state": {"state.json": b""},
    "schemas": {
        "schemas/orders.schema.json": b'{"version": 3, "tables": {"ord',
        "schemas/other.schema.json": b"\xff\x00 no JSON",
    },
    "packages": {
        "trace.pickle": b"\x80\x04no pickle",
        "normalize/extracted/1795600000.1/new_jobs/orders.0a1b2c3d4e.0.parquet": b"PAR1 cut off",
        "load/normalized/1795600000.2/started_jobs/orders.0a1b2c3d4e.0.sql": b"DROP TABLE orders",
        "load/new/1795600000.3/schema.json": b"{",
    },
    "another version": {"load/.version": b"9"},
    "a file for a folder": {"load": b"a file where a folder belongs"},
    "the lock": {"../orders.lock": b"12345 of a process that is gone"},
    "a file for all of it": {".": b"a file where the folder belongs"},
}


@pytest.mark.parametrize("left_over_of", LEFT_OVER)
def test_what_is_left_in_the_working_directory_is_cleaned(
    project: Project, changed: Shop, left_over_of: str
) -> None:
    """The working directory is disposable: whatever is in it, the next run does not trip over it."""
    working = project.directory / "dlt" / "pipelines" / "orders"
    for path, content in LEFT_OVER[left_over_of].items():
        left = working / path
        if left.is_dir():
            shutil.rmtree(left)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(content)

    assert_the_next_run_repairs(project, changed)

    for path, content in LEFT_OVER[left_over_of].items():
        left = working / path
        assert not left.is_file() or left.read_bytes() != content or path == "../orders.lock"


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_file(
    project: Project, changed: Shop, victims: Zygote, number: int
) -> None:
    """Any file of the working directory may be half written, half moved or half removed."""
    counted = len(victims.synchronise(At(touch=re.escape(str(project.directory)), nth=0)).touched)
    at = random.Random(f"{SEED} {number}").randint(1, counted)
    print(f"SEED={SEED}: killed at touch {at} of {counted}")
    changed.change(new=5, modify=5)
    victims.synchronise(At(touch=re.escape(str(project.directory)), nth=at))

    assert_the_next_run_repairs(project, changed)
