"""Probes that measure: how precise dates are, how far apart the clocks, how fast one may ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from orders_dagster.cursor import read_time, step_of, value_at
from orders_dagster.doctor import guess
from orders_dagster.doctor.finding import Finding, Unjudged, fail, ok, warn
from orders_dagster.doctor.known import Known, floor

UNITS = {
    "days": timedelta(days=1),
    "hours": timedelta(hours=1),
    "minutes": timedelta(minutes=1),
    "seconds": timedelta(seconds=1),
    "milliseconds": timedelta(milliseconds=1),
    "microseconds": timedelta(microseconds=1),
}
WRITTEN = {
    "seconds": "%Y-%m-%dT%H:%M:%SZ",
    "minutes": "%Y-%m-%dT%H:%MZ",
    "hours": "%Y-%m-%dT%H:00Z",
    "days": "%Y-%m-%d",
}
IN_STEP_SECONDS = 2.0  # a Date header counts whole seconds, and an answer takes its time


def precision(known: Known) -> Finding:
    """Whether dates, requests and the filter count the same units."""
    form = known.settings.cursor_format
    times = known.times(known.first())
    if len(set(times)) < 3:
        raise Unjudged("it takes orders of three different dates to tell")
    if known.compared is not None:
        pattern = WRITTEN[known.compared]
        if form == "epoch_milliseconds" and known.compared == "seconds":
            pattern = "epoch_seconds"
        return fail(
            f"the filter compares whole {known.compared}, requests are written more precisely",
            "cursor_format",
            suggestion=f'cursor_format = "{pattern}"',
        )
    unit, length = next(
        (unit, length)
        for unit, length in UNITS.items()
        if all(floor(time, length) == time for time in times)
    )
    if length.total_seconds() > max(known.settings.lag_seconds, 60):
        better = _finer(known, length)
        return warn(
            f"{known.settings.cursor_path!r} holds whole {unit}: each synchronisation reads the last of "
            "them again",
            "cursor_path",
            suggestion=f'cursor_path = "{better}"' if better else "",
        )
    step = step_of(form)
    if step > timedelta(seconds=1) and length < step:
        return warn(
            f"dates hold {unit}, but requests whole {_unit_of(step)}: each synchronisation reads the "
            "last of them again",
            "cursor_format",
            suggestion='cursor_format = "iso", if the API takes it',
        )
    return ok(f"dates hold {unit}, requests {_unit_of(step)}")


def _finer(known: Known, length: timedelta) -> str | None:
    """Another date of the orders that holds more than whole units."""
    others = [
        {name: value for name, value in order.items() if name != known.settings.cursor_path}
        for order in known.sample
    ]
    path = guess.cursor_path(others, known.settings.cursor_format)
    if path is None:
        return None
    times = [read_time(value_at(order, path), known.settings.cursor_format) for order in others]
    return None if all(floor(time, length) == time for time in times) else path


def clocks(known: Known) -> Finding:
    """How far the API's clock is from that of this machine."""
    lag = known.settings.lag_seconds
    differences = []
    for exchange in known.wire.answers:
        if "Age" in exchange.headers:  # a cache answered, with the date of another time
            continue
        date = _date(exchange.headers.get("Date", ""))
        if date is not None and exchange.url.startswith(known.settings.base_url.rstrip("/")):
            # Half a second: the header is cut to seconds.
            moment = date + timedelta(seconds=0.5)
            differences.append((exchange.seconds, (moment - exchange.at).total_seconds()))
    if not differences:
        raise Unjudged("the API does not tell its time")
    apart = min(differences)[1]
    if abs(apart) <= IN_STEP_SECONDS:
        return ok("that of the API and that of this machine agree")
    message = f"that of the API is {abs(apart):,.0f} s {'ahead' if apart > 0 else 'behind'}"
    if abs(apart) <= lag:
        return ok(f"{message}, within lag_seconds")
    return warn(
        f"{message}, more than lag_seconds: set the clock that is wrong",
        "lag_seconds",
        suggestion=f"lag_seconds = {round(abs(apart) + 300, -2):.0f}, until then",
    )


def rate(known: Known) -> Finding:
    """Whether the API says how often it may be asked, and the settings keep to it."""
    if not known.wire.answers:
        raise Unjudged("the API cannot be reached")
    settings = known.settings
    answers = [e for e in known.wire.answers if e.url.startswith(settings.base_url.rstrip("/"))]
    if any(answer.status == 429 for answer in answers):
        return warn(
            "the API has answered 429 to the few requests of this examination",
            "max_requests_per_second",
            "workers",
        )
    if any("Retry-After" in answer.headers for answer in answers):
        return warn(
            "the API has asked to come back later (Retry-After)",
            "max_requests_per_second",
            "workers",
        )
    limits = [limit for limit in (_limit(a.headers, a.at) for a in answers) if limit is not None]
    if not limits:
        return ok("the API names no limit")
    orders, seconds = limits[-1]
    if seconds is None:
        if settings.max_requests_per_second:
            return ok(f"the API allows {orders:,} requests in a time it does not name")
        return warn(
            f"the API allows {orders:,} requests in a time it does not name, and the settings no limit",
            "max_requests_per_second",
        )
    allowed = orders / seconds
    said = f"the API allows {orders:,} requests in {seconds:,.0f} s"
    latency = min(answer.seconds for answer in answers)
    expected = settings.max_requests_per_second or settings.workers / max(latency, 0.001)
    if expected <= allowed:
        return ok(said)
    how = "may ask" if settings.max_requests_per_second else "would ask"
    return warn(
        f"{said}; {settings.workers} workers {how} about {expected:,.0f} times a second",
        "max_requests_per_second",
        suggestion=f"max_requests_per_second = {_rounded_down(allowed)}",
    )


def _limit(headers: Mapping[str, str], now: datetime) -> tuple[int, float | None] | None:
    """How many requests in how many seconds, in the spellings that are about: `RateLimit-Policy:
    100;w=60`, `RateLimit: limit=100, remaining=5, reset=30`, `X-RateLimit-Limit`, …"""
    texts = {
        name.lower().replace("rate-limit", "ratelimit").removeprefix("x-"): text
        for name, text in headers.items()
    }
    for name in ("ratelimit-policy", "ratelimit-limit", "ratelimit"):
        found = _POLICY.search(texts.get(name, ""))
        if found and int(found["seconds"]):
            return int(found["requests"]), float(found["seconds"])
    parts = dict(_PART.findall(texts.get("ratelimit", "")))

    def number(name: str) -> float | None:
        found = _NUMBER.match(texts.get(f"ratelimit-{name}") or parts.get(name) or "")
        return float(found[0]) if found else None

    limit, reset = number("limit"), number("reset")
    if limit is None:
        return None
    if reset is not None and reset > _A_TIME:
        reset -= now.timestamp()
    if reset is None or reset <= 0:
        return int(limit), None
    # What is left of a window, of which nobody says how long it is: the usual one that it fits into.
    return int(limit), next((length for length in _USUAL if reset <= length), reset)


_POLICY = re.compile(r"(?P<requests>\d+)\s*;\s*(?:w|window)=(?P<seconds>\d+)")
_PART = re.compile(r"(limit|reset)\s*=\s*(\d+)")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_A_TIME = 1e9  # seconds since 1970, not seconds from now
_USUAL = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0)


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, IndexError):
        return None


def _rounded_down(number: float) -> str:
    return f"{int(number)}" if number >= 10 else f"{max(int(number * 100) / 100, 0.01):g}"


def _unit_of(step: timedelta) -> str:
    return next(unit for unit, length in UNITS.items() if length == step)
