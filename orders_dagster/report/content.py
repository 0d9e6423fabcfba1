"""What the report says: verdicts, since when, and what to look at first. The formats only write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile

from dagster import AssetCheckSpec, DagsterInstance

from orders_dagster.records import (
    Evaluation,
    Materialization,
    evaluations,
    materializations,
)
from orders_dagster.report.waiting import Waiting, waiting_orders
from orders_dagster.runs import REPAIR, REPLAY, Run, finished, last_run

LIMIT = 100
"""Evaluations of each check and loads that are looked at: four days by the hour."""

FAIL, WARN, PASS, NONE = "fail", "warn", "pass", "none"
WORST_FIRST = (FAIL, WARN, NONE, PASS)


@dataclass(frozen=True)
class CheckState:
    """A check, as it is now.

    Attributes:
        verdict: "pass", "warn", "fail", or "none" if it has never been asked.
        since: when it was found like this first; None if never asked.
        or_earlier: whether it was so at the oldest evaluation that was looked at.
        history: evaluations, the oldest first.
    """

    name: str
    description: str
    blocking: bool
    verdict: str
    since: datetime | None
    or_earlier: bool
    history: Sequence[Evaluation]

    @property
    def latest(self) -> Evaluation | None:
        return self.history[-1] if self.history else None

    def count(self, verdict: str) -> int:
        return sum(evaluation.verdict == verdict for evaluation in self.history)


@dataclass(frozen=True)
class Report:
    """Everything that is on the page.

    Attributes:
        verdict: of all checks and the last runs: the worst of them.
        headline: the verdict in a sentence.
        run: the last one that was to load orders.
        failed_again: the last replay and the last repair, if it failed.
        checks: the worst first.
        loads: the oldest first.
        watermark: of the last load.
    """

    made_at: datetime
    verdict: str
    headline: str
    run: Run | None
    failed_again: Sequence[Run]
    watermark: datetime | None
    checks: Sequence[CheckState]
    loads: Sequence[Materialization]
    waiting: Waiting

    @property
    def is_empty(self) -> bool:
        return not self.loads and all(check.verdict == NONE for check in self.checks)

    @property
    def has_failed_check(self) -> bool:
        """Whether a check of severity error fails."""
        return any(check.verdict == FAIL for check in self.checks)


def make_report(
    instance: DagsterInstance, specs: Iterable[AssetCheckSpec], limit: int = LIMIT
) -> Report:
    """Look at everything that the instance has on record, and at the warehouse if it is free."""
    checks = sorted(
        (_state(instance, spec, limit) for spec in specs),
        key=lambda check: WORST_FIRST.index(check.verdict),
    )
    loads = materializations(instance, limit)[::-1]
    run = last_run(instance, loads[-1].run_id if loads else None)
    failed_again = [run for job in (REPLAY, REPAIR) for run in _failed(instance, job)]
    verdict, headline = _verdict(checks, run, failed_again)
    return Report(
        made_at=datetime.now(UTC),
        verdict=verdict,
        headline=headline,
        run=run,
        failed_again=failed_again,
        watermark=loads[-1].watermark if loads else None,
        checks=checks,
        loads=loads,
        waiting=waiting_orders(instance),
    )


def _state(instance: DagsterInstance, spec: AssetCheckSpec, limit: int) -> CheckState:
    newest_first = evaluations(instance, spec.name, limit, spec.asset_key)
    verdict = newest_first[0].verdict if newest_first else NONE
    alike = list(takewhile(lambda one: one.verdict == verdict, newest_first))
    return CheckState(
        name=spec.name,
        description=spec.description or "",
        blocking=bool(spec.blocking),
        verdict=verdict,
        since=alike[-1].at if alike else None,
        or_earlier=bool(alike) and len(alike) == limit,
        history=newest_first[::-1],
    )


def _failed(instance: DagsterInstance, job: str) -> list[Run]:
    """The last run of a job, if it failed; not for its range, nor for a check, which says so itself."""
    for run in finished(instance, job):
        if not any(failure.refused for failure in run.failures):
            return [run] if any(not failure.by_check for failure in run.failures) else []
    return []


def _verdict(
    checks: Sequence[CheckState], run: Run | None, failed_again: Sequence[Run]
) -> tuple[str, str]:
    """The worst of it, in a sentence."""
    count = {verdict: sum(c.verdict == verdict for c in checks) for verdict in WORST_FIRST}
    asked = len(checks) - count[NONE]
    said = []
    if run is not None and run.has_failed:
        said.append("the last run failed")
    said += [f"the last {one.job} failed" for one in failed_again]
    if count[FAIL]:
        said.append(_number(count[FAIL], "check fails", "checks fail"))
    if count[WARN]:
        said.append(_number(count[WARN], "check warns", "checks warn"))
    if not said and not asked:
        return NONE, "There is nothing yet: no run has loaded or checked orders."
    if not said:
        all_of_them = "check has" if asked == 1 else "checks have"
        said.append(f"all {asked} {all_of_them} passed" if asked > 1 else "the check has passed")
    if count[NONE]:
        said.append(_number(count[NONE], "check has", "checks have") + " not been asked yet")
    sentence = ", ".join(said) + "."
    failed = count[FAIL] or (run is not None and run.has_failed)
    warns = count[WARN] or failed_again
    verdict = FAIL if failed else WARN if warns else PASS if asked else NONE
    return verdict, sentence[0].upper() + sentence[1:]


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
