"""Mend spans in which the warehouse differs from the API, and mark the orders that the shop has deleted.

A span is read again and merged, so that whatever was missing or changed is as in the API. Orders of the
span that were not read are not there any more, unless they have been modified since: so everything behind
the span is read before any is marked. Marked, not removed: `deleted_at` says since when, and an order
that is read again loses the mark with its old version.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from orders_dagster.cursor import step_of
from orders_dagster.destination import orders_warehouse
from orders_dagster.pipeline import Synchronisation, synchronise
from orders_dagster.places import ORDERS
from orders_dagster.reconcile import Difference, compare
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import Span
from orders_dagster.tables import Counts, missing, remove_orphans

SUMS = (
    *("loaded", "new", "updated", "unchanged", "rejected"),
    *("pages", "requests", "retries", "bytes"),
    *("extract_seconds", "normalize_seconds", "load_seconds"),
)


@dataclass(frozen=True)
class Repair:
    """What was mended.

    Attributes:
        differences: what differed, None if a span was given and nothing was compared.
        spans: what was read again.
        runs: the synchronisations, the last one up to now.
        marked: orders marked deleted.
        orphans: rows of child tables removed, whose order had been removed behind the project's back.
        not_compared: why nothing was compared, None if it was.
    """

    differences: tuple[Difference, ...] | None
    spans: tuple[Span, ...]
    runs: tuple[Synchronisation, ...]
    marked: int
    orphans: int
    not_compared: str | None = None

    @property
    def total(self) -> Synchronisation:
        """All runs together: what came, between the state before the first and that after the last."""
        first, last = self.runs[0], self.runs[-1]
        return replace(
            last,
            watermark_before=first.watermark_before,
            **{name: sum(getattr(run, name) for run in self.runs) for name in SUMS},
        )


def repair(
    settings: OrdersSettings,
    log: Callable[[str], None] = lambda message: None,
    *,
    span: Span | None = None,
) -> Repair:
    """Read again what differs, or a span, and mark what the shop no longer has.

    Raises:
        OrdersError: as a synchronisation; what has been mended until then stays.
    """
    differences, obstacle = None, None
    spans: tuple[Span, ...] = ()
    if span is not None:
        spans = (span.on_steps(step_of(settings.cursor_format)),)
    if span is None:
        differences, obstacle = _compared(settings, log)
        spans = joined([difference.span for difference in differences])
        log(obstacle or f"Windows that differ: {len(differences)}.")
    began, at = str(time.time()), datetime.now(UTC)  # dlt's ids of loads are such times
    read = list(spans)
    runs = [synchronise(settings, log, span=one) for one in spans]
    if spans and _unseen(settings, log, spans, began):
        # Not there any more, or modified since, and that was missed: wherever it is now, it is read.
        rest = Span(min(one.end for one in spans), max(at, *(one.end for one in spans)))
        if rest.start < rest.end:
            # What equal numbers have hidden there is found, too; what is younger may not be visible yet.
            visible = Span(rest.start, min(rest.end, at - timedelta(seconds=settings.lag_seconds)))
            read += [visible] if visible.start < visible.end else []
            runs.append(synchronise(settings, log, span=rest))
    runs.append(synchronise(settings, log))
    seen = {key for run in runs for key in run.seen_but_not_loaded}
    with orders_warehouse(settings.warehouse_wait_seconds, log) as warehouse:
        counts = Counts(warehouse, settings)
        marked = sum(
            # Later than their modification, which may be dated in the future.
            counts.mark_deleted(one, began, seen, max(at, one.end))
            for one in read
        )
        orphans = remove_orphans(warehouse, runs[-1].schema)
    if spans:
        log(f"Marked deleted, since the shop no longer has them: {marked:,}.")
    if orphans:
        log(f"Removed, since they belonged to no order: {orphans:,} items.")
    return Repair(differences, spans, tuple(runs), marked, orphans, obstacle)


def _unseen(
    settings: OrdersSettings, log: Callable[[str], None], spans: tuple[Span, ...], began: str
) -> bool:
    """Whether the warehouse has orders in the spans that were not read again."""
    with orders_warehouse(settings.warehouse_wait_seconds, log) as warehouse:
        counts = Counts(warehouse, settings)
        return any(counts.any_unseen(one, began) for one in spans)


def joined(spans: list[Span]) -> tuple[Span, ...]:
    """Spans that touch become one: each costs a run."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].end == span.start:
            found[-1] = Span(found[-1].start, span.end)
        else:
            found.append(span)
    return tuple(found)


def _compared(
    settings: OrdersSettings, log: Callable[[str], None]
) -> tuple[tuple[Difference, ...], str | None]:
    with orders_warehouse(settings.warehouse_wait_seconds, log) as warehouse:
        warehouse.pipeline.sync_destination()
        if gone := missing(warehouse, warehouse.pipeline.schemas.get(ORDERS)):
            return (), f"Not compared: {', '.join(gone)} is gone, and all orders are read again."
        compared = compare(settings, warehouse)
    return compared.differences, compared.not_compared
