"""An orders API to run a pipeline against: for the demo, for development and for tests.

    python -m orders_dagster.sandbox --help

    with orders_dagster.sandbox.running(orders=500, faults="503:0.1") as sandbox:
        requests.get(f"{sandbox.url}/v1/orders", ...)

It imports nothing from the rest of the project: a fake that shares the project's code shares its
mistakes, and tests against it would agree with both.

    __main__.py     the command line
    options.py      what can be set, at the start and at run time
    server.py       start and end, in the foreground or in a thread
    app.py          /oauth/token and /v1/orders
    control.py      /_sandbox/...
    auth.py, tokens.py, query.py, answers.py, faults.py, recording.py, connections.py
                    one step of answering each
    state.py        everything that one sandbox knows
    shop.py         the orders and their changes (changes.py), sorted by index.py
    generate.py     generated orders (catalogue.py); files.py: orders from a file
    orders.py, times.py, exact_json.py
                    reading orders, times and numbers
"""

from __future__ import annotations

from .options import SandboxOptions
from .server import RunningSandbox, running

__all__ = ["RunningSandbox", "SandboxOptions", "running"]
