"""`volume_as_expected`: what is compared with what, and what the check says about it.

The history is in a real instance: materializations as they are recorded, dated weeks back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from dagster import (
    AssetCheckSeverity,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
)
from dagster._core.events import StepMaterializationData

from orders_dagster.assets import ORDERS_KEY
from orders_dagster.checks import Found, volume
from orders_dagster.records import loads_in
from orders_dagster.volume import WEEK, Load, orders_in, usual
from orders_dagster_tests.test_checks import run_checks
from orders_dagster_tests.world import Project

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def remember(instance: DagsterInstance, loads: Iterable[tuple[datetime, int]], **more: str) -> None:
    """Materializations of `orders` at these times, with as many new orders."""
    for at, new in loads:
        numbers = {"orders_loaded": new + 7, "orders_new": new, "orders_updated": 0} | more
        materialization = AssetMaterialization(ORDERS_KEY, metadata=numbers)
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="orders_job",
            event_specific_data=StepMaterializationData(materialization),
        )
        instance.store_event(
            EventLogEntry(  # type: ignore[no-untyped-call]
                None, 20, "", "a-run", at.timestamp(), None, None, event
            )
        )


def hourly(orders: int, weeks: int) -> list[tuple[datetime, int]]:
    """A few hours of each week, around the time that is compared, and the hour before now."""
    past = [
        (NOW - n * WEEK + hours * HOUR, orders)
        for n in range(weeks, 0, -1)
        for hours in (-2, -1, 0, 1)
    ]
    return [*past, (NOW - HOUR, orders)]


def volume_of(
    instance: DagsterInstance, history: list[tuple[datetime, int]], now: int, factor: float = 3
) -> Found:
    """What the check finds after a history that the test makes up."""
    remember(instance, [*history, (NOW, now)])
    found = volume(instance, factor)
    assert found is not None
    return found


def said(found: Found) -> str:
    assert found.description is not None
    return found.description


@pytest.mark.parametrize(
    ("now", "passes"), [(100, True), (35, True), (10, False), (290, True), (400, False)]
)
def test_far_fewer_or_more_orders_than_usual_warn(
    instance: DagsterInstance, now: int, passes: bool
) -> None:
    """A shop that has lost half of its orders on the way, or sends them all again."""
    found = volume_of(instance, hourly(100, weeks=4), now)

    assert (found.offenders == 0) is passes
    assert said(found).startswith(f"{now} orders were new or updated from ")
    assert "100 are usual: the median of the same time in earlier weeks (100, 100, 100, 100)" in (
        said(found)
    )
    assert said(found).endswith("17 to 351 are as expected.")
    assert [row[-1] for row in found.sample] == [now, 100, 100, 100, 100]


@pytest.mark.parametrize("weeks", [0, 2])
def test_without_history_it_is_silent(instance: DagsterInstance, weeks: int) -> None:
    """A first load of years of orders is no surprise."""
    found = volume_of(instance, hourly(100, weeks), now=100_000)

    assert found.offenders == 0
    assert said(found).endswith(f"{weeks} of the 4 weeks before are on record, 3 are needed.")


def test_a_first_load_is_silent(instance: DagsterInstance) -> None:
    """Nothing at all to compare it with, and no time that it covers."""
    found = volume_of(instance, [], now=100_000)

    assert found.offenders == 0
    assert said(found).startswith("Nothing to compare with yet: the first load was after 20")
    assert volume(DagsterInstance.ephemeral(), 3) is None


def test_one_odd_week_changes_nothing(instance: DagsterInstance) -> None:
    """The week of the first load, or of a sale, is one of four."""
    history = hourly(100, weeks=4)
    history = [(at, 90_000 if at < NOW - 3.5 * WEEK else orders) for at, orders in history]

    assert volume_of(instance, history, now=110).offenders == 0


@pytest.mark.parametrize(("now", "passes"), [(0, True), (3, True), (60, False)])
def test_where_no_orders_are_usual_a_few_are_no_news(
    instance: DagsterInstance, now: int, passes: bool
) -> None:
    """Three times nothing is nothing: at night, each order would warn."""
    assert (volume_of(instance, hourly(0, weeks=4), now).offenders == 0) is passes


def test_the_factor_decides(instance: DagsterInstance) -> None:
    """Ten times as many may be a Monday in one shop and an accident in another."""
    found = volume_of(instance, hourly(100, weeks=4), now=900, factor=10)

    assert found.offenders == 0
    assert "volume_factor = 10" in said(found)


def test_by_a_daily_schedule_days_are_compared(instance: DagsterInstance) -> None:
    """An hour of a day's orders would be too few to tell anything."""
    days = [(NOW - timedelta(days=n), 48) for n in range(30, 0, -1)]

    found = volume_of(instance, days, now=2)

    assert found.offenders == 1
    assert said(found).startswith("2 orders were new or updated")
    assert "(48, 48, 48, 48)" in said(found)


def test_the_check_warns_by_the_factor_that_is_set(
    instance: DagsterInstance, project: Project
) -> None:
    """The same, as a run asks it: through the settings, on the records of its own instance."""
    project.point_at("http://127.0.0.1:9", login=False)
    project.set(volume_factor=1.5)
    remember(instance, [*hourly(1000, weeks=4), (NOW, 400)])

    check = run_checks(instance)["volume_as_expected"]

    assert not check.passed
    assert check.severity == AssetCheckSeverity.WARN
    assert "volume_factor = 1.5" in (check.description or "")


def test_however_orders_are_split_into_loads_their_number_is_the_same() -> None:
    """The sensor starts loads when it sees changes: one of 60 orders or sixty of one are one hour."""
    seed = 20240501
    print(f"seed {seed}")
    draw = random.Random(seed)
    start, end = NOW - HOUR, NOW
    cuts = sorted(start + draw.random() * HOUR for _ in range(20))
    edges = [start, *cuts, end]
    loads = [Load(a, b, draw.randint(0, 5)) for a, b in pairwise(edges)]

    assert orders_in(loads, start, end) == pytest.approx(sum(load.orders for load in loads))
    assert orders_in(loads, start - HOUR, start) == 0
    assert orders_in([Load(start, end, 60)], end - HOUR / 4, end + HOUR) == pytest.approx(15)


def test_what_was_not_a_load_is_not_counted(instance: DagsterInstance) -> None:
    """Somebody reports a materialization by hand: it has brought nothing, and hides nothing."""
    remember(instance, [(NOW - 2 * HOUR, 5), (NOW - HOUR / 2, 10)])
    instance.report_runless_asset_event(AssetMaterialization(ORDERS_KEY))

    loads = loads_in(instance, NOW - HOUR, NOW)

    assert loads == [Load(NOW - 2 * HOUR, NOW - HOUR / 2, 10)]
    assert loads_in(instance, NOW - 3 * HOUR, NOW) is None, "nobody knows since when"


def test_what_was_read_again_is_not_counted(instance: DagsterInstance) -> None:
    """A year replayed in an hour is no sale day, and hides none: month by month, 20 runs in a row."""
    remember(instance, hourly(100, weeks=4))
    remember(instance, [(NOW - HOUR / 2, 100)])
    before = volume(instance, 3)
    remember(
        instance,
        [(NOW - HOUR / 2 + n * HOUR / 60, 50_000) for n in range(1, 21)],
        read_again="2026-01-01 to 2026-02-01",
    )

    assert before is not None
    assert before == volume(instance, 3)


def test_fewer_weeks_than_needed_say_nothing() -> None:
    """Two weeks have no median to speak of."""
    assert usual([1, 1], 3) is None
    assert usual([1, 1, 1], 3) is not None
