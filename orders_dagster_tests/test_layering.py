"""Data flows one way: who imports whom, who reads settings, and what importing the project does not do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "orders_dagster"

PLAIN = (
    "errors",
    "settings",
    "cursor",
    "values",
    "arrays",
    "places",
    "rejected",
    "seen",
    "personal",
    "rows",
    "warehouse",
    "columns",
    "load_files",
    "span",
    "windows",
    "api.answers",
    "api.session",
    "api.auth",
    "api.query",
    "api.connect",
    "api.page",
    "api.count",
    "api.paging",
    "api.seek",
    "step",
    "source",
    "tally",
    "changes",
    "progress",
    "rejections",
    "tables",
    "cancel",
    "destination",
    "before",
    "fit",
    "pipeline",
    "edges",
    "reconcile",
    "repair",
    "volume",
    "schema_changes",
    "doctor.finding",
    "doctor.wire",
    "doctor.known",
    "doctor.guess",
    "doctor.reach",
    "doctor.answer",
    "doctor.window",
    "doctor.measure",
    "doctor.storage",
    "doctor.examine",
    "doctor.resolved",
    "doctor.command",
    "alerts.trouble",
    "alerts.ledger",
    "alerts.message",
    "alerts.receiver",
    "alerts.tell",
)
"""Plain Python, in the order of the README's drawing: a module imports from those before it."""

DAGSTER = (
    "elt",
    "assets",
    "runs",
    "records",
    "checks",
    "alerts.records",
    "report.waiting",
    "report.content",
    "report.write",
    "report.charts",
    "report.formats",
    "report.asset",
    "replay",
    "automation",
    "launcher",
    "definitions",
)
"""Dagster on top, in the same way."""

LAYERS = PLAIN + DAGSTER

ASIDE = ("cli", "local", "demo", "dev", "alert_test", "report.command")
"""What the command line and `make` start. They import from each other and from the layers, nobody from
them."""

EMPTY = ("", "api", "doctor", "alerts", "report")
"""Packages that hold nothing themselves."""

SANDBOX = "sandbox"

MAY_READ_THE_ENVIRONMENT = {"settings", "demo", "dev", "local"}


def modules() -> dict[str, Path]:
    """Every module of the project, by its name inside the package."""
    top = ROOT / PACKAGE
    found = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
OURS = sorted(name for name in MODULES if name.split(".")[0] != SANDBOX)
SANDBOXED = sorted(set(MODULES) - set(OURS))


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports(module: str) -> Iterator[str]:
    """The full names of what a module imports, also inside its functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = [node.module] if node.module else []
            if node.level:  # one dot is the package that the module is in
                source = package_of(module)[: 1 - node.level or None] + source
            yield from (".".join([*source, alias.name]) for alias in node.names)


def package_of(module: str) -> list[str]:
    names = [PACKAGE, *filter(None, module.split("."))]
    return names if MODULES[module].name == "__init__.py" else names[:-1]


def imported_modules(module: str) -> set[str]:
    """The modules of this project that a module imports."""
    found = set()
    for name in imports(module):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        # `from orders_dagster.rows import Rows` names a thing inside of a module.
        inside = [".".join(parts[1:n]) for n in range(len(parts), 0, -1)]
        found.add(next(part for part in inside if part in MODULES))
    return found


def imported_packages(module: str) -> set[str]:
    """The packages of others that a module imports, by their top-level names."""
    return {name.split(".")[0] for name in imports(module)} - {PACKAGE}


def test_every_module_has_its_place() -> None:
    """A new module is put into the order on purpose, or the order says nothing about it."""
    assert set(OURS) == {*LAYERS, *ASIDE, *EMPTY}


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_only_from_those_above_it(module: str) -> None:
    """What is decided in one place can be read there: nothing reaches back up."""
    above = set(LAYERS[: LAYERS.index(module)])

    assert imported_modules(module) <= above


@pytest.mark.parametrize("module", ASIDE)
def test_what_make_starts_stands_aside(module: str) -> None:
    """The demo runs what the user runs: nothing of the project may depend on it."""
    assert imported_modules(module) <= {*LAYERS, *ASIDE} - {module}
    for other in (*LAYERS, *EMPTY, *SANDBOXED):
        assert module not in imported_modules(other), other


@pytest.mark.parametrize("module", EMPTY)
def test_a_package_imports_nothing(module: str) -> None:
    """Or importing one module of it would import them all."""
    assert not set(imports(module))


@pytest.mark.parametrize("module", [*PLAIN, "local"])
def test_the_layers_below_know_nothing_of_dagster(module: str) -> None:
    """The synchronisation also runs from a script, and is tested without Dagster."""
    assert not [name for name in imported_packages(module) if name.startswith("dagster")]


@pytest.mark.parametrize("module", sorted({*OURS} - {"elt"}))
def test_the_embedded_elt_package_is_imported_in_one_module(module: str) -> None:
    """It is deprecated: moving on to its successor is to be one line."""
    assert not imported_packages(module) & {"dagster_embedded_elt", "dagster_dlt"}


@pytest.mark.parametrize(
    "module", ["errors", "cursor", "values", "places", "rejected", "personal", "arrays", "rows"]
)
def test_what_happens_to_an_order_knows_neither_dlt_nor_http(module: str) -> None:
    """Times and rows are rules, to be read and tested without a pipeline or an API."""
    assert imported_packages(module) <= sys.stdlib_module_names | {"pyarrow"}


@pytest.mark.parametrize("module", SANDBOXED)
def test_the_sandbox_shares_no_code_with_the_project(module: str) -> None:
    """A fake shop that shares our code shares our bugs, and proves nothing."""
    assert {name.split(".")[0] for name in imported_modules(module)} <= {SANDBOX}


@pytest.mark.parametrize("module", OURS)
def test_only_the_commands_start_the_sandbox(module: str) -> None:
    """They run it as a process of its own; the project itself knows no shop but the one set."""
    assert SANDBOX not in {name.split(".")[0] for name in imported_modules(module)}


@pytest.mark.parametrize("module", sorted({*OURS} - MAY_READ_THE_ENVIRONMENT))
def test_nothing_but_the_settings_reads_the_environment(module: str) -> None:
    """A variable that is read anywhere else is a setting that no table lists."""
    names = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    names |= {name.rpartition(".")[2] for name in imports(module)}

    assert not names & {"environ", "environb", "getenv", "getenvb"}


@pytest.mark.parametrize("module", sorted({*OURS} - {"settings"}))
def test_nothing_but_the_settings_reads_the_settings(module: str) -> None:
    """One place knows the names, the order of the providers and what is a secret."""
    nodes = list(ast.walk(tree(module)))
    attributes = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    texts = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}

    assert not attributes & {"dlt.secrets", "dlt.config"}
    assert not {name for name in imports(module) if ".configuration.providers" in name}
    if module not in ("local", "demo"):  # they set variables for the processes that they start
        assert not {text for text in texts if text.startswith("SOURCES__")}


IMPORT_IT = """
import json, os, socket, sys

sys.path.insert(0, sys.argv[1])
connections, looked_up = [], set()

def refuse(self, address, *rest):
    connections.append(str(address))
    raise OSError("there is no network here")

socket.socket.connect = socket.socket.connect_ex = refuse

from dlt.common.configuration import providers

def watch(provider):
    get_value = provider.get_value
    def watched(self, key, hint, pipeline_name, *sections):
        looked_up.add(".".join([*sections, key]))
        return get_value(self, key, hint, pipeline_name, *sections)
    provider.get_value = watched

for provider in ("EnvironProvider", "SecretsTomlProvider", "ConfigTomlProvider"):
    watch(getattr(providers, provider))

from orders_dagster.definitions import defs

print(json.dumps({
    "jobs": [job.name for job in defs.resolve_all_job_defs()],
    "connections": connections,
    "looked_up": sorted(looked_up),
    "files": os.listdir("."),
}))
"""


def test_importing_the_definitions_needs_no_network_no_secret_and_no_file(tmp_path: Path) -> None:
    """Dagster imports them in every process, CI without any credentials, and any directory."""
    empty = tmp_path / "empty"
    empty.mkdir()

    run = subprocess.run(
        [sys.executable, "-c", IMPORT_IT, str(ROOT)],
        cwd=empty,
        env={"HOME": str(tmp_path), "DLT_DATA_DIR": str(tmp_path / "dlt")},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert "orders_job" in found["jobs"]
    assert found["connections"] == []
    assert found["files"] == []
    ours = {key.removeprefix("sources.orders.") for key in found["looked_up"]}
    assert "schedule" in ours
    assert not ours & {"client_id", "client_secret", "token_url", "base_url", "auth", "auth.type"}
