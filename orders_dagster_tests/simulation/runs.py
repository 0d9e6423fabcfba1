"""Starting a run of `synchronise` in a process of its own, killing it, and how it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orders_dagster_tests.simulation.scenario import Kill

HANGS_AFTER_SECONDS = 300
"""Two minutes may be waits: on a bad wire, with a token that lives as long as a request or two."""
_CHECKOUT = Path(__file__).resolve().parents[2]
_FOREIGN = (
    "SOURCES__",
    "DESTINATION",
    "PIPELINES__",
    "DLT_",
    "DAGSTER_HOME",
    "EXTRACT__",
    "LOAD__",
)


@dataclass
class Ending:
    """How a run ended.

    Attributes:
        error: the type of the exception, None if there was none.
        is_ours: it is an `OrdersError`.
        lines: progress before the end.
    """

    ok: dict[str, Any] | None = None
    error: str | None = None
    is_ours: bool = False
    message: str = ""
    where: str = ""
    is_killed: bool = False
    status: int | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """What the run was about when it ended."""
        last = self.lines[-1].split()[0] if self.lines else ""
        return {"Read": "normalize", "Normalized": "load"}.get(last, "start or extract")

    def __str__(self) -> str:
        if self.is_killed:
            return f"killed in {self.stage}"
        return f"ok {self.ok}" if self.ok is not None else f"{self.error}: {self.message}"


class Runner:
    """Forks runs from one warm process. Use it as a context, or close it."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="orders-simulation-")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        environment |= {
            "DLT_PROJECT_DIR": self._place.name,  # no configuration of this machine
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "CRITICAL",
        }
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "orders_dagster_tests.simulation.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=_CHECKOUT,  # the code that runs is that beside this file, wherever this was started
        )
        self._unread = b""
        self._pid = 0
        self._is_hung = False

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self._zygote.stdin
        assert self._zygote.stdout
        self._zygote.stdin.close()
        self._zygote.wait()
        self._zygote.stdout.close()
        self._place.cleanup()

    def kill(self) -> None:
        """SIGKILL for the run that is under way."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def run(
        self,
        environment: Mapping[str, str],
        kill: Kill | None = None,
        told: Callable[[str], None] = lambda line: None,
        repair: Mapping[str, Any] | None = None,
    ) -> Ending:
        """Run once, to the end or to the kill: a synchronisation, or a repair.

        Raises:
            TimeoutError: the run hangs. It is dead then.
        """
        assert self._zygote.stdin
        wish = {
            "environment": dict(environment),
            "kill": asdict(kill) if kill else None,
            "repair": dict(repair) if repair else None,
        }
        self._zygote.stdin.write((json.dumps(wish) + "\n").encode())
        self._zygote.stdin.flush()
        ending = Ending()
        for word in self._words():
            if "pid" in word:
                self._pid = word["pid"]
            elif "line" in word:
                told(f"  {word['line']}")
                ending.lines.append(word["line"])
            elif "exit" in word:
                self._pid = 0
                if self._is_hung:
                    self._is_hung = False
                    raise TimeoutError(f"the run had not ended after {HANGS_AFTER_SECONDS} s")
                ending.status = word["exit"]
                ending.is_killed = ending.status == signal.SIGKILL
                return ending
            else:
                for name, value in word.items():
                    setattr(ending, name, value)
        raise AssertionError("the zygote has died")

    def _words(self) -> Iterator[dict[str, Any]]:
        assert self._zygote.stdout
        channel = self._zygote.stdout.fileno()
        until = time.monotonic() + HANGS_AFTER_SECONDS
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                yield json.loads(line)
                continue
            ready, _, _ = select.select([channel], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                assert not self._is_hung, "the run cannot be killed"
                self.kill()  # and wait for its end: it holds the file until then
                self._is_hung, until = True, time.monotonic() + HANGS_AFTER_SECONDS
                continue
            more = os.read(channel, 65536)
            if not more:
                return
            self._unread += more


def environment_of(settings: Mapping[str, Any], url: str, directory: Path) -> dict[str, str]:
    """Variables for a run: settings as dlt's providers read them, and a place for its files."""
    settings = {
        "base_url": url,
        "token_url": f"{url}/oauth/token",
        "client_id": "sandbox",
        "client_secret": "sandbox-secret",
        "retry__backoff_factor": 0.001,
        **settings,
    }
    texts = {
        f"SOURCES__ORDERS__{name.upper()}": (
            json.dumps(value) if isinstance(value, dict) else str(value)
        )
        for name, value in settings.items()
    }
    return texts | {
        "DLT_DATA_DIR": str(directory / "dlt"),
        "DESTINATION__DUCKDB__CREDENTIALS": str(directory / "orders.duckdb"),
    }
