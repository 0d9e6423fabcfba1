"""Probes of what the API does with a window: filter, sort, both edges, and the offset inside of it.

An API that does not know a parameter often ignores it without a word, and a synchronisation that
believed it would read too much, in the wrong order, or nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from requests import Response

from orders_dagster.api.query import END, START, templates
from orders_dagster.api.seek import LONGEST_OVERLAP
from orders_dagster.doctor.finding import Finding, Unanswered, Unjudged, fail, named, ok, warn
from orders_dagster.doctor.known import Known, floor

ONE_SECOND = timedelta(seconds=1)
OF_ZONE = ("params", "cursor_format")
ANOTHER_ZONE = "does the filter read dates in another time zone than they are written in?"
LONGEST_OFFSET = timedelta(days=2)
"""No two time zones are further apart."""

UNITS = {
    "seconds": ONE_SECOND,
    "minutes": timedelta(minutes=1),
    "hours": timedelta(hours=1),
    "days": timedelta(days=1),
}


def filtered(known: Known) -> Finding:
    """Whether an open window holds no order from before its start."""
    _seek_only(known)
    names = _holding(known, START)
    start = known.edges.start
    later = known.later()
    times = known.times(later)
    early = [time for time in times if known.floor(time) < start]
    if not times:
        return fail(
            f"no order is found from a date on that orders of the first page have: {names} or the way "
            "the date is written is not what the API expects",
            "params",
            "cursor_format",
        )
    unit = _unit_compared(known, start, early) if early else None
    if unit is not None:
        known.compares(unit, UNITS[unit])
        early = []
    if not early:
        known.is_filtered = True
        total, counted = known.total(later), _counted(known)
        if total is not None and total == known.total(known.first()) and counted is not True:
            return fail(
                f"{names}: the orders are from the window, but their number is that of all orders",
                "total_path",
                suggestion='total_path = "", if the API has no number of what matches',
            )
        if counted is False:
            return fail(
                f"{names}: a window is said to hold another number of orders than it does",
                "total_path",
                suggestion='total_path = "", if the API has no number of what matches',
            )
        if left_out := _left_out(known):
            known.is_filtered = False
            return fail(
                f"{names} goes by another date, such as that of the creation: {left_out} of the first "
                "orders are missing among others of their time",
                "params",
                suggestion=f"the name of the API's filter on {known.settings.cursor_path!r}",
            )
        return ok(f"{names}: no order from before the start of the window")
    early_ones = f"{len(early)} of {len(times)} orders are from before the start of the window"
    if known.keys(later) != known.keys(known.ask(start + LONGEST_OFFSET)):
        return fail(f"{names} is not obeyed: {early_ones}", *OF_ZONE, suggestion=ANOTHER_ZONE)
    return fail(
        f"{names} is ignored: {early_ones}",
        "params",
        suggestion='the name of the API\'s filter, or paging = "offset" if it has none',
    )


def _counted(known: Known) -> bool | None:
    """Whether the number of orders of a small window is that of the orders on its only page; None if
    nobody can tell."""
    if not _can_end(known):
        return None
    for page in (known.narrow, lambda: known.ask(known.edges.start, known.edges.behind)):
        try:
            response = page()
        except Unanswered:
            return None
        total, rows = known.total(response), len(known.orders(response))
        if total is None or not 0 < rows < min(len(known.sample), known.settings.page_size):
            return None
        if total == rows:
            return True
    return False  # twice: an order may have come in between


def _left_out(known: Known) -> int:
    """How many orders of the first page are not in a window that has others from before and behind them."""
    later, there = known.later(), set(known.keys(known.later()))
    times = known.times(later)
    if times != sorted(times):
        return 0  # they may come later
    oldest, newest = times[0], times[-1]

    def missing(page: Response) -> set[tuple[str, datetime]]:
        return {
            (key, time)
            for key, time in known.dated(page)
            if oldest < time < newest and key not in there
        }

    found = missing(known.first())
    # An order that has just changed is where it is dated now.
    return len(found & missing(known.ask())) if found else 0


def _unit_compared(known: Known, start: datetime, early: list[datetime]) -> str | None:
    """The unit that the filter compares, if all that came too early is in that of the start, what is known
    from before it was left out, and so it is from the beginning of that unit on."""
    for unit, length in UNITS.items():
        begins = floor(start, length)
        is_seen = any(time < begins for time in known.times(known.first()))
        if length > known.step and is_seen and all(time >= begins for time in early):
            is_it = known.keys(known.ask(begins)) == known.keys(known.later())
            return unit if is_it else None
    return None


def sorted_by_date(known: Known) -> Finding:
    """Whether orders come by their modification date, oldest first."""
    _seek_only(known)
    step = min(known.step, ONE_SECOND)
    responses = [known.first()]
    if known.was_answered("later"):
        responses.append(known.later())
    falls = rises = 0
    for response in responses:
        times = known.times(response)
        for before, after in pairwise(times):
            falls += before - after >= step
            rises += after - before >= step
    if not falls and not rises:
        raise Unjudged("it takes orders of different dates to tell")
    if not falls:
        known.is_sorted = True
        return ok("oldest first")
    others = [
        name
        for name, text in templates(known.settings.params).items()
        if START not in text and END not in text
    ]
    what = named(*others) or "no parameter that sorts"
    if not rises:
        return fail(f"newest first, with {what}", "params", suggestion="the other direction")
    return fail(
        f"not by {known.settings.cursor_path!r}, with {what}",
        "params",
        suggestion='the name of the API\'s sort, or paging = "offset" if it has none',
    )


def start_included(known: Known) -> Finding:
    """Whether a window holds the orders dated at its start."""
    _judged_by_filter(known)
    start = known.edges.start
    responses = [known.later()]
    if not known.is_sorted and _can_end(known):
        responses.append(known.bounded())
    if any(known.floor(time) == start for response in responses for time in known.times(response)):
        return ok("orders dated at the start of a window are in it")
    if not known.is_sorted:
        raise Unjudged("orders do not come by their date")
    if not any(known.floor(time) == start for time in known.times(known.earlier())):
        if not any(
            known.floor(time) == known.edges.before for time in known.times(known.from_before())
        ):
            known.is_filtered = False
            return fail(
                "orders dated from the start of a window on are not in it, and are lost",
                *OF_ZONE,
                suggestion=ANOTHER_ZONE,
            )
        raise Unjudged("the order it was tried with has just changed; try again")
    message = "orders dated at the start of a window are not in it"
    suggestion = "a filter that includes its start (>=), if the API has one"
    if known.step > LONGEST_OVERLAP:
        return fail(f"{message}, and are lost", "params", suggestion=suggestion)
    return warn(
        f"{message}: each window is read from a little earlier", "params", suggestion=suggestion
    )


def end_excluded(known: Known) -> Finding:
    """Whether a window ends where it is to end."""
    _judged_by_filter(known)
    if not _can_end(known):
        raise Unjudged("no parameter holds {end}: windows are read one after another")
    names, edges = _holding(known, END), known.edges
    try:
        bounded = known.bounded()
    except Unanswered as what:
        raise Unanswered(f"with {names}, {what}", what.status) from None
    times = [known.floor(time) for time in known.times(bounded)]
    behind = sum(time > edges.end for time in times)
    if behind:
        return fail(
            f"{names} is ignored: {behind} of {len(times)} orders are from behind the end of the window",
            "params",
            suggestion="the name of the API's parameter, or none with {end} if it has none",
        )
    if edges.end in times:
        return warn(
            f"{names}: orders dated at the end of a window are in it, and are read twice",
            "params",
            suggestion="a filter that excludes its end (<), if the API has one",
        )
    if len(times) >= len(known.sample):
        raise Unjudged("too many orders are dated at the same time to tell")
    if not times:
        return fail(f"{names}: a window that holds orders comes back empty", "params")
    if lost := _lost_at_the_end(known):
        return fail(
            f"{names}: {lost} of the last orders of a window are not in it, and are lost",
            *OF_ZONE,
            suggestion=ANOTHER_ZONE,
        )
    return ok(f"{names}: orders dated at the end of a window are not in it")


def _lost_at_the_end(known: Known) -> int:
    """How many orders of an open window are missing in the one that ends closely behind them, and also in
    the one that begins there."""
    edges = known.edges

    def missing(later: Response, narrow: Response) -> set[tuple[str, datetime]]:
        there = set(known.keys(narrow))
        return {
            (key, time)
            for key, time in known.dated(later)
            if edges.start < known.floor(time) < edges.behind and key not in there
        }

    narrow = known.narrow()
    if not known.is_sorted or len(known.orders(narrow)) >= len(known.sample):
        return 0  # they may be on another page
    found = missing(known.later(), narrow)
    if not found:
        return 0
    # An order that has just changed is where it is dated now.
    found &= missing(known.ask(edges.start), known.ask(edges.start, edges.behind))
    next_one = set(known.keys(known.ask(edges.behind)))
    return sum(key not in next_one for key, _ in found)


def offset(known: Known) -> Finding:
    """Whether an offset skips as many orders as it says."""
    settings = known.settings
    first, shifted = (
        [str(key) if key is not None else None for key in known.ids(response)]
        for response in (known.first(), known.shifted())
    )
    name = settings.offset_param
    there = [key for key in shifted if key is not None]
    if there and there[0] == next((key for key in first if key is not None), None):
        return fail(f"{name!r} is ignored: the same page comes again", "offset_param")
    if not set(there) & set(first[known.middle :]):
        return fail(
            f"{name!r} of {known.middle} does not go on in the middle of the first page: perhaps it "
            "counts pages",
            "offset_param",
        )
    return ok(f"{name!r} of {known.middle} skips {known.middle} orders")


def _seek_only(known: Known) -> None:
    known.first()
    if known.settings.paging == "offset":
        raise Unjudged('paging = "offset" reads everything, in any order')


def _judged_by_filter(known: Known) -> None:
    _seek_only(known)
    _ = known.edges
    if not known.is_filtered:
        raise Unjudged("the filter is not obeyed")


def _holding(known: Known, what: str) -> str:
    return named(*(name for name, text in templates(known.settings.params).items() if what in text))


def _can_end(known: Known) -> bool:
    return bool(_holding(known, END))
