"""Probes of what is on a page: where the orders are, how many, and whether each can be told apart and
dated."""

from __future__ import annotations

from typing import Any

from dlt.common import jsonpath

from orders_dagster.api.page import compiled
from orders_dagster.api.session import NO_CONTENT
from orders_dagster.cursor import value_at
from orders_dagster.doctor import guess
from orders_dagster.doctor.finding import Finding, Unjudged, counted, fail, ok, warn
from orders_dagster.doctor.known import SMALL, Known
from orders_dagster.doctor.reach import shape_of
from orders_dagster.rows import is_key


def selector(known: Known) -> Finding:
    """Whether there is a list of orders where the setting says."""
    first = known.first()
    body = first.json()
    path = known.settings.data_selector
    # An empty list has no elements for `orders[*]` to find, but it is there.
    head = path.partition("[*]")[0]
    found: Any = jsonpath.find_values(compiled(head), body) if head else [body]
    is_null = found == [None] and known.total(first) == 0
    has_no_content = first.status_code == NO_CONTENT
    if is_null or has_no_content or (found and isinstance(found[0], list)):
        orders = known.orders(first)
        if not orders:
            what = "answer" if has_no_content else f"list at {path!r}"
            return warn(
                f"the {what} is empty, so that little else can be tried",
                "params",
                "initial_value",
            )
        return ok(f"{counted(len(orders), 'order')} at {path!r}")
    what = f"there is no list at {path!r}" if found else f"there is nothing at {path!r}"
    better = guess.selector(body)
    if better is None:
        known.has_selector = False
        return fail(f"{what}, nor another list; the answer is {shape_of(body)}", "data_selector")
    known.go_on_with(data_selector=better)
    return fail(
        f"{what}; there are {counted(len(known.orders(first)), 'object')} at {better!r}",
        "data_selector",
        suggestion=f'data_selector = "{better}"',
    )


def page_size(known: Known) -> Finding:
    """Whether a page holds as many orders as were asked for."""
    settings, received = known.settings, len(known.several)
    small = len(known.orders(known.small()))
    if small == received or received > settings.page_size:
        return warn(
            f"{settings.limit_param!r} is ignored: {settings.page_size} or {SMALL} asked for, "
            f"{received} and {small} received",
            "limit_param",
            suggestion=f"or page_size = {received}",
        )
    if received == settings.page_size:
        return ok(f"{settings.page_size} asked for, {received} received")
    total = known.total(known.first())
    if total is None or total <= received:
        behind = set(known.keys(known.shifted())) - set(known.keys(known.first()))
        if not behind:
            return ok(f"all {received} orders are on one page")
    return warn(
        f"{settings.page_size} asked for, {received} received, though there are more",
        "page_size",
        suggestion=f"page_size = {received}",
    )


def total(known: Known) -> Finding:
    """Whether the number of orders is where the setting says, and is that."""
    path, first = known.settings.total_path, known.first()
    received = len(known.orders(first))
    if not known.has_selector:
        raise Unjudged("there are no orders to look at")
    count = known.total(first)
    few = known.small() if received > SMALL else first
    others = len(known.orders(few))
    better = guess.total(first.json(), few.json(), received, others)
    if not path:
        if better:
            return warn(
                f"none is set, though {better!r} looks like one: windows are read without it, one "
                "page more each",
                "total_path",
                suggestion=f'total_path = "{better}"',
            )
        return ok("none is set, and none is seen")
    instead = f'total_path = "{better or ""}"'
    if count is None:
        known.go_on_with(total_path=better or "")
        return fail(
            f"there is no number at {path!r}" + (f", but at {better!r}" if better else ""),
            "total_path",
            suggestion=instead,
        )
    if count and not received:
        message = f"{path!r} says {counted(count, 'order')}, and the page has none"
        return fail(message, "data_selector", "total_path")
    if count < received:
        known.go_on_with(total_path="")
        return fail(
            f"{path!r} says less than there are on the page, {received}",
            "total_path",
            suggestion=instead,
        )
    if count == received > others == known.total(few):
        known.go_on_with(total_path="")
        return warn(
            f"{path!r} is the size of the page, not the number of orders",
            "total_path",
            suggestion=instead,
        )
    return ok(f"{counted(count, 'order')} at {path!r}")


def primary_key(known: Known) -> Finding:
    """Whether every order has an id, and each another."""
    orders, path = known.sample, known.settings.primary_key
    found = [value_at(order, path) for order in orders]
    keys = [key if is_key(key) else None for key in found]
    missing = sum(key is None for key in keys)
    twice = guess.twice([str(key) for key in keys if key is not None])
    if not missing and not twice:
        return ok(f"all {len(orders)} orders of the page have {path!r}, each another")
    better = guess.primary_key(orders)
    suggestion = f'primary_key = "{better}"' if better else ""
    if missing == len(orders):
        if better:
            known.go_on_with(primary_key=better)
        is_there = any(key is not None for key in found)
        what = (
            f"{path!r} is neither text nor a whole number" if is_there else f"no order has {path!r}"
        )
        return fail(
            f"{what}; an order is {shape_of(orders[0])}",
            "primary_key",
            suggestion=suggestion,
        )
    if twice:
        return fail(
            f"{twice} of {len(orders)} orders share their {path!r} with another: they would become "
            "one row",
            "primary_key",
            suggestion=suggestion,
        )
    return warn(
        f"{missing} of {len(orders)} orders have no {path!r} of text or a whole number: they would go to "
        "orders_rejected",
        "primary_key",
        suggestion=suggestion,
    )


def cursor(known: Known) -> Finding:
    """Whether every order has a modification date that can be read."""
    orders, settings = known.sample, known.settings
    path, form = settings.cursor_path, settings.cursor_format
    missing = sum(value_at(order, path) is None for order in orders)
    unreadable = len(orders) - missing - sum(known.time(order) is not None for order in orders)
    if not missing and not unreadable:
        return ok(f"all {len(orders)} orders of the page have {path!r}, readable")
    if missing == len(orders):
        better = guess.cursor_path(orders, form)
        if better:
            known.go_on_with(cursor_path=better)
        return fail(
            f"no order has {path!r}; an order is {shape_of(orders[0])}",
            "cursor_path",
            suggestion=f'cursor_path = "{better}"' if better else "",
        )
    if missing + unreadable == len(orders):
        pattern = guess.cursor_format(orders, path)
        if pattern:
            known.go_on_with(cursor_format=pattern)
        return fail(
            f"{path!r} is not a date that can be read",
            "cursor_format",
            "cursor_path",
            suggestion=f'cursor_format = "{pattern}"' if pattern else "",
        )
    return warn(
        f"{missing} of {len(orders)} orders have no {path!r}, {unreadable} an unreadable one: they "
        "would go to orders_rejected",
        "cursor_path",
    )
