"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from orders_dagster_tests.bench.cases import CASES, Bench, Sizes, warm_up
from orders_dagster_tests.bench.measure import ContenderFailed
from orders_dagster_tests.bench.report import machine, report
from orders_dagster_tests.bench.shops import Shops

_EPILOG = """\
cases:
  idle       an increment when nothing has changed, after 20,000 orders
  latency    a first load of 20,000 orders at 100 ms a page, with 8 and with 20 workers
  load       a first load of 100,000 orders without latency
  memory     a first load of 1,000,000 orders, and of 1,000,000 that were modified at one time, for the
             peak memory beside that of 100,000
  changes    200 changed orders into 1,000,000 and into 10,000
  checks     all asset checks on 10,000,000 orders, which takes 3 GB on the disk

examples:
  make bench
      all cases, 3 runs each: about half an hour, and a few GB of temporary files
  make bench CASES="latency idle" RUNS=5
      two of them, more exactly
  python -m orders_dagster_tests.bench --scale 0.01
      all cases on a hundredth of the orders: shows that it works, not how fast
  TMPDIR=/mnt/fast python -m orders_dagster_tests.bench
      warehouses and working files on another disk

Everything is kept in a temporary directory, which is removed at the end. The exit code is 1 if a
contender failed, or loaded something else than what is in the shop; it never depends on a time.
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orders_dagster_tests.bench",
        description="What a synchronisation costs, beside a bare rest_api_source and a floor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), default=list(CASES), help="default: all"
    )
    parser.add_argument(
        "--runs", type=_runs, default=3, metavar="N", help="of each; default: %(default)s"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="all sizes times X; default: 1"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns the exit code."""
    given = parser().parse_args(arguments)
    # Or `timeout` and a closed terminal would leave sandboxes and gigabytes behind.
    signal.signal(signal.SIGTERM, _interrupt)
    with TemporaryDirectory(prefix="orders-bench-") as directory, ExitStack() as stack:
        os.environ["TMPDIR"] = directory  # for what processes leave that are ended
        sizes = Sizes(given.scale)
        bench = Bench(Path(directory), Shops(stack), sizes, given.runs, _say)
        where = machine()
        _say(where)
        try:
            if sizes.is_full:  # nothing of a smaller one is to be quoted
                warm_up(bench)
            for name in CASES:
                if name in given.cases:
                    _try(bench, name)
        except KeyboardInterrupt:
            bench.wrong.append("interrupted before the end")
        print(f"\n{report(bench, where)}", flush=True)
        return 1 if bench.wrong else 0


def _try(bench: Bench, name: str) -> None:
    """A case that fails does not take the others with it."""
    try:
        CASES[name](bench)
    except ContenderFailed as failed:
        bench.wrong.append(f"{name}: {failed}")
        bench.say(f"        WRONG: {failed}")


def _say(line: str) -> None:
    print(line, flush=True)


def _runs(text: str) -> int:
    runs = int(text)
    if runs < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return runs


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
