"""The shop over real HTTP: what it holds, when it changes, and what goes wrong on the wire.

The sandbox asks its `Faults` once for each request, before anything is answered. That is the hook:
`Weather` stands in their place, lets the shop change, kills the run if it is to die here, and says
what becomes of the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from random import Random
from typing import Any

from orders_dagster.sandbox import running
from orders_dagster.sandbox.faults import ORDERS, TOKEN, Fault, Faults
from orders_dagster.sandbox.generate import GeneratedStock
from orders_dagster.sandbox.shop import Shop
from orders_dagster.sandbox.state import Sandbox
from orders_dagster.sandbox.times import DAY, SECOND, from_datetime, read_time, to_datetime
from orders_dagster_tests.simulation.goods import (
    CURSOR,
    EDITS,
    Order,
    modified,
    new_order,
    on_the_wire,
)
from orders_dagster_tests.simulation.scenario import RunPlan, Scenario

MOST_CHANGES = 60
"""In one run: a shop that changes with every request is never read to its end."""

_FAULTS = {
    "drop": 10,
    "truncate": 8,
    "garble": 8,
    "empty": 8,
    "slow": 1,
    "429": 8,
    "500": 4,
    "502": 4,
    "503": 8,
    "504": 4,
    "401": 8,
    "revoke": 4,
    "nobody": 1,
    "400": 0.5,
    "404": 0.5,
}
_AT_TOKEN = {"drop": 4, "truncate": 4, "garble": 4, "429": 4, "503": 8, "401": 1, "odd": 6}
_ODD_TOKENS: tuple[dict[str, Any], ...] = (
    {"expires_in": "3600"},
    {"expires_in": None},
    {"expires_in": 0},
    {"access_token": None},
)


class OddShop(Shop):
    """The sandbox's shop with other ends to its filter, and ties in an order that nobody can foresee.

    The sandbox turns ties by one place with every request, which may fall into step with the pages, so
    that some are never shown; a database that sorts by the date alone has no such rhythm.
    """

    def __init__(self, scenario: Scenario) -> None:
        stock = GeneratedStock(0, 1, 1, 0, scenario.cursor_style)
        super().__init__(stock, cursor_style=scenario.cursor_style)
        self._scenario = scenario
        self._turns = Random(f"turns {scenario.seed}")

    def page(
        self, since: int | None = None, before: int | None = None, *args: Any, **kwargs: Any
    ) -> tuple[list[bytes], int]:
        if since is not None and self._scenario.excludes_start:
            since += 1
        if before is not None and self._scenario.includes_end:
            before += 1
        with self._lock:
            self._index._turn = self._turns.randrange(1000)
        return super().page(since, before, *args, **kwargs)


class Store:
    """The truth: every order as it is, and every version there has been.

    Attributes:
        orders: by id; the versions of an id stay when its order is deleted for good.
        changed_in: the number of the run in which an order changed last; 0 before the first.
        run: the number of the run that is under way, or was last.
    """

    def __init__(self, scenario: Scenario, shop: Shop) -> None:
        self.orders: dict[int | str, Order] = {}
        self.versions: dict[int | str, list[Order]] = {}
        self.changed_in: dict[int | str, int] = {}
        self.run = 0
        self.told: Callable[[str], None] = lambda line: None
        self._scenario = scenario
        self._shop = shop
        self._tick = scenario.tick_us
        self._next_id = 1
        self._second_edits: list[int | str] = []
        self._now = 0
        self._open()

    def _open(self) -> None:
        rng = Random(f"history {self._scenario.seed}")
        for at in _history(self._scenario, self._real_now(), rng):
            self._put(new_order(rng, self._new_id(), to_datetime(at), self._is_whole))
            self._now = max(self._now, at)
        self._now = self._now or self._real_now()
        for _ in range(self._scenario.future_orders):
            at = self._cut(self._real_now() + rng.randint(1, 300) * DAY)
            self._put(new_order(rng, self._new_id(), to_datetime(at), self._is_whole))

    @property
    def _is_whole(self) -> bool:
        return self._scenario.whole_amounts_first and self.run == 0

    def starts(self, run: int) -> None:
        """What changes from now on belongs to that run."""
        self.run = run
        self._second_edits.clear()

    def is_asked(self) -> None:
        """A run has begun: what changes from now on carries a date after its start, or is late.

        Told with its first request: its process takes a while to start, and a date from before that
        start would be late by more than a lag of 0 allows.
        """
        self._now = max(self._now, self._real_now() + self._tick)

    def change(self, rng: Random) -> None:
        """One change, as the generator decides."""
        if self._second_edits:  # in the millisecond of the first, but a request or more later
            self._edit(rng, self._second_edits.pop(), self._now)
            return
        what = rng.random()
        if what < 0.25 or not self.orders:
            self._create(rng, self._time(rng))
        elif what < 0.32:
            self.delete(rng)
        elif what < 0.35:
            at = self._time(rng)
            for key in self._any(rng, rng.randint(2, 40), at):
                self._edit(rng, key, at)
        elif what < 0.47:
            at = self._time(rng)
            for key in self._any(rng, 1, at):
                self._edit(rng, key, at)
                self._second_edits.append(key)
        else:
            at = self._late(rng) if what < 0.55 else self._time(rng)
            for key in self._any(rng, 1, at):
                self._edit(rng, key, at)

    def _create(self, rng: Random, at: int) -> None:
        gone = [key for key in self.versions if key not in self.orders]
        key = rng.choice(gone) if gone and rng.random() < 0.1 else self._new_id()
        if key in self.versions and _us(self.versions[key][-1]) > at:
            key = self._new_id()
        self.told(f"create {key}")
        self._put(new_order(rng, key, to_datetime(at)))

    def bring_back(self, rng: Random) -> None:
        """Create an order anew that was deleted, if there is one."""
        at = self._time(rng)
        gone = [
            key
            for key, versions in self.versions.items()
            if key not in self.orders and _us(versions[-1]) <= at
        ]
        if gone:
            key = rng.choice(gone)
            self.told(f"back {key}")
            self._put(new_order(rng, key, to_datetime(at)))

    def _edit(self, rng: Random, key: int | str, at: int) -> None:
        edit = rng.choice(EDITS)
        if key in self.orders:
            self.told(f"{edit} {key} at {to_datetime(at).isoformat()}")
            self._put(modified(self.orders[key], rng, to_datetime(at), edit))

    def delete(self, rng: Random) -> None:
        """Delete an order for good."""
        if not self.orders:
            return
        key = rng.choice(list(self.orders))
        self.told(f"delete {key} of {self.orders[key][CURSOR].isoformat()}")
        self.changed_in[key] = self.run
        del self.orders[key]
        self._shop.delete(str(key))

    def _any(self, rng: Random, count: int, at: int) -> list[int | str]:
        """Orders that can be modified at a time: dates of one order never go back."""
        keys = [key for key, order in self.orders.items() if _us(order) <= at]
        return rng.sample(keys, min(count, len(keys)))

    def _put(self, order: Order) -> None:
        key = order["order_id"]
        self.orders[key] = order
        self.versions.setdefault(key, []).append(order)
        self.changed_in[key] = self.run
        self._shop.upsert([on_the_wire(order, self._scenario.cursor_style)])

    def _new_id(self) -> int | str:
        number = self._next_id
        self._next_id += 1
        return number if self._scenario.whole_ids else f"ORD-{number * 7919 % 100_003:06d}"

    def _time(self, rng: Random) -> int:
        """The date of a change: often that of the change before it."""
        if rng.random() < 0.6:
            self._now = max(self._now, self._real_now())
        return self._now

    def _late(self, rng: Random) -> int:
        """A date that has passed, as of a transaction that took its time: within half the lag."""
        late = (
            rng.uniform(0, self._scenario.lag_seconds / 2) if self._scenario.lag_seconds > 2 else 0
        )
        return (
            self._cut(max(self._now, self._real_now()) - int(late * SECOND)) if late else self._now
        )

    def _real_now(self) -> int:
        return self._cut(int((time.time() + self._scenario.skew_seconds) * SECOND))

    def _cut(self, us: int) -> int:
        return us // self._tick * self._tick


def _us(order: Order) -> int:
    at: datetime = order[CURSOR]
    return from_datetime(at)


def _history(scenario: Scenario, now: int, rng: Random) -> Iterator[int]:
    """When the orders of the history were modified, in the order in which they were created."""
    initial = read_time("2000-01-02T00:00:00Z")
    assert initial is not None
    days = rng.choice((1, 30, 365)) * DAY
    sale = now - rng.randrange(days)
    repeated = {"one timestamp": 1.0, "bulk edits": 0.93}.get(scenario.history, 0.0)
    times: list[int] = []
    for n in range(scenario.orders):
        at = now - rng.randrange(days)
        if scenario.history == "gap" and n < scenario.orders // 2:
            at = initial + rng.randrange(1000 * DAY)
        elif scenario.history == "sale day" and rng.random() < 0.8:
            at = sale - rng.randrange(3600 * SECOND)
        elif scenario.history == "last minutes":
            at = now - rng.randrange(600 * SECOND)
        elif times and rng.random() < repeated:
            at = times[-1]
        times.append(at // scenario.tick_us * scenario.tick_us)
    if rng.random() < 0.5:
        times.sort()
    yield from times


class Weather(Faults):
    """What happens when a request arrives, before it is answered."""

    def __init__(self, scenario: Scenario, store: Store, sandbox: Sandbox) -> None:
        super().__init__("", scenario.seed)
        self.requests = 0
        self.changes = 0
        self.told: Callable[[str], None] = lambda line: None
        self.kill: Callable[[], None] = lambda: None
        self._scenario = scenario
        self._store = store
        self._sandbox = sandbox
        self._lock = threading.Lock()
        self.becomes_quiet()

    def becomes_quiet(self) -> None:
        """No faults, no changes, tokens that live."""
        self._plan: RunPlan | None = None
        self.requests = self.changes = 0
        self.given.clear()
        self._sandbox.tokens.scripted_answer = None
        self._sandbox.tokens.set_lifetime(3600)

    def starts(self, plan: RunPlan) -> None:
        """A run begins."""
        self.becomes_quiet()
        self._plan = plan
        self._sandbox.tokens.set_lifetime(plan.token_lifetime)
        self._changing, self._failing = (
            Random(f"changes {plan.seed}"),
            Random(f"faults {plan.seed}"),
        )

    def next(self, endpoint: str) -> Fault | None:
        with self._lock:
            self.requests += 1
            plan = self._plan
            if self.requests == 1:
                self._store.is_asked()
            if plan is None:
                return None
            if plan.kill and plan.kill.kind == "request" and plan.kill.n == self.requests:
                self.kill()
            self._change(plan)
            fault = self._fault(plan, endpoint)
            self.told(f"request {self.requests} {endpoint}: {fault.name if fault else 'ok'}")
            if fault is not None:
                self.given[fault.name] += 1
            return fault

    def _change(self, plan: RunPlan) -> None:
        if self._changing.random() >= plan.change_chance:
            return
        for _ in range(self._changing.choice((1, 1, 2, 5))):
            if self.changes < MOST_CHANGES:
                self.changes += 1
                self._store.change(self._changing)

    def _fault(self, plan: RunPlan, endpoint: str) -> Fault | None:
        rng = self._failing
        self._sandbox.tokens.scripted_answer = None
        if plan.outage_at is not None and 0 <= self.requests - plan.outage_at < 5:
            return Fault("503", endpoint)
        if rng.random() >= plan.fault_chance:
            return None
        chances = _FAULTS if endpoint == ORDERS else _AT_TOKEN
        name = rng.choices(list(chances), list(chances.values()))[0]
        if name == "empty" and not self._scenario.settings["total_path"]:
            return None  # without a total nobody can tell it from the end
        if name == "revoke":
            self._sandbox.tokens.revoke_all()
            self.given["revoke"] += 1
            return None
        if name == "odd":
            assert endpoint == TOKEN
            answer = {"access_token": "none of ours", "token_type": "Bearer"}
            self._sandbox.tokens.scripted_answer = answer | rng.choice(_ODD_TOKENS)
            self.given["odd token"] += 1
            return None
        seconds = {"429": rng.choice((None, 0.01, 0.05)), "slow": 0.4}.get(name)
        return Fault(name, endpoint, seconds)


@contextmanager
def open_shop(scenario: Scenario) -> Iterator[tuple[str, Store, Weather]]:
    """The shop of a scenario: its address, what it holds, and what happens to it."""
    with running(**scenario.options) as server:
        sandbox = server.sandbox
        shop = OddShop(scenario)
        sandbox.shop = shop
        store = Store(scenario, shop)
        weather = Weather(scenario, store, sandbox)
        sandbox.faults = weather
        yield server.url, store, weather
