"""The benchmark runs, prints its tables, and does not take a wrong load for a fast one.

On next to no orders: whether it measures, not what. No time is asserted here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from orders_dagster_tests.bench.cases import (
    BARE,
    FLOOR,
    OURS,
    OURS_8,
    Bench,
    Contender,
    Line,
    Sizes,
)
from orders_dagster_tests.bench.measure import ContenderFailed, Measurement, measure
from orders_dagster_tests.bench.places import Place
from orders_dagster_tests.bench.report import report
from orders_dagster_tests.bench.shops import Shop as BenchShop
from orders_dagster_tests.bench.shops import Shops
from orders_dagster_tests.bench.sums import of_warehouse_in_a_process
from orders_dagster_tests.world import Project, Shop

CHECKOUT = Path(__file__).resolve().parents[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all lines of all Markdown tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_benchmark_runs_and_prints_its_tables(tmp_path: Path) -> None:
    """It is run by hand, once in a while: without this, it is broken by then."""
    files = tmp_path / "temporary"
    files.mkdir()
    arguments = "--runs 1 --scale 0.0005 --cases memory load checks"

    run = subprocess.run(
        [sys.executable, "-m", "orders_dagster_tests.bench", *arguments.split()],
        cwd=CHECKOUT,
        env=os.environ | {"TMPDIR": str(files)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    table = rows(run.stdout)
    assert [row[:2] for row in table if "first load of" in row[0]] == [
        ["first load of 50", "this project"],
        ["first load of 50", "bare rest_api_source"],
        ["first load of 50", "requests and read_json"],
        ["first load of 500", "this project"],
        ["first load of 500 of one timestamp", "this project"],
    ]
    assert any(row[0].startswith("all checks, 5,000 orders") for row in table)
    (memory,) = [row for row in table if row[0].startswith("peak memory of")]
    assert memory[-1].endswith("reached")
    assert list(files.iterdir()) == []


def test_a_warehouse_that_is_behind_the_shop_is_no_result(
    project: Project, shop: Callable[..., Shop]
) -> None:
    """Who loads less is faster: one order in an older version is enough to be found out."""
    started = BenchShop(shop(orders=20).url, 20)
    project.synchronise()
    before = of_warehouse_in_a_process(project.database).differences(started.sums())

    started.change(1)
    (difference, *_) = of_warehouse_in_a_process(project.database).differences(started.sums())

    assert before == []
    assert all(asdict(started.sums()).values())  # each of them is summed up
    assert "in the shop" in difference


def test_another_contender_is_held_to_the_number_of_orders(
    tmp_path: Path, shop: Callable[..., Shop]
) -> None:
    """The comparison is only fair if all of them have loaded everything."""
    real = shop(orders=20)
    bench = Bench(tmp_path, Shops(ExitStack()), Sizes(), runs=1, say=print)
    place, line = bench.place(), Line("load", "first load of 20", FLOOR)

    bench.measure(line, 1, BenchShop(real.url, 20), place)
    assert bench.wrong == []
    real.put({"order_id": "ORD-NEW", "items": [{"line": 1}]})
    late = FLOOR.differences(place.copy_to(bench.directory()), BenchShop(real.url, 21).sums())
    never = BARE.differences(bench.place(), BenchShop(real.url, 21).sums())

    assert late[0] == "orders 20, in the shop 21"
    assert "cannot be summed up" in never[0]


def test_a_contender_that_fails_is_no_result(tmp_path: Path) -> None:
    """A crash is fast as well."""
    place = Place.new(tmp_path / "place")

    with pytest.raises(ContenderFailed, match=r"floor ended with exit code 1(.|\n)*refused"):
        measure("floor", place.environment("http://127.0.0.1:9", {}), place.directory)


def measured(*work_seconds: float, peak_mib: float = 100) -> list[Measurement]:
    return [Measurement(seconds, seconds + 1, seconds, peak_mib, "") for seconds in work_seconds]


def test_targets_are_held_against_medians_of_both_times(tmp_path: Path) -> None:
    """What the README quotes is computed here."""
    bench = Bench(tmp_path, Shops(ExitStack()), Sizes(), runs=3, say=print)
    results: dict[tuple[str, Contender], list[Measurement]] = {
        ("load", OURS): measured(1, 30, 2, peak_mib=100),
        ("load", BARE): measured(11, 1, 10),
        ("latency", BARE): measured(16, 16, 16),
        ("latency", OURS_8): measured(2, 2, 2),
        ("big", OURS): measured(9, 9, 9, peak_mib=131),
        ("bulk", OURS): measured(9, 9, 9, peak_mib=120),
        ("changes, big", OURS): measured(3, 3, 3),
        ("changes, small", OURS): measured(1, 1, 1),
    }
    bench.results = {Line(case, case, who): found for (case, who), found in results.items()}

    table = rows(report(bench, "a machine"))

    assert table[1][:3] == ["load", "this project", "2.00 (1.00–30.00)"]
    assert table[1][-1] == "5.0 / 3.7"
    assert [row[2:] for row in table[-6:]] == [
        ["5.00, reached", "3.67, not reached", ""],
        ["8.00, reached", "5.67, not reached", ""],
        ["not measured", "not measured", ""],
        ["", "", "1.31, not reached"],
        ["", "", "1.20, reached"],
        ["3.00, reached", "2.00, reached", ""],
    ]
