"""The query parameters of a window: `{start}` is included, `{end}` is excluded.

The last window of a synchronisation has no end yet: a parameter that is just `{end}` is not sent, and
inside a longer value `{end}` is a time one year ahead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from orders_dagster.cursor import write_time
from orders_dagster.settings import OrdersSettings

START, END = "{start}", "{end}"
A_YEAR = timedelta(days=365)

_PLAIN = re.compile(r"[-+$]?([a-z_.,:+ -]{0,80}|[A-Z_.,:+ -]{0,20}|v?\d{1,6}([.-]\d{1,2}){0,2})")


def templates(params: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of the setting as texts."""
    return {name: _text(value) for name, value in params.items()}


def in_window(
    params: Mapping[str, str], start: str, end: str | None, cursor_format: str
) -> dict[str, str]:
    """The parameters that ask for the orders of a window.

    Args:
        params: texts in which `{start}` and `{end}` may stand anywhere.
        start, end: as they are written into a request; `end` None for the open window.
    """
    if end is None:
        params = {name: text for name, text in params.items() if text.strip() != END}
        end = write_time(datetime.now(UTC) + A_YEAR, cursor_format)
    return {n: text.replace(START, start).replace(END, end) for n, text in params.items()}


def page_params(
    settings: OrdersSettings, start: datetime, end: datetime | None, limit: int, offset: int = 0
) -> dict[str, str]:
    """The parameters that ask for one page of a window, for whoever reads no further."""
    form = settings.cursor_format
    until = None if end is None else write_time(end, form)
    params = in_window(templates(settings.params), write_time(start, form), until, form)
    return params | {settings.limit_param: str(limit), settings.offset_param: str(offset)}


def depending_on(resource: str, params: Mapping[str, str]) -> dict[str, str]:
    """The parameters as `rest_api_source` takes them from a parent resource. Other braces are doubled:
    dlt takes what stands in single ones for a placeholder of its own."""
    found = {}
    for name, text in params.items():
        doubled = text.replace("{", "{{").replace("}", "}}")
        for ours in (START, END):
            theirs = f"{{resources.{resource}.{ours[1:-1]}}}"
            doubled = doubled.replace(f"{{{ours}}}", theirs)
        found[name] = doubled
    return found


def not_shown(params: Mapping[str, str]) -> frozenset[str]:
    """The parameters that may be a secret, whatever their name: signatures and keys of subscriptions are
    neither a word, such as that of a sort, nor a date, nor a small number."""
    return frozenset(
        name
        for name, text in params.items()
        if not (START in text or END in text or _PLAIN.fullmatch(text))
    )


def can_end(params: Mapping[str, str]) -> bool:
    """Whether a request can name the end of a window."""
    return any(END in text for text in params.values())


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
