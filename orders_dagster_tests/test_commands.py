"""The command lines, as a person types them: each in a process of its own, with nothing inherited.

What a command needs is in its environment; what it leaves behind is in one directory, which the test
can search.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from orders_dagster.checks import CHECKS
from orders_dagster.local import free_port, sandbox_settings
from orders_dagster.sandbox import running
from orders_dagster_tests.world import Project, Shop, expected

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
DAGSTER = str(Path(PYTHON).parent / "dagster")
DEFINITIONS = ("-m", "orders_dagster.definitions")
MATERIALIZE = (DAGSTER, "asset", "materialize", *DEFINITIONS, "--select", "orders")
EXECUTE = (DAGSTER, "job", "execute", *DEFINITIONS, "-j", "orders_job")
DEV = (PYTHON, "-m", "orders_dagster.dev")
WRONG_SECRET = "wr0ng-and-n0wh3re-t0-be-f0und"
RIGHT_SECRET = "r1ght-and-n0wh3re-t0-be-f0und"
IN_THE_BACKGROUND = ("sh", "-c", 'trap \'\' INT; exec "$0" "$@"')
"""Starts a command as a shell starts what ends with &: Ctrl-C is ignored by all that it starts."""
PATIENCE_SECONDS = 60
T = TypeVar("T")

seen_in_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="sees what is left running in /proc"
)


class Place:
    """A directory with all that commands read and write, and the environment that says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "dagster_home"
        nothing = directory / "no-configuration"
        for folder in (self.home, nothing):
            folder.mkdir()
        (self.home / "dagster.yaml").write_bytes((CHECKOUT / "dagster.yaml").read_bytes())
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "DAGSTER_HOME": str(self.home),
            "DLT_PROJECT_DIR": str(nothing),
            "DLT_DATA_DIR": str(directory / "dlt"),
            "DESTINATION__DUCKDB__CREDENTIALS": str(directory / "orders.duckdb"),
        }
        self._started: list[Command] = []

    def point_at(self, url: str) -> None:
        self.environment |= sandbox_settings(url)

    def start(self, *command: str, cwd: Path = CHECKOUT) -> Command:
        log = self.directory / f"output-{len(self._started)}.log"
        self._started.append(Command(command, log, cwd, self.environment))
        return self._started[-1]

    def run(self, *command: str, cwd: Path = CHECKOUT) -> tuple[int, str]:
        """The exit code and all output of a command."""
        return self.start(*command, cwd=cwd).finish()

    def processes(self) -> dict[int, str]:
        """What runs in this place, whoever started it: everything inherits the environment."""
        mark = f"DAGSTER_HOME={self.home}".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is somebody else's
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(process.name)] = command.decode(errors="replace").strip()
        return found

    def files_with(self, text: str) -> list[Path]:
        """The files under this place that hold the text, outputs and databases included."""
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        return [path for path in files if text.encode() in path.read_bytes()]

    def instance(self) -> DagsterInstance:
        return DagsterInstance.from_config(str(self.home))

    def create_records(self) -> None:
        """Dagster's databases: two processes that both create them trip over each other."""
        with self.instance() as instance:
            instance.get_runs()
            instance.all_asset_keys()
            instance.all_instigator_state()

    def clear(self) -> None:
        """End what a failed test has left running; pytest shows the outputs if it has failed."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for command in self._started:
            command.process.kill()
            command.process.wait()
            print(f"--- {' '.join(command.line)}\n{command.output()[-5000:]}")


class Command:
    """A command that has been started, and what it has said so far."""

    def __init__(
        self, line: Sequence[str], log: Path, cwd: Path, environment: dict[str, str]
    ) -> None:
        self.line = line
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                line,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, text: str) -> bool:
        assert self.process.poll() is None or text in self.output(), self.output()
        return text in self.output()

    def finish(self) -> tuple[int, str]:
        code = self.process.wait(PATIENCE_SECONDS)
        return code, self.output()

    def end_with(self, number: int) -> int:
        """Signal this process alone, as a person would, and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def eventually(what: str, ask: Callable[[], T | None]) -> T:
    """Ask until the answer is yes, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.05)
    return answer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.clear()


def test_the_demo_loads_changes_and_checks(place: Place) -> None:
    """`make demo` shows both loads in numbers, each check's verdict, and where the tables are."""
    # Not in the checkout, where it would empty the `.demo` of whoever runs the tests.
    place.environment["PYTHONPATH"] = str(CHECKOUT)
    code, output = place.run(PYTHON, "-m", "orders_dagster.demo", cwd=place.directory)

    assert code == 0
    assert "first load  2,000 orders: 2,000 new, 0 updated" in output
    changed = re.search(r"^increment   [\d,]+ orders: 30 new, (\d+) updated", output, re.M)
    assert changed is not None
    assert int(changed[1]) >= 40
    for check in CHECKS:
        assert re.search(rf"^  PASS  {check.name} +[\d,]+ rows looked at$", output, re.M)
    assert "PASS  the tables equal the shop" in output
    warehouse = re.search(r"^warehouse   (.+)$", output, re.M)
    assert warehouse is not None
    assert Path(warehouse[1]) == (place.directory / ".demo" / "orders.duckdb").resolve()
    assert Path(warehouse[1]).is_file()


def test_the_demo_fails_when_a_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo that cannot fail shows nothing: here orders from tomorrow get into its shop."""
    said: list[str] = []

    def opened() -> re.Match[str] | None:
        said.append(capsys.readouterr().out)
        return re.search(r"^shop .* (http://\S+)$", "".join(said), re.M)

    def put_orders_from_tomorrow() -> None:
        shop = Shop(eventually("the shop opens", opened)[1])
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        order = {"last_modified_date": tomorrow, "items": []}
        # More than the demo modifies, which dates them today.
        shop.put(*(order | {"order_id": f"X-{n}"} for n in range(100)))

    monkeypatch.chdir(tmp_path)
    # It configures the process that it runs in; the sandbox is a process of its own.
    with patch.dict(os.environ, PYTHONPATH=str(CHECKOUT)), ThreadPoolExecutor(1) as pool:
        put = pool.submit(put_orders_from_tomorrow)
        with pytest.raises(SystemExit) as end:
            runpy.run_module("orders_dagster.demo", run_name="__main__")
    put.result()

    output = "".join([*said, capsys.readouterr().out])
    assert end.value.code == 1
    assert re.findall(r"^  FAIL  (\S+)", output, re.M) == ["last_modified_not_in_future"]
    assert "PASS  the tables equal the shop" in output, "they were loaded, and are what is wrong"


def test_the_commands_of_dagster_load_the_tables(place: Place, project: Project) -> None:
    """The settings in the environment, one command: for cron, and for whoever looks for a fault. Both may
    do so at once: then one waits for the other, both succeed, and the tables are right."""
    with running(orders=300, client_secret=RIGHT_SECRET) as sandbox:
        place.point_at(sandbox.url)
        place.environment["SOURCES__ORDERS__CLIENT_SECRET"] = RIGHT_SECRET
        shop = Shop(sandbox.url)
        code, _ = place.run(*MATERIALIZE)
        assert code == 0
        assert project.orders() == expected(shop.orders())

        shop.change(new=5, modify=10)
        shop.set(latency_ms=1500)
        place.environment["SOURCES__ORDERS__PAGE_SIZE"] = "2"  # the one that reads takes its time
        both = [place.start(*EXECUTE) for _ in range(2)]
        waiting = "Another synchronisation is running; waiting up to"
        eventually("one waits", lambda: any(run.says(waiting) for run in both))
        shop.set(latency_ms=0)
        assert [run.finish()[0] for run in both] == [0, 0]
        assert project.orders() == expected(shop.orders())

    with place.instance() as instance:
        records = instance.fetch_materializations(AssetKey("orders"), limit=3).records
        made = [record.asset_materialization for record in reversed(records)]
        assert [one and one.metadata["orders_new"].value for one in made] == [300, 5, 0]
    assert place.files_with(RIGHT_SECRET) == []


def test_the_definitions_are_valid_without_any_setting(place: Place) -> None:
    """A deployment validates the definitions where there are no secrets and no API."""
    code, output = place.run(DAGSTER, "definitions", "validate", "-w", "workspace.yaml")

    assert code == 0
    assert "All code locations passed validation" in output


def test_a_refused_secret_is_named_and_its_value_written_nowhere(place: Place) -> None:
    """The exit code tells cron, the output says which settings to correct, nothing tells the value."""
    with running(orders=20, client_secret=RIGHT_SECRET) as sandbox:
        place.point_at(sandbox.url)
        place.environment["SOURCES__ORDERS__CLIENT_SECRET"] = WRONG_SECRET
        code, output = place.run(*EXECUTE)

    assert code == 1
    advice = "Correct sources.orders.client_id and client_secret"
    assert advice in output
    records = {path.suffix for path in place.files_with(advice)}
    assert {".log", ".db"} <= records, "the search reads the outputs and Dagster's records"
    assert place.files_with(WRONG_SECRET) == []


@pytest.mark.parametrize("module", ["sandbox", "dev"])
def test_help_shows_an_example(place: Place, module: str) -> None:
    """An example says more than a list of options."""
    code, output = place.run(PYTHON, "-m", f"orders_dagster.{module}", "--help")

    assert code == 0
    assert re.search(rf"examples?:\s+python -m orders_dagster\.{module}", output)


@pytest.mark.parametrize("command", [["doctor"], ["doctor", "--json"], ["report"], ["alert-test"]])
def test_secrets_that_are_no_toml_are_said_to_be(place: Place, command: list[str]) -> None:
    """Exit code 1 means in CI that a check has failed; and no traceback finds a missing quote."""
    settings = Path(place.environment["DLT_PROJECT_DIR"]) / ".dlt"
    settings.mkdir()
    (settings / "secrets.toml").write_text('[sources.orders]\nclient_secret = "t0psecret\ny = 1')

    code, output = place.run(str(Path(PYTHON).with_name("orders-dagster")), *command)

    assert code == 2
    assert "secrets.toml" in output
    assert "--json" not in command or json.loads(output)["verdict"] == "FAIL"
    assert "line 2" in output
    assert "Traceback" not in output
    assert "t0psecret" not in output


@seen_in_proc
def test_dev_uses_the_api_that_is_configured_and_ends_a_run_in_progress(place: Place) -> None:
    """With an API of one's own, nothing on the page may come from an invented shop. And a run that looked
    as if it were still running would keep all others from starting."""
    with running(orders=500, latency_ms=500) as sandbox:
        place.point_at(sandbox.url)
        place.environment["SOURCES__ORDERS__PAGE_SIZE"] = "10"  # a run takes its time
        dev = place.start(*DEV, "--port", str(free_port()))
        shop = Shop(sandbox.url)
        eventually("a run of the sensor reads", lambda: dev.says("") and len(shop.requests()) > 4)

        assert "API   as configured" in dev.output()
        assert "orders_dagster.sandbox" not in str(place.processes())
        assert dev.end_with(signal.SIGTERM) == 0
        assert place.processes() == {}

    with place.instance() as instance:
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.FAILURE]


@seen_in_proc
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "terminal closed"]
)
def test_dev_can_be_stopped_while_it_starts(place: Place, number: int) -> None:
    """Whoever changes their mind after a second finds nothing of it running later."""
    ports = ("--port", str(free_port()), "--sandbox-port", str(free_port()))
    dev = place.start(*IN_THE_BACKGROUND, *DEV, *ports)
    eventually("Dagster is started", lambda: dev.says("page  http"))

    assert "orders_dagster.sandbox" in str(place.processes())
    assert dev.end_with(number) == 0
    assert place.processes() == {}
