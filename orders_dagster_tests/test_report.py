"""The check report: what it says of a real instance, how it looks in a real browser, how it ends.

One history serves most tests: a first load, one that rejects two orders, one whose tables somebody has
spoilt, one that the API fails. The ids of its orders are as nasty as ids from outside may be.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner, Result
from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.utils import make_new_run_id
from playwright.sync_api import Browser, Page, expect

from orders_dagster.checks import CHECKS, orders_checks
from orders_dagster.cli import main
from orders_dagster.definitions import defs
from orders_dagster.report import charts, waiting, write
from orders_dagster.report.asset import FILE
from orders_dagster.report.content import Report, make_report
from orders_dagster.report.formats import as_json, html, markdown
from orders_dagster.runs import LATEST
from orders_dagster.sandbox import running
from orders_dagster_tests.test_page import chromium
from orders_dagster_tests.test_volume import remember
from orders_dagster_tests.world import Project, Shop, holder

NASTY = "<script>document.title = 'ran'</script>"
NASTY_IN_MARKDOWN = "a|b `c` *d* [e](javascript:f)"
SPECS = list(orders_checks().check_specs)
REPORT_KEY = AssetKey("orders_check_report")


@dataclass(frozen=True)
class History:
    """An instance after four runs, and the project whose tables it is about."""

    home: Path
    database: Path
    environment: dict[str, str]
    steps: Sequence[Sequence[str]]
    """The steps of each run that have run, in their order."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, empty_records: Path) -> Iterator[History]:
    directory = tmp_path_factory.mktemp("history")
    home = Path(shutil.copytree(empty_records, directory / "home"))
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with pytest.MonkeyPatch.context() as environment, running(orders=60) as sandbox:
        project = Project(directory, environment)
        environment.setenv("DLT_DATA_DIR", str(directory / "dlt"))
        environment.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(project.database))
        project.set(retry__backoff_factor=0.01, reconcile="false")  # it would find the same fault
        project.point_at(sandbox.url)
        shop = Shop(sandbox.url)
        with DagsterInstance.from_config(str(home)) as instance:
            steps = [run_job(instance)]
            for order_id in (NASTY, NASTY_IN_MARKDOWN):
                shop.put({"order_id": order_id, "last_modified_date": "never", "items": []})
            shop.change(new=5)
            steps.append(run_job(instance))
            project.execute(
                f"UPDATE ecommerce.orders SET order_id = '{NASTY.replace(chr(39), '')}' "
                "WHERE order_id IN ('ORD-00000001', 'ORD-00000002')"
            )
            steps.append(run_job(instance))
            shop.script("ok", *["503"] * 4)
            steps.append(run_job(instance))
        yield History(home, project.database, environment_of(directory), steps)


def environment_of(directory: Path) -> dict[str, str]:
    """What the report needs to ask the warehouse of the history."""
    return {
        "DLT_DATA_DIR": str(directory / "dlt"),
        "DESTINATION__DUCKDB__CREDENTIALS": str(directory / "orders.duckdb"),
        "SOURCES__ORDERS__AUTH__TYPE": "none",
    }


def run_job(instance: DagsterInstance) -> list[str]:
    """Run orders_job; the steps that were started, in their order."""
    result = defs.resolve_job_def("orders_job").execute_in_process(
        instance=instance, raise_on_error=False
    )
    return [event.step_key or "" for event in result.all_events if event.is_step_start]


@pytest.fixture
def there(history: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """The history, with its warehouse configured."""
    for name, value in history.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(history.home))
    return history


@pytest.fixture
def report(there: History) -> Report:
    with DagsterInstance.from_config(str(there.home)) as instance:
        return make_report(instance, SPECS)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


# What it says


def test_the_verdict_comes_first_and_the_worst_check_on_top(report: Report) -> None:
    """Whoever is woken at night reads one line, and looks at one check."""
    assert report.headline == "The last run failed, 1 check fails, 1 check warns."
    assert (report.verdict, report.has_failed_check) == ("fail", True)
    assert [(check.name, check.verdict) for check in report.checks[:3]] == [
        ("order_id_unique", "fail"),
        ("no_rejected_orders", "warn"),
        ("order_id_not_null", "pass"),
    ]
    assert {check.name for check in report.checks} == {check.name for check in CHECKS}
    assert report.run is not None
    assert report.run.has_failed
    assert report.run.failures[0].said.startswith("http")
    assert "answers 503" in report.run.failures[0].said


def test_each_check_says_since_when_it_is_as_it_is(report: Report) -> None:
    """The third run found it: what was deployed before that?"""
    unique, rejected, passing = report.checks[:3]

    assert [one.verdict for one in unique.history] == ["pass", "pass", "fail"]
    assert [one.verdict for one in rejected.history] == ["pass", "warn", "warn"]
    assert unique.since == unique.history[2].at
    assert rejected.since == rejected.history[1].at
    assert passing.since == passing.history[0].at
    assert not unique.or_earlier


def test_a_check_that_was_so_for_longer_than_was_looked_at_says_so(there: History) -> None:
    """The time of the oldest evaluation that was looked at is not when it began."""
    with DagsterInstance.from_config(str(there.home)) as instance:
        states = {check.name: check for check in make_report(instance, SPECS, limit=2).checks}

    assert states["no_rejected_orders"].or_earlier
    assert not states["order_id_unique"].or_earlier
    assert len(states["no_rejected_orders"].history) == 2


def test_offenders_questions_and_numbers_of_the_loads_are_in_it(report: Report) -> None:
    """What each check asked and found, and what each load brought, from the records alone."""
    (latest,) = [check.latest for check in report.checks if check.name == "order_id_unique"]
    assert latest is not None
    assert latest.offenders == 1
    assert latest.sql is not None
    assert latest.sql.startswith("SELECT ")
    assert latest.sample is not None
    assert latest.sample.rows == [[NASTY.replace("'", ""), 2, 0]]

    assert [load.new for load in report.loads] == [60, 5, 0]
    assert all(load.seconds is not None and load.seconds > 0 for load in report.loads)
    assert all(load.lag_seconds is not None for load in report.loads)
    assert report.watermark == report.loads[-1].watermark
    assert report.watermark is not None


def test_rejected_orders_are_counted_by_reason(report: Report) -> None:
    """Open work, as it is in the warehouse now."""
    assert report.waiting.note is None
    assert report.waiting.by_reason.rows == [("last_modified_date is not a readable time", 2)]
    assert report.waiting.sample is not None
    assert {row[0] for row in report.waiting.sample.rows} == {NASTY, NASTY_IN_MARKDOWN}


def test_a_report_while_something_holds_the_warehouse_tells_what_the_check_found(
    there: History, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first load may take an hour; who wants to know how things are does not wait for it."""
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.2)
    project.database = there.database

    with holder(project), DagsterInstance.from_config(str(there.home)) as instance:
        held = make_report(instance, SPECS).waiting

    assert held.note is not None
    assert re.match(r"The warehouse is held by .*python.* \(process \d+\)\.", held.note)
    assert held.orders == 2
    assert held.by_reason.rows == [["last_modified_date is not a readable time", 2]]


def test_a_report_makes_no_warehouse(
    there: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From another machine, or another folder: whoever opens a file of DuckDB makes it."""
    elsewhere = tmp_path / "elsewhere.duckdb"
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(elsewhere))
    with DagsterInstance.from_config(str(there.home)) as instance:
        absent = make_report(instance, SPECS).waiting
        monkeypatch.delenv("SOURCES__ORDERS__AUTH__TYPE")
        unset = make_report(instance, SPECS).waiting

    assert not elsewhere.exists()
    assert absent.note is not None
    assert absent.note.startswith("The warehouse is not on this machine.")
    assert unset.note is not None
    assert unset.note.startswith("The settings are not complete here.")
    assert absent.orders == unset.orders == 2


# The asset


def test_the_report_is_the_last_step_of_every_run(history: History) -> None:
    """Also, and above all, when the load or a blocking check has failed."""
    loaded_and_checked = ["orders", "orders_checks", "orders_check_report"]

    assert history.steps == [
        loaded_and_checked,
        loaded_and_checked,
        loaded_and_checked,  # order_id_unique failed, and blocks what is downstream
        ["orders", "orders_check_report"],
    ]


def test_the_page_of_the_asset_shows_the_verdicts_and_leads_to_the_file(history: History) -> None:
    """What the Dagster page shows of it, without opening anything else."""
    with DagsterInstance.from_config(str(history.home)) as instance:
        records = instance.fetch_materializations(REPORT_KEY, limit=4).records
    last, spoilt, *_, first = [
        {name: value.value for name, value in record.asset_materialization.metadata.items()}
        for record in records
        if record.asset_materialization
    ]

    assert (first["failing"], first["warning"], first["checks"]) == (0, 0, len(CHECKS))
    assert (spoilt["failing"], spoilt["warning"]) == (1, 1)
    assert "| ✗ fails | `order_id_unique` |" in str(spoilt["report"])
    assert str(last["report"]).startswith("**The last run failed, 1 check fails, 1 check warns.**")
    assert Path(str(last["page"])) == history.home / FILE
    page = (history.home / FILE).read_text()
    assert "The last run failed, 1 check fails, 1 check warns." in page


def test_the_report_has_no_upstream_in_the_job() -> None:
    """With one, Dagster would skip it when something is wrong."""
    selected = defs.resolve_job_def("orders_job").asset_layer.executable_asset_keys

    assert selected == {AssetKey("orders"), REPORT_KEY}
    assert defs.resolve_asset_graph().get(REPORT_KEY).parent_keys == set()


# The command


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("kind", ["html", "md", "json"])
def test_a_failing_check_of_severity_error_is_exit_code_1(tmp_path: Path, kind: str) -> None:
    """CI stops there, and has the report to show."""
    file = tmp_path / "report"

    result = command("--format", kind, "--output", str(file))

    assert result.exit_code == 1
    assert result.output == f"{file}: The last run failed, 1 check fails, 1 check warns.\n"
    assert "order_id_unique" in file.read_text()


def test_warnings_alone_are_exit_code_0(
    there: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning is to be read, not to stop a deployment; severities are settings."""
    home = shutil.copytree(there.home, tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("SOURCES__ORDERS__CHECK_SEVERITY__ORDER_ID_UNIQUE", "warn")
    with DagsterInstance.from_config(str(home)) as instance:
        defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=set(), asset_check_selection={spec.key for spec in SPECS}
        ).execute_in_process(instance=instance)

    result = command("--format", "md")

    assert result.exit_code == 0
    assert "`order_id_unique` warns" in result.output


@pytest.mark.usefixtures("there")
def test_by_default_a_page_is_written_beside_whoever_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A page is nothing for a terminal; Markdown and JSON are."""
    monkeypatch.chdir(tmp_path)

    result = command("--limit", "2")

    assert result.output.startswith("orders_check_report.html: ")
    assert (tmp_path / "orders_check_report.html").read_text().startswith("<!doctype html>")
    assert command("--output", "-").output.startswith("<!doctype html>")
    assert command("--format", "md").output.startswith("# Orders: ")
    assert json.loads(command("--format", "json").output)["has_failed_check"] is True


@pytest.mark.parametrize("kind", ["html", "md", "json"])
def test_an_empty_instance_has_nothing_yet(
    tmp_path: Path, empty_records: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Before the first run, without any setting: no error, and no empty tables to wonder about."""
    home = Path(shutil.copytree(empty_records, tmp_path / "home"))
    (home / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(home))

    result = command("--format", kind, "--output", "-")

    assert result.exit_code == 0
    assert "There is nothing yet: no run has loaded or checked orders." in result.output
    assert "There is no load on record." in result.output or kind == "json"


@pytest.mark.parametrize(
    ("home", "arguments", "said"),
    [
        (None, [], "DAGSTER_HOME does not lead to Dagster's records"),
        ("/nowhere/at/all", [], "DAGSTER_HOME does not lead to Dagster's records"),
        ("{home}", ["--output", "/nowhere/report.html"], "cannot be written: No such file"),
        ("{home}", ["--format", "pdf"], "'pdf' is not one of 'html', 'md', 'json'"),
        ("{home}", ["--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_makes_a_report_impossible_is_named_with_exit_code_2(
    there: History,
    monkeypatch: pytest.MonkeyPatch,
    home: str | None,
    arguments: list[str],
    said: str,
) -> None:
    """Not 1, which says that a check fails."""
    if home is None:
        monkeypatch.delenv("DAGSTER_HOME")
    else:
        monkeypatch.setenv("DAGSTER_HOME", home.format(home=there.home))

    result = command(*arguments)

    assert result.exit_code == 2
    assert said in result.output


def test_records_that_cannot_be_read_are_no_failing_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Dagster says of it may quote a password, and stays out."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage: {postgres: {password: s3cret}}")
    monkeypatch.setenv("DAGSTER_HOME", str(home))

    result = command("--output", "-")

    assert result.exit_code == 2
    assert "Dagster's records cannot be read" in result.output
    assert "s3cret" not in result.output


@pytest.mark.parametrize("then", ["CANCELED", "STARTED", "NOT_STARTED", "replays"])
def test_a_failed_run_is_told_until_another_one_has_loaded(
    instance: DagsterInstance, then: str
) -> None:
    """One that was cancelled, goes on, or waits, says nothing yet, nor do many replays."""
    _add_run(instance, DagsterRunStatus.SUCCESS)
    _add_run(instance, DagsterRunStatus.FAILURE)
    if then == "replays":
        for _ in range(LATEST + 1):
            _add_run(instance, DagsterRunStatus.SUCCESS, "replay_orders")
    else:
        _add_run(instance, DagsterRunStatus[then])

    assert make_report(instance, SPECS).headline.startswith("The last run failed")
    _add_run(instance, DagsterRunStatus.SUCCESS)
    assert not make_report(instance, SPECS).headline.startswith("The last run failed")


def _add_run(instance: DagsterInstance, status: DagsterRunStatus, job: str = "orders_job") -> None:
    instance.add_run(DagsterRun(job_name=job, run_id=make_new_run_id(), status=status))


def test_a_whole_number_in_a_table_is_written_as_it_is() -> None:
    """It may be an id, which somebody copies into a query."""
    written = map(write.cell, (1234567, 1234567.5, None))
    assert list(written) == ["1234567", "1,234,567.5", "–"]


# The formats


def test_markdown_shows_ids_from_outside_as_text(report: Report) -> None:
    """In a ticket, an order id is neither HTML nor a link nor the end of a cell."""
    text = markdown(report)

    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert r"a\|b \`c\` \*d\* \[e\](javascript:f)" in text
    cells = [line for line in text.splitlines() if "javascript" in line]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in cells)


def test_json_holds_everything_for_machines(report: Report) -> None:
    """Times are times, numbers are numbers, and each check has what the page shows of it."""
    found: dict[str, Any] = json.loads(as_json(report))

    unique = found["checks"][0]
    assert unique["latest"]["severity"] == "error"
    assert unique["latest"]["offenders"] == 1
    assert set(unique["history"][0]) == {"at", "verdict", "offenders"}
    assert unique["latest"]["sample"]["rows"] == [[NASTY.replace("'", ""), 2, 0]]
    assert [one["verdict"] for one in unique["history"]] == ["pass", "pass", "fail"]
    assert datetime.fromisoformat(unique["since"]) == report.checks[0].since
    assert [load["new"] for load in found["loads"]] == [60, 5, 0]
    assert found["waiting"]["orders"] == 2
    assert datetime.fromisoformat(found["watermark"]) == report.watermark


def test_no_secret_is_in_any_format(report: Report) -> None:
    """The page goes to whoever asks for it."""
    for text in (html(report), markdown(report), as_json(report)):
        assert "sandbox-secret" not in text
        assert "@example" not in text, "no customer's address"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, "–"),
        (0.24, "0.2 s"),
        (90, "90.0 s"),
        (600, "10.0 min"),
        (9000, "2.5 h"),
        (1e6, "11.6 d"),
    ],
)
def test_durations_are_written_for_people(seconds: float | None, written: str) -> None:
    """86,400 seconds are a day to everybody."""
    assert write.duration(seconds) == written


# The charts


@pytest.mark.parametrize(
    "numbers", [[], [0], [0, 0], [None], [0.3], [1, 1, 1], [5, 100_000], [None, 3, 0, 2_000_000]]
)
def test_charts_bear_any_numbers(numbers: list[float | None]) -> None:
    """One load, loads of nothing, a first load of everything: a page without a chart helps nobody."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    points = [(start + timedelta(hours=n), value) for n, value in enumerate(numbers)]

    for svg in (
        charts.bars("a", points, "T", "D"),
        charts.bars("b", points, "T", "D", charts.is_skewed([n or 0 for n in numbers])),
        charts.line("c", points, "T", "D"),
    ):
        assert svg.startswith("<svg ")
        assert 'role="img"' in svg


def test_charts_hold_neither_scripts_nor_addresses() -> None:
    """pygal writes for a page of its own, with scripts from its own site."""
    svg = charts.history("x", ["pass", "fail"], "<b>", "D & D")

    assert "<script" not in svg
    assert "<style" not in svg
    assert re.findall(r"https?://[^\"']+", svg) == ["http://www.w3.org/2000/svg"]
    assert '<title id="chart-x-title">&lt;b&gt;</title>' in svg
    assert svg.count("<rect") == 4, "two bars, and the two backgrounds"


def test_a_first_load_does_not_flatten_the_others(instance: DagsterInstance) -> None:
    """A million orders and then ten an hour: the tens are what is looked at."""
    now = datetime.now(UTC)
    remember(instance, [(now - timedelta(hours=n), 10 if n else 12) for n in range(8, -1, -1)])
    even = html(make_report(instance, SPECS))
    remember(instance, [(now - timedelta(hours=9), 1_000_000)])
    skewed = html(make_report(instance, SPECS))

    assert "Orders loaded, logarithmic" not in even
    assert "Orders loaded, logarithmic" in skewed


# In the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def page(browser: Browser, history: History, scheme: Any) -> Iterator[Page]:
    """The file of the last run, on a phone."""
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto((history.home / FILE).as_uri())
    yield page
    page.close()


def test_the_page_is_accessible(page: Page) -> None:
    """Closed and with all details open; contrast is looked at in the light and in the dark."""
    closed = Axe().run(page)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    opened = Axe().run(page)

    assert closed.violations_count == 0, closed.generate_report()
    assert opened.violations_count == 0, opened.generate_report()


def test_the_page_follows_the_scheme_of_its_reader(page: Page, scheme: str) -> None:
    """At night, a white page is a lamp; charts have to be seen on a black one."""
    red, green, blue = map(
        int,
        re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3],
    )
    bar = page.locator(".stackedbar-graph .color-2 rect").first
    fill = bar.evaluate("one => getComputedStyle(one).fill")

    assert (red + green + blue > 600) == (scheme == "light")
    assert fill == {"light": "rgb(207, 34, 46)", "dark": "rgb(248, 81, 73)"}[scheme]


def test_the_page_is_read_on_a_phone_without_scrolling_sideways(page: Page) -> None:
    """360 pixels, all details open."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    label = page.locator(".line-graph .axis text").first.bounding_box()
    assert label is not None
    assert label["height"] > 9, "the labels of a chart are not shrunk with it"


def test_the_page_needs_nothing_and_runs_nothing(browser: Browser, history: History) -> None:
    """Offline, from a mail, with ids that would be scripts."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((history.home / FILE).as_uri())

    assert asked == [(history.home / FILE).as_uri()]
    assert said == [], "nothing was refused either"
    assert page.title() == "✗ Orders: The last run failed, 1 check fails, 1 check warns."
    expect(page.get_by_role("cell", name=NASTY, exact=True).first).to_be_visible()
    assert page.locator("script").count() == 0
    page.close()


def test_charts_are_named_for_who_cannot_see_them(page: Page) -> None:
    """A role, a title, a description; and the numbers as a table."""
    history_of = page.get_by_role("img", name="History of order_id_unique")
    expect(history_of).to_be_visible()
    expect(history_of).to_have_accessible_name(
        "History of order_id_unique The last 3 evaluations: 2 passed, 1 failed."
    )
    for chart in ("Orders loaded", "Duration, seconds", "Lag, "):
        expect(page.get_by_role("img", name=chart)).to_be_visible()
    page.get_by_text("The numbers of 3 loads").click()
    row = page.get_by_role("region", name="Loads, the latest first").get_by_role("row").last
    assert row.get_by_role("cell").all_inner_texts()[1:5] == ["60", "60", "0", "0"]
