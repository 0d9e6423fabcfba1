"""What goes wrong between a shop and its warehouse: T1 to T19, one scenario each.

A scenario sets a shop up, changes it, and lets a reader read it. It returns the shop, or what else tells
what the tables should hold at the end, and asserts nothing: `test_promises.py` plays each on the project
and says what is promised, `test_bare_source.py` plays the same on a bare `rest_api_source` and says what
goes wrong there.

The shop is the sandbox, whose generated orders are all awkward, wherever it can do what the scenario is
about. Where one certain flaw matters, the orders are plain but for that, so that nothing else can go
wrong; where the moment between two requests matters, the shop is an `Api`.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event, Lock
from types import ModuleType
from typing import Any

from orders_dagster.sandbox import running
from orders_dagster_tests.bare import Bare
from orders_dagster_tests.small_api import Answer, Answering, Api, at, page
from orders_dagster_tests.world import Closing, Log, Project, Shop, holder

Orders = list[dict[str, Any]]
Reader = Project | Bare

START = datetime(2024, 1, 1, tzinfo=UTC)
LIMIT_SECONDS = 60  # for what another process does; only a test that fails waits so long


class Stage:
    """One reader, and the shops that are opened for it."""

    def __init__(self, reader: Reader, stack: ExitStack) -> None:
        self.reader = reader
        self._stack = stack

    def shop(self, **options: Any) -> Shop:
        """Open a sandbox with these options and point the reader at it."""
        shop = Shop(self._stack.enter_context(running(**options)).url)
        self.reader.point_at(shop.url)
        return shop

    def shop_with(self, *rows: dict[str, Any], **options: Any) -> Shop:
        """Open a sandbox with exactly these rows, also those that nobody could put there later."""
        file = self.reader.directory / "orders.ndjson"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return self.shop(orders_from=str(file), **options)

    def api(self, answer: Answering) -> Api:
        """Open a shop that answers as the function says and point the reader at it."""
        api = self._stack.enter_context(Api(answer).running())
        self.reader.point_at(api.url, login=False)
        return api


@contextmanager
def stage_for(reader: Reader, closing: Closing) -> Iterator[Stage]:
    with closing.later() as stack:
        yield Stage(reader, stack)


def numbers(module: ModuleType) -> set[int]:
    """The numbers of the scenarios that the functions of a module are about, by their docstrings."""
    found = (
        re.match(r"T(\d+)[:,]", thing.__doc__ or "")
        for thing in vars(module).values()
        if getattr(thing, "__module__", None) == module.__name__
    )
    return {int(match[1]) for match in found if match}


def order(order_id: Any, at: datetime | str | None = START, **fields: Any) -> dict[str, Any]:
    """A plain order with one item."""
    text = at.isoformat() if isinstance(at, datetime) else at
    item = {"line": 1, "sku": "S1", "quantity": 1}
    return {"order_id": order_id, "last_modified_date": text, "items": [item]} | fields


def plain_orders(count: int) -> Orders:
    """One order a minute."""
    return [order(f"A-{n:04d}", START + timedelta(minutes=n)) for n in range(count)]


def the_page_size_is_capped(stage: Stage) -> Shop:
    """T1: 200 orders a page are asked for, and the server gives 100."""
    shop = stage.shop(orders=1000, page_cap=100)
    stage.reader.synchronise()
    return shop


def a_page_comes_without_orders(stage: Stage, fault: str) -> Shop:
    """T2: in mid-run an answer 200 holds no orders: an "empty" list beside the total, or "nobody"."""
    shop = stage.shop(orders=1000)
    shop.script("ok", "ok", fault)
    stage.reader.synchronise()
    return shop


class MovingShop:
    """A shop that changes before each request but the first, as long as `rounds` last.

    Each time the orders that were left alone the longest, three unless told otherwise, are modified,
    and the next one is deleted for good: all of them have been read by a reader that goes by the date,
    and leave a gap behind it.
    """

    def __init__(self, count: int, rounds: int, moving: int = 3) -> None:
        self.orders = plain_orders(count)
        self.rounds = rounds
        self._moving = moving
        self._clock = at(self.orders[-1])
        self._asked = False
        self._lock = Lock()

    def answer(self, query: dict[str, str]) -> Answer:
        with self._lock:
            if self._asked and self.rounds:
                self.rounds -= 1
                self._change()
            self._asked = True
            return page(self.orders, query)

    def _change(self) -> None:
        gone = self._moving + 1
        *moved, _ = self.orders[:gone]
        del self.orders[:gone]
        for row in moved:
            self._clock += timedelta(seconds=1)
            self.orders.append(row | {"last_modified_date": self._clock.isoformat()})


def orders_change_while_they_are_read(stage: Stage) -> Orders:
    """T3: between any two requests orders are modified and deleted; then the shop is quiet, and read."""
    shop = MovingShop(1000, rounds=60)
    stage.api(shop.answer)
    stage.reader.synchronise()
    shop.rounds = 0
    stage.reader.synchronise()
    return shop.orders


def orders_vanish_while_they_are_read(stage: Stage) -> Orders:
    """T3: between any two requests an order is deleted, and the shop is read once, never in quiet."""
    shop = MovingShop(1000, rounds=60, moving=0)
    stage.api(shop.answer)
    stage.reader.synchronise()
    return shop.orders


def the_token_is_refused_in_mid_run(stage: Stage, *before: str) -> Shop:
    """T4: a token is revoked while it is in use; after a "503" it is while the retry waits."""
    shop = stage.shop(orders=220)
    shop.script("ok", *before, "401")
    stage.reader.synchronise()
    return shop


def an_order_comes_in_several_versions(stage: Stage) -> Shop:
    """T5: one load holds three versions of an order, the newest neither first nor last."""
    shop = stage.shop_with(
        order("A-1", START, status="old"),
        order("A-1", START + timedelta(days=2), status="newest"),
        order("A-1", START + timedelta(days=1), status="middle"),
    )
    stage.reader.synchronise()
    return shop


def an_order_changes_twice_within_one_timestamp(stage: Stage) -> Shop:
    """T6: the second change comes after the first was read, and carries the same date."""
    moment = datetime.now(UTC).replace(microsecond=123_000)
    shop = stage.shop(orders=0)
    shop.put(order("A-1", moment, status="first"))
    stage.reader.synchronise()
    shop.put(order("A-1", moment, status="second"))
    stage.reader.synchronise()
    return shop


def dates_are_spelled_differently(stage: Stage, earlier: str, later: str) -> Shop:
    """T7: an order whose date is later, but comes earlier when the two are compared as texts."""
    shop = stage.shop(orders=0)
    shop.put(order("A-1", earlier))
    stage.reader.synchronise()
    shop.put(order("A-2", later))
    stage.reader.synchronise()
    return shop


def an_order_cannot_be_merged(stage: Stage, **flaw: Any) -> None:
    """T8: among good orders, one has no date or no id."""
    stage.shop_with(order("A-1"), order("A-2") | flaw, order("A-3"))
    stage.reader.synchronise()


def there_are_no_orders_yet(stage: Stage) -> Shop:
    """T9: the first run comes before the first order."""
    shop = stage.shop(orders=0)
    stage.reader.synchronise()
    return shop


def the_file_is_open_elsewhere(stage: Stage, log: Log = lambda message: None) -> Shop:
    """T10: another program reads the tables, until it hears that somebody waits for it."""
    shop = stage.shop(orders=20)
    stage.reader.synchronise()
    shop.change(new=5)
    with holder(stage.reader, "reader") as program:

        def let_go(message: str) -> None:
            log(message)
            if "waiting" in message and program.stdin is not None:
                program.stdin.close()

        stage.reader.synchronise(let_go)
    return shop


def there_is_no_total(stage: Stage) -> Shop:
    """T11: the API does not say how many orders there are."""
    shop = stage.shop(orders=220, no_total=True)
    stage.reader.synchronise()
    return shop


def a_request_fails_three_times(stage: Stage) -> Shop:
    """T12: the reference allows three retries, and the third one would succeed."""
    shop = stage.shop(orders=20)
    shop.script("503", "503", "503")
    stage.reader.synchronise()
    return shop


def the_token_answer_holds_no_token(stage: Stage, answer: Any) -> Shop:
    """T13: the token endpoint answers 200 with something else."""
    shop = stage.shop(orders=20)
    shop.token(answer=answer)
    stage.reader.synchronise()
    return shop


def a_body_is_damaged(stage: Stage, fault: str) -> Shop:
    """T14: an answer 200 whose body is cut off ("truncate"), or is no JSON ("garble"), once."""
    shop = stage.shop(orders=220)
    shop.script("ok", fault)
    stage.reader.synchronise()
    return shop


@dataclass
class Killed:
    """A shop of which a first run was killed when it had been given more than 700 of 1,000 orders."""

    orders: Orders = field(default_factory=lambda: plain_orders(1000))
    given: set[str] = field(default_factory=set)
    given_again: set[str] = field(default_factory=set)
    queries_again: list[dict[str, str]] = field(default_factory=list)


def the_process_is_killed(stage: Stage) -> Killed:
    """T15: killed in the middle of a long first synchronisation, with no chance to clean up."""
    shop = Killed()
    stuck, killed, lock = Event(), Event(), Lock()

    def answer(query: dict[str, str]) -> Answer:
        if killed.is_set():
            shop.queries_again.append(query)
        elif len(shop.given) > 700:
            stuck.set()
            killed.wait(LIMIT_SECONDS)
            return {}
        answered: Any = page(shop.orders, query)
        with lock:
            given = shop.given_again if killed.is_set() else shop.given
            given.update(row["order_id"] for row in answered["orders"])
        return dict(answered)

    stage.api(answer)
    run = stage.reader.start()
    try:
        assert stuck.wait(LIMIT_SECONDS), "the run ended before it could be killed"
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
        killed.set()
    stage.reader.synchronise()
    return shop


def ties_come_in_another_order_each_time(stage: Stage) -> Orders:
    """T16: 1,006 orders share 3 timestamps, more than a page each, and come shuffled each time."""
    orders = [order(f"A-{n:04d}", START + timedelta(seconds=n % 3)) for n in range(1006)]
    rng, lock = Random("T16"), Lock()

    def answer(query: dict[str, str]) -> Answer:
        with lock:
            rng.shuffle(orders)
            return page(orders, query)

    stage.api(answer)
    stage.reader.synchronise()
    return orders


def a_parameter_is_ignored(stage: Stage, switch: str) -> Shop:
    """T17: the API takes no notice of the sort or the filter, and says nothing."""
    shop = stage.shop(orders=250, **{switch: True})
    shop.change(modify=50)
    stage.reader.synchronise()
    return shop


def amounts_are_whole_here_and_not_there(stage: Stage) -> Shop:
    """T18: the same field, of an order or an item, is a whole number here and a fraction there."""
    shop = stage.shop_with(
        order("A-1", total=10, items=[{"line": 1, "unit_price": 3}]),
        order("A-2", total=10.5, items=[{"line": 1, "unit_price": 3.25}]),
    )
    stage.reader.synchronise()
    return shop


def the_token_expires_on_the_way(stage: Stage) -> Shop:
    """T19: a token lives a second, and one request waits longer than that in the server's queue."""
    shop = stage.shop(orders=220, token_lifetime=1)
    shop.script("ok", "slow@1.1")
    stage.reader.synchronise()
    return shop
