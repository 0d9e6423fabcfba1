"""The source: dlt's `rest_api_source` with the reference configuration, one dictionary.

What differs from stock dlt is in three places of it: `auth` renews its token (api/auth.py),
`session` retries what time can cure (api/session.py), and `paginator` skips no order that moves
while it is read (api/paging.py). A step behind it makes rows of orders (rows.py), sends what cannot
be merged to `orders_rejected`, and keeps the watermark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import dlt
from dlt.extract.source import DltSource
from dlt.sources.helpers.rest_client.auth import (
    APIKeyAuth,
    AuthConfigBase,
    BearerTokenAuth,
    HttpBasicAuth,
)
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.rest_api import rest_api_source
from requests.auth import AuthBase

from orders_dagster.api.auth import RenewingClientCredentials
from orders_dagster.api.page import PageShape
from orders_dagster.api.paging import OffsetPaginator, OrdersPaginator, Paging, SeekPaginator
from orders_dagster.api.session import ApiSession, Pace, Traffic
from orders_dagster.columns import ORDERS, column_name, declare_decimal
from orders_dagster.cursor import UnreadableTime, read_time, step_of, value_at, write_time
from orders_dagster.errors import SettingsError
from orders_dagster.rows import REJECTED_TABLE, Rejected, Rows
from orders_dagster.settings import (
    ApiKey,
    Bearer,
    HttpBasic,
    OAuth2ClientCredentials,
    OrdersSettings,
)
from orders_dagster.values import Path

WATERMARK = "watermark"
FEW = 20


@dataclass
class OrdersSource:
    """One reading of the API: the dlt source, and what is known about the reading while it runs."""

    dlt_source: DltSource
    rows: Rows
    paginator: OrdersPaginator
    traffic: Traffic = field(default_factory=Traffic)


def orders_source(
    settings: OrdersSettings,
    *,
    watermark: datetime | None = None,
    rows: Rows | None = None,
    on_page: Callable[[int], None] = lambda orders: None,
    started_at: datetime | None = None,
) -> OrdersSource:
    """Build the source. Touches neither the network nor the warehouse until it is iterated.

    Args:
        watermark: the newest modification date that is loaded, UTC; None for a first load.
        rows: what turns orders into rows; a new one by default.
        on_page: called for each page with its number of orders, in the thread that extracts.
        started_at: the time the watermark never passes, UTC; now by default.
    """
    traffic = Traffic()
    session, auth = connect(settings, traffic)
    rows = rows or Rows(settings.primary_key, settings.cursor_path, settings.cursor_format)
    started_at = started_at or datetime.now(UTC)
    start = settings.initial_value
    if watermark is not None:
        lag = timedelta(seconds=settings.lag_seconds)
        start = watermark - lag if watermark > start + lag else start
    paginator = _paginator(settings, session, start)
    config: dict[str, Any] = {
        "client": {"base_url": settings.base_url, "auth": auth, "session": session},
        "resource_defaults": {
            "primary_key": column_name(settings.primary_key),
            "write_disposition": "merge",
        },
        "resources": [
            {
                "name": ORDERS,
                "endpoint": {
                    "path": settings.path,
                    "data_selector": settings.data_selector,
                    "params": first_request(settings, start),
                    "paginator": paginator,
                    # No "incremental": see _page_step, which keeps the watermark.
                },
                # Of several versions of an order in one load, the newest is merged.
                "columns": {column_name(settings.cursor_path): {"dedup_sort": "desc"}},
            }
        ],
    }
    dlt_source = rest_api_source(config, name=ORDERS)  # type: ignore[arg-type]
    orders = dlt_source.resources[ORDERS]
    dlt_source.schema.remove_type_detection("iso_timestamp")  # values.py has decided
    dlt_source.schema.update_table(orders.compute_table_schema())  # see declare_decimal
    orders.add_step(_page_step(settings, rows, paginator, started_at, on_page), insert_at=1)
    return OrdersSource(dlt_source, rows, paginator, traffic)


def inert_source() -> DltSource:
    """The source as Dagster needs it to define the asset: its names, no settings, no secrets."""
    return orders_source(OrdersSettings()).dlt_source


def connect(settings: OrdersSettings, traffic: Traffic) -> tuple[ApiSession, AuthBase | None]:
    """A session for the API and the auth that signs its requests."""
    pace = Pace(settings.max_requests_per_second)
    is_oauth2 = isinstance(settings.auth, OAuth2ClientCredentials)
    credentials = (
        "sources.orders.client_id and client_secret" if is_oauth2 else "sources.orders.auth"
    )

    def session(address: str, refused: str, credentials: str) -> ApiSession:
        api_key = settings.auth
        return ApiSession(
            traffic=traffic,
            pace=pace,
            status_codes=settings.retry.status_codes,
            max_retries=settings.retry.max_retries,
            backoff_factor=settings.retry.backoff_factor,
            timeout_seconds=settings.request_timeout_seconds,
            address_setting=address,
            refused_settings=refused,
            credential_settings=credentials,
            secret_params=frozenset({api_key.name} if isinstance(api_key, ApiKey) else ()),
        )

    api = session(
        "sources.orders.base_url",
        "sources.orders.base_url, sources.orders.path or sources.orders.params",
        f"{credentials} (or what they are allowed to read)",
    )
    auth = _auth(
        settings,
        session(
            "sources.orders.token_url",
            f"sources.orders.token_url, {credentials}, or auth.scope and auth.extra",
            credentials,
        ),
    )
    if isinstance(auth, RenewingClientCredentials):
        api.renewable_auth = auth
    if isinstance(auth, AuthConfigBase):
        auth.resolve()  # or dlt would look for its keys again, and find NAME in the environment
    return api, auth


def _auth(settings: OrdersSettings, token_session: ApiSession) -> AuthBase | None:
    auth = settings.auth
    if isinstance(auth, OAuth2ClientCredentials):
        secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
        scope = {"scope": auth.scope} if auth.scope else {}
        return RenewingClientCredentials(
            access_token_url=settings.token_url or "",
            client_id=settings.client_id or "",
            client_secret=secret,
            access_token_request_data={**scope, **auth.extra},
            credentials_in=auth.credentials_in,
            session=token_session,
        )
    if isinstance(auth, Bearer):
        return BearerTokenAuth(token=auth.token.get_secret_value())
    if isinstance(auth, ApiKey):
        key = auth.api_key.get_secret_value()
        return APIKeyAuth(name=auth.name, api_key=key, location=auth.location)
    if isinstance(auth, HttpBasic):
        return HttpBasicAuth(username=auth.username, password=auth.password.get_secret_value())
    return None


def _paginator(settings: OrdersSettings, session: ApiSession, start: datetime) -> OrdersPaginator:
    paging = Paging(
        limit_param=settings.limit_param,
        offset_param=settings.offset_param,
        page_size=settings.page_size,
        params=next_requests(settings.params, settings.cursor_format),
        shape=page_shape(settings, session),
    )
    if settings.paging == "offset":
        return OffsetPaginator(paging)
    return SeekPaginator(paging, start)


def page_shape(settings: OrdersSettings, session: ApiSession) -> PageShape:
    """Where the orders and their number are in an answer, as the settings say."""
    return PageShape(
        data_selector=settings.data_selector,
        total_path=settings.total_path,
        primary_key=settings.primary_key,
        cursor_path=settings.cursor_path,
        cursor_format=settings.cursor_format,
        redact=session.redact,
    )


def _page_step(
    settings: OrdersSettings,
    rows: Rows,
    paginator: OrdersPaginator,
    started_at: datetime,
    on_page: Callable[[int], None],
) -> Callable[..., Iterator[Any]]:
    """A page of orders becomes rows of `orders` and of `orders_rejected`, and moves the watermark.

    The watermark is in dlt's state of the resource, and so becomes durable with the rows. It is not
    kept by dlt's `incremental`, which takes the second change within one timestamp for the first,
    follows one order dated 2099 there, so that no change before then is ever read, and, with a lag,
    fails on rows without a date (test_upstream.py).
    """
    declared: set[Path] = set()
    rejected_hints = dlt.mark.make_hints(
        table_name=REJECTED_TABLE,
        primary_key="rejected_id",
        write_disposition="merge",
        columns={"order_id": {"data_type": "text"}},
    )

    # The next page starts with the last rows of this one: they wait until they have been read again,
    # since of two versions with one timestamp the one that is read later is the newer one.
    held: dict[Any, dict[str, Any]] = {}

    def key_of(row: dict[str, Any]) -> Any:
        return value_at(row, settings.primary_key)

    def time_of(row: dict[str, Any]) -> datetime:
        return cast(datetime, value_at(row, settings.cursor_path))

    def step(page: list[Any], meta: Any = None) -> Iterator[Any]:  # noqa: ARG001, dlt passes it
        merged: dict[Any, dict[str, Any]] = {}
        for order in page:
            row = rows.row(order)
            if isinstance(row, Rejected):
                kept = row.row(settings.primary_key, datetime.now(UTC))
                yield dlt.mark.with_hints(kept, rejected_hints, create_table_variant=True)
                continue
            known = merged.get(key_of(row))
            if known is None or time_of(row) >= time_of(known):
                merged[key_of(row)] = row
        for key, row in held.items():
            if key not in merged or time_of(merged[key]) < time_of(row):
                merged[key] = row
        held.clear()
        if paginator.has_next_page and merged:
            last = max(map(time_of, merged.values()))
            held.update({key: row for key, row in merged.items() if time_of(row) == last})
        schema = dlt.current.source_schema()
        for path in rows.values.decimal_paths - declared:
            declare_decimal(schema, path)
        declared.update(rows.values.decimal_paths)
        if rows.newest is not None:
            state = dlt.current.resource_state(ORDERS)
            newest = min(rows.newest, started_at)
            state[WATERMARK] = max(newest, state.get(WATERMARK, newest))
        on_page(len(page))
        ready = [row for key, row in merged.items() if key not in held]
        if ready:
            yield ready

    return step


def first_request(settings: OrdersSettings, start: datetime) -> dict[str, str]:
    """The query parameters of a window's first request."""
    text = write_time(start, settings.cursor_format)
    return {
        name: value.replace("{start}", text).replace("{", "{{").replace("}", "}}")
        for name, value in _open_ended(settings.params, settings.cursor_format).items()
    }  # doubled, since dlt takes what stands in braces for a placeholder of its own


def next_requests(params: dict[str, Any], cursor_format: str) -> dict[str, str]:
    """The parameters that move with the window: those whose value holds `{start}`."""
    return {n: v for n, v in _open_ended(params, cursor_format).items() if "{start}" in v}


def _open_ended(params: dict[str, Any], cursor_format: str) -> dict[str, str]:
    """The window has no end yet: a parameter that is just `{end}` is not sent, and inside a longer
    value `{end}` is a time one year ahead."""
    end = write_time(datetime.now(UTC) + timedelta(days=365), cursor_format)
    texts = {name: _text(value) for name, value in params.items()}
    return {n: v.replace("{end}", end) for n, v in texts.items() if v.strip() != "{end}"}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def newest_change_after(settings: OrdersSettings, watermark: datetime | None) -> datetime | None:
    """Ask the API for orders newer than the watermark: one request for a few, no retry.

    A few and not one, since one that cannot be merged stays newer than every watermark.

    Returns: the newest modification date among them, or None if there is none.

    Raises:
        SettingsError: the API cannot be asked with these settings.
        ApiUnavailable: it does not answer.
    """
    if settings.paging == "offset" and not next_requests(settings.params, settings.cursor_format):
        raise SettingsError(
            [
                "No parameter in sources.orders.params holds {start}, so the API cannot be asked "
                "for newer orders. The schedule still reads them; stop the sensor."
            ]
        )
    once = settings.model_copy(
        update={"retry": settings.retry.model_copy(update={"max_retries": 0})}
    )
    session, auth = connect(once, Traffic())
    client = RESTClient(settings.base_url, auth=auth, session=session)
    start, step = settings.initial_value, step_of(settings.cursor_format)
    if watermark is not None:  # a format of whole days cannot ask for what is newer
        start = watermark + step if step <= timedelta(seconds=1) else watermark
    params = {
        name: value.replace("{start}", write_time(start, settings.cursor_format))
        for name, value in _open_ended(settings.params, settings.cursor_format).items()
    }
    params |= {settings.limit_param: str(FEW), settings.offset_param: "0"}
    response = client.get(settings.path, params=params)
    orders = client.extract_response(response, settings.data_selector)
    page_shape(settings, session).check(response, orders, is_first=False)
    times = []
    for order in orders:
        try:
            times.append(read_time(value_at(order, settings.cursor_path), settings.cursor_format))
        except UnreadableTime:
            continue
    newer = [time for time in times if watermark is None or time > watermark]
    return max(newer, default=None)
