"""Tokens: one for all who ask, renewed before it is refused, and never by the clock of luck.

What a token's answer may look like, and what a 401 does to a run, is in `test_wire.py` and in T4, T13 and
T19 of `test_promises.py`. A renewal on a 401 cures every token that was kept too long, so here it is asked
whether any was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest

from orders_dagster.api import auth
from orders_dagster.api.connect import connect
from orders_dagster.api.session import Traffic
from orders_dagster.sandbox import RunningSandbox, running
from orders_dagster.settings import read_settings
from orders_dagster_tests.world import Closing, Project, Shop, expected

WORKERS = 8
ODD_LIFETIMES: list[object] = [None, "", "soon", 0, -1, "nan", "1e999", float("inf"), [], {}]
OpenSandbox = Callable[..., RunningSandbox]


class OneClock:
    """The clock of both sides, which moves as a request arrives: so long has each been on its way."""

    def __init__(self, way_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._way_seconds = way_seconds
        monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: self.now))

    def at_the_server(self) -> float:
        self.now += self._way_seconds
        return self.now


@pytest.fixture
def sandbox(project: Project, closing: Closing) -> Iterator[OpenSandbox]:
    """Starts a sandbox whose tokens and clock the test holds, and points the project at it."""

    with closing.later() as stack:

        def start(**options: object) -> RunningSandbox:
            sandbox = stack.enter_context(running(**options))
            project.point_at(sandbox.url)
            return sandbox

        yield start


def statuses(sandbox: RunningSandbox) -> list[int | None]:
    return [request["status"] for request in Shop(sandbox.url).requests()]


def ask_at_once(ask: Callable[[], int]) -> list[int]:
    """What eight threads are answered that start together."""
    start = Barrier(WORKERS)

    def one() -> int:
        start.wait()
        return ask()

    with ThreadPoolExecutor(WORKERS) as pool:
        return [answer.result() for answer in [pool.submit(one) for _ in range(WORKERS)]]


@pytest.mark.parametrize("lifetime", [100, 20])
def test_no_request_is_sent_with_a_token_that_expires_on_the_way(
    project: Project, sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch, lifetime: int
) -> None:
    """T19: each request is on its way for a tenth of a token's life, and the last would come too late.
    A margin before the expiry, or half of a life that is shorter than that, and none is refused."""
    shop = sandbox(orders=300, token_lifetime=lifetime)
    clock = OneClock(lifetime / 10, monkeypatch)
    shop.tokens.clock = clock.at_the_server
    project.set(workers=1, page_size=10)

    project.synchronise()

    assert 401 not in statuses(shop)
    assert shop.tokens.issued >= 3
    assert project.orders() == expected(Shop(shop.url).orders())


def test_a_token_that_expires_while_a_request_waits_for_its_turn_is_not_sent(
    project: Project, sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few requests a second, or after a 429, the wait may be longer than the token lives. A second
    401, for a token that grew old in the same queue, would stop the run."""
    shop = sandbox(orders=10, token_lifetime=50)
    clock = OneClock(10, monkeypatch)
    shop.tokens.clock = clock.at_the_server
    project.set(max_requests_per_second=20)
    session = connect(read_settings(), Traffic()).session

    answers = ask_at_once(lambda: session.get(f"{shop.url}/v1/orders").status_code)

    assert answers == [200] * WORKERS
    assert 401 not in statuses(shop)


def test_eight_workers_share_one_token_and_its_renewal(sandbox: OpenSandbox) -> None:
    """T4: token endpoints count, too. All eight start at once, and then are refused at once."""
    shop = sandbox(orders=10)
    session = connect(read_settings(), Traffic()).session

    def ask() -> int:
        return session.get(f"{shop.url}/v1/orders").status_code

    shop.faults.set_script(["token.slow@0.2"])
    first = ask_at_once(ask)
    issued_first = shop.tokens.issued
    shop.faults.set_script(["token.slow@0.2"])
    shop.tokens.revoke_all()
    again = ask_at_once(ask)

    assert first == again == [200] * WORKERS
    assert (issued_first, shop.tokens.issued) == (1, 2)


def test_a_run_fetches_one_token(project: Project, sandbox: OpenSandbox) -> None:
    """However many windows are read at once, and however many loads it makes."""
    shop = sandbox(orders=1000)
    project.set(page_size=20, workers=WORKERS, checkpoint_orders=400)

    project.synchronise()

    assert shop.tokens.issued == 1
    assert project.orders() == expected(Shop(shop.url).orders())


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 59.5 ", 59.5),
        *((odd, auth.DEFAULT_LIFETIME_SECONDS) for odd in ODD_LIFETIMES),
    ],
)
def test_a_lifetime_is_read_whatever_it_is_written_as(expires_in: object, seconds: float) -> None:
    """As a number, as text, or not at all: then a token is used for a while, not for ever."""
    assert auth.lifetime_seconds(expires_in) == seconds


@pytest.mark.parametrize("fault", ["503", "429@0", "drop", "truncate", "garble"])
def test_a_token_endpoint_that_stumbles_is_asked_again(
    project: Project, sandbox: OpenSandbox, fault: str
) -> None:
    """The wire to the token endpoint is no better than the other one."""
    shop = sandbox(orders=10)
    shop.faults.set_script([f"token.{fault}"] * 3)

    result = project.synchronise()

    assert (result.loaded, result.retries) == (10, 3)
