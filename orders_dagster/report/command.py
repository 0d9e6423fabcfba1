"""`orders-dagster report`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from dagster import DagsterInstance
from dagster._core.errors import DagsterHomeNotSetError, DagsterInvariantViolationError

from orders_dagster.errors import NoRecords, OrdersError
from orders_dagster.report.content import LIMIT, Report, make_report
from orders_dagster.report.formats import FORMATS

DEFAULT_PAGE = "orders_check_report.html"
STDOUT = "-"
FAILS, UNUSABLE = 1, 2

EPILOG = f"""\b
Examples:
  orders-dagster report
      writes {DEFAULT_PAGE} into the current folder
  orders-dagster report --format md
      prints Markdown, for a pull request or a ticket
  orders-dagster report --format json | jq .headline
  orders-dagster report --output /var/www/orders.html

\b
Exit code: 1 if a check of severity error fails, 2 if there can be no report
(no DAGSTER_HOME, a wrong option), otherwise 0."""


@click.command(epilog=EPILOG)
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    default="html",
    show_default=True,
    help="One self-contained page, Markdown, or JSON.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help=f"A file, or {STDOUT} for the standard output.  [default: {DEFAULT_PAGE}; md and json: {STDOUT}]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=10_000),
    default=LIMIT,
    show_default=True,
    help="How many loads, and evaluations of each check, to look back.",
)
def command(kind: str, output: str | None, limit: int) -> None:
    """How the orders are: checks, loads, and rejected orders, from Dagster's records.

    Reads the instance in DAGSTER_HOME. The warehouse is asked only for rejected orders, and if something
    else holds it, the report goes without.
    """
    try:
        report = _report(limit)
    except OrdersError as error:
        raise _Unusable(str(error)) from None
    except Exception as error:
        # Not 1, which says that a check fails; and its message may hold anything.
        raise _Unusable(
            f"Dagster's records cannot be read ({type(error).__name__}). "
            "`dagster instance info` shows what is wrong with the instance in DAGSTER_HOME."
        ) from None
    target = output or (DEFAULT_PAGE if kind == "html" else STDOUT)
    _write(target, FORMATS[kind](report))
    if target != STDOUT:
        click.echo(f"{target}: {report.headline}")
    sys.exit(FAILS if report.has_failed_check else 0)


def _report(limit: int) -> Report:
    try:
        instance = DagsterInstance.get()
    except (DagsterHomeNotSetError, DagsterInvariantViolationError):
        raise NoRecords() from None
    with instance:
        from orders_dagster.definitions import defs

        specs = [spec for checks in defs.asset_checks or () for spec in checks.check_specs]
        return make_report(instance, specs, limit)


def _write(target: str, text: str) -> None:
    if target == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _Unusable(f"{target} cannot be written: {error.strerror}.") from None


class _Unusable(click.ClickException):
    exit_code = UNUSABLE
