"""One process, timed from outside."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 3600
"""Ends a contender that hangs; the slowest is to take minutes."""

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class ContenderFailed(Exception):
    """A process that was measured ended with an error."""


@dataclass(frozen=True)
class Measurement:
    """What one process took.

    Attributes:
        work_seconds: from after its imports to the end of its work, as it says itself.
        process_seconds: from starting it to its end, on the wall.
        cpu_seconds: user and system time, of all its threads.
        peak_mib: the most memory that it held at once.
        note: what it says about itself.
    """

    work_seconds: float
    process_seconds: float
    cpu_seconds: float
    peak_mib: float
    note: str


def measure(module: str, environment: Mapping[str, str], directory: Path) -> Measurement:
    """Run a contender in a directory, alone, to its end.

    Raises:
        ContenderFailed: with the end of what it has printed.
    """
    output, errors = directory / "output.txt", directory / "errors.txt"
    command = [sys.executable, "-m", f"{__package__}.{module}"]
    with output.open("wb") as out, errors.open("wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        usage = _usage_at_the_end(process)
        process_seconds = time.perf_counter() - started
    if process.returncode:
        last = "\n".join(errors.read_text(errors="replace").splitlines()[-15:])
        raise ContenderFailed(
            f"{module} ended with exit code {process.returncode} after {process_seconds:.0f} s"
            f" ({TIMEOUT_SECONDS} s are allowed):\n{last}"
        )
    said = json.loads(output.read_text().splitlines()[-1])
    return Measurement(
        work_seconds=said["work_seconds"],
        process_seconds=process_seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss * _MAXRSS_BYTES / 2**20,
        note=said["note"],
    )


def _usage_at_the_end(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Wait for the process; what it has used, which only the kernel knows."""
    watchdog = threading.Timer(TIMEOUT_SECONDS, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage
    finally:
        watchdog.cancel()
        if process.returncode is None:  # Ctrl-C
            process.kill()
            process.wait()
