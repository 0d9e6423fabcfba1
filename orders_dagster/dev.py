"""`make dev`: the Dagster page with its schedule and sensor, and a sandbox API behind it.

With an API of your own configured, no sandbox is started. Orders of the sandbox go to a warehouse
file of their own: in yours, the watermark they leave would hide your older orders.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from orders_dagster.local import free_port, sandbox_process, sandbox_settings, stop
from orders_dagster.settings import is_configured

DATABASE = "sandbox.duckdb"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, kill, and a terminal that is closed."""


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C. Returns the exit code."""
    options = _options(arguments)
    # Noted, not raised: an exception between the start of a process and the line that registers its
    # end would leave it running. Ctrl-C too: a shell starts what runs in its background with it
    # ignored, and so would everything started here.
    ended = threading.Event()
    for number in ENDINGS:
        signal.signal(number, lambda *_: ended.set())
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(Path(".dagster_home").resolve())))
    home.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    with ExitStack() as stack:
        if is_configured("base_url"):
            print("API   as configured in .dlt or the environment", flush=True)
        else:
            port = options.sandbox_port or free_port([8010])
            url = stack.enter_context(
                sandbox_process("--port", str(port), "--churn", "0.5", "--orders", "5000")
            )
            environment |= sandbox_settings(url)
            environment.setdefault("DESTINATION__DUCKDB__CREDENTIALS", DATABASE)
            print(f"API   a sandbox in which orders keep changing, {url}", flush=True)
        port = options.port or free_port([3000])
        print(f"page  http://127.0.0.1:{port}  (Ctrl-C stops everything)", flush=True)
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        dagster = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)], env=environment, start_new_session=True
        )
        stack.callback(stop, dagster)
        while dagster.poll() is None and not ended.wait(0.2):
            pass
        return dagster.returncode or 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orders_dagster.dev",
        description="Start the Dagster page, and a sandbox API unless one is configured.",
        epilog="example: python -m orders_dagster.dev --port 3000 --sandbox-port 8010",
    )
    parser.add_argument("--port", type=int, help="of the page; default: 3000, or a free one")
    parser.add_argument("--sandbox-port", type=int, help="default: 8010, or a free one")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
