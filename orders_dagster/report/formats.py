"""The report as a page, as Markdown, and as JSON.

Order ids, reasons and field names come from outside, so everything is escaped: by the template of the
page, and here for Markdown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orders_dagster.records import Evaluation, Materialization, Table
from orders_dagster.report import charts, write
from orders_dagster.report.content import FAIL, NONE, PASS, WARN, CheckState, Report

WORDS = {FAIL: "fails", WARN: "warns", PASS: "passes", NONE: "not asked yet"}
MARKS = {FAIL: "✗", WARN: "!", PASS: "✓", NONE: "–"}
STRIP = 40
"""Evaluations in the small chart of a check: more would be too thin to see on a phone."""


def html(report: Report) -> str:
    """One page that needs nothing else: no script, no style sheet, no font, no picture from elsewhere."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "time": write.time,
        "number": write.number,
        "duration": write.duration,
        "cell": write.cell,
        "code": write.code,
    }
    return environment.get_template("page.html.jinja").render(
        report=report,
        words=WORDS,
        marks=MARKS,
        since=since,
        strip_in_words=strip_in_words,
        load_columns=LOAD_COLUMNS,
        load_rows=[load_row(load) for load in reversed(report.loads)],
        strip=lambda check: Markup(_strip(check)),  # noqa: S704 - pygal escapes what it draws
        load_charts=[(title, Markup(svg)) for title, svg in _load_charts(report.loads)],  # noqa: S704
    )


def markdown(report: Report) -> str:
    """The same for a terminal, a ticket or a pull request; without the charts."""
    return "\n".join(_markdown(report)) + "\n"


def summary(report: Report) -> str:
    """The verdicts, in Markdown, for the Dagster page."""
    return "\n".join([f"**{_escape(report.headline)}**", "", *_check_table(report)])


def as_json(report: Report) -> str:
    """The same for machines. Times are ISO 8601 in UTC, durations seconds."""
    document = _plain(report) | {"has_failed_check": report.has_failed_check}
    document["checks"] = [
        _plain(check)
        | {
            "latest": _plain(check.latest),
            "history": [
                {"at": _plain(one.at), "verdict": one.verdict, "offenders": one.offenders}
                for one in check.history
            ],
        }
        for check in report.checks
    ]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {"html": html, "md": markdown, "json": as_json}


def strip_in_words(check: CheckState) -> str:
    """What the small chart of a check shows."""
    shown = [one.verdict for one in check.history[-STRIP:]]
    counted = [f"{shown.count(v)} {word}" for v, word in _PAST.items() if v in shown]
    times = "The only evaluation" if len(shown) == 1 else f"The last {len(shown)} evaluations"
    return f"{times}: {', '.join(counted)}."


_PAST = {PASS: "passed", WARN: "warned", FAIL: "failed"}


def _strip(check: CheckState) -> str:
    verdicts = [one.verdict for one in check.history[-STRIP:]]
    # Always as many places, so that a bar is as wide in each of the charts.
    padded = [""] * (STRIP - len(verdicts)) + verdicts
    return charts.history(
        f"check-{check.name}", padded, f"History of {check.name}", strip_in_words(check)
    )


def _load_charts(loads: Sequence[Materialization]) -> Iterator[tuple[str, str]]:
    orders = [(load.at, float(load.loaded)) for load in loads]
    skewed = charts.is_skewed([count for _, count in orders])
    title = "Orders loaded" + (", logarithmic" if skewed else "")
    yield title, charts.bars("orders", orders, title, _range(orders, "orders a load"), skewed)
    for name, title, seconds in (
        ("duration", "Duration", [(load.at, load.seconds) for load in loads]),
        ("lag", "Lag", [(load.at, load.lag_seconds) for load in loads]),
    ):
        size, unit = write.unit_for([value for _, value in seconds if value is not None])
        points = [(at, None if value is None else value / size) for at, value in seconds]
        yield (
            f"{title}, {unit}",
            charts.line(name, points, f"{title}, {unit}", _range(points, unit)),
        )


def _range(points: Sequence[tuple[datetime, float | None]], unit: str) -> str:
    numbers = [value for _, value in points if value is not None]
    if not numbers:
        return "No numbers are on record."
    least, most, last = (f"{value:,.3g}" for value in (min(numbers), max(numbers), numbers[-1]))
    return f"From {least} to {most} {unit}, the last {last}. The table has all numbers."


def _markdown(report: Report) -> Iterator[str]:
    yield f"# Orders: {_escape(report.headline)}"
    yield ""
    yield f"- made: {write.time(report.made_at)}"
    if report.run:
        yield f"- last run: {report.run.status.lower()}, {write.time(report.run.at)}"
        yield from (f"  - {_escape(failure.said)}" for failure in report.run.failures)
    for run in report.failed_again:
        yield f"- last {run.job}: failed, {write.time(run.at)}"
        yield from (f"  - {_escape(failure.said)}" for failure in run.failures)
    yield f"- watermark: {write.time(report.watermark)}"
    yield ""
    yield "## Checks"
    yield ""
    yield from _check_table(report)
    for check in report.checks:
        if check.verdict in (FAIL, WARN):
            yield from _markdown_check(check)
    yield ""
    yield "## Loads"
    yield ""
    if report.loads:
        yield from _loads_table(report.loads)
    else:
        yield "There is no load on record."
    yield ""
    yield "## Rejected orders that wait"
    yield ""
    waiting = report.waiting
    if waiting.note:
        yield f"{_escape(waiting.note)} ({write.time(waiting.at)})"
        yield ""
    yield (
        "Nobody has looked yet."
        if waiting.orders is None
        else f"Orders that wait: {waiting.orders:,}."
    )
    if waiting.by_reason.rows:
        yield ""
        yield from _table(waiting.by_reason)


def _markdown_check(check: CheckState) -> Iterator[str]:
    latest = check.latest
    assert latest is not None
    yield ""
    yield f"### `{check.name}` {WORDS[check.verdict]}"
    yield ""
    if latest.description:
        yield _escape(latest.description)
        yield ""
    if latest.sql:
        yield f"```sql\n{latest.sql}\n```"
    elif latest.asked:
        yield _escape(latest.asked)
    if latest.sample and latest.sample.rows:
        yield ""
        yield from _table(latest.sample)


def _check_table(report: Report) -> Iterator[str]:
    yield from _rows(
        ["verdict", "check", "since", "severity", "offenders"],
        (
            [
                f"{MARKS[check.verdict]} {WORDS[check.verdict]}",
                f"`{check.name}`",
                since(check),
                check.latest.severity if check.latest else "–",
                write.number(check.latest.offenders if check.latest else None),
            ]
            for check in report.checks
        ),
    )


def since(check: CheckState) -> str:
    return write.time(check.since) + (" or earlier" if check.or_earlier else "")


LOAD_COLUMNS = ("at", "loaded", "new", "updated", "rejected", "duration", "lag")


def load_row(load: Materialization) -> list[str]:
    """One line of the table of loads."""
    counts = (load.loaded, load.new, load.updated, load.rejected)
    return [
        write.time(load.at).removesuffix(" UTC"),
        *map(write.number, counts),
        write.duration(load.seconds),
        write.duration(load.lag_seconds),
    ]


def _loads_table(loads: Sequence[Materialization]) -> Iterator[str]:
    yield from _rows(LOAD_COLUMNS, map(load_row, reversed(loads)))


def _table(table: Table) -> Iterator[str]:
    rows = ([_escape(write.cell(value)) for value in row] for row in table.rows)
    yield from _rows([_escape(name) for name in table.columns], rows)


def _rows(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _escape(text: str) -> str:
    """Text that is text in Markdown, and in the HTML that it becomes."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", re.sub(r"\s+", " ", text))


def _plain(value: Any) -> Any:
    """What json can write. Of an evaluation without the metadata that its fields were read from."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.name != "metadata"]
        plain = {name: _plain(getattr(value, name)) for name in names}
        return plain | ({"verdict": value.verdict} if isinstance(value, Evaluation) else {})
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
