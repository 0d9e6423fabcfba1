"""What an answer of the API looks like: where the orders are, how many there are, and whether it is
a page of orders at all.

dlt takes a body without the selector for an empty page, and anything that is no list for one order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dlt.common import jsonpath
from dlt.common.jsonpath import TJsonPath
from requests import Response

from orders_dagster.api.session import NO_CONTENT
from orders_dagster.cursor import value_at
from orders_dagster.errors import ResponseNotUnderstood
from orders_dagster.settings import OrdersSettings


@dataclass
class PageShape:
    """Where things are in an answer.

    Attributes:
        redact: makes a URL showable.
        reports_total: cleared when the total turns out to be something else.
        filter_is_trusted: set when it has been seen to start where it was told to.
        start_is_included: set when it has been seen to hold an order that is dated at its start.
        sort_is_trusted: set when a page has shown that the oldest order comes first.
        undated_leads: how often a page of orders without a date came before one with dates.
        ignores_offset: set when the API answers each offset with the same page.
        largest_page: how many orders the largest page so far held.
        may_be_capped: set when another page has been as large: more the server may not give.
        offset_is_trusted: set when it has been seen to skip orders, not pages.
        total_is_trusted: set when it has been seen to be more than the size of a page.
    """

    data_selector: str
    total_path: str
    primary_key: str
    cursor_path: str
    cursor_format: str
    redact: Callable[[str | None], str]
    reports_total: bool = True
    total_is_trusted: bool = False
    filter_is_trusted: bool = False
    start_is_included: bool = False
    sort_is_trusted: bool = False
    undated_leads: int = 0
    ignores_offset: bool = False
    largest_page: int = 0
    may_be_capped: bool = False
    _on_largest: frozenset[str] = frozenset()
    offset_is_trusted: bool = False

    @classmethod
    def of(cls, settings: OrdersSettings, redact: Callable[[str | None], str]) -> PageShape:
        """As the settings say."""
        return cls(
            data_selector=settings.data_selector,
            total_path=settings.total_path,
            primary_key=settings.primary_key,
            cursor_path=settings.cursor_path,
            cursor_format=settings.cursor_format,
            redact=redact,
        )

    def total(self, response: Response, orders: list[Any]) -> int | None:
        """The number of orders that match, None if the API reports none; some have null for 0.

        Args:
            orders: those of the answer.

        Raises:
            ResponseNotUnderstood: the setting names a path, and there is no number.
        """
        if not (self.total_path and self.reports_total):
            return None
        found = jsonpath.find_values(compiled(self.total_path), response.json())
        value = found[0] if found else None
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if found == [None] and not any(orders):
            return 0
        if isinstance(value, bool) or value is None or not _is_count(value):
            raise self.not_understood(
                response,
                f"there is no count at {self.total_path!r}",
                'sources.orders.total_path ("" if the API reports no total)',
            )
        return int(value)

    def note_size(self, keys: list[str]) -> None:
        """Note how large a page is, given the ids of its orders."""
        if len(keys) > self.largest_page:
            self.largest_page, self.may_be_capped = len(keys), False
            self._on_largest = frozenset(keys)
        elif len(keys) == self.largest_page and self._on_largest != set(keys):
            self.may_be_capped = True

    def trust(self, total: int | None, orders: int) -> None:
        """Note a total: more than the orders so far, it is no size of a page."""
        if total is not None and total > orders:
            self.total_is_trusted = True

    def check(self, response: Response, rows: list[Any], *, is_first: bool) -> None:
        """Whether an answer is a page of orders.

        Raises:
            ResponseNotUnderstood: nothing at the selector, no list, or orders without such fields as an id.
        """
        if response.status_code == NO_CONTENT:
            return  # a page without orders; `total` minds if there is to be a number
        if not rows or not any(isinstance(row, dict) for row in rows):
            self._check_selector(response)
        if len(rows) == 1:
            self._check_is_list(response, rows[0])
        if is_first and len(rows) > 1:
            # Orders that were never modified come first in many a sort; but a page without ids is none.
            for setting, path, is_there in (
                ("primary_key", self.primary_key, _has_value),
                ("cursor_path", self.cursor_path, _has_field),
            ):
                if not any(is_there(row, path) for row in rows):
                    raise self.not_understood(
                        response,
                        f"none of its {len(rows)} orders has a {path!r}; the first is {shape(rows[0])}",
                        f"sources.orders.{setting}",
                    )

    def not_understood(self, response: Response, found: str, setting: str) -> ResponseNotUnderstood:
        return ResponseNotUnderstood(
            url=self.redact(response.url),
            status=response.status_code,
            found=f"{found}; the answer is {_shape_of(response)}",
            setting=setting,
        )

    def _check_selector(self, response: Response) -> None:
        # An empty list has no elements for `orders[*]` to find, but it is there.
        selector = self.data_selector.partition("[*]")[0]
        found = jsonpath.find_values(selector, response.json()) if selector else [[]]
        if not found:
            raise self.not_understood(
                response, f"there is nothing at {selector!r}", "sources.orders.data_selector"
            )
        if isinstance(found[0], (str, int, bool)):
            raise self.not_understood(
                response, f"there is no list at {selector!r}", "sources.orders.data_selector"
            )

    def _check_is_list(self, response: Response, row: Any) -> None:
        """One order may come without its list; an object that has no order's id is something else."""
        if not isinstance(row, dict) or value_at(row, self.primary_key) is not None:
            return
        if "[*]" in self.data_selector:  # what it finds are elements of a list
            return
        found = jsonpath.find_values(self.data_selector, response.json())
        if len(found) == 1 and found[0] is row:
            raise self.not_understood(
                response,
                f"there is {shape(row)} at {self.data_selector!r}, no list",
                "sources.orders.data_selector",
            )


def _has_value(row: Any, path: str) -> bool:
    return value_at(row, path) is not None


def _has_field(row: Any, path: str) -> bool:
    """Whether an order has a field, be it null, or an object of its path that is."""
    parent, _, name = path.removeprefix("$.").partition(".")
    if not (isinstance(row, dict) and parent in row):
        return False
    return not name or row[parent] is None or _has_field(row[parent], name)


FIELD = re.compile(r"(?!.*\d{3})[\w-]{1,40}")
"""The name of a field that may be shown. One with a number in it may be an order's id: a list may come as
an object, each order under its number."""


def shape(body: Any) -> str:
    """What a body looks like, by its keys: names of fields only, never their values."""
    if isinstance(body, dict):
        if is_map(body):
            return (
                f"an object of {len(body)} objects; the first is {shape(next(iter(body.values())))}"
            )
        names = {key if FIELD.fullmatch(str(key).lstrip("$@")) else "..." for key in body}
        keys = ", ".join(sorted(names)[:20])
        return f"an object with the keys {keys}" if keys else "an object without keys"
    if isinstance(body, list):
        return f"a list of {len(body)}"
    return "neither an object nor a list"


def _shape_of(response: Response) -> str:
    return "empty" if response.status_code == NO_CONTENT else shape(response.json())


def is_map(body: Mapping[str, Any]) -> bool:
    """Whether an object is a list under another form: several objects with the same fields, each under a
    key that is a value."""
    kinds = {frozenset(value) if isinstance(value, dict) else None for value in body.values()}
    return len(body) > 1 and len(kinds) == 1 and not kinds & {None, frozenset()}


@cache
def compiled(path: str) -> TJsonPath:
    """A JSONPath, read once: to read it takes as long as to read a page."""
    return jsonpath.compile_path(path)


def _is_count(value: Any) -> bool:
    try:
        return bool(value >= 0 and value == int(value))
    except (TypeError, ValueError, OverflowError):
        return False
