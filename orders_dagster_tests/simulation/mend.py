"""After the last run: what befell the warehouse or the shop is found, mended and marked.

Orders are deleted in the shop, and rows behind the project's back; some that were gone come back. A
repair is killed, or the shop changes under it. In the end the warehouse equals the shop again, and what
is marked deleted is exactly what the shop no longer has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from orders_dagster.span import Span
from orders_dagster_tests.simulation.compare import Tables
from orders_dagster_tests.simulation.mishap import befall
from orders_dagster_tests.simulation.runs import Ending
from orders_dagster_tests.simulation.scenario import RunPlan, Scenario
from orders_dagster_tests.simulation.shop import Store

ALL = ("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
"""From the initial value to beyond what is dated in the future."""

Repair = Callable[[tuple[str, str] | None, RunPlan | None], Ending]


@dataclass
class Mending:
    """One seed, after its last run.

    Attributes:
        tables: reads the warehouse.
        differing: what is wrong in tables that are to equal the shop but for what it has deleted.
        repair: runs a repair, of a span or of what differs.
    """

    scenario: Scenario
    store: Store
    database: Path
    tables: Callable[[], Tables]
    differing: Callable[[Tables], Iterator[str]]
    repair: Repair
    counts: Counter[str]

    def wrong(self) -> Iterator[str]:
        """What is wrong, in the order in which it happens."""
        plan = self.scenario.mishap
        assert plan is not None
        rng = Random(f"mend {self.scenario.seed}")
        for _ in range(plan.deleted):
            self.store.delete(rng)
        yield from self._what_differs_is_found(self.tables())
        yield from self._all_is_marked()
        for _ in range(plan.back):
            self.store.bring_back(rng)
        if self.tables().orders:
            self.counts["lost"] += len(befall(self.database, plan.kind, rng))
        if plan.run is None:
            yield from self._mended(None if self.scenario.is_comparable else ALL)
        else:
            self.repair(None if self.scenario.is_comparable else ALL, plan.run)
            # What it has not finished may be hidden by as many orders that were deleted meanwhile.
            yield from self._mended(ALL)
            yield from self._all_is_marked()

    def _what_differs_is_found(self, before: Tables) -> Iterator[str]:
        if not self.scenario.is_comparable:
            return
        ending = self.repair(None, None)
        after = self.tables()
        yield from self._ended_well(ending, after)
        if ending.ok is None or ending.ok["until"] is None:
            return
        until = datetime.fromisoformat(ending.ok["until"]) - timedelta(seconds=2)
        found = [Span(*map(datetime.fromisoformat, edges)) for edges in ending.ok["found"]]
        gone = {
            key: order["last_modified_date"].astimezone(UTC)
            for key, order in before.orders.items()
            if key not in self.store.orders
        }
        for key, time in gone.items():
            if time < until and not any(time in span for span in found):
                yield f"order {key} of {time.isoformat()} is gone, and no window there differs"
            if time < until and key not in after.deleted:
                yield f"order {key} of {time.isoformat()} is gone, and is not marked"
        near = timedelta(seconds=1) if self.scenario.has_other_edges else timedelta(0)
        for span in found:
            if not any(time in Span(span.start - near, span.end + near) for time in gone.values()):
                yield f"a window differs for nothing: {span}"

    def _all_is_marked(self) -> Iterator[str]:
        """Also what is younger than the lag, or nowhere to be compared."""
        tables = self.tables()
        gone = tables.orders.keys() - self.store.orders.keys()
        if gone != tables.deleted:
            ending = self.repair(ALL, None)
            tables = self.tables()
            yield from self._ended_well(ending, tables)
        for key in sorted(map(str, gone - tables.deleted)):
            yield f"order {key} is gone, and is not marked by a repair of all"
        self.counts["marked"] += len(tables.deleted)

    def _mended(self, span: tuple[str, str] | None) -> Iterator[str]:
        ending = self.repair(span, None)
        yield from self._ended_well(ending, self.tables())

    def _ended_well(self, ending: Ending, tables: Tables) -> Iterator[str]:
        if ending.ok is None:
            yield f"a repair: {ending}\n{ending.where}"
            return
        yield from self.differing(tables)
        for key in sorted(map(str, tables.deleted & self.store.orders.keys())):
            yield f"order {key} is marked deleted, and the shop has it"
        until = ending.ok["until"] if ending.ok["span"] is None else None
        for span in ending.ok["left"]:
            if until and datetime.fromisoformat(span[1]) > datetime.fromisoformat(until):
                continue  # it has become old enough to be compared only since the repair began
            yield f"after a repair a window differs: {' to '.join(span)}"
