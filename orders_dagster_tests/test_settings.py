"""The settings: their defaults, where they are looked up, and what is said about a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from orders_dagster.errors import SettingsError
from orders_dagster.settings import (
    AUTH_TYPES,
    TABLES,
    OrdersSettings,
    Retry,
    is_configured,
    read_alerts,
    read_places,
    read_schedule,
    read_settings,
)
from orders_dagster_tests.world import Project

Toml = Callable[..., None]

DEFAULTS: dict[str, Any] = {
    "base_url": "http://127.0.0.1:8010",
    "path": "/v1/orders",
    "data_selector": "orders",
    "auth": {
        "type": "oauth2_client_credentials",
        "scope": None,
        "extra": {},
        "credentials_in": "body",
    },
    "primary_key": "order_id",
    "cursor_path": "last_modified_date",
    "cursor_format": "iso",
    "initial_value": datetime(2000, 1, 1, tzinfo=UTC),
    "soft_delete_path": None,
    "lag_seconds": 300,
    "page_size": 200,
    "limit_param": "limit",
    "offset_param": "offset",
    "total_path": "total",
    "paging": "seek",
    "params": {
        "modified_since": "{start}",
        "modified_before": "{end}",
        "sort": "last_modified_date",
    },
    "personal_data": {},
    "personal_data_key": None,
    "retry": {
        "status_codes": (429, 500, 502, 503, 504),
        "max_retries": 3,
        "backoff_factor": 2,
    },
    "alerts": {"urls": (), "min_severity": "error", "page_url": "http://127.0.0.1:3000"},
    "request_timeout_seconds": 60,
    "max_requests_per_second": None,
    "workers": 8,
    "checkpoint_orders": 50_000,
    "schedule": "0 * * * *",
    "reconcile": True,
    "freshness_hours": 24,
    "clock_tolerance_minutes": 5,
    "volume_factor": 3,
    "check_severity": {
        "order_id_unique": "error",
        "order_id_not_null": "error",
        "items_belong_to_an_order": "error",
        "last_modified_not_in_future": "warn",
        "freshness": "warn",
        "no_rejected_orders": "warn",
        "volume_as_expected": "warn",
        "schema_stable": "warn",
        "reconciles_with_source": "warn",
    },
    "warehouse_wait_seconds": 300,
}
"""The table of the README, written out; the credentials have no default."""

CREDENTIALS = {
    "client_id": "the-client",
    "client_secret": "s3cret-value",
    "token_url": "https://shop.example.com/oauth/token",
}


@pytest.fixture(autouse=True)
def no_settings(project: Project) -> None:
    """Takes away the one setting that the shared fixture makes."""
    project.unset("retry__backoff_factor")


@pytest.fixture
def toml(tmp_path: Path) -> Iterator[Toml]:
    """Writes `.dlt/secrets.toml` and `.dlt/config.toml`, and has dlt read its files anew."""
    plugged = Container()[PluggableRunContext]
    before = plugged.context

    def write(*, secrets: str = "", config: str = "") -> None:
        folder = tmp_path / "project" / ".dlt"
        folder.mkdir(parents=True)
        (folder / "secrets.toml").write_text(secrets)
        (folder / "config.toml").write_text(config)
        # dlt takes the variable before the directory it is told.
        patch.setenv("DLT_PROJECT_DIR", str(folder.parent))
        plugged.reload(str(folder.parent))

    with pytest.MonkeyPatch.context() as patch:
        yield write
    plugged.reload(before)


def refusal(**overrides: Any) -> SettingsError:
    """The error that reading the settings ends with."""
    with pytest.raises(SettingsError) as error:
        read_settings(**overrides)
    return error.value


def variable(key: str) -> str:
    return "SOURCES__ORDERS__" + key.upper().replace(".", "__")


def at(settings: OrdersSettings, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def all_keys() -> list[tuple[str, str]]:
    """Each setting, nested ones too, with the kind of login that has it."""
    oauth2 = "oauth2_client_credentials"
    keys = [(name, oauth2) for name in OrdersSettings.model_fields if name != "auth"]
    for table, model in TABLES.items():
        keys += [(f"{table}.{name}", oauth2) for name in model.model_fields]
    for kind, model in AUTH_TYPES.items():
        keys += [(f"auth.{name}", kind) for name in model.model_fields if name != "type"]
    return keys


def test_the_defaults_are_the_reference_configuration(project: Project) -> None:
    """Whoever knows the reference configuration must find its values without setting one."""
    project.set(**CREDENTIALS)

    assert read_settings().model_dump(exclude=set(CREDENTIALS)) == DEFAULTS


def test_every_setting_can_be_an_environment_variable(project: Project) -> None:
    """A container has no files: every key, and tables and lists as JSON, must fit a variable."""
    values: dict[str, Any] = {
        "base_url": "https://shop.example.com",
        "path": "/orders",
        "data_selector": "data.sales",
        **CREDENTIALS,
        "auth__scope": "orders:read",
        "auth__extra": {"audience": "orders"},
        "auth__credentials_in": "basic",
        "primary_key": "id",
        "cursor_path": "meta.updated_at",
        "cursor_format": "%Y-%m-%d",
        "initial_value": "2024-02-03T04:05:06+01:00",
        "soft_delete_path": "meta.removed",
        "lag_seconds": "0.5",
        "page_size": "50",
        "limit_param": "per_page",
        "offset_param": "skip",
        "total_path": "paging.count",
        "paging": "offset",
        "params": {"since": "{start}", "open": True, "version": 2},
        "personal_data": {"customer.email": "hash", "note": "drop"},
        "personal_data_key": "s3cret-value-of-32-characters-or-more",
        "retry__status_codes": [500],
        "retry__max_retries": "0",
        "retry__backoff_factor": "0.25",
        "alerts__urls": ["json://s3cret-value@alerts.example.com"],
        "alerts__min_severity": "warn",
        "alerts__page_url": "https://dagster.example.com",
        "request_timeout_seconds": "7.5",
        "max_requests_per_second": "3",
        "workers": "2",
        "checkpoint_orders": "10",
        "schedule": "5 4 * * *",
        "reconcile": "false",
        "freshness_hours": "48",
        "clock_tolerance_minutes": "0.5",
        "volume_factor": "1.5",
        "check_severity__freshness": "error",
        "check_severity__order_id_unique": "warn",
        "warehouse_wait_seconds": "1.5",
    }
    project.set(**values)

    settings = read_settings()

    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "s3cret-value"
    assert settings.personal_data_key is not None
    assert settings.personal_data_key.get_secret_value().startswith("s3cret-value-of-32")
    (url,) = settings.alerts.urls
    assert url.get_secret_value() == "json://s3cret-value@alerts.example.com"
    assert settings.model_dump(
        exclude={"client_secret": True, "personal_data_key": True, "alerts": {"urls"}}
    ) == {
        "base_url": "https://shop.example.com",
        "path": "/orders",
        "data_selector": "data.sales",
        "client_id": "the-client",
        "token_url": "https://shop.example.com/oauth/token",
        "auth": {
            "type": "oauth2_client_credentials",
            "scope": "orders:read",
            "extra": {"audience": "orders"},
            "credentials_in": "basic",
        },
        "primary_key": "id",
        "cursor_path": "meta.updated_at",
        "cursor_format": "%Y-%m-%d",
        "initial_value": datetime(2024, 2, 3, 3, 5, 6, tzinfo=UTC),
        "soft_delete_path": "meta.removed",
        "lag_seconds": 0.5,
        "page_size": 50,
        "limit_param": "per_page",
        "offset_param": "skip",
        "total_path": "paging.count",
        "paging": "offset",
        "params": {"since": "{start}", "open": True, "version": 2},
        "personal_data": {"customer.email": "hash", "note": "drop"},
        "retry": {"status_codes": (500,), "max_retries": 0, "backoff_factor": 0.25},
        "alerts": {"min_severity": "warn", "page_url": "https://dagster.example.com"},
        "request_timeout_seconds": 7.5,
        "max_requests_per_second": 3,
        "workers": 2,
        "checkpoint_orders": 10,
        "schedule": "5 4 * * *",
        "reconcile": False,
        "freshness_hours": 48,
        "clock_tolerance_minutes": 0.5,
        "volume_factor": 1.5,
        "check_severity": DEFAULTS["check_severity"]
        | {"freshness": "error", "order_id_unique": "warn"},
        "warehouse_wait_seconds": 1.5,
    }


def test_a_whole_table_can_be_json_in_one_variable(project: Project) -> None:
    """`AUTH` and `RETRY` at once, as `PARAMS` already has to be."""
    project.set(
        auth={"type": "bearer", "token": "s3cret-value"},
        retry={"status_codes": [503], "max_retries": 1},
    )

    settings = read_settings()

    assert settings.auth.type == "bearer"
    assert settings.auth.token.get_secret_value() == "s3cret-value"
    assert settings.retry == Retry(status_codes=(503,), max_retries=1, backoff_factor=2)


def test_settings_are_read_from_secrets_toml_and_config_toml(toml: Toml) -> None:
    """The places that dlt's users know, with TOML's own lists, tables and dates."""
    toml(
        secrets="""
            [sources.orders]
            client_id = "the-client"
            client_secret = "s3cret-value"
            token_url = "https://shop.example.com/oauth/token"

            [sources.orders.auth]
            scope = "orders:read"
            extra = { audience = "orders" }

            [sources.orders.alerts]
            urls = ["json://alerts.example.com", "json://s3cret-value@alerts.example.com"]
        """,
        config="""
            [sources.orders]
            base_url = "https://shop.example.com"
            initial_value = 2024-02-03T04:05:06+01:00
            page_size = 50
            lag_seconds = 1.5

            [sources.orders.params]
            where = 'changed >= "{start}"'

            [sources.orders.retry]
            status_codes = [500, 503]
        """,
    )

    settings = read_settings()

    assert settings.client_id == "the-client"
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "s3cret-value"
    assert settings.auth.model_dump() == {
        "type": "oauth2_client_credentials",
        "scope": "orders:read",
        "extra": {"audience": "orders"},
        "credentials_in": "body",
    }
    assert settings.base_url == "https://shop.example.com"
    assert settings.initial_value == datetime(2024, 2, 3, 3, 5, 6, tzinfo=UTC)
    assert (settings.page_size, settings.lag_seconds) == (50, 1.5)
    assert settings.params == {"where": 'changed >= "{start}"'}
    assert settings.retry == Retry(status_codes=(500, 503))
    assert [url.get_secret_value().rpartition("/")[2] for url in read_alerts().urls] == [
        "alerts.example.com",
        "s3cret-value@alerts.example.com",
    ]
    assert read_alerts() == settings.alerts


@pytest.mark.parametrize(
    "table",
    [
        '[sources.orders]\npersonal_data = { "customer.email" = "mask", note = "drop" }',
        '[sources.orders.personal_data]\n"$.customer.email" = "mask"\nnote = "drop"',
        '[sources.orders.personal_data]\ncustomer.email = "mask"\nnote = "drop"',
        '[sources.orders.personal_data.customer]\nemail = "mask"\n'
        '[sources.orders.personal_data]\nnote = "drop"',
    ],
)
def test_the_paths_of_personal_data_are_written_with_or_without_quotes(
    project: Project, toml: Toml, table: str
) -> None:
    """TOML makes a table of `customer.email` without quotes; a field missed by that would be loaded."""
    project.set(**CREDENTIALS)
    toml(config=table)

    assert read_settings().personal_data == {"customer.email": "mask", "note": "drop"}


@pytest.mark.parametrize(
    "table", ['customer.email = "hush"', "customer = {}", '"customer.email" = true']
)
def test_personal_data_is_hashed_masked_or_dropped(
    project: Project, toml: Toml, table: str
) -> None:
    """Anything else is named with its path, and is not taken for "leave it"."""
    project.set(**CREDENTIALS)
    toml(config=f"[sources.orders.personal_data]\n{table}")

    (problem,) = refusal().problems

    assert problem.startswith("sources.orders.personal_data.customer")
    assert "(from .dlt/config.toml)" in problem
    assert "should be 'hash', 'mask' or 'drop'" in problem


@pytest.mark.parametrize("key", ["page_size", "retry.max_retries"])
def test_the_environment_wins_over_secrets_toml_and_that_over_config_toml(
    project: Project, toml: Toml, key: str
) -> None:
    """dlt's own order, so that a variable changes one run without editing a file."""
    *table, name = key.split(".")
    section = ".".join(["sources.orders", *table])
    toml(
        secrets=f"[{section}]\n{name} = 4",
        config=f'[{section}]\n{name} = 3\n[sources.orders.auth]\ntype = "none"',
    )

    assert at(read_settings(), key) == 4
    project.set(**{key.replace(".", "__"): 5})
    assert at(read_settings(), key) == 5


def test_a_variable_that_is_not_ours_is_never_taken_for_a_setting(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlt's usual lookup drops sections one by one, and ends at PATH and NAME of the shell."""
    project.set(**CREDENTIALS)
    for key, _ in all_keys():
        for section in ("", "SOURCES__", "ORDERS__", "CREDENTIALS__", "SOURCES__REST_API__"):
            monkeypatch.setenv(section + key.upper().replace(".", "__"), "7")
            monkeypatch.setenv(section + key.rpartition(".")[2].upper(), "7")

    assert read_settings().model_dump(exclude=set(CREDENTIALS)) == DEFAULTS
    project.unset("client_id")
    assert "sources.orders.client_id is missing" in str(refusal())
    project.set(auth__type="api_key", auth__api_key="k")
    assert at(read_settings(), "auth.name") == "Authorization"


def test_missing_credentials_are_one_error_that_names_all_of_them() -> None:
    """The first thing that every user meets: all three keys, where they may stand, and the fix."""
    error = refusal()

    assert len(error.problems) == 3
    for key, problem in zip(CREDENTIALS, error.problems, strict=True):
        assert problem.startswith(f"sources.orders.{key} is missing.")
        assert f"the environment variable SOURCES__ORDERS__{key.upper()}" in problem
        assert ".dlt/secrets.toml and .dlt/config.toml under [sources.orders]" in problem
        assert f"Fix: add {key} = " in problem
        assert problem in str(error)


@pytest.mark.parametrize("blank", ["<client id>", "<>", "", "   "])
def test_a_value_that_was_never_filled_in_counts_as_missing(project: Project, blank: str) -> None:
    """The example file is copied and half filled in; sending its placeholders would be a 401."""
    project.set(**CREDENTIALS | {"client_id": blank})

    error = refusal()

    assert len(error.problems) == 1
    assert error.problems[0].startswith("sources.orders.client_id is missing.")


def test_a_placeholder_does_not_hide_the_value_in_the_next_place(
    project: Project, toml: Toml
) -> None:
    """A variable that the deployment left empty must not blank out the file."""
    toml(
        secrets='[sources.orders]\nclient_id = "<client id>"\nclient_secret = "from-secrets"',
        config='[sources.orders]\nclient_id = "from-config"',
    )
    project.set(client_id="", client_secret=" ", token_url=CREDENTIALS["token_url"])

    settings = read_settings()

    assert settings.client_id == "from-config"
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "from-secrets"


@pytest.mark.parametrize("place", ["environment", "config.toml"])
def test_an_empty_total_path_is_a_value(project: Project, toml: Toml, place: str) -> None:
    """It says that the API reports no total; taken for missing, the run would fail without one."""
    project.set(**CREDENTIALS)
    if place == "environment":
        project.set(total_path="")
    else:
        toml(config='[sources.orders]\ntotal_path = ""')

    assert read_settings().total_path == ""


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("base_url", "api.example.com", "must be an address such as https://"),
        ("token_url", "/oauth/token", "must be an address such as https://"),
        ("auth.type", "oauth", "is none of oauth2_client_credentials, bearer"),
        ("auth.extra", "audience=orders", "valid dictionary"),
        ("auth.credentials_in", "header", "'body' or 'basic'"),
        ("cursor_format", "unix", "must be one of iso, epoch_seconds"),
        ("data_selector", "data.[", "must be a JSONPath"),
        ("total_path", "[[", "must be a JSONPath"),
        ("initial_value", "yesterday", "valid datetime"),
        ("initial_value", "2062-01-01T00:00:00Z", "must not be in the future"),
        ("lag_seconds", "-1", "greater than or equal to 0"),
        ("lag_seconds", "nan", "less than or equal to 316224000"),
        ("page_size", "0", "greater than or equal to 1"),
        ("page_size", "2.5", "valid integer"),
        ("paging", "cursor", "'seek' or 'offset'"),
        ("params", '{"modified_since": ', "valid dictionary"),
        ("params", '["{start}"]', "valid dictionary"),
        ("personal_data", "customer.email", "valid dictionary"),
        ("personal_data", '{"customer..email": "mask"}', "is no path such as customer.email"),
        ("personal_data_key", "short", "at least 32 characters"),
        ("retry", "3", "valid dictionary"),
        ("retry.status_codes", "503", "valid tuple"),
        ("retry.status_codes", "[200]", "greater than or equal to 400"),
        ("retry.max_retries", "-1", "greater than or equal to 0"),
        ("retry.backoff_factor", "two", "valid number"),
        ("alerts", "slack://token", "valid dictionary"),
        ("alerts.urls", "slack://token", "must be a list, also of one"),
        ("alerts.min_severity", "fatal", "'error' or 'warn'"),
        ("alerts.page_url", "dagster", "must be an address such as http://dagster"),
        ("alerts.page_url", "https://u:p@dagster.example.com", "no user and no password"),
        ("request_timeout_seconds", "0", "greater than 0"),
        ("request_timeout_seconds", "inf", "less than or equal to 86400"),
        ("max_requests_per_second", "0", "greater than or equal to 0.001"),
        ("workers", "0", "greater than or equal to 1"),
        ("checkpoint_orders", "none", "valid integer"),
        ("schedule", "hourly", "must be a cron expression"),
        ("freshness_hours", "0", "greater than 0"),
        ("clock_tolerance_minutes", "-1", "greater than or equal to 0"),
        ("volume_factor", "1", "greater than 1"),
        ("check_severity", "error", "valid dictionary"),
        ("check_severity.freshness", "fatal", "'warn' or 'error'"),
        ("warehouse_wait_seconds", "-1", "greater than or equal to 0"),
    ],
)
def test_a_malformed_value_is_named_with_its_place(
    project: Project, key: str, value: str, what: str
) -> None:
    """Which key, found where, and what it may be: nobody should have to read the code for it."""
    project.set(**CREDENTIALS)
    project.set(**{key.replace(".", "__"): value})

    (problem,) = refusal().problems

    assert problem.startswith(f"sources.orders.{key}")
    assert f"(from the environment variable {variable(key)})" in problem
    assert what in problem


@pytest.mark.parametrize(
    ("key", "kind"), [(key, kind) for key, kind in all_keys() if key != "auth.api_key"]
)
def test_a_value_of_the_wrong_type_is_named_with_its_file(
    project: Project, toml: Toml, key: str, kind: str
) -> None:
    """TOML has types: no setting may take a list of booleans, and none may fail without a name."""
    *table, name = key.split(".")
    project.set(**CREDENTIALS, auth__type=kind)
    if key in CREDENTIALS:
        project.unset(key)
    others = {"token": "t", "api_key": "k", "username": "u", "password": "p"}
    for other in set(AUTH_TYPES[kind].model_fields) & set(others) - {name}:
        project.set(**{f"auth__{other}": others[other]})
    toml(secrets=f"[{'.'.join(['sources.orders', *table])}]\n{name} = [true]")

    (problem,) = refusal().problems

    assert problem.startswith(f"sources.orders.{key}")
    assert "(from .dlt/secrets.toml)" in problem


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("client_secret", "oauth2_client_credentials"),
        ("client_id", "oauth2_client_credentials"),
        ("personal_data_key", "oauth2_client_credentials"),
        ("auth.token", "bearer"),
        ("auth.password", "http_basic"),
    ],
)
def test_a_malformed_secret_is_not_shown(project: Project, toml: Toml, key: str, kind: str) -> None:
    """The message ends up in logs and on the page of the run."""
    *table, name = key.split(".")
    project.set(auth__type=kind)
    toml(secrets=f'[{".".join(["sources.orders", *table])}]\n{name} = ["s3cret-value"]')

    error = refusal()

    assert f"sources.orders.{key} (from .dlt/secrets.toml) is not valid" in str(error)
    assert "s3cret" not in str(error) + repr(error)


def test_all_problems_are_named_at_once(project: Project, toml: Toml) -> None:
    """Fixing one setting only to hear of the next one is the slow way to a first load."""
    toml(config="[sources.orders]\nworkers = 0\nlimits = 100")
    project.set(client_id="the-client", page_size="many", retry__max_retries="-1")

    error = refusal()

    assert str(error).startswith("6 settings need attention:\n1. sources.orders.")
    named = {problem.split()[0] for problem in error.problems}
    assert named == {
        "sources.orders.workers",
        "sources.orders.limits",
        "sources.orders.page_size",
        "sources.orders.retry.max_retries",
        "sources.orders.client_secret",
        "sources.orders.token_url",
    }


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("page_sise", "page_size"),
        ("retry.max_retrys", "retry.max_retries"),
        ("alerts.url", "alerts.urls"),
        ("auth.scopes", "auth.scope"),
        ("check_severity.freshnes", "check_severity.freshness"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "config.toml"])
def test_a_misspelt_setting_is_not_silently_the_default(
    project: Project, toml: Toml, misspelt: str, meant: str, place: str
) -> None:
    """A typo would otherwise be a setting that has no effect, found months later."""
    project.set(**CREDENTIALS)
    *table, name = misspelt.split(".")
    if place == "environment":
        project.set(**{misspelt.replace(".", "__"): "5"})
    else:
        toml(config=f"[{'.'.join(['sources.orders', *table])}]\n{name} = 5")

    (problem,) = refusal().problems

    assert problem.startswith(f"sources.orders.{misspelt} (from ")
    assert (variable(misspelt) if place == "environment" else ".dlt/config.toml") in problem
    assert problem.endswith(f"is not a setting. Did you mean {meant}?")


def test_an_unknown_key_that_resembles_nothing_points_to_the_table(project: Project) -> None:
    """No guess is better than a wrong one."""
    project.set(**CREDENTIALS, zzz="1")

    assert str(refusal()).endswith("is not a setting. The README has a table of all settings.")


@pytest.mark.parametrize(
    ("kind", "given", "lacking"),
    [
        ("bearer", {}, ["auth.token"]),
        ("http_basic", {}, ["auth.username", "auth.password"]),
        ("http_basic", {"auth__username": "me"}, ["auth.password"]),
    ],
)
def test_another_login_asks_for_its_own_keys_and_not_for_client_credentials(
    project: Project, kind: str, given: dict[str, str], lacking: list[str]
) -> None:
    """Whoever has an API key has no token_url, and must not be asked for one."""
    project.set(auth__type=kind, **given)

    problems = refusal().problems

    assert len(problems) == len(lacking)
    for key, problem in zip(lacking, problems, strict=True):
        name = key.removeprefix("auth.")
        assert problem.startswith(f"sources.orders.{key} is missing.")
        assert variable(key) in problem
        assert f"add {name} = " in problem
        assert "under [sources.orders.auth] in .dlt/secrets.toml" in problem


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("bearer", {"token": "s3cret-value"}),
        ("api_key", {"api_key": "s3cret-value", "name": "X-Key", "location": "query"}),
        ("http_basic", {"username": "me", "password": "s3cret-value"}),
        ("none", {}),
    ],
)
def test_another_login_is_complete_with_its_own_keys(
    project: Project, kind: str, given: dict[str, str]
) -> None:
    """dlt's own key names, one kind at a time."""
    project.set(auth__type=kind, **{f"auth__{name}": value for name, value in given.items()})

    auth = read_settings().auth

    assert type(auth) is AUTH_TYPES[kind]
    for name, value in given.items():
        found = getattr(auth, name)
        assert (found if isinstance(found, str) else found.get_secret_value()) == value


@pytest.mark.parametrize("params", [{}, {"since": "{end}"}, {"since": "start"}, {"n": 5}])
def test_seek_without_a_start_to_move_is_refused(project: Project, params: dict[str, Any]) -> None:
    """Seeking would read the first page for ever; the message names both ways out."""
    project.set(**CREDENTIALS, params=params)

    problem = str(refusal())

    assert problem.startswith("sources.orders.params: no parameter holds {start}")
    assert 'paging = "offset"' in problem
    project.set(paging="offset")
    assert read_settings().params == params


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-02-03T04:05:06", datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ("2024-02-03", datetime(2024, 2, 3, tzinfo=UTC)),
        ("2024-02-03T04:05:06+02:00", datetime(2024, 2, 3, 2, 5, 6, tzinfo=UTC)),
    ],
)
def test_the_initial_value_is_an_instant_in_utc(
    project: Project, text: str, instant: datetime
) -> None:
    """A time without an offset must not mean another instant on another machine."""
    project.set(**CREDENTIALS, initial_value=text)

    initial_value = read_settings().initial_value

    assert initial_value == instant
    assert initial_value.utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize(
    "given",
    [
        CREDENTIALS,
        {"auth__type": "bearer", "auth__token": "s3cret-value"},
        {"auth__type": "api_key", "auth__api_key": "s3cret-value"},
        {"auth__type": "http_basic", "auth__username": "u", "auth__password": "s3cret-value"},
    ],
)
def test_settings_can_be_printed(project: Project, given: dict[str, str]) -> None:
    """They are printed by whoever looks for a mistake, and by every traceback with locals."""
    project.set(**given)

    settings = read_settings()

    assert "s3cret" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    assert "'**********'" in repr(settings)


def test_an_override_wins_and_is_checked_like_any_other_value(project: Project) -> None:
    """Tests and tools pass values; none of them gets past the checks."""
    project.set(**CREDENTIALS, page_size="50")

    assert read_settings(page_size=7).page_size == 7
    assert "sources.orders.page_size = 0 " in str(refusal(page_size=0))


def test_the_schedule_needs_no_other_setting(project: Project) -> None:
    """Dagster builds its schedule when it loads the code, where there may be no secrets yet."""
    assert read_schedule() == "0 * * * *"
    project.set(schedule="15 3 * * *", page_size="no number")
    assert read_schedule() == "15 3 * * *"
    project.set(schedule="hourly")
    with pytest.raises(SettingsError, match=r"sources\.orders\.schedule = 'hourly'.*cron"):
        read_schedule()


def test_the_alerts_need_no_other_setting(project: Project, toml: Toml) -> None:
    """A run that fails for a wrong setting is to be told, too. What is wrong with the alerts is said."""
    project.set(page_size="no number", alerts__urls='["json://s3cret-value"]')
    assert [url.get_secret_value() for url in read_alerts().urls] == ["json://s3cret-value"]
    project.set(alerts__urls="json://s3cret-value", alerts__min_severitie="warn")
    toml(config="[sources.orders.alerts]\npage = 3")

    with pytest.raises(SettingsError) as error:
        read_alerts()

    assert {problem.split()[0] for problem in error.value.problems} == {
        "sources.orders.alerts.urls",
        "sources.orders.alerts.min_severitie",
        "sources.orders.alerts.page",
    }
    assert "s3cret" not in str(error.value)


def test_a_default_does_not_count_as_configured(project: Project) -> None:
    """`make dev` starts a sandbox unless an API is configured; blank and placeholder are not."""
    assert not is_configured("base_url")
    project.set(base_url="<the shop's address>")
    assert not is_configured("base_url")
    project.set(base_url="https://shop.example.com")
    assert is_configured("base_url")


def test_each_setting_tells_where_it_was_found(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several places, the one that wins; also key by key in a table, and of dlt's own settings."""
    toml(
        secrets='[sources.orders]\nclient_id = "a"\n[destination.duckdb]\ncredentials = "x.duckdb"',
        config='[sources.orders]\npath = "/a"\npage_size = 7\n'
        "[sources.orders.retry]\nmax_retries = 5\nbackoff_factor = 1\n"
        '[pipelines.orders]\ndataset_name = "shop"',
    )
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS")
    monkeypatch.setenv(variable("page_size"), "9")
    monkeypatch.setenv(variable("retry"), '{"max_retries": 1}')

    assert read_places() == {
        "client_id": ".dlt/secrets.toml",
        "path": ".dlt/config.toml",
        "page_size": f"the environment variable {variable('page_size')}",
        "retry": f"the environment variable {variable('retry')}",
        "retry.max_retries": f"the environment variable {variable('retry')}",
        "retry.backoff_factor": ".dlt/config.toml",
        "pipelines.orders.dataset_name": ".dlt/config.toml",
        "destination.duckdb.credentials": ".dlt/secrets.toml",
    }
