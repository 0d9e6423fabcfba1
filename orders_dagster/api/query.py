"""The query parameters of a window: `{start}` is included, `{end}` is excluded.

The last window of a synchronisation has no end yet.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orders_dagster.cursor import write_time
from orders_dagster.settings import OrdersSettings


def open_window(settings: OrdersSettings, start: datetime) -> dict[str, str]:
    """The parameters that ask for everything from a time on."""
    text = write_time(start, settings.cursor_format)
    asked = _open_ended(settings.params, settings.cursor_format)
    return {name: value.replace("{start}", text) for name, value in asked.items()}


def first_request(settings: OrdersSettings, start: datetime) -> dict[str, str]:
    """The same for `rest_api_source`, with braces doubled: dlt takes what stands in single ones for a
    placeholder of its own."""
    window = open_window(settings, start)
    return {name: value.replace("{", "{{").replace("}", "}}") for name, value in window.items()}


def next_requests(params: dict[str, Any], cursor_format: str) -> dict[str, str]:
    """The parameters that move with the window: those whose value holds `{start}`."""
    return {n: v for n, v in _open_ended(params, cursor_format).items() if "{start}" in v}


def _open_ended(params: dict[str, Any], cursor_format: str) -> dict[str, str]:
    """The window has no end yet: a parameter that is just `{end}` is not sent, and inside a longer
    value `{end}` is a time one year ahead."""
    end = write_time(datetime.now(UTC) + timedelta(days=365), cursor_format)
    texts = {name: _text(value) for name, value in params.items()}
    return {n: v.replace("{end}", end) for n, v in texts.items() if v.strip() != "{end}"}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
