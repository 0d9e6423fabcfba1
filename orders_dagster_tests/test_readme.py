"""The README is true: its settings, commands, checks, drawing and links exist, and its example runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orders_dagster.checks import CHECKS
from orders_dagster.settings import AUTH_TYPES, TABLES, CheckSeverity, OrdersSettings, Retry
from orders_dagster_tests.world import Project, Shop

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^##+ {title}\n(.*?)(?=^##+ |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def table(title: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_settings() -> dict[str, str]:
    """Setting to default, as the table says; a row may hold several."""
    found: dict[str, str] = {}
    for keys, defaults, _ in table("Settings"):
        names = re.findall(r"`([a-z_.]+(?:<check>)?)`", keys)
        values = re.split(r", (?![^\[]*\])", defaults) if len(names) > 1 else [defaults]
        assert len(names) == len(values), keys
        found |= dict(zip(names, values, strict=True))
    return found


def real_settings() -> dict[str, object]:
    defaults = OrdersSettings().model_dump(mode="json")
    settings = {k: v for k, v in defaults.items() if k not in ("auth", *TABLES)}
    for table in {*TABLES} - {"check_severity"}:
        settings |= {f"{table}.{name}": list_or(value) for name, value in defaults[table].items()}
    for model in AUTH_TYPES.values():
        for name, field in model.model_fields.items():
            settings[f"auth.{name}"] = None if field.is_required() else field.get_default()
    settings["check_severity.<check>"] = "as under Checks"
    settings["auth.type"] = "oauth2_client_credentials"
    return settings


def list_or(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_every_setting_is_in_the_table_and_the_table_holds_no_other() -> None:
    """A setting that is not documented does not exist; one that is documented has to."""
    assert set(documented_settings()) == set(real_settings())
    assert len(Retry.model_fields) == 3


def test_the_table_tells_the_real_defaults() -> None:
    """Whoever leaves a setting out has to know what applies."""
    real = real_settings()
    wrong = {
        key: (shown, real[key])
        for key, shown in documented_settings().items()
        if key not in ("params", "total_path", "auth.extra")
        and shown.strip("`")
        != (
            "–"
            if real[key] is None
            else f"{real[key]:g}"
            if isinstance(real[key], float)
            else str(real[key])
        )
    }
    assert wrong == {}


def test_the_default_parameters_are_as_the_table_says() -> None:
    """The one default that is a table of its own."""
    (row,) = [row for row in table("Settings") if row[0] == "`params`"]
    shown = dict(re.findall(r'`(\w+) = "([^"]+)"`', row[1]))
    assert shown == OrdersSettings().params


def test_every_make_target_that_is_named_exists() -> None:
    """A command of the README that is no command is the first thing a newcomer meets."""
    named = set(re.findall(r"`make ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_check_is_in_the_table_with_its_severity() -> None:
    """What each check means is what its reader acts on."""
    words = {"ERROR": "error", "WARN": "warning"}
    shown = [(row[0].strip("`"), row[1]) for row in table("Checks")]
    assert shown == [
        (
            check.name,
            words[check.severity(CheckSeverity()).value] + (", blocking" if check.blocking else ""),
        )
        for check in CHECKS
    ]


def test_the_drawing_shows_every_module() -> None:
    """The drawing is how a reader finds their way; a module that is not on it has no place."""
    drawing = re.search(r"```\norders_dagster/\n(.*?)```", README, re.DOTALL)
    assert drawing
    drawn = set(re.findall(r"[\w/]+\.py|sandbox/", drawing[1]))
    package = ROOT / "orders_dagster"
    modules = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and "sandbox" not in path.parts
    }
    assert drawn == modules | {"sandbox/"}


def test_every_link_to_a_file_leads_somewhere() -> None:
    """The picture of the page above all."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert "docs/page.png" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_lock_files_hold_hashes_and_no_addresses() -> None:
    """An address of an index in a lock file breaks the install of everyone who uses another one."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--index|--find-links", text), name
        pins = re.findall(r"^[\w.-]+(?:\[[\w,.-]+\])?==", text, re.MULTILINE)
        assert 50 < len(pins) <= text.count("--hash=sha256:"), name


@pytest.mark.parametrize("table_form", ["as it stands", "with other names"])
def test_three_lines_of_dlt_are_enough(
    shop: Callable[..., Shop], tmp_path: Path, table_form: str
) -> None:
    """The README's own example, with the address of a real shop, from a folder that holds only it."""
    store = shop(orders=250, shape="orders" if table_form == "as it stands" else "nested")
    blocks = re.findall(r"```toml\n(.*?)```", section("Your own API"), re.DOTALL)
    secrets, config, other = blocks
    (tmp_path / ".dlt").mkdir()
    secrets = secrets.replace('client_id = "..."', 'client_id = "sandbox"')
    secrets = secrets.replace('client_secret = "..."', 'client_secret = "sandbox-secret"')
    (tmp_path / ".dlt" / "secrets.toml").write_text(
        secrets.replace("https://api.example.com", store.url)
    )
    config = config.replace("https://api.example.com", store.url)
    if table_form == "with other names":
        for name, here in {
            "/sales": "/v1/orders",
            "paging.count": "paging.total",
            '"id"': '"order_id"',
            '"lastModifiedAt"': '"last_modified_date"',
            "where = 'lastModifiedAt >= \"{start}\"'": "modified_since = '{start}'",
            "lastModifiedAt asc": "last_modified_date",
            ', expand = "items"': "",
        }.items():
            assert name in other, name
            other = other.replace(name, here)
        config += other.replace("[sources.orders]\n", "")
    (tmp_path / ".dlt" / "config.toml").write_text(config)

    run = materialize_in(tmp_path)

    assert run.returncode == 0, run.stdout + run.stderr
    project = Project(tmp_path, pytest.MonkeyPatch())
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 250


def test_the_committed_configuration_runs_with_the_settings_in_the_environment(
    project: Project, shop: Callable[..., Shop], tmp_path: Path
) -> None:
    """dlt refuses some keys in config.toml, and only where nothing in the environment hides it."""
    shop(orders=30)
    (tmp_path / ".dlt").mkdir()
    shutil.copy(ROOT / ".dlt" / "config.toml", tmp_path / ".dlt")
    settings = {k: v for k, v in os.environ.items() if k.startswith("SOURCES__ORDERS__")}

    run = materialize_in(tmp_path, **settings)

    assert run.returncode == 0, run.stdout + run.stderr
    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 30


def materialize_in(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`dagster asset materialize` as typed in a directory, with nothing else in the environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = "-m dagster asset materialize -m orders_dagster.definitions --select orders"
    return subprocess.run(
        [sys.executable, *command.split()],
        cwd=directory,
        env=kept
        | {"PYTHONPATH": str(ROOT), "DLT_DATA_DIR": str(directory / "dlt")}
        | {"RUNTIME__DLTHUB_TELEMETRY": "false"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_test_that_is_named_exists() -> None:
    """The table of what can go wrong is as good as the tests that show it."""
    tests = {
        (path.name, name)
        for path in (ROOT / "orders_dagster_tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = table("What can go wrong, and what happens then")
    named = [re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", row[2]) for row in rows]

    assert len(rows) > 20
    assert all(named)
    for file, name in (one for row in named for one in row):
        assert (file or "test_promises.py", name) in tests, name
