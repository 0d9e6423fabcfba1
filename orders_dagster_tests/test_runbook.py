"""The runbook is true: each command in it helps with the trouble that its section is about.

One place serves all of them: a shop, a warehouse and Dagster's records in a folder that looks like the
checkout of the person on call. Each command of the file has a drill here, which makes the trouble, lets
the command run as it stands, and looks whether it has helped. A command without a drill fails the test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus, job, op, validate_run_config
from dagster._core.test_utils import create_run_for_test
from dagster_shared.yaml_utils import load_run_config_yaml

from orders_dagster import errors
from orders_dagster.alerts.message import runbook
from orders_dagster.alerts.records import reason_of, subjects_of
from orders_dagster.checks import CHECKS, orders_checks
from orders_dagster.definitions import defs
from orders_dagster.errors import OrdersError
from orders_dagster.local import sandbox_settings
from orders_dagster.replay import OPS
from orders_dagster.runs import JOBS, failures
from orders_dagster.sandbox import running
from orders_dagster.settings import missing
from orders_dagster.span import Span
from orders_dagster_tests.inbox import Inbox
from orders_dagster_tests.world import Shop, Tables, expected, holder

ROOT = Path(__file__).resolve().parents[1]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
README = (ROOT / "README.md").read_text()
COMMAND = re.compile(r"(?:dagster|orders-dagster|make|python|duckdb|dlt|kill|rm|mv) [^…]+")
Drill = Generator[None, str, None]


def blocks(language: str) -> list[str]:
    """The fenced blocks in a language, in their order, each once."""
    found = re.findall(rf"^```{language}\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(found))


def section(title: str) -> str:
    """The text under a heading, up to the next one; empty if there is none."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", RUNBOOK, re.M | re.DOTALL)
    return found[1] if found else ""


def anchors(text: str) -> set[str]:
    """What a heading is called in a link, by the rule of GitHub."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Night:
    """The place of the person on call: a folder with the warehouse, and what is set."""

    def __init__(self, directory: Path, shop: Shop) -> None:
        self.directory = directory
        self.shop = shop
        self.tables = Tables(directory / "orders.duckdb")
        self.home = directory / ".dagster_home"
        self.home.mkdir()
        shutil.copy(ROOT / "dagster.yaml", self.home)
        (directory / ".venv").symlink_to(sys.prefix)
        (directory / "nothing").mkdir()
        self.environment = sandbox_settings(shop.url) | {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "DLT_DATA_DIR": str(directory / "dlt"),
            "DLT_PROJECT_DIR": str(directory / "nothing"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }

    def types(self, command: str) -> str:
        """The output of a command, typed into a shell in which only the first block was typed before."""
        run = subprocess.run(
            ["/bin/sh", "-e", "-c", blocks("sh")[0] + command],
            cwd=self.directory,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert run.returncode == 0, f"{command}ended with {run.returncode}:\n{run.stdout[-3000:]}"
        return run.stdout

    def change(self, sql: str) -> None:
        """Behind the project's back."""
        with duckdb.connect(str(self.tables.database)) as connection:
            connection.execute(sql)

    def there(self) -> dict[str, tuple[datetime, int]]:
        """The orders of the table that the shop has."""
        known = expected(self.shop.orders())
        return {key: order for key, order in self.tables.orders().items() if key in known}

    @contextmanager
    def instance(self) -> Iterator[DagsterInstance]:
        with DagsterInstance.from_config(str(self.home)) as instance:
            yield instance


def first_two_lines(_: Night) -> Drill:
    """They come before each of the others."""
    output = yield
    assert output == ""


def run_by_hand(night: Night) -> Drill:
    """The first load."""
    yield
    assert night.tables.orders() == expected(night.shop.orders())


def doctor(_: Night) -> Drill:
    output = yield
    probes = "token, one page, total, filter, page size, clock, warehouse free, warehouse writable"
    for probe in probes.split(", "):
        assert f"OK    {probe} " in output, f"the runbook tells to look at {probe}"
        assert probe in RUNBOOK
    assert "personal_data" in output
    assert "client_secret" in output


def report(_: Night) -> Drill:
    output = yield
    assert all(check.name in output for check in CHECKS)


def query(night: Night) -> Drill:
    (night.directory / "question.sql").write_text(
        next(one for one in blocks("sql") if "newest_order" in one)
    )
    output = yield
    assert "newest_order" in output


def repair(night: Night) -> Drill:
    """What is missing here comes back, what the shop has deleted is marked."""
    lost, deleted = sorted(night.tables.orders())[:2]
    night.change(f"DELETE FROM ecommerce.orders WHERE order_id = '{lost}'")
    night.shop.delete(deleted)
    yield
    orphans = next(one for one in blocks("sql") if "ecommerce.orders__items" in one)
    assert night.tables.query(orphans) == []
    assert night.there() == expected(night.shop.orders())
    marked = "SELECT order_id FROM ecommerce.orders WHERE deleted_at IS NOT NULL"
    assert night.tables.query(marked) == [(deleted,)]


def replay(night: Night) -> Drill:
    """Of orders that are there twice, and one that is missing, in that week."""
    week = "WHERE last_modified_date >= '2025-03-01' AND last_modified_date < '2025-03-08'"
    night.change(f"INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders {week}")
    night.change("DELETE FROM ecommerce.orders WHERE order_id = 'week-2'")
    yield
    assert night.there() == expected(night.shop.orders())


def process_that_holds(night: Night) -> Drill:
    with holder(night.tables, "reader") as process:
        night.environment["PID"] = str(process.pid)
        output = yield
        assert "-c" in output
        assert str(night.tables.database) in output


def process_that_is_ended(night: Night) -> Drill:
    with holder(night.tables, "reader") as process:
        night.environment["PID"] = str(process.pid)
        yield
        assert process.wait(60) != 0


def how_full(_: Night) -> Drill:
    output = yield
    assert re.search(r"\d+%", output)
    assert re.findall(r"^[\d.,]+\w*\t(?:.*/)?(.+)$", output, re.M) == [
        "orders.duckdb",
        ".dagster_home",
    ]


def old_output(night: Night) -> Drill:
    """Only what is old, and only the output: the records are beside it."""
    logs = night.home / "storage" / "some-run" / "compute_logs"
    logs.mkdir(parents=True)
    old, new, record = logs / "old.err", logs / "new.err", night.home / "storage" / "old.record"
    for file in (old, new, record):
        file.touch()
    for file in (old, record):
        os.utime(file, (0, 0))
    real = [*(night.home / "storage").glob("*/compute_logs/*.err")]
    assert len(real) > 2, "Dagster keeps the output of runs where the runbook looks for it"
    yield
    assert not old.exists()
    assert new.exists()
    assert record.exists()


def run_that_stays_started(night: Night) -> Drill:
    with night.instance() as instance:
        run = create_run_for_test(instance, "orders_job", status=DagsterRunStatus.STARTED)
        night.environment["RUN"] = run.run_id
        yield
        found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == DagsterRunStatus.CANCELED


def alert_test(night: Night) -> Drill:
    with Inbox().running() as inbox:
        night.environment["SOURCES__ORDERS__ALERTS__URLS"] = f'["{inbox.url}"]'
        yield
        assert inbox.titles == ["orders: a test message"]


@contextmanager
def loaded_again(night: Night) -> Iterator[None]:
    """The file is gone meanwhile; a log of DuckDB beside a new file would be taken for its own."""
    file = night.tables.database
    log = file.with_name(file.name + ".wal")
    kept = file.read_bytes()
    log.touch()
    yield
    assert not file.exists()
    assert not log.exists()
    file.write_bytes(kept)


def delete(night: Night) -> Drill:
    with loaded_again(night):
        yield
    assert not [path for path in night.directory.iterdir() if "old" in path.name]


def put_aside(night: Night) -> Drill:
    with loaded_again(night):
        yield
    assert (
        night.directory / "old-orders.duckdb"
    ).read_bytes() == night.tables.database.read_bytes()
    assert (night.directory / "old-orders.duckdb.wal").exists()


DRILLS: dict[str, Callable[[Night], Drill]] = {
    "-j orders_job": run_by_hand,
    ". .venv/bin/activate": first_two_lines,
    "orders-dagster doctor": doctor,
    "orders-dagster report": report,
    "duckdb.connect(": query,
    "-j repair_orders": repair,
    "-j replay_orders": replay,
    "ps -o": process_that_holds,
    "kill ": process_that_is_ended,
    "df -h": how_full,
    "find ": old_output,
    "report_run_canceled": run_that_stays_started,
    "orders-dagster alert-test": alert_test,
    "rm -f": delete,
    "mv ": put_aside,
}
"""By what only that block holds; the first load comes first."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    with running(orders=300) as sandbox:
        shop = Shop(sandbox.url)
        shop.put(
            *(
                {
                    "order_id": f"week-{day}",
                    "last_modified_date": f"2025-03-0{day}T12:00:00.000Z",
                    "items": [{"line": 1}, {"line": 2}],
                }
                for day in range(1, 8)
            )
        )
        yield Night(tmp_path_factory.mktemp("night"), shop)


def test_every_command_helps(night: Night) -> None:
    """Nobody finds out at night that a command has a typing error, or does nothing."""
    commands = blocks("sh")
    drilled = [[one for one in commands if mark in one] for mark in DRILLS]
    assert [len(found) for found in drilled] == [1] * len(DRILLS), "a drill is of one command"
    assert sorted(one for found in drilled for one in found) == sorted(commands)

    for (command,), drill in zip(drilled, DRILLS.values(), strict=True):
        with ExitStack() as stack:
            steps = drill(night)
            stack.callback(steps.close)
            next(steps)
            output = night.types(command)
            with pytest.raises(StopIteration):
                steps.send(output)


def test_every_query_finds_what_its_section_is_about(night: Night, tmp_path: Path) -> None:
    """A query that finds nothing looks like good news; a DELETE leaves nothing to find."""
    if not night.tables.database.exists():
        night.types(next(one for one in blocks("sh") if "-j orders_job" in one))
    database = tmp_path / "orders.duckdb"
    shutil.copy(night.tables.database, database)
    with duckdb.connect(str(database)) as connection:
        connection.execute(SPOILT)
        changes = [one for one in blocks("sql") if one.startswith("DELETE")]
        questions = [one for one in blocks("sql") if one not in changes]

        assert len(questions) == len(CHECKS)
        for question in questions:
            assert connection.execute(question).fetchone() is not None, question
        assert len(changes) == 1
        for change in changes:
            before = connection.execute(of(change)).fetchone()
            connection.execute(change)
            assert connection.execute(of(change)).fetchone() == (0,) != before


SPOILT = """
CREATE TABLE IF NOT EXISTS ecommerce.orders_rejected
    (rejected_id VARCHAR, reason VARCHAR, order_id VARCHAR, order_json VARCHAR, rejected_at TIMESTAMPTZ,
    deleted_at TIMESTAMPTZ);
INSERT INTO ecommerce.orders_rejected (rejected_id, reason, rejected_at) VALUES ('1', 'no id', now());
INSERT INTO ecommerce.orders SELECT * FROM ecommerce.orders WHERE order_id = 'week-1';
ALTER TABLE ecommerce.orders ALTER order_id DROP NOT NULL;
INSERT INTO ecommerce.orders SELECT * REPLACE (now() + INTERVAL 1 DAY AS last_modified_date,
    NULL AS order_id, 'lonely' AS _dlt_id) FROM ecommerce.orders WHERE order_id = 'week-2';
UPDATE ecommerce.orders__items SET _dlt_parent_id = 'nobody'
    WHERE _dlt_parent_id IN (SELECT _dlt_id FROM ecommerce.orders WHERE order_id = 'week-3');
"""


def of(change: str) -> str:
    """How many rows a DELETE is about."""
    return change.replace("DELETE", "SELECT count(*)")


def test_every_config_is_one_that_its_job_takes() -> None:
    """What is pasted into the Launchpad at night is not read by anybody before."""
    heredocs = re.findall(r"<<'END'\n(.*?)^END", RUNBOOK, re.MULTILINE | re.DOTALL)
    configs: list[Any] = [load_run_config_yaml(text) for text in [*heredocs, *blocks("yaml")]]

    assert len(configs) == 3
    for config in configs:
        job = "repair_orders" if "repair" in str(config) else "replay_orders"
        validate_run_config(defs.resolve_job_def(job), config)
        given = config["ops"][OPS[job]]["config"]
        Span.parse(given["start"], given.get("end", ""), datetime.now(UTC))


def test_no_command_hides_in_a_sentence() -> None:
    """What is typed from the middle of a sentence has to be in a block too, where it is run."""
    outside = re.sub(r"^```.*?^```\n", "", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
    inline = {one for one in re.findall(r"`([^`]+)`", outside) if COMMAND.fullmatch(one)}
    run = "\n".join(blocks("sh")).splitlines()

    assert "orders-dagster doctor" in inline
    assert [one for one in inline if not any(line.startswith(one) for line in run)] == []


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    """A block in another language would be run by nobody."""
    fences = re.findall(r"^```(.*)$", RUNBOOK, re.MULTILINE)
    assert set(fences[::2]) == {"sh", "sql", "yaml"}
    assert set(fences[1::2]) == {""}


EXAMPLES: dict[str, OrdersError] = {
    "CredentialsRefused": errors.CredentialsRefused(url="u", answer="401", settings="s"),
    "ApiUnreachable": errors.ApiUnreachable(url="u", reason="refused", setting="s"),
    "ApiRefused": errors.ApiRefused(url="u", status=404, settings="s"),
    "NoRecords": errors.NoRecords(),
    "ResponseNotUnderstood": errors.ResponseNotUnderstood(
        url="u", status=200, found="f", setting="s"
    ),
    "LoadedByAnother": errors.LoadedByAnother(
        setting="primary_key", column="id", loaded_by=["order_id"], table="ecommerce.orders"
    ),
    "TablesUnknown": errors.TablesUnknown(table="ecommerce.orders"),
    "SpanRefused": errors.SpanRefused("it ends before it starts"),
    "ApiUnavailable": errors.ApiUnavailable(url="u", reason="503", attempts=4),
    "PagesDisagree": errors.PagesDisagree(url="u", seen=1, total=2, attempts=3),
    "WarehouseBusy": errors.WarehouseBusy(holder="h", waited_seconds=1),
    "WarehouseChanged": errors.WarehouseChanged(["another run has loaded orders"]),
    "ColumnsAltered": errors.ColumnsAltered([("orders.code", "bigint", "text")]),
    "WarehouseRefused": errors.WarehouseRefused(step="load", reason=ValueError("no")),
    "DiskFull": errors.DiskFull(step="load"),
    "SettingsError": errors.SettingsError([missing("client_id"), missing("token_url")]),
}
"""An error of each class, with a message as in an alert."""


def classes(of: type[OrdersError] = OrdersError) -> set[str]:
    """Every error that is raised: the root is not, the others are, leaves or not."""
    return {one.__name__ for one in of.__subclasses__()}.union(*map(classes, of.__subclasses__()))


def test_every_error_is_found_by_what_its_message_says() -> None:
    """The person has the message and not the class."""
    rows = re.findall(r"^\| (`.+`) \| \[(\w+)\]\(#(\w+)\) \|$", section("What do you see?"), re.M)
    assert {title for _, title, _ in rows} >= classes() == EXAMPLES.keys()

    for quoted, title, anchor in rows:
        patterns = [re.escape(one).replace("…", ".+") for one in re.findall("`([^`]+)`", quoted)]
        says = [
            name
            for name, error in EXAMPLES.items()
            if any(re.match(pattern, str(error), re.DOTALL) for pattern in patterns)
        ]
        if title in EXAMPLES:
            assert says == [title], quoted
            assert anchor == title.lower()


def test_a_failure_without_a_message_of_ours_is_found_as_well(instance: DagsterInstance) -> None:
    """A process that was killed, and an error that nobody has foreseen."""
    killed = create_run_for_test(instance, "orders_job")
    for event in ("PIPELINE_START", "PIPELINE_FAILURE"):
        instance.report_dagster_event(DagsterEvent(event, job_name="orders_job"), killed.run_id)

    @op
    def orders() -> None:
        raise ValueError

    @job
    def unforeseen() -> None:
        orders()

    failed = unforeseen.execute_in_process(instance=instance, raise_on_error=False)

    for run_id, title in {
        killed.run_id: "the-process-of-a-run-ended",
        failed.run_id: "an-error-without-a-section",
    }.items():
        row = re.search(rf"^\| `(.+)` \| .*\(#{title}\) \|$", section("What do you see?"), re.M)
        assert row
        pattern = re.escape(row[1]).replace("…", ".+")
        assert re.match(pattern, reason_of(failures(instance, run_id)) or "")


@pytest.mark.parametrize("title", [check.name for check in CHECKS] + sorted(classes()))
def test_every_check_and_every_error_has_a_section(title: str) -> None:
    """What it means, how to look, what to do; no more than can be read half asleep."""
    text = section(title)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)

    assert re.findall(r"^\*\*(.+?)\*\*:", text, re.MULTILINE) == ["It means", "Look", "Do"]
    assert len(prose.split()) < 120


def test_links_lead_somewhere() -> None:
    """Those in the runbook, those to it, and the one in each alert."""
    here, there = anchors(RUNBOOK), anchors(README)
    links = re.findall(r"\]\(([^)]*)\)", RUNBOOK)
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        assert file in ("", "../README.md"), link
        assert anchor in (there if file else here), link

    linked = re.findall(r"\]\(docs/runbook\.md#?([^)]*)\)", README)
    assert linked
    assert [anchor for anchor in linked if anchor and anchor not in here] == []

    subjects = subjects_of(JOBS, orders_checks().check_specs)
    for subject in subjects:
        file, _, anchor = runbook(subject).partition("#")
        assert (ROOT / file).read_text() == RUNBOOK
        assert anchor in here
