"""Many seeds on several cores: processes with a warm runner each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from orders_dagster_tests.simulation.play import Verdict, play
from orders_dagster_tests.simulation.runs import Runner

_runner: Runner | None = None


def verdicts(first: int, count: int, jobs: int) -> Iterator[Verdict]:
    """The verdicts of so many seeds from `first` on, as they come."""
    spawn = multiprocessing.get_context("spawn")  # a fork would share the pipes of the runners
    with ProcessPoolExecutor(jobs, spawn) as pool:
        played = [pool.submit(_play, seed) for seed in range(first, first + count)]
        try:
            for one in as_completed(played):
                yield one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _play(seed: int) -> Verdict:
    global _runner
    _runner = _runner or Runner()  # for as long as this process lives
    return play(seed, _runner)
