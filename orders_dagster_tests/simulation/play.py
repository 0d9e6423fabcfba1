"""One seed, from its first order to the verdict."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orders_dagster_tests.simulation.compare import Tables, differences, flat, read_tables
from orders_dagster_tests.simulation.mend import Mending
from orders_dagster_tests.simulation.runs import Ending, Runner, environment_of
from orders_dagster_tests.simulation.scenario import RunPlan, Scenario, scenario
from orders_dagster_tests.simulation.shop import Store, Weather, open_shop

SHOWN = 12
"""So many differences are enough to see what they have in common."""

Tell = Callable[[str], None]


@dataclass
class Verdict:
    """What a seed showed: nothing is wrong if `wrong` is empty."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.wrong:
            return f"seed {self.seed}: the warehouse equals the shop"
        shown = "\n".join(f"  {line}" for line in self.wrong[:SHOWN])
        more = f"\n  and {len(self.wrong) - SHOWN} more" if len(self.wrong) > SHOWN else ""
        replay = f"make simulate SEED={self.seed}"
        return f"seed {self.seed}: {len(self.wrong)} wrong\n{shown}{more}\n  replay: {replay}"


def play(seed: int, runner: Runner, tell: Tell = lambda line: None) -> Verdict:
    """Play a seed."""
    started = time.monotonic()
    story = scenario(seed)
    verdict = Verdict(seed)
    with (
        tempfile.TemporaryDirectory(prefix="orders-seed-") as directory,
        open_shop(story) as (url, store, weather),
    ):
        store.told = weather.told = tell
        weather.kill = runner.kill
        _Play(story, verdict, runner, tell, Path(directory), url, store, weather).play()
    verdict.seconds = time.monotonic() - started
    return verdict


@dataclass
class _Play:
    scenario: Scenario
    verdict: Verdict
    runner: Runner
    tell: Tell
    directory: Path
    url: str
    store: Store
    weather: Weather

    def play(self) -> None:
        self.tell(f"{self.scenario}\n")
        for number, plan in enumerate(self.scenario.runs, 1):
            self._change_before(plan)
            self._run(number, plan)
            if self.verdict.wrong:
                return
        self._quiet_run(len(self.scenario.runs) + 1)
        if self.scenario.mishap and not (self.verdict.wrong or self.scenario.is_deceitful):
            self._mend()

    def _change_before(self, plan: RunPlan) -> None:
        rng = Random(f"before {plan.seed}")
        for _ in range(plan.changes_before):
            self.store.change(rng)

    def _run(self, number: int, plan: RunPlan) -> None:
        self.tell(f"run {number}: {plan}")
        self.store.starts(number)
        self.weather.starts(plan)
        settings = dict(self.scenario.settings)
        if plan.fault_chance:
            settings["request_timeout_seconds"] = 0.3
        ending = self._synchronise(settings, plan)
        self._count(ending, plan)
        if ending.ok is None and not ending.is_killed and not ending.is_ours:
            self._wrong(f"run {number} ended with {ending.error}: {ending.message}\n{ending.where}")
        tables = self._tables()
        self.verdict.wrong += self._impossible(tables)
        if ending.ok is not None and self.scenario.settings["paging"] == "seek":
            # No run skips what it could have read; what changed meanwhile may wait for the next one.
            self.verdict.wrong += self._stale(tables, changed_before=number)

    def _quiet_run(self, number: int) -> None:
        self.tell(f"run {number}: quiet")
        self.store.starts(number)
        self.weather.becomes_quiet()
        ending = self._synchronise(self.scenario.settings, None)
        self.verdict.counts["runs"] += 1
        if ending.ok is None:
            if self.scenario.is_deceitful and ending.is_ours:
                self.verdict.counts["stopped, since the server ignores the sort or the filter"] += 1
            else:
                self._wrong(f"the quiet run: {ending}\n{ending.where}")
            return
        tables = self._tables()
        self.verdict.wrong += self._impossible(tables)
        self.verdict.wrong += self._stale(tables, changed_before=number)

    def _mend(self) -> None:
        mending = Mending(
            self.scenario,
            self.store,
            self.directory / "orders.duckdb",
            self._tables,
            self._differing,
            self._repair,
            self.verdict.counts,
        )
        self.verdict.wrong += itertools.islice(mending.wrong(), 1)

    def _differing(self, tables: Tables) -> Iterator[str]:
        yield from self._impossible(tables)
        yield from self._stale(tables, changed_before=self.store.run + 1)

    def _repair(self, span: tuple[str, str] | None, plan: RunPlan | None) -> Ending:
        self.tell(f"repair of {span or 'what differs'}: {plan}")
        settings = dict(self.scenario.settings)
        self.weather.becomes_quiet()
        if plan:
            self.weather.starts(plan)
            settings["request_timeout_seconds"] = 0.3
        ending = self._synchronise(settings, plan, {"span": span})
        self.verdict.counts["repairs"] += 1
        self.verdict.counts["repairs killed"] += ending.is_killed
        return ending

    def _synchronise(
        self,
        settings: dict[str, Any],
        plan: RunPlan | None,
        repair: dict[str, Any] | None = None,
    ) -> Ending:
        environment = environment_of(settings, self.url, self.directory)
        kill = plan.kill if plan else None
        in_child = None if kill and kill.kind == "request" else kill
        try:
            ending = self.runner.run(environment, in_child, self.tell, repair)
        except TimeoutError as hang:
            ending = Ending(error="TimeoutError", message=str(hang))
        self.tell(f"  {ending}, after {self.weather.requests} requests\n")
        return ending

    def _count(self, ending: Ending, plan: RunPlan) -> None:
        counts = self.verdict.counts
        counts["runs"] += 1
        counts["changes under way"] += self.weather.changes
        self.verdict.faults += self.weather.given
        if ending.is_killed:
            assert plan.kill
            counts["kills"] += 1
            counts[f"killed in {ending.stage}"] += 1
            counts[f"killed by {plan.kill.kind}"] += 1
        elif ending.ok is None:
            counts["failed"] += 1
            counts[f"failed: {ending.error}"] += 1
            if not self.weather.given and not self.scenario.is_deceitful:
                counts[f"failed without a fault: {ending.error}"] += 1

    def _tables(self) -> Tables:
        return read_tables(self.directory / "orders.duckdb")

    def _wrong(self, what: str) -> None:
        self.verdict.wrong.append(what)

    def _impossible(self, tables: Tables) -> Iterator[str]:
        """Rows that no moment of the shop can explain: torn, doubled, made up."""
        yield from tables.faults
        for key, order in tables.orders.items():
            versions = self.store.versions.get(key, [])
            if not any(_equal(version, order) for version in reversed(versions)):
                nearest = (
                    next(differences(flat(versions[-1]), order)) if versions else "no such order"
                )
                yield f"order {key} is as the shop never had it: {nearest}"

    def _stale(self, tables: Tables, changed_before: int) -> Iterator[str]:
        """Orders that are missing or not in their latest version."""
        for key, order in list(self.store.orders.items()):
            if self.store.changed_in[key] >= changed_before:
                continue
            if key not in tables.orders:
                yield f"order {key} of {order['last_modified_date'].isoformat()} is missing"
                continue
            for difference in differences(flat(order), tables.orders[key]):
                yield f"order {key} is stale: {difference}"


def _equal(version: dict[str, Any], order: dict[str, Any]) -> bool:
    return next(differences(flat(version), order), None) is None
