"""Running the project against a sandbox API on this machine: what `demo` and `dev` share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SANDBOX_CLIENT = ("sandbox", "sandbox-secret")
START_SECONDS = 60


@contextmanager
def sandbox_process(*options: str) -> Iterator[str]:
    """A sandbox API in a process of its own, stopped at the end. Yields its base URL."""
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory) / "url"
        command = [sys.executable, "-m", "orders_dagster.sandbox", "--ready-file", str(ready)]
        # Its own session: Ctrl-C reaches this process, which stops the others in order.
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield _when_ready(process, ready)
        finally:
            stop(process)


def sandbox_settings(url: str) -> dict[str, str]:
    """The settings that point the project at a sandbox, as environment variables."""
    client_id, client_secret = SANDBOX_CLIENT
    return {
        "SOURCES__ORDERS__BASE_URL": url,
        "SOURCES__ORDERS__TOKEN_URL": f"{url}/oauth/token",
        "SOURCES__ORDERS__CLIENT_ID": client_id,
        "SOURCES__ORDERS__CLIENT_SECRET": client_secret,
    }


def stop(process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """Ask a process and then what it leaves behind to end, and end what does not.

    `dagster dev` does not wait for runs in progress. A run that is interrupted is recorded as such;
    one that is killed would look as if it were still running.
    """
    deadline = time.monotonic() + seconds
    try:
        process.send_signal(signal.SIGINT)
        process.wait(seconds)
        _signal_group(process, signal.SIGTERM)
        while _signal_group(process, 0) and time.monotonic() < deadline:
            time.sleep(0.05)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also when Ctrl-C interrupts the waiting
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Signal the process and its descendants. False if none of them is left."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def free_port(preferred: Sequence[int] = ()) -> int:
    """The first preferred port that is free on 127.0.0.1, otherwise any free one."""
    for port in (*preferred, 0):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(candidate.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _when_ready(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None:
            raise SystemExit(f"The sandbox did not start (exit code {process.returncode}).")
        if time.monotonic() > deadline:
            raise SystemExit(f"The sandbox did not start within {START_SECONDS} s.")
        time.sleep(0.05)
    return ready.read_text().strip()
