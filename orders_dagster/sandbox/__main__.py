"""The command line of the sandbox.

Here: words for people: options, help, examples, the line that says where the sandbox answers.
Not here: what an option means to the code (`options.py`), or any default, which stands there too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .options import AUTHS, SHAPES, SandboxOptions
from .server import listen, serve
from .state import Sandbox
from .times import STYLES

_EXAMPLES = """\
examples:
  python -m orders_dagster.sandbox
      2,000 generated orders at http://127.0.0.1:8010
  python -m orders_dagster.sandbox --port 0 --orders 1000000 --churn 5
      a free port, a million orders, five changes a second
  python -m orders_dagster.sandbox --orders-from orders.ndjson --cursor-style epoch_seconds
      your own orders, one JSON object a line, with times as numbers
  python -m orders_dagster.sandbox --faults "429@2:0.05,503:0.02,drop:0.02,token.503:0.1"
      one request in twenty is answered 429 with Retry-After: 2, ...
  python -m orders_dagster.sandbox --page-cap 100 --unstable-ties --no-total
      an API that is difficult without saying so

faults (NAME:PROBABILITY, separated by commas; NAME@SECONDS where it takes seconds):
  400..599   that status; 429 with Retry-After: 1, 429@5 with Retry-After: 5
  401        the token is refused and revoked, however good it was
  drop       the connection is closed without an answer
  truncate   half of the body, then the connection is closed
  garble     200 with an HTML page
  nobody     200 with {}
  empty      200 with an empty page but the right total
  slow       answers after 0.3 s; slow@1.5 after 1.5 s
  token.X    fault X at the token endpoint; all others strike /v1/orders

for tests, without credentials:
  GET    /_sandbox/state            counts, newest modification, faults given
  GET    /_sandbox/orders           every order, as NDJSON; /_sandbox/orders/ID one of them
  POST   /_sandbox/orders           insert or replace one order or a list
  DELETE /_sandbox/orders/ID        delete for good
  POST   /_sandbox/change           {"new": 3, "modify": 5, "modify_twice": 1, "remove_items": 2}
  POST   /_sandbox/faults           {"script": ["503", "ok", "drop"]} or {"spec": "503:0.1"}
  POST   /_sandbox/token            {"answer": {...} or null, "lifetime": 5, "revoke_all": true}
  POST   /_sandbox/settings         {"latency_ms": 100, "page_cap": 10, "churn": 2, ...}
  GET    /_sandbox/requests         the last 1,000 requests
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command line; each is a field of SandboxOptions."""
    default = SandboxOptions()
    parser = argparse.ArgumentParser(
        prog="python -m orders_dagster.sandbox",
        description="An e-commerce orders API to run an ingestion pipeline against.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_place(parser, default)
    _add_orders(parser, default)
    _add_auth(parser, default)
    _add_behaviour(parser, default)
    _add_trouble(parser, default)
    return parser


def _add_place(parser: argparse.ArgumentParser, default: SandboxOptions) -> None:
    group = parser.add_argument_group("where it answers")
    group.add_argument("--host", default=default.host, help="default: %(default)s")
    group.add_argument(
        "--port", type=int, default=default.port, help="default: %(default)s; 0 takes a free port"
    )
    group.add_argument(
        "--ready-file", metavar="PATH", help="gets the base URL once the sandbox answers"
    )


def _add_orders(parser: argparse.ArgumentParser, default: SandboxOptions) -> None:
    group = parser.add_argument_group("orders")
    group.add_argument(
        "--orders", type=int, default=default.orders, metavar="N", help="default: %(default)s"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        help="same seed, same orders; default: %(default)s",
    )
    group.add_argument(
        "--days",
        type=int,
        default=default.days,
        help="modified within so many days up to a minute ago; 0: all at once, as a bulk edit leaves "
        "them; default: %(default)s",
    )
    group.add_argument(
        "--now", metavar="TIME", help="the shop's clock starts here, for reproducible times"
    )
    group.add_argument(
        "--orders-from",
        metavar="FILE",
        help="serve a .parquet or .ndjson file as it is; rows whose last_modified_date cannot be"
        " read match every filter and sort last",
    )
    group.add_argument(
        "--churn",
        type=float,
        default=default.churn,
        metavar="R",
        help="changes per second while it runs; default: %(default)g",
    )


def _add_auth(parser: argparse.ArgumentParser, default: SandboxOptions) -> None:
    group = parser.add_argument_group("logging in")
    group.add_argument(
        "--auth",
        choices=AUTHS,
        default=default.auth,
        help="default: %(default)s; bearer: sandbox-token; api_key: sandbox-key, in the header"
        " X-API-Key or the parameter api_key; http_basic: client id and secret",
    )
    group.add_argument("--client-id", default=default.client_id, help="default: %(default)s")
    group.add_argument(
        "--client-secret", default=default.client_secret, help="default: %(default)s"
    )
    group.add_argument(
        "--token-lifetime",
        type=_seconds,
        default=default.token_lifetime,
        metavar="SECONDS",
        help="default: %(default)s",
    )


def _add_behaviour(parser: argparse.ArgumentParser, default: SandboxOptions) -> None:
    group = parser.add_argument_group("paging, and APIs that are different")
    group.add_argument(
        "--max-limit",
        type=int,
        default=default.max_limit,
        metavar="N",
        help="a limit beyond is a 400; default: %(default)s",
    )
    group.add_argument(
        "--page-cap", type=int, metavar="N", help="at most N rows a page, whatever was asked for"
    )
    group.add_argument(
        "--unstable-ties",
        action="store_true",
        help="orders of one timestamp come in another order with every request",
    )
    group.add_argument("--ignore-sort", action="store_true", help="as if sort were not known")
    group.add_argument(
        "--ignore-filter", action="store_true", help="as if modified_* were not known"
    )
    group.add_argument("--no-total", action="store_true", help="pages without a total")
    group.add_argument(
        "--shape", choices=SHAPES, default=default.shape, help="default: %(default)s"
    )
    group.add_argument(
        "--cursor-style",
        choices=STYLES,
        default=default.cursor_style,
        help="how last_modified_date is written; all are understood in requests;"
        " default: %(default)s",
    )


def _add_trouble(parser: argparse.ArgumentParser, default: SandboxOptions) -> None:
    group = parser.add_argument_group("trouble")
    group.add_argument("--faults", metavar="SPEC", default=default.faults, help="see below")
    group.add_argument(
        "--latency-ms",
        type=float,
        default=default.latency_ms,
        metavar="N",
        help="each page takes so much longer; default: %(default)g",
    )


def _seconds(text: str) -> float:
    """Whole seconds stay whole, as token endpoints write them."""
    return int(text) if text.isdigit() else float(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox until it is told to stop. Returns the exit code."""
    given = vars(parser().parse_args(arguments))
    try:
        return _run(SandboxOptions(**given))
    except ValueError as error:
        return _fail(str(error))
    except KeyboardInterrupt:  # while orders are still being prepared
        return 130


def _run(options: SandboxOptions) -> int:
    ready = Path(options.ready_file) if options.ready_file else None
    if ready and not ready.parent.is_dir():
        return _fail(f"ready_file: there is no directory {str(ready.parent)!r}; create it first")
    try:
        listener, url = listen(options)
    except OSError as error:
        return _fail(
            f"cannot listen on {options.host}:{options.port}: {error.strerror};"
            " choose another --port, or --port 0 for a free one"
        )
    with listener:
        if ready:
            ready.unlink(missing_ok=True)  # of an earlier run
        sandbox = Sandbox(options)
        serve(sandbox, listener, lambda: _announce(sandbox, url))
    return 0


def _announce(sandbox: Sandbox, url: str) -> None:
    options = sandbox.options
    print(
        f"sandbox: {url}  ({sandbox.shop.orders} orders,"
        f" client_id={options.client_id}, client_secret={options.client_secret})",
        flush=True,
    )
    if options.ready_file:
        _write_at_once(Path(options.ready_file), f"{url}\n")


def _write_at_once(path: Path, text: str) -> None:
    """Whoever waits for the file never reads half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def _fail(message: str) -> int:
    print(f"sandbox: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
