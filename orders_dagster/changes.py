"""Asking the API whether there is anything to read, for the sensor: it must cost next to nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dlt.sources.helpers.rest_client.client import RESTClient

from orders_dagster.api.connect import connect
from orders_dagster.api.page import PageShape
from orders_dagster.api.query import START, page_params, templates
from orders_dagster.api.session import Traffic
from orders_dagster.cursor import UnreadableTime, read_time, step_of, value_at
from orders_dagster.errors import SettingsError
from orders_dagster.settings import OrdersSettings

FEW = 20


def newest_change_after(settings: OrdersSettings, watermark: datetime | None) -> datetime | None:
    """Ask the API for orders newer than the watermark: one request for a few, no retry.

    A few and not one, since one that cannot be merged stays newer than every watermark.

    Returns: the newest modification date among them, or None if there is none. One that is later than now
        only if there is no other: it stays newer than every watermark, and would hide those that change.

    Raises:
        SettingsError: the API cannot be asked with these settings.
        ApiUnavailable: it does not answer.
    """
    if not any(START in text for text in templates(settings.params).values()):
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
    response = client.get(settings.path, params=page_params(settings, start, None, FEW))
    orders = client.extract_response(response, settings.data_selector)
    PageShape.of(settings, session.redact).check(response, orders, is_first=False)
    times = []
    for order in orders:
        try:
            times.append(read_time(value_at(order, settings.cursor_path), settings.cursor_format))
        except UnreadableTime:
            continue
    newer = [time for time in times if watermark is None or time > watermark]
    now = datetime.now(UTC)
    return max([time for time in newer if time <= now] or newer, default=None)
