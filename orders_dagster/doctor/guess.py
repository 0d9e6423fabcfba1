"""Suggestions: which list in an answer holds the orders, which number counts them, which field is the
id or the modification date. Only what is plain is suggested; from names and shapes, values stay here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from orders_dagster.api.page import FIELD, is_map
from orders_dagster.cursor import UnreadableTime, read_time, value_at

DEEPEST = 4
_BARE = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_COUNT = re.compile(r"total|count|hits|found|records|results|elements|size|num", re.IGNORECASE)
_ID = re.compile(r"(^|_)(id|uuid|guid|number|no|key|code)$|(Id|ID|Number|Key|Code)$")
_OTHERS_ID = re.compile(r"custom|user|client|account|shop|store|parent|address", re.IGNORECASE)
_DATE = re.compile(r"date|time|stamp|modif|updat|chang|creat|(_at|At)$", re.IGNORECASE)
_MODIFIED = re.compile(r"modif|updat|chang", re.IGNORECASE)

PATTERNS = (
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y %H:%M",
    "%Y/%m/%d %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%Y/%m/%d",
    "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y",
)
"""Ways of writing a date that are read only when they are named."""


def selector(body: Any) -> str | None:
    """The path of the longest list of objects."""
    lists = sorted(_lists(body), key=lambda found: -found[1])
    return lists[0][0] if lists else None


def total(first: Any, small: Any, orders: int, others: int) -> str | None:
    """The path of a number that may count the orders: no less than there are on a page, and the same
    on a page of fewer."""
    before, after = dict(_numbers(first)), dict(_numbers(small))
    fits = [
        path
        for path, number in before.items()
        if _COUNT.search(path.rpartition(".")[2])
        and number >= orders
        and not (orders != others and after.get(path, number) == others)
    ]
    return min(fits, key=lambda path: ("total" not in path.lower(), path.count(".")), default=None)


def primary_key(orders: list[dict[str, Any]]) -> str | None:
    """The path of a field that every order has, each another, and that is called like an id."""
    fits = [
        path
        for path, values in _fields(orders).items()
        if len(values) == len(orders) == len({str(value) for value in values})
        and all(isinstance(value, (str, int)) for value in values)
        and _ID.search(path.rpartition(".")[2])
    ]
    return min(
        fits,
        key=lambda path: (
            bool(_OTHERS_ID.search(path)),
            "id" not in path.lower(),
            path.count("."),
            len(path),
        ),
        default=None,
    )


def cursor_path(orders: list[dict[str, Any]], cursor_format: str) -> str | None:
    """The path of a date that every order has, called like a modification."""
    fits = [
        path
        for path, values in _fields(orders).items()
        if len(values) == len(orders)
        and _DATE.search(path)
        and all(_is_time(value, cursor_format) for value in values)
    ]
    best = min(
        fits,
        key=lambda path: (not _MODIFIED.search(path), path.count("."), len(path)),
        default=None,
    )
    return best if best and (_MODIFIED.search(best) or len(fits) == 1) else None


def cursor_format(orders: list[dict[str, Any]], path: str) -> str | None:
    """The one pattern that reads the dates of all orders; None if several do: day or month first?"""
    values = [value for value in (value_at(order, path) for order in orders) if value is not None]
    if not all(isinstance(value, str) for value in values):
        return None
    fits = [pattern for pattern in PATTERNS if all(_matches(value, pattern) for value in values)]
    return fits[0] if values and len(fits) == 1 else None


def _lists(body: Any, path: str = "", level: int = 0) -> Iterator[tuple[str, int]]:
    if isinstance(body, list):
        if body and all(isinstance(element, dict) for element in body):
            yield path or "$", len(body)
    elif isinstance(body, Mapping) and level < DEEPEST and not is_map(body):
        for name, value in body.items():
            if FIELD.fullmatch(str(name)):
                yield from _lists(value, _below(path, str(name)), level + 1)


def _below(path: str, name: str) -> str:
    """The path of a field in the object at a path, as JSONPath takes it."""
    is_bare = _BARE.fullmatch(name) and name not in ("where", "wherenot")
    step = name if is_bare else f"'{name}'"
    return f"{path}.{step}" if path else step


def _numbers(body: Any, path: str = "", level: int = 0) -> Iterator[tuple[str, int]]:
    if isinstance(body, Mapping) and level < DEEPEST:
        for name, value in body.items():
            if FIELD.fullmatch(str(name)):
                yield from _numbers(value, _below(path, str(name)), level + 1)
    elif isinstance(body, int) and not isinstance(body, bool):
        yield path, body
    elif isinstance(body, str) and body.isdecimal() and len(body) < 12:
        yield path, int(body)


def _fields(orders: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of each field that is neither an object nor a list, by path."""
    found: dict[str, list[Any]] = {}

    def collect(value: Mapping[str, Any], path: str, level: int) -> None:
        for name, inner in value.items():
            if not FIELD.fullmatch(str(name)):
                continue
            here = f"{path}.{name}" if path else str(name)
            if isinstance(inner, Mapping) and level < DEEPEST:
                collect(inner, here, level + 1)
            elif inner is not None and not isinstance(inner, (list, Mapping)):
                found.setdefault(here, []).append(inner)

    for order in orders:
        collect(order, "", 0)
    return found


def twice(keys: list[str]) -> int:
    """How many of the keys are not alone."""
    return sum(count for count in Counter(keys).values() if count > 1)


def _is_time(value: Any, cursor_format: str) -> bool:
    with suppress(UnreadableTime):
        read_time(value, cursor_format)
        return not isinstance(value, int) or value > 10**8  # a small number counts something
    return False


def _matches(value: str, pattern: str) -> bool:
    with suppress(ValueError):
        datetime.strptime(value.strip(), pattern)
        return True
    return False
