"""The tables: what was measured, what is to be reached, on what machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median

from orders_dagster_tests.bench.cases import (
    BARE,
    OURS,
    OURS_8,
    OURS_20,
    Bench,
    Contender,
    Line,
)
from orders_dagster_tests.bench.measure import Measurement

Value = Callable[[Measurement], float]


def _work(measured: Measurement) -> float:
    return measured.work_seconds


def _process(measured: Measurement) -> float:
    return measured.process_seconds


def _peak(measured: Measurement) -> float:
    return measured.peak_mib


@dataclass(frozen=True)
class Target:
    """A ratio of medians in one run, of a contender in a case to another one.

    Attributes:
        least, most: what it is to be; one of them is given.
        values: the measured values that it is taken of.
    """

    words: str
    numerator: tuple[str, Contender]
    denominator: tuple[str, Contender]
    values: Sequence[Value] = (_work, _process)
    least: float | None = None
    most: float | None = None

    def goal(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    def is_reached(self, ratio: float) -> bool:
        return ratio >= self.least if self.least is not None else ratio <= (self.most or 0)


TARGETS = (
    Target(
        "first load without latency: times as fast as bare", ("load", BARE), ("load", OURS), least=5
    ),
    Target(
        "first load at 100 ms a page, 8 workers: the same",
        ("latency", BARE),
        ("latency", OURS_8),
        least=8,
    ),
    Target(
        "first load at 100 ms a page, 20 workers: the same",
        ("latency", BARE),
        ("latency", OURS_20),
        least=15,
    ),
    Target(
        "peak memory of ten times the orders: times as much",
        ("big", OURS),
        ("load", OURS),
        (_peak,),
        most=1.3,
    ),
    Target(
        "the same, all of them modified at one time",
        ("bulk", OURS),
        ("load", OURS),
        (_peak,),
        most=1.3,
    ),
    Target(
        "changes into 100 times the orders: times as long",
        ("changes, big", OURS),
        ("changes, small", OURS),
        most=3,
    ),
)


def report(bench: Bench, where: str) -> str:
    """All of it, in Markdown, after the machine it was measured on."""
    parts = [
        where,
        f"Medians of {bench.runs} run{'s'[: bench.runs - 1]} (least to most), in turns; work: from"
        " after the imports to the end; process: with interpreter and imports.",
    ]
    if bench.runs < 3:
        parts.append("Fewer than 3 runs: not to be quoted.")
    if not bench.sizes.is_full:
        parts.append(f"All sizes times {bench.sizes.scale:g}: the targets do not apply.")
    parts += [_table(_HEAD, _lines(bench)), _table(_TARGETS_HEAD, _targets(bench))]
    parts += [f"NOT AS IT SHOULD BE: {wrong}" for wrong in bench.wrong]
    return "\n\n".join(parts)


def machine() -> str:
    """What it ran on, without names."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cores} cores, {memory:.0f} GiB of memory, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, dlt {version('dlt')}, duckdb {version('duckdb')};"
        f" load average before {os.getloadavg()[0]:.1f}"
    )


_HEAD = (
    "case",
    "loaded by",
    "work, s",
    "process, s",
    "CPU, s",
    "peak memory, MiB",
    "times as fast as bare: work / process",
)


def _lines(bench: Bench) -> Iterator[tuple[str, ...]]:
    for line, measured in bench.results.items():
        bare = bench.results.get(Line(line.case, line.what, BARE))
        times = (
            f"{_ratio(bare, measured, _work):.1f} / {_ratio(bare, measured, _process):.1f}"
            if bare and line.contender != BARE
            else ""
        )
        yield (
            line.what,
            line.contender.name,
            _spread(measured, _work, 2),
            _spread(measured, _process, 2),
            _spread(measured, lambda one: one.cpu_seconds, 2),
            _spread(measured, _peak, 0),
            times,
        )


_TARGETS_HEAD = ("to reach", "ratio", "work", "process", "peak memory")


def _targets(bench: Bench) -> Iterator[tuple[str, ...]]:
    found = {(line.case, line.contender): one for line, one in bench.results.items()}
    for target in TARGETS:
        cells = []
        for value in (_work, _process, _peak):
            pair = found.get(target.numerator), found.get(target.denominator)
            if value not in target.values:
                cells.append("")
            elif pair[0] and pair[1]:
                ratio = _ratio(pair[0], pair[1], value)
                cells.append(f"{ratio:.2f}, {'' if target.is_reached(ratio) else 'not '}reached")
            else:
                cells.append("not measured")
        yield target.words, target.goal(), *cells


def _ratio(numerator: list[Measurement], denominator: list[Measurement], value: Value) -> float:
    return median(map(value, numerator)) / median(map(value, denominator))


def _spread(measured: list[Measurement], value: Value, digits: int) -> str:
    values = [value(one) for one in measured]
    middle, least, most = (
        f"{one:,.{digits}f}" for one in (median(values), min(values), max(values))
    )
    return f"{middle} ({least}–{most})"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table that can be read as it is."""
    cells = [tuple(head), *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
