"""`orders-dagster doctor`: what was found, a line each as it is found, or all of it as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from orders_dagster.doctor.examine import NAMES, examine_api, examine_destination, worst
from orders_dagster.doctor.finding import Finding, Verdict, counted
from orders_dagster.doctor.known import Known
from orders_dagster.doctor.resolved import Resolved, resolved, resolved_of_dlt
from orders_dagster.doctor.storage import opened
from orders_dagster.errors import SettingsError
from orders_dagster.settings import read_settings

WELL, ILL, NO_SETTINGS = 0, 1, 2
STYLES = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.SKIP: "dim",
}

EPILOG = """
\b
Examples:
  orders-dagster doctor
  orders-dagster doctor --json | jq '.probes[] | select(.verdict == "FAIL")'
  SOURCES__ORDERS__DATA_SELECTOR=data.sales orders-dagster doctor

\b
Exit code:
  0  all is well, but for warnings
  1  something fails: a run would stop, or miss orders
  2  the settings cannot be read
"""


@click.command(name="doctor", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def command(as_json: bool) -> None:
    """Try the configured API and warehouse the way the pipeline would, and load nothing.

    A dozen requests at most. Each line has a verdict (OK, WARN, FAIL, SKIP) and, where something is
    wrong, the setting to change. No value of an order is printed, and no secret.
    """
    console = Console(quiet=as_json, highlight=False)
    try:
        known = Known(read_settings())
    except SettingsError as error:
        _refuse(error, as_json)
        sys.exit(NO_SETTINGS)
    told = resolved(known.settings_as_set, known.redact)
    _show_settings(console, told)
    found: dict[str, Finding] = {}
    with _watched(console) as starts:
        for name, finding in examine_api(known, starts):
            found[name] = finding
            _show(console, name, finding)
        starts("warehouse reached")
        with opened() as storage:
            of_dlt = resolved_of_dlt(storage)
            console.print()
            _show_settings(console, of_dlt)
            for name, finding in examine_destination(storage, starts):
                found[name] = finding
                _show(console, name, finding)
    verdict = worst([*found.values()])
    _print(console, _summary(verdict, [*found.values()], len(known.wire.exchanges)))
    if as_json:
        click.echo(_as_json(verdict, told + of_dlt, found, len(known.wire.exchanges)))
    sys.exit(ILL if verdict is Verdict.FAIL else WELL)


def _refuse(error: SettingsError, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"verdict": "FAIL", "problems": error.problems}, indent=2))
    else:
        click.echo(str(error), err=True)


@contextmanager
def _watched(console: Console) -> Iterator[Callable[[str], None]]:
    """How many probes have been asked, and which one is, while a person watches."""
    if not console.is_terminal or console.quiet:
        yield lambda name: None
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with ProgressBar(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(NAMES))
        yield lambda name: progress.update(bar, completed=NAMES.index(name), description=name)


def _show_settings(console: Console, settings: list[Resolved]) -> None:
    widest = max(len(one.key) for one in settings)
    for one in settings:
        line = Text(f"{one.key:<{widest}}  {one.value}  ")
        line.append(f"({one.source})", style="dim")
        _print(console, line)
    console.print()


def _show(console: Console, name: str, finding: Finding) -> None:
    line = Text(f"{finding.verdict:<4}", style=STYLES[finding.verdict])
    line.append(f"  {name:<18}  ", style="bold")
    line.append(finding.message, style="dim" if finding.verdict is Verdict.SKIP else "default")
    if finding.settings:
        line.append(f"  → {', '.join(finding.settings)}")
    if finding.suggestion:
        line.append(f": {finding.suggestion}", style="cyan")
    _print(console, line)


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)  # one line each, also in a file or a narrow log


def _summary(verdict: Verdict, findings: list[Finding], requests: int) -> Text:
    counts = {v: sum(f.verdict is v for f in findings) for v in Verdict}
    numbers = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
    words = {
        Verdict.OK: "All is well.",
        Verdict.WARN: "A run would work.",
        Verdict.FAIL: "A run would stop, or miss orders.",
    }
    return Text(f"\n{words[verdict]} {numbers}; {counted(requests, 'request')}, nothing loaded.")


def _as_json(
    verdict: Verdict, settings: list[Resolved], found: dict[str, Finding], requests: int
) -> str:
    document: dict[str, Any] = {
        "verdict": verdict,
        "settings": [asdict(one) for one in settings],
        "probes": [{"probe": name} | asdict(finding) for name, finding in found.items()],
        "requests": requests,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
