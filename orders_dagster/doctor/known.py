"""What the probes know so far: the settings, and the few pages that were asked for.

A page is asked for when a probe first looks at it, as the pipeline would ask, and kept. Where a setting
is wrong and the right one is plain, the probes that follow go on as if it were set: one wrong name is
to be one finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.client import RESTClient
from requests import Response

from orders_dagster.api.auth import RenewingClientCredentials
from orders_dagster.api.connect import Connection, connect
from orders_dagster.api.page import PageShape, compiled
from orders_dagster.api.query import page_params
from orders_dagster.api.session import Traffic
from orders_dagster.cursor import (
    EPOCH,
    UnreadableTime,
    read_time,
    step_of,
    value_at,
)
from orders_dagster.doctor.finding import Unanswered, Unjudged
from orders_dagster.doctor.wire import Wire
from orders_dagster.errors import OrdersError, ResponseNotUnderstood
from orders_dagster.settings import OrdersSettings

MOST_RETRIES = 1
"""One, not what is set: an API that drops a connection is not ill, one that drops two is, and a person
is waiting."""

SMALL = 2  # orders: the smallest page that the pipeline asks for

Params = dict[str, str | None]


@dataclass(frozen=True)
class Edges:
    """A window inside of the sample: orders are known before it, at its start, at its end, behind it.

    Attributes:
        behind: one step behind the last orders before the end.
    """

    before: datetime
    start: datetime
    behind: datetime
    end: datetime


class Known:
    """Settings and pages; the probes change the settings when they know better."""

    def __init__(self, settings: OrdersSettings) -> None:
        self.settings_as_set = settings
        retry = settings.retry
        fewer = retry.model_copy(update={"max_retries": min(retry.max_retries, MOST_RETRIES)})
        self.settings = settings.model_copy(update={"retry": fewer})
        self.wire = Wire()
        self.step = step_of(settings.cursor_format)
        self.is_reached = self.is_logged_in = self.is_sorted = self.is_filtered = False
        self.has_selector = True
        self.compared: str | None = None
        self._answers: dict[str, Response | Exception] = {}

    @cached_property
    def connection(self) -> Connection:
        connection = connect(self.settings, Traffic())
        self.wire.taps(connection.session)
        if isinstance(connection.auth, RenewingClientCredentials):
            self.wire.taps(connection.auth.session)
        return connection

    def _connect_again(self) -> None:
        """A session that has failed sends no more; the token that it had is still good."""
        auth = self.connection.auth
        del self.connection
        if isinstance(auth, RenewingClientCredentials) and not auth.is_due():
            session = self.connection.session
            session.renewable_auth = auth
            self.connection = Connection(session, auth)

    def redact(self, url: str | None) -> str:
        return self.connection.session.redact(url)

    @property
    def url(self) -> str:
        """The address of the endpoint, without parameters, as it may be printed."""
        base, path = self.settings.base_url.rstrip("/"), self.settings.path.lstrip("/")
        return self.redact(f"{base}/{path}")

    def go_on_with(self, **settings: Any) -> None:
        """The probes that follow take these values for the ones that are set."""
        self.settings = self.settings.model_copy(update=settings)
        self.step = step_of(self.settings.cursor_format)

    def compares(self, unit: str, length: timedelta) -> None:
        """The filter compares whole units; the windows that follow are tried in these."""
        self.compared, self.step = unit, length
        self._answers.pop("later", None)

    # --- pages

    def keep_first(self, answer: Response | Unanswered) -> None:
        self._answers["first"] = answer

    def first(self) -> Response:
        """The page that a first synchronisation begins with."""
        return self._kept("first", self.ask)

    def small(self) -> Response:
        """The same with fewer orders."""
        limit = self.settings.limit_param
        return self._kept("small", lambda: self.ask(params={limit: str(SMALL)}))

    def shifted(self) -> Response:
        """The same from the middle on."""
        offset = self.settings.offset_param
        return self._kept("shifted", lambda: self.ask(params={offset: str(self.middle)}))

    def later(self) -> Response:
        """The page of an open window that starts inside of the first page."""
        edges = self.edges
        return self._kept("later", lambda: self.ask(edges.start))

    def earlier(self) -> Response:
        """The same from one step earlier."""
        edges = self.edges
        return self._kept("earlier", lambda: self.ask(edges.start - self.step))

    def from_before(self) -> Response:
        """The page of an open window that starts at the order before."""
        edges = self.edges
        return self._kept("from_before", lambda: self.ask(edges.before))

    def bounded(self) -> Response:
        """The page of a window with an end, inside of the first page."""
        edges = self.edges
        return self._kept("bounded", lambda: self.ask(edges.start, edges.end))

    def narrow(self) -> Response:
        """The page of a window that ends closely behind orders of the first page."""
        edges = self.edges
        return self._kept("narrow", lambda: self.ask(edges.start, edges.behind))

    def _kept(self, name: str, ask: Callable[[], Response]) -> Response:
        if name not in self._answers:
            try:
                self._answers[name] = ask()
            except Unanswered as error:
                self._answers[name] = error
        answer = self._answers[name]
        if isinstance(answer, Exception):
            if name == "first":
                raise Unjudged("there is no page of orders to look at")
            raise answer
        return answer

    def was_answered(self, name: str) -> bool:
        return isinstance(self._answers.get(name), Response)

    def ask(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        params: Params | None = None,
    ) -> Response:
        """Ask for a page as the pipeline would, with some parameters otherwise; None is not sent.

        Raises:
            Unjudged: the API cannot be reached, or there is no token.
            Unanswered: what came is no page; says what.
        """
        if not self.is_reached:
            raise Unjudged("the API cannot be reached")
        if not self.is_logged_in:
            raise Unjudged("there is no token")
        s = self.settings
        sent: Params = dict(page_params(s, start or s.initial_value, end, s.page_size))
        sent |= params or {}
        client = RESTClient(s.base_url, auth=self.connection.auth, session=self.connection.session)
        path = s.path.replace("{", "%7B").replace("}", "%7D")  # as source.py sends it
        try:
            return client.get(path, params={k: v for k, v in sent.items() if v is not None})
        except OrdersError:
            # Its message may hold the dates of the window.
            last = self.wire.last
            what = self._what_came()
            self._connect_again()
            raise Unanswered(what, last.status) from None

    def _what_came(self) -> str:
        """What the last answer is, that is no page; in words, without what it says."""
        last = self.wire.last
        if not last.status or last.status >= 400:
            return last.what_happened()
        if last.status >= 300:
            return f"it redirects to another address ({last.status})"
        kind = re.match(r"[\w.+/-]{1,50}", last.headers.get("Content-Type", ""))
        what = f"its answer is no JSON ({kind[0] if kind else 'no content type'})"
        elsewhere = [e.status for e in self.wire.exchanges if e.url != last.url]
        if elsewhere and elsewhere[-1] in (301, 302, 303, 307, 308):
            return f"it redirects to {self.redact(last.url)}, as to a login, and {what}"
        return what

    # --- what is on the pages

    def orders(self, response: Response) -> list[dict[str, Any]]:
        """The orders of a page; none if there is nothing at the selector."""
        found: Any = jsonpath.find_values(compiled(self.settings.data_selector), response.json())
        rows = found[0] if len(found) == 1 else found
        rows = rows if isinstance(rows, list) else [rows]
        return [row for row in rows if isinstance(row, dict)]

    @property
    def sample(self) -> list[dict[str, Any]]:
        """The orders of the first page.

        Raises:
            Unjudged: there are none.
        """
        orders = self.orders(self.first())
        if not orders:
            raise Unjudged("there are no orders to look at")
        return orders

    @property
    def several(self) -> list[dict[str, Any]]:
        """The same, if there are at least 3: fewer look the same whether a rule is kept or not."""
        orders = self.sample
        if len(orders) <= SMALL:
            raise Unjudged(f"{len(orders)} orders are too few to tell")
        return orders

    @property
    def middle(self) -> int:
        return len(self.several) // 2

    def total(self, response: Response) -> int | None:
        """The number of orders that an answer tells, None if there is no number."""
        try:
            shape = PageShape.of(self.settings, self.connection.session.redact)
            return shape.total(response, self.orders(response))
        except ResponseNotUnderstood:
            return None

    def ids(self, response: Response) -> list[Any]:
        """The primary keys of a page, None where there is none."""
        return [value_at(order, self.settings.primary_key) for order in self.orders(response)]

    def keys(self, response: Response) -> list[str]:
        return [str(key) for key in self.ids(response)]

    def time(self, order: dict[str, Any]) -> datetime | None:
        settings = self.settings
        try:
            return read_time(value_at(order, settings.cursor_path), settings.cursor_format)
        except UnreadableTime:
            return None

    def dated(self, response: Response) -> list[tuple[str, datetime]]:
        """The primary key and the date of each order of a page that has a readable one."""
        times = map(self.time, self.orders(response))
        pairs = zip(self.keys(response), times, strict=True)
        return [(key, time) for key, time in pairs if time is not None]

    def times(self, response: Response) -> list[datetime]:
        return [time for _, time in self.dated(response)]

    def floor(self, time: datetime) -> datetime:
        """A time as precisely as a request can name it."""
        return floor(time, self.step)

    @property
    def edges(self) -> Edges:
        """Where a window can be tried: as close as possible behind another order, so that a filter which
        compares whole seconds or days is found out."""
        times = sorted({self.floor(time) for time in self.times(self.first())})
        if len(times) < 5:
            raise Unjudged("it takes orders of five different dates to tell")
        # From the middle on: what a filter by days leaves out is to be known from days before.
        at = min(
            range(max(1, len(times) // 2 - 1), len(times) - 3),
            key=lambda n: times[n] - times[n - 1],
        )
        return Edges(times[at - 1], times[at], times[at + 1] + self.step, times[at + 2])


def floor(time: datetime, step: timedelta) -> datetime:
    return EPOCH + (time - EPOCH) // step * step
