"""Alerts: one message when something fails, one when it is well again, whoever was down meanwhile."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterEvent,
    DagsterInstance,
    Definitions,
    SkipReason,
    asset,
    build_sensor_context,
    in_process_executor,
)
from dagster._core.test_utils import create_run_for_test
from pydantic import SecretStr

from orders_dagster.alerts import ledger
from orders_dagster.alerts.receiver import receivers
from orders_dagster.alerts.records import episode_in, reason_of
from orders_dagster.alerts.tell import Tick, tell
from orders_dagster.alerts.trouble import LONGEST_STREAK, Outcome, Subject, latest_episode
from orders_dagster.cli import main
from orders_dagster.definitions import defs
from orders_dagster.replay import config_of
from orders_dagster.runs import failures
from orders_dagster.settings import NO_ALERTS
from orders_dagster_tests.inbox import SECRET, Inbox
from orders_dagster_tests.world import Project, Shop

OpenShop = Callable[..., Shop]
CUSTOMER = "the-customer-who-is-not-to-be-f0und"
BEGIN = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Alerts:
    """The sensor as the daemon runs it: it keeps its cursor from tick to tick."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        context = build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = defs.get_sensor_def("orders_alerts")(context)
        self.cursor = context.cursor
        assert isinstance(result, SkipReason)
        return str(result.skip_message)

    def tick_after_the_wait(self) -> str:
        """As if the backoff of every receiver had passed."""
        marks = [entry["receiver"] for entry in json.loads(self.cursor or "[]")]
        ledgers = ledger.parse(self.cursor, marks, BEGIN)
        for one in ledgers:
            if one.failures:
                one.last_failure -= ledger.LONGEST_BACKOFF
        self.cursor = ledger.text(ledgers)
        return self.tick()

    def run(self, *, success: bool) -> str:
        """The real job; returns the id of its run."""
        job = defs.resolve_job_def("orders_job")
        result = job.execute_in_process(instance=self.instance, raise_on_error=False)
        assert result.success == success
        return str(result.run_id)

    def replay(self, start: str, *, success: bool) -> None:
        """The job, for a month from a day on."""
        end = f"{start[:8]}28"
        result = defs.resolve_job_def("replay_orders").execute_in_process(
            instance=self.instance,
            run_config=config_of("replay_orders", start=start, end=end),
            raise_on_error=False,
        )
        assert result.success == success

    def check(
        self,
        name: str,
        *,
        passed: bool,
        severity: AssetCheckSeverity = AssetCheckSeverity.ERROR,
        offenders: int = 3,
    ) -> None:
        """An evaluation in the records, without the run around it."""
        self.instance.report_runless_asset_event(
            AssetCheckEvaluation(
                asset_key=AssetKey("orders"),
                check_name=name,
                passed=passed,
                severity=severity,
                description=f"{CUSTOMER} is in the description",
                metadata={"offenders": 0 if passed else offenders, "sample": CUSTOMER},
            )
        )

    def ended(
        self, kind: str, *, job: str = "orders_job", assets: frozenset[AssetKey] | None = None
    ) -> str:
        """A run in the records that ended in a way: "SUCCESS", "FAILURE", "CANCELED"."""
        run = create_run_for_test(self.instance, job_name=job, asset_selection=assets)
        for event in ("START", kind):
            self.instance.report_dagster_event(
                DagsterEvent(f"PIPELINE_{event}", job_name=job), run_id=run.run_id
            )
        return str(run.run_id)


@pytest.fixture
def alerts(instance: DagsterInstance) -> Alerts:
    return Alerts(instance)


@pytest.fixture
def inbox(project: Project) -> Iterator[Inbox]:
    """A receiver, the one that is set."""
    with Inbox().running() as inbox:
        project.set(alerts__urls=[inbox.url])
        yield inbox


def lines(message: dict[str, str]) -> dict[str, str]:
    """The body of a message by the names of its lines."""
    return dict(line.split(": ", 1) for line in message["message"].splitlines())


def test_a_fault_is_told_once_and_its_end_once(
    project: Project, shop: OpenShop, alerts: Alerts, inbox: Inbox
) -> None:
    """The whole of it, with real runs: a check, then a run that fails. That each fails once more is only
    in the records."""
    shop(orders=10)
    project.set(alerts__page_url="https://dagster.example.com/")
    alerts.run(success=True)
    alerts.tick()
    assert inbox.messages == []

    project.execute("INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders LIMIT 3")
    first = alerts.run(success=False)  # the check blocks, and that is all that fails in the run
    alerts.tick()
    alerts.check("order_id_unique", passed=False)
    alerts.tick()

    (failing,) = inbox.messages
    assert failing["title"] == "orders: order_id_unique fails"
    assert failing["type"] == "failure"
    told = lines(failing)
    assert told.pop("Since").endswith(" UTC")
    assert told == {
        "Does not hold": "No order is in the table twice.",
        "Offenders": "3",
        "Severity": "error",
        "Runbook": "docs/runbook.md#order_id_unique",
        "Run": f"https://dagster.example.com/runs/{first}",
    }

    project.execute("DROP TABLE ecommerce.orders")
    project.execute("DROP TABLE ecommerce.orders__items")
    healed = alerts.run(success=True)
    alerts.tick()
    alerts.tick()

    assert inbox.titles[1:] == ["orders: order_id_unique is well again"]
    assert inbox.messages[1]["type"] == "success"
    assert lines(inbox.messages[1])["Failed since"] == lines(failing)["Since"]
    assert lines(inbox.messages[1])["Run"].endswith(f"/runs/{healed}")

    project.set(path="/nowhere")
    failed = alerts.run(success=False)
    alerts.tick()
    alerts.ended("FAILURE")
    alerts.tick()

    assert inbox.titles[2:] == ["orders: orders_job fails"]
    told = lines(inbox.messages[2])
    assert told["What failed"].startswith("The API answered 404 to http://127.0.0.1:")
    assert told["Run"].endswith(f"/runs/{failed}")

    project.unset("path")
    alerts.run(success=True)
    alerts.tick()

    assert inbox.titles[3:] == ["orders: orders_job is well again"]
    assert lines(inbox.messages[3])["Failures in a row"] == "2"


def test_a_replay_whose_check_blocks_has_not_failed_for_itself(
    project: Project, shop: OpenShop, alerts: Alerts, inbox: Inbox
) -> None:
    """The check is told; that its run is red, too, is the same fault."""
    shop(orders=10)
    alerts.run(success=True)
    project.execute("INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders")

    alerts.replay("2000-01-01", success=False)
    alerts.tick()

    assert inbox.titles == ["orders: order_id_unique fails"]


def test_a_slip_in_the_range_of_a_replay_wakes_nobody_and_mends_nothing(
    project: Project, shop: OpenShop, alerts: Alerts, inbox: Inbox
) -> None:
    """Whoever wrote it sees why in the page. A replay that failed before has still failed."""
    shop(orders=10)
    alerts.replay("2999-01-01", success=False)
    alerts.tick()
    assert inbox.messages == []

    project.set(path="/nowhere")
    alerts.replay("2000-01-01", success=False)
    alerts.replay("2999-01-01", success=False)
    alerts.tick()

    assert inbox.titles == ["orders: replay_orders fails"]


def test_nothing_is_told_of_an_empty_instance(alerts: Alerts, inbox: Inbox) -> None:
    """A new project is not in trouble."""
    assert alerts.tick() == "There is nothing new to tell."
    assert inbox.messages == []


def test_without_a_url_the_sensor_says_how_to_set_one(alerts: Alerts) -> None:
    """It runs by itself, and does nothing until somebody is to be told."""
    alerts.check("order_id_unique", passed=False)

    assert alerts.tick() == NO_ALERTS
    assert defs.get_sensor_def("orders_alerts").default_status.value == "RUNNING"


def test_what_is_wrong_already_is_told_to_a_new_receiver(alerts: Alerts, inbox: Inbox) -> None:
    """Alerts are set up when something has gone wrong; what was over by then is no news."""
    alerts.check("order_id_unique", passed=False)
    alerts.check("order_id_not_null", passed=False)
    alerts.check("order_id_not_null", passed=True)

    alerts.tick()
    alerts.tick()

    assert inbox.titles == ["orders: order_id_unique fails"]


@pytest.mark.parametrize("how", ["refuses", "is gone"])
def test_a_receiver_that_is_down_is_told_later_and_once(
    alerts: Alerts, inbox: Inbox, how: str
) -> None:
    """Nothing is lost, nothing is doubled, and it is left alone for a while in between."""
    if how == "refuses":
        inbox.status = 500
    else:
        inbox.close()
    alerts.check("order_id_unique", passed=False)
    alerts.check("items_belong_to_an_order", passed=False)
    for attempt in (1, 2):
        assert f"did not take a message, {attempt} times in a row" in alerts.tick_after_the_wait()
        assert f"did not take a message, {attempt} times in a row" in alerts.tick()
        assert f'"attempts": {attempt}' in (alerts.cursor or "")
    assert inbox.refused == (2 if how == "refuses" else 0)

    inbox.status = 200
    if how == "is gone":
        inbox.open()
    alerts.tick_after_the_wait()
    alerts.tick()

    assert inbox.titles == [
        "orders: order_id_unique fails",
        "orders: items_belong_to_an_order fails",
    ]
    assert "attempts" not in (alerts.cursor or "")


def test_one_receiver_that_is_down_holds_up_no_other(
    project: Project, alerts: Alerts, inbox: Inbox
) -> None:
    """Each has a memory of its own: the one that took the message does not get it again."""
    with Inbox().running() as other:
        other.status = 503
        project.set(alerts__urls=[other.url, inbox.url])
        alerts.check("order_id_unique", passed=False)
        alerts.tick()
        assert (inbox.titles, other.titles) == (["orders: order_id_unique fails"], [])

        other.status = 200
        alerts.tick_after_the_wait()

        assert inbox.titles == other.titles == ["orders: order_id_unique fails"]


def test_what_failed_and_is_well_again_between_two_ticks_is_one_message(
    alerts: Alerts, inbox: Inbox
) -> None:
    """The daemon was down, or the receiver: that it failed is not lost, and nobody is called in vain."""
    alerts.tick()
    alerts.check("order_id_unique", passed=False)
    alerts.check("order_id_unique", passed=True)
    failed = alerts.ended("FAILURE")
    alerts.ended("SUCCESS")

    alerts.tick()
    alerts.tick()

    assert inbox.titles == [
        "orders: order_id_unique failed, and is well again",
        "orders: orders_job failed, and is well again",
    ]
    assert lines(inbox.messages[0])["Offenders"] == "3"
    assert {"Since", "Well since"} <= set(lines(inbox.messages[0]))
    assert lines(inbox.messages[1])["Run"] == f"http://127.0.0.1:3000/runs/{failed}"


def test_receivers_are_known_wherever_they_stand_in_the_setting(
    project: Project, alerts: Alerts
) -> None:
    """One that is put in front or taken away makes no other one be told twice, or never; and a renewed
    password makes nobody another one."""
    with Inbox().running() as old, Inbox().running() as new:

        def told(*urls: str) -> tuple[int, int]:
            project.set(alerts__urls=list(urls))
            alerts.tick_after_the_wait()
            return len(old.messages), len(new.messages)

        assert told(old.url) == (0, 0)
        alerts.check("order_id_unique", passed=False)
        assert told(old.url) == (1, 0)
        assert told(new.url, old.url) == (1, 1)
        assert told(old.url) == (1, 1)
        assert told(f"{old.url}?renewed=yes") == (1, 1)
        assert told(f"{old.url}?renewed=yes", new.url) == (1, 2), (
            "what is wrong is told to a new one"
        )


def test_a_receiver_that_is_added_is_not_told_what_was_over(
    project: Project, alerts: Alerts, inbox: Inbox
) -> None:
    """Also while another one still has to be told of it."""
    alerts.tick()
    alerts.check("order_id_unique", passed=False)
    alerts.check("order_id_unique", passed=True)

    with Inbox().running() as added:
        project.set(alerts__urls=[inbox.url, added.url])
        alerts.tick()

    assert inbox.titles == ["orders: order_id_unique failed, and is well again"]
    assert added.titles == []


def test_what_takes_too_long_is_told_at_the_next_tick(alerts: Alerts, inbox: Inbox) -> None:
    """Dagster ends a tick that is too long, and would forget what was told in it."""
    alerts.check("order_id_unique", passed=False)

    def tick(cursor: str | None, seconds: float) -> Tick:
        return tell(
            cursor,
            receivers([SecretStr(inbox.url)]),
            [Subject("check", "order_id_unique")],
            lambda subject, back_to: episode_in(alerts.instance, subject, back_to),
            datetime.now(UTC),
            at_least="error",
            page_url="http://127.0.0.1:3000",
            sending_seconds=seconds,
        )

    late = tick(None, -1)
    assert (late.text(), inbox.titles) == ("More for receiver 1 (JSON) at the next tick.", [])

    tick(tick(late.cursor, 60).cursor, 60)
    assert inbox.titles == ["orders: order_id_unique fails"]


def test_what_a_new_receiver_missed_from_the_first_tick_on_is_told(
    alerts: Alerts, inbox: Inbox
) -> None:
    """It was down when it was set, and well again is what it could not be told in time."""
    inbox.status = 500
    alerts.check("order_id_unique", passed=False)
    alerts.tick()
    alerts.check("order_id_unique", passed=True)
    inbox.status = 200

    alerts.tick_after_the_wait()

    assert inbox.titles == ["orders: order_id_unique failed, and is well again"]


def test_what_fails_again_is_told_again(alerts: Alerts, inbox: Inbox) -> None:
    """Another streak is another message, also when the end of the one before it was missed."""
    alerts.check("order_id_unique", passed=False)
    alerts.tick()
    alerts.check("order_id_unique", passed=True)
    alerts.check("order_id_unique", passed=False, offenders=12_345)
    alerts.tick()
    alerts.check("order_id_unique", passed=False)
    alerts.tick()

    assert inbox.titles == ["orders: order_id_unique fails"] * 2
    assert lines(inbox.messages[1])["Offenders"] == "12,345"
    assert lines(inbox.messages[1])["Run"] == "http://127.0.0.1:3000/assets/orders?view=checks"


def test_since_when_is_the_first_failure_of_the_streak(alerts: Alerts, inbox: Inbox) -> None:
    """It may have failed a hundred times by the time that somebody can be told."""
    for passed in (False, True, *[False] * 25):
        alerts.check("order_id_unique", passed=passed)
    times = [record.event.timestamp for record in history(alerts, "order_id_unique")]
    began = datetime.fromtimestamp(sorted(times)[2], UTC)

    alerts.tick()

    assert lines(inbox.messages[0])["Since"] == f"{began:%Y-%m-%d %H:%M:%S} UTC"
    assert began.isoformat() in (alerts.cursor or "")


def history(alerts: Alerts, name: str) -> list[Any]:
    key = AssetCheckKey(AssetKey("orders"), name)
    return list(alerts.instance.event_log_storage.get_asset_check_execution_history(key, 1000))


def test_warnings_are_told_only_if_that_is_set(
    project: Project, alerts: Alerts, inbox: Inbox
) -> None:
    """What may wait until the morning wakes nobody; the end of what was told is told in any case."""
    alerts.check("freshness", passed=False, severity=AssetCheckSeverity.WARN)
    alerts.tick()
    assert inbox.messages == []

    project.set(alerts__min_severity="warn")
    alerts.tick()
    assert inbox.titles == ["orders: freshness fails"]
    assert inbox.messages[0]["type"] == "warning"
    assert lines(inbox.messages[0])["Severity"] == "warning"

    project.set(alerts__min_severity="error")
    alerts.tick()
    alerts.check("freshness", passed=True)
    alerts.tick()
    assert inbox.titles[1:] == ["orders: freshness is well again"]


def test_a_run_by_hand_makes_a_failed_run_well(alerts: Alerts, inbox: Inbox) -> None:
    """Whoever is called presses Materialize: that is the same work, by another name."""
    ours, theirs = frozenset({AssetKey("orders")}), frozenset({AssetKey("theirs")})
    alerts.ended("FAILURE")
    alerts.ended("SUCCESS", job="__ASSET_JOB", assets=theirs)
    alerts.ended("SUCCESS", job="their_job")
    alerts.ended("CANCELED")
    alerts.tick()
    assert inbox.titles == ["orders: orders_job fails"]

    alerts.ended("SUCCESS", job="__ASSET_JOB", assets=ours)
    alerts.ended("FAILURE", job="their_job")
    alerts.tick()
    assert inbox.titles[1:] == ["orders: orders_job is well again"]


def test_a_run_whose_process_is_gone_is_told(alerts: Alerts, inbox: Inbox) -> None:
    """No step of it failed, so that nothing but the run itself can say so."""
    alerts.ended("FAILURE")

    alerts.tick()

    assert "its process was stopped, or never began" in lines(inbox.messages[0])["What failed"]


def test_of_an_error_that_is_not_ours_only_the_class_is_told(instance: DagsterInstance) -> None:
    """A library quotes what it chokes on, and that may be a customer."""

    @asset
    def orders() -> None:
        try:
            raise KeyError(CUSTOMER)
        except KeyError as error:
            raise ValueError(CUSTOMER) from error

    job = Definitions(
        [orders], executor=in_process_executor
    ).resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(instance=instance, raise_on_error=False)

    reason = reason_of(failures(instance, run.run_id))

    assert reason == "ValueError in the step orders. The page of the run shows it in full."


@pytest.mark.parametrize("how", ["takes it", "refuses", "is gone"])
def test_no_secret_and_no_customer_gets_anywhere(
    project: Project,
    alerts: Alerts,
    inbox: Inbox,
    how: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not into a log, even of everything, not into the message, the page, the cursor or the records."""
    caplog.set_level(1)
    for name in ("apprise", "urllib3", "urllib3.connectionpool"):
        caplog.set_level(1, name)
    inbox.status = 500 if how == "refuses" else 200
    if how == "is gone":
        inbox.close()
    alerts.check("order_id_unique", passed=False)

    said = alerts.tick()
    tested = CliRunner().invoke(main, ["alert-test"])
    logging.getLogger("urllib3.connectionpool").debug("what others log is not held back")

    printed = "".join(capfd.readouterr())
    everything = f"{said} {alerts.cursor} {inbox.messages} {caplog.text} {printed} {tested.output}"
    assert SECRET not in everything
    assert CUSTOMER not in everything
    assert "127.0.0.1:" not in said + str(alerts.cursor) + tested.output
    assert "what others log is not held back" in caplog.text
    assert len(inbox.messages) == (2 if how == "takes it" else 0)
    files = [path for path in project.directory.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_url_that_is_none_is_named_and_not_shown_and_holds_up_no_other(
    project: Project, alerts: Alerts, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The number says which of the list; what it is stays a secret."""
    caplog.set_level(1)
    project.set(alerts__urls=[f"jsn://127.0.0.1/{SECRET}", inbox.url, f"slack://{SECRET}"])
    alerts.check("order_id_unique", passed=False)

    said = alerts.tick()
    tested = CliRunner().invoke(main, ["alert-test"])

    for text in (said, tested.output):
        assert "alerts.urls: Apprise does not understand the URL number 1" in text
        assert "alerts.urls: Apprise does not understand the URL number 3" in text
        assert "receiver 2 (JSON)" in text
        assert SECRET not in text
    assert tested.exit_code == 1
    assert inbox.titles == ["orders: order_id_unique fails", "orders: a test message"]
    assert SECRET not in caplog.text


def test_a_wrong_setting_is_said_by_the_sensor(project: Project, alerts: Alerts) -> None:
    """The page shows which one, instead of a sensor that fails."""
    project.set(alerts__min_severity="fatal")

    assert "sources.orders.alerts.min_severity = 'fatal'" in alerts.tick()


def test_the_test_message_says_whether_it_arrives(project: Project, inbox: Inbox) -> None:
    """Better tried by day than found out by night."""
    arrived = CliRunner().invoke(main, ["alert-test"])
    inbox.status = 500
    refused = CliRunner().invoke(main, ["alert-test"])
    project.unset("alerts__urls")
    unset = CliRunner().invoke(main, ["alert-test"])

    assert (arrived.exit_code, arrived.output) == (0, "receiver 1 (JSON) took the message.\n")
    assert (refused.exit_code, refused.output) == (
        1,
        "receiver 1 (JSON) did not take the message.\n",
    )
    assert (unset.exit_code, unset.output) == (1, f"Error: {NO_ALERTS}\n")
    assert inbox.titles == ["orders: a test message"]


def test_the_urls_of_the_readme_are_understood() -> None:
    """Whoever copies one and fills it in is not to learn Apprise first."""
    readme = Path(__file__).resolve().parents[1].joinpath("README.md").read_text()
    section = readme.split("\n## Alerts\n")[1].split("\n## ")[0]
    urls = re.findall(r'"(\w+://[^"]+)"', section.split("```toml\n")[1].split("```")[0])

    understood = [receiver.name for receiver in receivers([SecretStr(url) for url in urls[:-1]])]

    assert understood == ["receiver 1 (Slack)", "receiver 2 (E-Mail)", "receiver 3 (JSON)"]
    assert urls[-1] == "http://127.0.0.1:3000"


def test_the_wait_for_a_receiver_doubles_up_to_a_quarter_of_an_hour() -> None:
    """Long enough to leave it alone, short enough for a person to wait for."""
    down = ledger.Ledger(BEGIN, last_failure=BEGIN)
    waits = []
    for down.failures in (1, 2, 3, 4, 5, 500):
        waits.append((down.wait_until() - BEGIN) / timedelta(minutes=1))

    assert waits == [1, 2, 4, 8, 15, 15]
    down.is_complete(BEGIN)
    assert down.wait_until() == ledger.BEGINNING


@pytest.mark.parametrize("cursor", ["", "{", "7", "[7]", "[{}]", '[{"told": {}}]'])
def test_a_cursor_that_cannot_be_read_is_none(cursor: str) -> None:
    """Somebody edited it in the page: better told twice than never."""
    assert ledger.parse(cursor, ["a"], BEGIN) == [ledger.Ledger(BEGIN, mark="a")]


def test_a_streak_without_end_is_one_streak() -> None:
    """Where it began is not known then, and that it began later and later is no news."""

    def failing() -> Iterator[Outcome]:
        for minutes in range(10**9):
            yield Outcome(BEGIN - timedelta(minutes=minutes), failed=True, run_id="r")

    episode = latest_episode(failing(), back_to=BEGIN)
    assert episode is not None
    assert (episode.failures, episode.follows_success) == (LONGEST_STREAK, False)
    one = ledger.Ledger(
        BEGIN, told={"check:c": ledger.Told(BEGIN - timedelta(days=900), is_over=False)}
    )

    assert one.news("check:c", episode, "error") is None
