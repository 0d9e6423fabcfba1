"""Retries: how often, how far apart, and who waits.

Which faults are retried at all, and what a run does after the last retry, is in `test_wire.py`. Here, time
is either what the server has noted, and only held against the least that was promised, or not waited for.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import count
from pathlib import Path
from threading import Barrier, Event, Lock
from typing import Any

import pytest
from dagster import DagsterInstance
from dlt.load.load import Load

from orders_dagster.api.connect import connect
from orders_dagster.api.session import MAX_WAIT_SECONDS, Pace, Traffic
from orders_dagster.definitions import defs
from orders_dagster.errors import ApiRefused, ApiUnavailable, CredentialsRefused, OrdersError
from orders_dagster.settings import read_settings
from orders_dagster_tests.scenarios import LIMIT_SECONDS, plain_orders
from orders_dagster_tests.small_api import Answer, Answering, Api, Refusal, page
from orders_dagster_tests.world import RUN, Project, Shop, expected

OpenShop = Callable[..., Shop]
Serve = Callable[[Answering], Api]

CERTIFICATES = Path(__file__).parent / "certificates"
WORKERS = 8
ATTEMPTS = 4
ONE_PAGE = page(plain_orders(1), {"offset": "0", "limit": "9"})


class Hasty(Pace):
    """A pace that notes the waits before retries and does not wait."""

    noted: list[float]

    def pause(self, seconds: float) -> None:
        self.noted.append(seconds)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before retries, in their order; nobody waits for them."""
    noted: list[float] = []
    monkeypatch.setattr(Hasty, "noted", noted, raising=False)
    monkeypatch.setattr("orders_dagster.api.connect.Pace", Hasty)
    return noted


def asked_for_orders(shop: Shop) -> int:
    return sum(request["path"] == "/v1/orders" for request in shop.requests())


@pytest.mark.parametrize(
    "fault", ["429@0", "500", "502", "503", "504", "drop", "truncate", "garble"]
)
def test_a_request_is_sent_four_times_and_no_more(
    project: Project, shop: OpenShop, fault: str
) -> None:
    """T12: the first try and three retries, whatever the fault. The fifth would have been answered."""
    store = shop(orders=10)
    store.script(*[fault] * ATTEMPTS)

    with pytest.raises(OrdersError):
        project.synchronise()

    assert asked_for_orders(store) == ATTEMPTS


def test_an_answer_that_does_not_come_is_not_waited_for(project: Project, shop: OpenShop) -> None:
    """A connection that hangs is a fault of the wire: the request is sent again."""
    store = shop(orders=10)
    store.script("slow@600")
    project.set(request_timeout_seconds=1)

    result = project.synchronise()

    assert result.retries >= 1
    assert project.orders() == expected(store.orders())


def test_answers_that_never_come_are_named(project: Project, shop: OpenShop) -> None:
    """After the last retry the reason is the silence, not a library's words for it."""
    store = shop(orders=10)
    store.script("slow@600", "slow@600")
    project.set(request_timeout_seconds=0.2, retry__max_retries=1)

    with pytest.raises(ApiUnavailable, match="failed 2 times in a row.*no answer in time"):
        project.synchronise()


@pytest.mark.parametrize("status", ["400", "403", "404", "405", "409", "410", "422", "501"])
def test_what_time_does_not_cure_stops_at_once(
    project: Project, shop: OpenShop, status: str
) -> None:
    """Asking again what was refused costs the shop's patience, and hides the reason for minutes."""
    store = shop(orders=10)
    store.script(status)

    with pytest.raises((ApiRefused, CredentialsRefused), match=status):
        project.synchronise()

    assert asked_for_orders(store) == 1


def test_waits_double_from_the_factor_on_with_jitter(
    project: Project, serve: Serve, waits: list[float]
) -> None:
    """2, 4 and 8 seconds, as the reference says, and up to a second more, so that clients that were
    refused together do not come back together."""
    seed = 20240501
    print(f"seed {seed}")
    random.seed(seed)
    asked = count(1)
    serve(lambda query: Refusal(503) if next(asked) % ATTEMPTS else ONE_PAGE)
    project.unset("retry__backoff_factor")
    session = connect(read_settings(), Traffic()).session

    for _ in range(60):
        session.get(f"{read_settings().base_url}/v1/orders")

    assert len(waits) == 60 * 3
    for retry, least in enumerate((2, 4, 8)):
        jitters = sorted(wait - least for wait in waits[retry::3])
        assert 0 <= jitters[0] < 0.25
        assert 0.75 < jitters[-1] <= 1
        assert len(set(jitters)) == 60


def test_no_wait_is_longer_than_the_limit(
    project: Project, serve: Serve, waits: list[float]
) -> None:
    """A factor that was meant well must not let a run sleep for hours in the warehouse's pool."""
    asked = count(1)
    serve(lambda query: Refusal(503) if next(asked) % ATTEMPTS else ONE_PAGE)
    project.set(retry__backoff_factor=200)

    connect(read_settings(), Traffic()).session.get(f"{read_settings().base_url}/v1/orders")

    assert 200 <= waits[0] <= MAX_WAIT_SECONDS
    assert waits[1:] == [MAX_WAIT_SECONDS] * 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_that_is_a_date_is_honoured(
    project: Project, serve: Serve, status: int
) -> None:
    """RFC 9110 allows both, and gateways in front of a shop like dates."""
    asked_at: list[float] = []
    told = int(time.time()) + 2

    def answer(query: dict[str, str]) -> Answer:
        asked_at.append(time.time())
        if len(asked_at) == 1:
            return Refusal(status, {"Retry-After": formatdate(told, usegmt=True)})
        return page(plain_orders(3), query)

    serve(answer)

    assert project.synchronise().loaded == 3
    assert asked_at[1] >= told - 0.01  # two clocks are read, the wall's and the monotonic one


@pytest.mark.parametrize(
    "text", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "", "-5", "1e3", "12:00", "0", "0.05"]
)
def test_a_retry_after_that_asks_for_no_wait_leaves_the_usual_one(
    project: Project, serve: Serve, waits: list[float], text: str
) -> None:
    """Also a date that has passed, and 0, which is what is left of a second: who came back at once would
    have made all attempts before the API answers."""
    asked = count(1)
    refusal = Refusal(503, {"Retry-After": text})
    serve(lambda query: refusal if next(asked) == 1 else ONE_PAGE)
    project.set(retry__backoff_factor=3)

    connect(read_settings(), Traffic()).session.get(f"{read_settings().base_url}/v1/orders")

    (wait,) = waits
    assert 3 <= wait <= 4.5


@pytest.mark.parametrize("ahead", [600, -600])
def test_a_retry_after_that_is_a_date_is_read_by_the_clock_that_wrote_it(
    serve: Serve, waits: list[float], ahead: int
) -> None:
    """Clocks may differ, by less than the lag: then a date would be ten minutes away, or have passed."""
    asked = count(1)
    told = formatdate(time.time() + ahead + 5, usegmt=True)
    refusal = Refusal(429, {"Retry-After": told})
    api = serve(lambda query: refusal if next(asked) == 1 else ONE_PAGE)
    api.seconds_ahead = ahead

    connect(read_settings(), Traffic()).session.get(f"{read_settings().base_url}/v1/orders")

    (wait,) = waits
    assert 3 <= wait <= 6


def test_a_date_that_is_too_far_away_stops_the_run(project: Project, serve: Serve) -> None:
    """The limit holds for dates as for seconds."""
    tomorrow = formatdate(time.time() + 86_400, usegmt=True)
    api = serve(lambda query: Refusal(429, {"Retry-After": tomorrow}))

    with pytest.raises(ApiUnavailable, match="asks to come back in 86"):
        project.synchronise()

    assert len(api.asked) == 1


def test_a_429_slows_all_workers(
    project: Project, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is about the client, not about one of its threads: eight that go on asking are eight more
    reasons to be refused. When the time has come, they do not come back all at once either."""
    orders, lock = plain_orders(1000), Lock()
    arrivals: list[float] = []
    all_ask, one_waits = Barrier(WORKERS), Event()
    refused_at = 0.0

    class Telling(Pace):
        """Tells when the thread that was refused begins to wait."""

        def pause(self, seconds: float) -> None:
            one_waits.set()
            super().pause(seconds)

    def answer(query: dict[str, str]) -> Answer:
        nonlocal refused_at
        with lock:
            number = len(arrivals)
            arrivals.append(time.monotonic())
        if 1 <= number <= WORKERS:  # after the page that cut the reading into windows
            all_ask.wait(LIMIT_SECONDS)
            if number == 1:
                refused_at = time.monotonic()
                return Refusal(429, {"Retry-After": "1"})
            one_waits.wait(LIMIT_SECONDS)
        return page(orders, query)

    monkeypatch.setattr("orders_dagster.api.connect.Pace", Telling)
    serve(answer)
    project.set(page_size=20, workers=WORKERS)

    result = project.synchronise()

    afterwards = sorted(arrival - refused_at for arrival in arrivals[1 + WORKERS :])
    assert afterwards[0] >= 1
    assert afterwards[WORKERS - 1] >= 1.15
    assert (result.loaded, result.retries) == (1000, 1)


def test_a_run_of_dagster_does_not_multiply_the_retries(
    shop: OpenShop, instance: DagsterInstance
) -> None:
    """Three retries of the reference are three, also where runs or steps may be retried: `dagster.yaml`
    switches that off for runs (`test_instance.py`), and the asset asks for none."""
    store = shop(orders=10)
    store.script(*["503"] * 50)

    job = defs.resolve_job_def("orders_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)

    assert not result.success
    assert asked_for_orders(store) == ATTEMPTS


def test_a_run_that_is_cancelled_while_it_loads_ends_after_that_load(
    project: Project, shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlt forgets a signal that comes late in a load: the run went on, and ended well."""
    store = shop(orders=1000)
    project.set(page_size=20, checkpoint_orders=200)
    complete, loads = Load.complete_package, list[str]()

    def cancelled(load: Load, load_id: str, *args: Any, **kwargs: Any) -> None:
        complete(load, load_id, *args, **kwargs)
        loads.append(load_id)
        if len(loads) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Load, "complete_package", cancelled)

    with pytest.raises(KeyboardInterrupt):
        project.synchronise()

    assert len(loads) == 1
    assert 0 < len(project.orders()) < 1000
    assert project.synchronise().rows_in_table == len(store.orders())


def test_a_run_that_is_cancelled_waits_for_nobody(serve: Serve) -> None:
    """dlt waits for its threads, each of which would wait as long as the API has said, and ask again."""
    refused = Event()

    def answer(_: dict[str, str]) -> Answer:
        refused.set()
        return Refusal(429, {"Retry-After": "200"})

    api = serve(answer)
    with subprocess.Popen([sys.executable, "-c", RUN], stderr=subprocess.PIPE, text=True) as run:
        try:
            assert refused.wait(60)
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()

    assert "KeyboardInterrupt" in said
    assert len(api.asked) == 1


@pytest.mark.parametrize("certificate", [None, CERTIFICATES / "valid.pem"], ids=["http", "https"])
@pytest.mark.parametrize("says", ["nothing", "ever more"])
def test_a_run_that_is_cancelled_waits_for_no_answer(
    project: Project, monkeypatch: pytest.MonkeyPatch, says: str, certificate: Path | None
) -> None:
    """It may never come, or never end; the threads that read it are waited for."""
    asked, released = Event(), Event()

    def ever_more() -> Iterator[bytes]:
        while not released.wait(0.05):
            yield b" "

    def answer(_: dict[str, str]) -> Answer:
        asked.set()
        if says == "ever more":
            return ever_more()
        released.wait(LIMIT_SECONDS)
        return Refusal(503)

    if certificate:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Api(answer, certificate).running() as api:
        project.point_at(api.url, login=False)
        with subprocess.Popen(
            [sys.executable, "-c", RUN], stderr=subprocess.PIPE, text=True
        ) as run:
            try:
                assert asked.wait(LIMIT_SECONDS)
                run.send_signal(signal.SIGINT)
                _, said = run.communicate(timeout=30)  # half of request_timeout_seconds
            finally:
                released.set()
                run.kill()

    assert "KeyboardInterrupt" in said
