"""Rejected orders that wait: how many, for which reasons, now if the warehouse is free."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from dagster import DagsterInstance

from orders_dagster.checks import no_rejected_orders, tables_now
from orders_dagster.destination import is_missing, orders_pipeline
from orders_dagster.errors import SettingsError, WarehouseBusy
from orders_dagster.records import Evaluation, Table, evaluations
from orders_dagster.settings import read_settings
from orders_dagster.warehouse import open_warehouse

CHECK = "no_rejected_orders"
WAIT_SECONDS = 3.0
"""For each of the two locks, of the working directory and of the file: whoever wants a report does not
want to wait for a first load."""
NO_TABLE = Table(("reason", "orders"), ())


@dataclass(frozen=True)
class Waiting:
    """Orders that were rejected and have not been loaded since.

    Attributes:
        orders: None if nobody knows.
        by_reason: how many for which reason.
        sample: some of them, from the last evaluation of the check.
        at: when it was so.
        note: why it is not as of now.
    """

    orders: int | None
    by_reason: Table
    sample: Table | None
    at: datetime | None
    note: str | None


def waiting_orders(instance: DagsterInstance) -> Waiting:
    """From the warehouse, or else from what the check has found last."""
    found = evaluations(instance, CHECK, limit=1)
    latest = found[0] if found else None
    if latest is None:
        return Waiting(None, NO_TABLE, None, None, None)
    try:
        counted = _counted(instance)
    except WarehouseBusy as busy:
        return _recorded(latest, f"The warehouse is held by {busy.holder}.")
    except SettingsError:
        return _recorded(latest, "The settings are not complete here.")
    except Exception as error:  # any destination's own; a report that fails over it helps nobody
        return _recorded(latest, f"The warehouse could not be asked ({type(error).__name__}).")
    if counted is None:
        return _recorded(latest, "The warehouse is not on this machine.")
    orders = sum(int(row[1]) for row in counted.rows)
    return Waiting(orders, counted, latest.sample if orders else None, datetime.now(UTC), None)


def _counted(instance: DagsterInstance) -> Table | None:
    """By reason, in the warehouse as it is. None if its file is not there."""
    settings = read_settings()
    with orders_pipeline(WAIT_SECONDS) as pipeline:
        if is_missing(pipeline):
            return None
        with open_warehouse(pipeline, WAIT_SECONDS) as warehouse:
            question = no_rejected_orders(tables_now(warehouse, settings, instance))
            if question is None:
                return NO_TABLE
            reason = warehouse.column("reason")
            rows = warehouse.query(
                f"SELECT {reason}, COUNT(*) FROM ({question.sql}) waiting GROUP BY {reason}"
            )
            return Table(NO_TABLE.columns, sorted(rows, key=lambda row: -row[1]))


def _recorded(latest: Evaluation, why: str) -> Waiting:
    return Waiting(
        orders=latest.offenders or 0,
        by_reason=latest.by_reason or NO_TABLE,
        sample=latest.sample,
        at=latest.at,
        note=f"{why} This is what the check found.",
    )
