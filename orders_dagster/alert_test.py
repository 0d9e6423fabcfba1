"""`orders-dagster alert-test`: sends a message to every receiver, to see that it arrives."""

from __future__ import annotations

import click

from orders_dagster.alerts.message import trial_message
from orders_dagster.alerts.receiver import receivers
from orders_dagster.errors import SettingsError
from orders_dagster.settings import NO_ALERTS, read_alerts


class _NoSettings(click.ClickException):
    exit_code = 2


@click.command("alert-test", short_help="Send a test message to every receiver of alerts.")
def command() -> None:
    """Send a test message to every receiver of sources.orders.alerts.urls.

    Exits with 1 if one of them did not take it, with 2 if the settings cannot be read.

    \b
    Example:
      orders-dagster alert-test
    """
    try:
        alerts = read_alerts()
    except SettingsError as error:
        raise _NoSettings(str(error)) from None
    if not alerts.urls:
        raise click.ClickException(NO_ALERTS)
    all_took_it = True
    for receiver in receivers(alerts.urls):
        took_it = receiver.send(trial_message(alerts.page_url))
        all_took_it &= took_it
        verdict = "took the message" if took_it else "did not take the message"
        click.echo(str(receiver.problem) if receiver.problem else f"{receiver.name} {verdict}.")
    if not all_took_it:
        raise SystemExit(1)
