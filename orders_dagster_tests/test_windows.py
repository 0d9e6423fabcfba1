"""Windows: half-open, without gap or overlap, cut by the orders in them, the oldest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_dagster.windows import MOST_PIECES, MOST_SHARES, Window, Windows, WindowSize

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 7, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
DAY = timedelta(days=1)


def windows(
    *,
    orders: int = 100,
    page: int = 100,
    step: timedelta = MS,
    can_end: bool = True,
    workers: int = 8,
) -> Windows:
    made = Windows(START, NOW, WindowSize(orders, page, step, can_end, workers))
    made.start_load(1_000_000)
    return made


def taken(plan: Windows) -> Window:
    window = plan.take()
    assert window is not None
    return window


def begun(plan: Windows) -> Window:
    window = taken(plan)
    assert plan.being_read(window.number) == (window, None)
    return window


def cut(plan: Windows, window: Window, at: datetime, left: int | None, read: int = 100) -> bool:
    is_cut = plan.cut(window, window.start, at, read, left)
    if is_cut:
        plan.read(window)
        plan.arrived()
    return is_cut


def drain(plan: Windows) -> list[Window]:
    found = []
    while window := plan.take():
        found.append(window)
        plan.read(window)
        plan.arrived()
    return found


def test_a_run_starts_with_one_open_window() -> None:
    """An increment of one page is one request: nothing is asked for only to plan."""
    plan = windows()

    window = taken(plan)

    assert (window.start, window.end) == (START, None)
    assert plan.take() is None


@given(
    left=st.integers(201, 10**6),
    at=st.datetimes(datetime(2024, 1, 1, 0, 0, 1), datetime(2026, 1, 1)).map(
        lambda time: time.replace(tzinfo=UTC)
    ),
    step=st.sampled_from([MS, timedelta(seconds=1), DAY]),
)
@settings(derandomize=True, deadline=None)
def test_the_pieces_of_a_window_follow_each_other_without_a_gap(
    left: int, at: datetime, step: timedelta
) -> None:
    """What lies between two windows, or in none, would never be read."""
    plan = windows(step=step)
    first = taken(plan)
    if not cut(plan, first, at, left):
        assert (at - START) < step, "only what is no further than the start is not cut"
        return

    pieces = drain(plan)

    assert pieces[0].start == at
    assert pieces[-1].end is None
    assert len(pieces) <= MOST_PIECES
    for one, following in pairwise(pieces):
        assert one.end == following.start > one.start
        assert (following.start - datetime(1970, 1, 1, tzinfo=UTC)) % step == timedelta(0)


def test_a_window_is_cut_by_the_number_of_orders_in_it() -> None:
    """Not by the calendar: 1,000 orders in shares of 100 are ten windows, however long they are."""
    plan = windows()
    assert cut(plan, taken(plan), START + DAY, left=1000)

    assert len(drain(plan)) == 10


@pytest.mark.parametrize("left", [0, 1, 132])
def test_a_window_with_about_its_share_is_read_to_its_end(left: int) -> None:
    """A few pages more are cheaper than another worker's first one."""
    plan = windows()

    assert not cut(plan, taken(plan), START + DAY, left)


def test_a_window_is_cut_smaller_while_workers_have_nothing_to_read() -> None:
    """The last windows of a run would be read page after page by one worker, and the others wait."""
    plan = windows(page=20, workers=4)
    window = taken(plan)

    assert cut(plan, window, START + DAY, left=90)
    assert len(drain(plan)) == 4


def test_a_window_is_not_cut_smaller_while_others_wait() -> None:
    """There is work for every worker, and each piece costs a request."""
    plan = windows(page=20, workers=4)
    assert cut(plan, taken(plan), START + DAY, left=1000)

    assert not cut(plan, taken(plan), START + 2 * DAY, left=90)


def test_many_orders_of_one_timestamp_are_not_cut() -> None:
    """A window that starts where the cut is would be the same window again, for ever."""
    plan = windows()

    assert not cut(plan, taken(plan), START, left=10**6)
    assert not cut(plan, Window(START, 7), START + MS / 2, left=10**6)


def test_without_a_total_the_rest_is_cut_by_the_rate_of_what_was_read() -> None:
    """100 orders a day so far: windows of a day, one for each worker, and the rest behind them."""
    plan = windows(workers=3)
    window = taken(plan)
    assert not cut(plan, window, START + DAY, left=None, read=99)
    assert cut(plan, window, START + DAY, left=None, read=100)

    pieces = [taken(plan) for _ in range(4)]

    assert [piece.start for piece in pieces] == [START + DAY * n for n in (1, 2, 3, 4)]
    assert pieces[-1].end is None


@pytest.mark.parametrize("left", [None, 10**6])
def test_an_api_that_takes_no_end_is_read_in_one_window(left: int | None) -> None:
    """Two open windows would read the same orders twice."""
    plan = windows(can_end=False)

    assert not cut(plan, taken(plan), START + DAY, left)


def test_a_window_with_many_orders_is_read_in_parts() -> None:
    """It waits where its reader was, and what is before that has been read; nothing goes on without it."""
    plan = windows()
    window, reader = taken(plan), object()
    assert plan.being_read(window.number) == (window, None)
    assert not plan.interrupt(window, reader, START + DAY, MOST_SHARES * 100 - 1)

    assert plan.interrupt(window, reader, START + DAY, MOST_SHARES * 100)
    plan.arrived()

    assert plan.unread_from == START + DAY
    assert plan.is_drained
    assert not plan.is_complete
    again = taken(plan)
    assert (again.start, again.end, again.number) == (START + DAY, None, window.number)
    assert plan.being_read(again.number) == (again, reader)
    plan.read(again)
    assert plan.is_complete


def test_the_oldest_window_is_read_first() -> None:
    """Or the watermark could not move, and a run that is killed would have done nothing."""
    plan = windows()
    cut(plan, taken(plan), START + DAY, left=1000)
    second = taken(plan)
    third = taken(plan)

    cut(plan, second, second.start + MS, left=300)

    assert second.start < taken(plan).start < third.start


def test_what_is_read_ends_at_the_first_window_that_is_not() -> None:
    """T15: the watermark may say so much and no more, whatever was read behind it."""
    plan = windows()
    first = taken(plan)
    assert plan.unread_from == START
    cut(plan, first, START + DAY, left=300)
    one, two, three = (taken(plan) for _ in range(3))

    plan.read(two)
    assert plan.unread_from == one.start
    plan.read(one)
    assert plan.unread_from == three.start
    complete = [plan.is_complete]
    plan.read(three)
    complete.append(plan.is_complete)
    assert complete == [False, True]
    assert plan.unread_from is None


def test_a_load_is_full_when_what_is_under_way_fills_it() -> None:
    """Memory and the work that a kill costs are bounded by a checkpoint, not by the history."""
    plan = windows(workers=8)
    plan.start_load(350)
    first = taken(plan)
    plan.page(100, None)
    cut(plan, first, START + DAY, left=5000)

    found = [plan.take() for _ in range(5)]

    assert [window is not None for window in found] == [True, True, True, False, False]


def test_a_load_takes_at_least_one_window() -> None:
    """A checkpoint smaller than a page would otherwise never end."""
    plan = windows()
    plan.start_load(1)

    assert plan.take() is not None


def test_no_more_windows_are_open_than_workers_can_read() -> None:
    """Rows wait in memory until they are written: at most four windows for each worker."""
    plan = windows(workers=2)
    cut(plan, taken(plan), START + DAY, left=1000)
    open_windows = [taken(plan) for _ in range(8)]
    assert plan.take() is None

    plan.read(open_windows[0])
    assert plan.take() is None, "read, but not written yet"
    plan.arrived()

    assert plan.take() is not None


def test_a_reader_goes_on_with_the_oldest_window_that_waits() -> None:
    """dlt hands out windows only while no rows wait to be written; until then, workers would wait."""
    plan = windows()
    first = begun(plan)
    plan.cut(first, START, START + DAY, 100, left=1000)
    plan.read(first)

    window, before = plan.go_on(100) or pytest.fail("there are others")

    assert (window.start, before) == (START + DAY, None)
    assert plan.unread_from == window.start, "the watermark knows that it is not read yet"
    plan.read(window)
    assert not plan.is_drained
    plan.arrived()
    assert plan.is_drained, "what was read in one go arrives in one go"


def test_a_reader_ends_while_windows_that_were_taken_wait_for_a_worker() -> None:
    """They are the oldest, and its rows can be written meanwhile."""
    plan = windows()
    cut(plan, begun(plan), START + DAY, left=1000)
    one, two = begun(plan), taken(plan)
    plan.read(one)

    assert plan.go_on(100) is None
    plan.being_read(two.number)
    assert plan.go_on(100) is not None


def test_a_reader_that_goes_on_holds_no_more_than_one_that_is_interrupted() -> None:
    """Memory is bounded by workers and windows, whatever the history."""
    plan = windows()
    cut(plan, begun(plan), START + DAY, left=1000)

    assert plan.go_on(MOST_SHARES * 100) is None
    assert plan.go_on(MOST_SHARES * 100 - 1) is not None


def test_a_reader_goes_on_no_further_than_the_load() -> None:
    """Or a run that is killed would have to do more than a checkpoint again."""
    plan = windows()
    plan.start_load(350)
    first = begun(plan)
    plan.page(100, None)
    cut(plan, first, START + DAY, left=5000)

    assert [plan.go_on(100) is not None for _ in range(4)] == [True, True, True, False]


def test_a_reader_goes_on_where_another_was_interrupted() -> None:
    """Begun anew, a window would be read twice, and by offset for ever."""
    plan = windows()
    cut(plan, begun(plan), START + DAY, left=250)
    one, reader = begun(plan), object()
    assert plan.interrupt(one, reader, one.start + MS, MOST_SHARES * 100)

    assert plan.go_on(100) == (Window(one.start + MS, one.number, one.end), reader)


@pytest.mark.parametrize(
    ("page_size", "checkpoint_orders", "workers", "orders"),
    [(200, 50_000, 8, 360), (200, 1000, 8, 200), (200, 2000, 8, 250), (1000, 50_000, 40, 1250)],
)
def test_a_share_is_about_two_pages_and_no_more_than_a_checkpoint_holds(
    page_size: int, checkpoint_orders: int, workers: int, orders: int
) -> None:
    """All workers together bring a checkpoint."""
    size = WindowSize.of(page_size, checkpoint_orders, workers, MS, True)

    assert size.orders == orders
