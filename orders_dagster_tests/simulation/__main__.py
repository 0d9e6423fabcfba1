"""The command line: many seeds on all cores, or one seed told in full."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from orders_dagster_tests.simulation.play import Verdict, play
from orders_dagster_tests.simulation.pool import verdicts
from orders_dagster_tests.simulation.runs import Runner

_EXAMPLES = """\
examples:
  python -m orders_dagster_tests.simulation --seeds 1000
      the seeds 1 to 1,000 on all cores, up to the first that fails
  python -m orders_dagster_tests.simulation --seeds 1000 --from 5001 --keep-going
      the seeds 5,001 to 6,000, all of them
  python -m orders_dagster_tests.simulation --seed 42
      one seed, with every change, request, fault and line of progress

or, with make: make simulate SEEDS=1000 FROM=5001, make simulate SEED=42
"""
_SAID_EVERY_SECONDS = 15


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orders_dagster_tests.simulation",
        description="Shops that change while they are read, faults, kills; then a comparison.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--from", type=int, default=1, metavar="N", dest="first", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="only this one, told in full")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what was asked for. Returns the exit code: 1 if a seed failed."""
    given = parser().parse_args(arguments)
    if given.seed is not None:
        with Runner() as runner:
            verdict = play(given.seed, runner, lambda line: print(line, flush=True))
        print(verdict)
        return 1 if verdict.wrong else 0
    tally = _Tally(given.seeds)
    for verdict in verdicts(given.first, given.seeds, given.jobs):
        tally.add(verdict)
        if verdict.wrong and not given.keep_going:
            break
    tally.line()
    print(tally)
    return 1 if tally.failed else 0


class _Tally:
    """Sums over seeds, and a line now and then."""

    def __init__(self, seeds: int) -> None:
        self.failed: list[int] = []
        self._seeds = seeds
        self._done = 0
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._started = self._said = time.monotonic()

    def add(self, verdict: Verdict) -> None:
        self._done += 1
        self._counts += verdict.counts
        self._faults += verdict.faults
        if verdict.wrong:
            self.failed.append(verdict.seed)
            print(verdict, flush=True)
        if time.monotonic() - self._said > _SAID_EVERY_SECONDS:
            self.line()

    def line(self) -> None:
        self._said = time.monotonic()
        counts, seconds = self._counts, self._said - self._started
        print(
            f"{self._done:,} of {self._seeds:,} seeds in {seconds:,.0f} s: {counts['runs']:,} runs, "
            f"{counts['kills']:,} kills, {self._faults.total():,} faults, {len(self.failed)} seeds failed",
            flush=True,
        )

    def __str__(self) -> str:
        def listed(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())

        failed = f"\nfailed seeds: {sorted(self.failed)}" if self.failed else ""
        return f"{listed(self._counts)}\nfaults: {listed(self._faults)}{failed}"


if __name__ == "__main__":
    sys.exit(main())
