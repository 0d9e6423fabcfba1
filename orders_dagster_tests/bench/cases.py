"""What is measured: six cases, each of some contenders in turns, and whether they loaded it all.

Here: which process runs when, on which files. Not here: how one is measured (`measure.py`), and what
the numbers are to be (`report.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from orders_dagster_tests.bench.grow import counting, grow
from orders_dagster_tests.bench.measure import Measurement, measure
from orders_dagster_tests.bench.places import Place
from orders_dagster_tests.bench.shops import Shop, Shops
from orders_dagster_tests.bench.sums import (
    NotSummedUp,
    Sums,
    counts_in_a_process,
    of_warehouse_in_a_process,
)
from orders_dagster_tests.small_api import Api

LATENCY_MS = 100


@dataclass(frozen=True)
class Contender:
    """A program that loads orders. `tables` are the schema and the items' table of the others."""

    name: str
    module: str
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    tables: tuple[str, str] | None = None

    def differences(self, place: Place, shop: Sums) -> list[str]:
        """What it has not loaded as it is in the shop: of this project any sum, of the others
        the numbers of orders and items."""
        try:
            if self.tables is None:
                return of_warehouse_in_a_process(place.warehouse).differences(shop)
            return counts_in_a_process(place.warehouse, *self.tables).differences(shop.counts())
        except NotSummedUp as error:
            return [str(error)]


OURS = Contender("this project", "ours")
OURS_8 = Contender("this project, 8 workers", "ours", {"SOURCES__ORDERS__WORKERS": "8"})
OURS_20 = Contender("this project, 20 workers", "ours", {"SOURCES__ORDERS__WORKERS": "20"})
BARE = Contender("bare rest_api_source", "bare", tables=("ecommerce", "orders__items"))
FLOOR = Contender("requests and read_json", "floor", tables=("main", "items"))
CHECKS = Contender("this project, all checks", "checks")
LOADED = 10_000
"""Orders that the warehouse of the checks is grown from."""


@dataclass(frozen=True)
class Sizes:
    """How many orders there are in each case.

    Attributes:
        scale: 1 for the sizes that the targets are about; smaller ones show that the benchmark runs.
    """

    scale: float = 1

    @property
    def is_full(self) -> bool:
        return self.scale == 1

    def _scaled(self, orders: int) -> int:
        return max(2, round(orders * self.scale))

    @property
    def load(self) -> int:
        return self._scaled(100_000)

    @property
    def latency(self) -> int:
        return self._scaled(20_000)

    @property
    def idle(self) -> int:
        return self._scaled(20_000)

    @property
    def big(self) -> int:
        return self._scaled(1_000_000)

    @property
    def small(self) -> int:
        return self._scaled(10_000)

    @property
    def checks(self) -> int:
        return self._scaled(10_000_000)

    @property
    def changed(self) -> int:
        return self._scaled(200)


@dataclass(frozen=True)
class Line:
    """A line of the table: a case, what was loaded, by whom."""

    case: str
    what: str
    contender: Contender


class Bench:
    """One run of the benchmark: its shops, its files, and what has been measured."""

    def __init__(
        self, directory: Path, shops: Shops, sizes: Sizes, runs: int, say: Callable[[str], None]
    ) -> None:
        self.shops = shops
        self.sizes = sizes
        self.runs = runs
        self.results: dict[Line, list[Measurement]] = {}
        self.wrong: list[str] = []
        self.say = say
        self.kept: dict[tuple[Shop, Contender], Place] = {}
        """Warehouses as a first load left them, for what comes after it."""
        self._directory = directory
        self._numbers = count(1)
        self._started = time.monotonic()

    def place(self) -> Place:
        return Place.new(self.directory())

    def directory(self) -> Path:
        """A path that is not taken."""
        return self._directory / f"{next(self._numbers):03d}"

    def turns(self, of: Sequence[Contender]) -> Iterator[tuple[int, Contender]]:
        """A B C A B C: a slow minute of the machine hits all of them."""
        for run in range(1, self.runs + 1):
            for contender in of:
                yield run, contender

    def measure(self, line: Line, run: int, shop: Shop, place: Place) -> None:
        """Run a contender, note what it took, and look at what it has loaded."""
        measured = self.run(line.contender, shop, place, f"{line.what}, {run} of {self.runs}")
        self.results.setdefault(line, []).append(measured)

    def prepare(self, contender: Contender, shop: Shop) -> Place:
        """A warehouse that is in step with the shop, and was so before: the idle run tidies up what
        a first load leaves in the working directory. Neither is counted."""
        place = self.kept.pop((shop, contender), None)
        if place is None:
            place = self.place()
            self.run(contender, shop, place, f"preparing {shop.orders:,} orders")
        self.run(contender, shop, place, f"preparing {shop.orders:,} orders, once more")
        return place

    def run(self, contender: Contender, shop: Shop, place: Place, title: str) -> Measurement:
        environment = place.environment(shop.url, contender.settings)
        measured = measure(contender.module, environment, place.directory)
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self.say(
            f"{minutes:3d}:{seconds:02d}  {title}: {contender.name}: {measured.work_seconds:.2f} s"
            f" work, {measured.process_seconds:.2f} s process, {measured.peak_mib:.0f} MiB"
            f" ({measured.note})"
        )
        for difference in contender.differences(place, shop.sums()):
            self.wrong.append(f"{title}: {contender.name}: {difference}")
            self.say(f"        WRONG: {difference}")
        return measured


def load(bench: Bench) -> None:
    """A first load without latency."""
    shop = bench.shops.of(bench.sizes.load)
    _first_loads(bench, "load", f"first load of {shop.orders:,}", shop, (OURS, BARE, FLOOR))


def latency(bench: Bench) -> None:
    """A first load from an API that takes its time for every page."""
    shop = bench.shops.of(bench.sizes.latency)
    what = f"first load of {shop.orders:,}, {LATENCY_MS} ms a page"
    with shop.latency(LATENCY_MS):
        _first_loads(bench, "latency", what, shop, (OURS_8, OURS_20, BARE, FLOOR))


def idle(bench: Bench) -> None:
    """An increment when nothing has changed, which is what most of them are."""
    shop = bench.shops.of(bench.sizes.idle)
    contenders = (OURS, BARE, FLOOR)
    places = {contender: bench.prepare(contender, shop) for contender in contenders}
    for run, contender in bench.turns(contenders):
        line = Line("idle", f"nothing changed in {shop.orders:,}", contender)
        bench.measure(line, run, shop, places[contender])
    for place in places.values():
        place.remove()


def memory(bench: Bench) -> None:
    """A first load that is ten times as large, for its peak memory; also where all orders are dated at
    one time, which one worker reads alone."""
    load, big = bench.sizes.load, bench.sizes.big
    for run in range(1, bench.runs + 1):
        for case, what, shop in (
            ("load", f"first load of {load:,}", bench.shops.of(load)),
            ("big", f"first load of {big:,}", bench.shops.of(big)),
            ("bulk", f"first load of {big:,} of one timestamp", bench.shops.of(big, days=0)),
        ):
            line = Line(case, what, OURS)
            if len(bench.results.get(line, ())) < run:  # else the case `load` has measured it
                _first_load(bench, line, run, shop)


def changes(bench: Bench) -> None:
    """An increment of few changes into many orders, and into few.

    Each run starts from a copy of the same warehouse: repeated increments would also read what the
    ones before had read, which the lag has them do.
    """
    big, small = (bench.shops.of(size) for size in (bench.sizes.big, bench.sizes.small))
    lines = {
        Line(case, f"{bench.sizes.changed:,} of {shop.orders:,} changed", contender): shop
        for case, shop, contender in (
            ("changes, big", big, OURS),
            ("changes, small", small, OURS),
            ("changes, small", small, BARE),
        )
    }
    originals = {line: bench.prepare(line.contender, shop) for line, shop in lines.items()}
    for shop in (big, small):
        shop.change(bench.sizes.changed)
    for run in range(1, bench.runs + 1):
        for line, shop in lines.items():
            place = originals[line].copy_to(bench.directory())
            bench.measure(line, run, shop, place)
            place.remove()
    for original in originals.values():
        original.remove()


def checks(bench: Bench) -> None:
    """All asset checks on many orders: those of a first load, over and over, with other ids."""
    shop = bench.shops.of(min(LOADED, bench.sizes.checks))
    place = bench.place()
    bench.run(OURS, shop, place, f"preparing {shop.orders:,} orders")
    rows = grow(place.warehouse, bench.sizes.checks // shop.orders)
    what = f"all checks, {rows['orders']:,} orders, {rows['orders__items']:,} items"
    with Api(counting(place.warehouse)).running() as api:
        environment = place.environment(api.url, {"SOURCES__ORDERS__AUTH__TYPE": "none"})
        for run in range(1, bench.runs + 1):
            measured = measure(CHECKS.module, environment, place.directory)
            bench.results.setdefault(Line("checks", what, CHECKS), []).append(measured)
            bench.say(f"        {what}, {run} of {bench.runs}: {measured.note}")
    place.remove()


def _first_loads(
    bench: Bench, case: str, what: str, shop: Shop, contenders: Sequence[Contender]
) -> None:
    for run, contender in bench.turns(contenders):
        _first_load(bench, Line(case, what, contender), run, shop)


def _first_load(bench: Bench, line: Line, run: int, shop: Shop) -> None:
    place = bench.place()
    bench.measure(line, run, shop, place)
    if line.case == "big" and (shop, OURS) not in bench.kept:
        bench.kept[shop, OURS] = place  # it took minutes, and `changes` needs one
    else:
        place.remove()


CASES: dict[str, Callable[[Bench], None]] = {
    "idle": idle,
    "latency": latency,
    "load": load,
    "memory": memory,
    "changes": changes,
    "checks": checks,
}
"""By name, in the order in which they run: the quick ones first, and each before what uses it."""


def warm_up(bench: Bench) -> None:
    """Every contender once, on next to nothing: the bytecode is written, the libraries are in the
    page cache, and what cannot work fails before anybody has waited."""
    shop = bench.shops.of(2)
    for contender in (OURS, BARE, FLOOR):
        place = bench.place()
        bench.run(contender, shop, place, "warming up")
        place.remove()
