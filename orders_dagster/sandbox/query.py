"""The query of `GET /v1/orders`, read strictly.

Here: which parameters there are and what is wrong with a bad one. Strict on purpose: a real API
often ignores what it does not know, and a client's misspelt filter then goes unnoticed; here it is
a 400 that names the parameter. Not here: finding the orders (`index.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .index import SORTS
from .times import read_time

DEFAULT_LIMIT = 50
_SORT = ("sort",)
_FILTER = ("modified_since", "modified_before")
_NAMES = ("limit", "offset", *_FILTER, *_SORT)


class BadParameter(Exception):
    """A parameter that cannot be served; becomes a 400 that names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class PageQuery:
    """One page of the orders modified in the half-open [since, before), in microseconds."""

    limit: int
    offset: int
    since: int | None
    before: int | None
    sort: str | None


def read_query(
    parameters: Iterable[tuple[str, str]],
    max_limit: int,
    ignore_sort: bool = False,
    ignore_filter: bool = False,
    also_allowed: tuple[str, ...] = (),
) -> PageQuery:
    """Read the parameters. What is ignored is not even checked, as if it were not known."""
    ignored = (*(_SORT if ignore_sort else ()), *(_FILTER if ignore_filter else ()), *also_allowed)
    given: dict[str, str] = {}
    for name, value in parameters:
        if name in ignored:
            continue
        if name not in _NAMES:
            raise BadParameter(name, f"unknown parameter; known are {', '.join(_NAMES)}")
        if name in given:
            raise BadParameter(name, "given twice; give it once")
        given[name] = value
    sort = given.get("sort")
    if sort is not None and sort not in SORTS:
        raise BadParameter("sort", f"cannot sort by this; sort by one of {', '.join(SORTS)}")
    return PageQuery(
        limit=_integer(given, "limit", DEFAULT_LIMIT, 1, max_limit),
        offset=_integer(given, "offset", 0, 0, None),
        since=_time(given, "modified_since"),
        before=_time(given, "modified_before"),
        sort=sort,
    )


def _integer(given: dict[str, str], name: str, default: int, least: int, most: int | None) -> int:
    text = given.get(name)
    if text is None:
        return min(default, most) if most is not None else default
    # Eighteen digits: beyond any number of orders, within what an index can be sliced by.
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if number < least or (most is not None and number > most):
        allowed = f"from {least} to {most}" if most is not None else f"from {least} up"
        raise BadParameter(name, f"no whole number {allowed}")
    return number


def _time(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    time = read_time(text)
    if time is None:
        raise BadParameter(
            name,
            "no time; write it like 2025-06-30T12:00:00.000Z (the + of an offset is sent as %2B)",
        )
    return time
