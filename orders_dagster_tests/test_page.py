"""The Dagster page as a person uses it, in a real browser: look, materialize, look again.

What is found on the page is found by what it says. `SCREENSHOTS=docs` renews the picture in the
README.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from orders_dagster.checks import CHECKS
from orders_dagster.local import free_port
from orders_dagster_tests.test_commands import DEV, PATIENCE_SECONDS, Place, eventually

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MILLISECONDS = PATIENCE_SECONDS * 1000


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page as large as the picture in the README."""
    expect.set_options(timeout=MILLISECONDS)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900}, timezone_id="UTC")
        page.set_default_timeout(MILLISECONDS)
        skip = page.get_by_role("button", name="Skip", exact=True)
        # On a new instance, an invitation to subscribe covers the page sooner or later.
        page.add_locator_handler(skip, lambda button: button.click())
        yield page


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.clear()


def test_a_person_materializes_orders_in_the_page(place: Place, page: Page) -> None:
    """What `make dev` promises: the asset, a button, green checks, and all of it gone on Ctrl-C.

    The sensor starts runs of its own meanwhile, so this run may have to wait for one.
    """
    port, sandbox_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    dev = place.start(*DEV, "--port", str(port), "--sandbox-port", str(sandbox_port))
    eventually("the page answers", lambda: dev.says("page  " + url) and answers(url))

    with picture(page, place.directory):
        page.goto(f"{url}/locations/orders/asset-groups/ecommerce")
        the_graph_shows_the_asset_after_its_api(page)
        run_id = materialize(page)
        assert status_when_finished(page) == "Success"
        assert checks_of_run(url, run_id) == {check.name: True for check in CHECKS}

        page.goto(f"{url}/locations/orders/asset-groups/ecommerce")
        all_passed = f"{len(CHECKS)} / {len(CHECKS)} Passed"
        expect(page.get_by_role("link", name=all_passed)).to_be_visible()
        page.goto(f"{url}/automation")
        for name in ("orders_schedule", "orders_sensor"):
            expect(switch_of(page, name)).to_be_checked()
        page.goto(f"{url}/assets/orders")
        assert int(reported(page, "rows_in_table")) >= 5000
        assert int(reported(page, "orders_loaded")) > 0
        assert re.search(r"\d:\d\d:\d\d", reported(page, "watermark_after"))
        page.goto(f"{url}/assets/orders?view=checks&checkDetail=order_id_unique")
        for check in CHECKS:
            passed = re.compile(rf"\b{check.name}\s+Succeeded\b")
            expect(page.locator("body")).to_contain_text(passed, use_inner_text=True)
        expect(page.get_by_text("Plots", exact=True)).to_be_visible()

    assert dev.end_with(signal.SIGINT) == 0
    assert place.processes() == {}


@contextmanager
def picture(page: Page, directory: Path) -> Iterator[None]:
    """Keep what the page showed last, above all when it was not what was expected."""
    try:
        yield
    finally:
        page.screenshot(path=Path(os.environ.get("SCREENSHOTS") or directory) / "page.png")


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False


def the_graph_shows_the_asset_after_its_api(page: Page) -> None:
    graph = page.get_by_role("img")
    orders, api = (
        graph.get_by_text(name, exact=True).filter(visible=True)
        for name in ("orders", "orders_api")
    )
    expect(orders).to_be_visible()
    expect(api).to_be_visible()
    expect(graph.get_by_text("Asset checks").first).to_be_visible()
    assert left_edge(api) < left_edge(orders), "the graph flows from left to right"


def left_edge(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box is not None
    return box["x"]


def materialize(page: Page) -> str:
    """Click Materialize, follow the notification to the run, and return its id."""
    page.get_by_role("button", name="Materialize").click()
    notifications = page.get_by_role("region", name="Notifications")
    notifications.filter(has_text="Launched run").get_by_role("link", name="View").click()
    page.wait_for_url("**/runs/*")
    return page.url.rsplit("/", 1)[-1].partition("?")[0]


def status_when_finished(page: Page) -> str:
    """The word at the top of the page of a run; it may be queued first."""
    finished = page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first
    expect(finished).to_be_visible()
    return finished.inner_text()


def checks_of_run(url: str, run_id: str) -> dict[str, bool]:
    """Which checks this run evaluated: the page shows the latest of each, whoever ran it."""
    query = """
        query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
          ... on AssetCheckEvaluationEvent { evaluation { checkName success } } } } } }
    """
    question = {"query": query, "variables": {"run": run_id}}
    answer: Any = requests.post(f"{url}/graphql", json=question, timeout=30).json()
    evaluations = [event.get("evaluation") for event in answer["data"]["logsForRun"]["events"]]
    return {found["checkName"]: found["success"] for found in evaluations if found}


def switch_of(page: Page, automation: str) -> Locator:
    """The switch to the right of its name; to the left is a box for selecting it."""
    link = page.get_by_role("link", name=automation)
    return link.locator("xpath=following::input[@type='checkbox'][1]")


def reported(page: Page, key: str) -> str:
    """A value of the latest materialization, as the page shows it."""
    row = page.get_by_role("row").filter(has=page.get_by_text(key, exact=True))
    expect(row).to_be_visible()
    return row.inner_text().strip().split("\n")[-1]
