"""The settings, `[sources.orders]`: what they are, what they may be, and where each was found.

The only reader of settings. They are looked up through dlt's own providers (environment, then
`.dlt/secrets.toml`, then `.dlt/config.toml`, then any other provider that is registered), but by
their full name only: dlt's usual lookup also tries shorter sections, and would take `path` from the
environment variable PATH.

Reading happens when it is asked for, never at import.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import dlt
from dlt.common import jsonpath
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.typing import TSecretStrValue
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from orders_dagster.errors import SettingsError

SECTION = ("sources", "orders")
MAY_BE_EMPTY = ("total_path",)  # says that the API reports no total
CURSOR_FORMATS = ("iso", "epoch_seconds", "epoch_milliseconds", "rfc2822")

SHORTEST_KEY = 32  # characters of personal_data_key; what can be guessed undoes the hashes
NEW_KEY = (
    'A new one: python -c "import secrets; print(secrets.token_hex(32))". Keep it: with another key '
    "the same value has another hash"
)

PositiveInt = Annotated[int, Field(ge=1)]


def _one_line(value: str) -> str:
    """A value that goes into a header: a line break at its end comes from a file, one inside it
    from a mistake, and requests would quote the whole secret in its error."""
    value = value.strip()
    if not value.isprintable():
        raise ValueError("must not hold a line break or another control character")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Secret = Annotated[
    SecretStr, AfterValidator(lambda secret: SecretStr(_one_line(secret.get_secret_value())))
]


def _url(value: str, example: str) -> HttpUrl:
    try:
        return TypeAdapter(HttpUrl).validate_python(value)
    except ValidationError:
        raise ValueError(f"must be an address such as {example}") from None


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OAuth2ClientCredentials(_Table):
    """`auth.type = "oauth2_client_credentials"`; the credentials themselves stand one level up."""

    type: Literal["oauth2_client_credentials"] = "oauth2_client_credentials"
    scope: str | None = None
    extra: dict[str, str] = Field(default_factory=dict)
    credentials_in: Literal["body", "basic"] = "body"


class Bearer(_Table):
    type: Literal["bearer"]
    token: Secret


class ApiKey(_Table):
    type: Literal["api_key"]
    api_key: Secret
    name: str = "Authorization"
    location: Literal["header", "cookie", "query", "param"] = "header"


class HttpBasic(_Table):
    type: Literal["http_basic"]
    username: Line
    password: Secret


class NoAuth(_Table):
    type: Literal["none"]


Auth = Annotated[
    OAuth2ClientCredentials | Bearer | ApiKey | HttpBasic | NoAuth, Field(discriminator="type")
]
AUTH_TYPES: dict[str, type[_Table]] = {
    "oauth2_client_credentials": OAuth2ClientCredentials,
    "bearer": Bearer,
    "api_key": ApiKey,
    "http_basic": HttpBasic,
    "none": NoAuth,
}


AUTH_KEYS = {name for model in AUTH_TYPES.values() for name in model.model_fields}


class Retry(_Table):
    status_codes: tuple[Annotated[int, Field(ge=400, le=599)], ...] = (429, 500, 502, 503, 504)
    max_retries: Annotated[int, Field(ge=0)] = 3
    backoff_factor: Annotated[float, Field(ge=0)] = 2.0


Severity = Literal["warn", "error"]


class CheckSeverity(_Table):
    """What a failing check is, by its name. Whether it blocks what is downstream is not a setting, as
    Dagster fixes that when the definitions are loaded; and a warning never does."""

    order_id_unique: Severity = "error"
    order_id_not_null: Severity = "error"
    items_belong_to_an_order: Severity = "error"
    last_modified_not_in_future: Severity = "warn"
    freshness: Severity = "warn"
    no_rejected_orders: Severity = "warn"
    volume_as_expected: Severity = "warn"
    schema_stable: Severity = "warn"
    reconciles_with_source: Severity = "warn"


class Alerts(_Table):
    """Who is told what is wrong. A URL is a secret: whoever has it can write there."""

    urls: tuple[Secret, ...] = ()
    min_severity: Literal["error", "warn"] = "error"
    page_url: Line = "http://127.0.0.1:3000"

    @field_validator("urls", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('must be a list, also of one: ["<URL>"]')
        return value

    @field_validator("page_url")
    @classmethod
    def _can_be_sent_to_anybody(cls, value: str) -> str:
        url = _url(value, "http://dagster.example.com:3000")
        if url.username or url.password:
            raise ValueError("must hold no user and no password: it is sent with every message")
        return value


TABLES: dict[str, type[_Table]] = {
    "retry": Retry,
    "alerts": Alerts,
    "check_severity": CheckSeverity,
}
"""Tables with the same keys always; those of `auth` depend on its type."""


class OrdersSettings(_Table):
    """The reference configuration; every default is the value of the table in the README."""

    base_url: Line = "http://127.0.0.1:8010"
    path: str = "/v1/orders"
    data_selector: str = "orders"

    client_id: Line | None = None
    client_secret: Secret | None = None
    token_url: Line | None = None
    auth: Auth = Field(default_factory=OAuth2ClientCredentials)

    primary_key: Annotated[str, Field(min_length=1)] = "order_id"
    cursor_path: Annotated[str, Field(min_length=1)] = "last_modified_date"
    cursor_format: str = "iso"
    initial_value: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    soft_delete_path: str | None = None
    lag_seconds: Annotated[float, Field(ge=0, le=10 * 366 * 86_400)] = 300

    page_size: PositiveInt = 200
    limit_param: Annotated[str, Field(min_length=1)] = "limit"
    offset_param: Annotated[str, Field(min_length=1)] = "offset"
    total_path: str = "total"
    paging: Literal["seek", "offset"] = "seek"
    params: dict[str, str | int | float | bool] = {  # pydantic copies it for each instance
        "modified_since": "{start}",
        "modified_before": "{end}",
        "sort": "last_modified_date",
    }

    personal_data: dict[str, Literal["hash", "mask", "drop"]] = {}  # as above
    personal_data_key: Secret | None = None

    retry: Retry = Field(default_factory=Retry)
    alerts: Alerts = Field(default_factory=Alerts)
    request_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60
    max_requests_per_second: Annotated[float, Field(ge=0.001)] | None = None
    workers: PositiveInt = 8
    checkpoint_orders: PositiveInt = 50_000

    schedule: str = "0 * * * *"
    reconcile: bool = True
    freshness_hours: Annotated[float, Field(gt=0)] = 24
    clock_tolerance_minutes: Annotated[float, Field(ge=0)] = 5
    volume_factor: Annotated[float, Field(gt=1)] = 3
    check_severity: CheckSeverity = Field(default_factory=CheckSeverity)
    warehouse_wait_seconds: Annotated[float, Field(ge=0)] = 300

    @field_validator("base_url", "token_url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is not None:
            _url(value, "https://api.example.com")
        return value

    @field_validator("initial_value")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        try:
            time = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise ValueError("must be a time within the calendar in UTC") from None
        if time > datetime.now(UTC):
            raise ValueError("must not be in the future: no order would ever be read")
        return time

    @field_validator("cursor_format")
    @classmethod
    def _is_a_cursor_format(cls, value: str) -> str:
        if value in CURSOR_FORMATS:
            return value
        with suppress(ValueError, re.error):
            moment = datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC)
            if "%" in value and datetime.strptime(moment.strftime(value), value):
                return value
        raise ValueError(
            f"must be one of {', '.join(CURSOR_FORMATS)}, or a strftime pattern such as %Y-%m-%d"
        )

    @field_validator("data_selector", "total_path")
    @classmethod
    def _is_a_jsonpath(cls, value: str) -> str:
        try:
            if value:
                jsonpath.compile_path(value)
        except Exception:
            raise ValueError('must be a JSONPath such as "data.sales"') from None
        return value

    @field_validator("primary_key", "cursor_path")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        return value.removeprefix("$.")

    @field_validator("personal_data", mode="before")
    @classmethod
    def _paths_joined(cls, value: Any) -> Any:
        return dict(flat(value)) if isinstance(value, dict) else value

    @field_validator("personal_data")
    @classmethod
    def _names_fields(cls, value: dict[str, str]) -> dict[str, str]:
        for path in value:
            if not all(path.split(".")):
                raise ValueError(f"{path!r} is no path such as customer.email")
            if re.search(r"\[[\d*]*\]|(^|\.)\*(\.|$)", path):
                raise ValueError(
                    f"{path!r} names the elements of a list. Leave that out: items.note is the note "
                    "of each item"
                )
        return value

    @field_validator("personal_data_key")
    @classmethod
    def _is_no_guess(cls, value: Secret | None) -> Secret | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(f"must have at least {SHORTEST_KEY} characters. {NEW_KEY}")
        return value

    @field_validator("schedule")
    @classmethod
    def _is_a_cron_schedule(cls, value: str) -> str:
        # Five fields; Dagster parses them fully when the schedule is built.
        if len(value.split()) != 5 and not value.startswith("@"):
            raise ValueError('must be a cron expression such as "0 * * * *" (every hour)')
        return value

    @model_validator(mode="after")
    def _seek_can_move_its_start(self) -> OrdersSettings:
        if self.paging == "seek" and not any("{start}" in str(v) for v in self.params.values()):
            raise ValueError(
                'params: no parameter holds {start}, which paging = "seek" moves. Name the API\'s '
                'filter on the modification date, or set paging = "offset"'
            )
        if self.paging == "seek" and self.page_size == 1:
            raise ValueError('page_size: paging = "seek" needs pages of at least 2 orders')
        return self

    @model_validator(mode="after")
    def _orders_can_be_told_apart(self) -> OrdersSettings:
        for path in self.personal_data:
            for setting in ("primary_key", "cursor_path", "soft_delete_path"):
                needed = getattr(self, setting) or "\0"
                if f"{needed}.".startswith(f"{path}.") or path.startswith(f"{needed}."):
                    raise ValueError(
                        f"personal_data: {path} covers {needed}, the {setting}, without which no "
                        f"order can be merged. Take {path} out, or name the fields beside it"
                    )
        return self

    @model_validator(mode="after")
    def _a_hash_has_a_key(self) -> OrdersSettings:
        if "hash" in self.personal_data.values() and self.personal_data_key is None:
            problem = missing("personal_data_key").removeprefix("sources.orders.")
            raise ValueError(f"{problem} {NEW_KEY}")
        return self


def flat(table: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """What is in tables in tables, by its path: TOML makes some of `customer.email` without quotes."""
    for name, value in table.items():
        path = f"{outer}{str(name).removeprefix('$.')}"
        if isinstance(value, dict) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def read_settings(**overrides: Any) -> OrdersSettings:
    """Read and check all settings.

    Args:
        overrides: values that win over every provider, by setting name (for tests and tools).

    Raises:
        SettingsError: names every missing or malformed setting, the place it was looked for or
            found in, and the fix. Values of secrets are not shown.
    """
    found = _Lookup()
    values = found.table(OrdersSettings, ()) | overrides
    problems = list(found.unknown_keys(values))
    settings: OrdersSettings | None = None
    try:
        settings = OrdersSettings(**values)
    except ValidationError as invalid:
        problems += [found.explain(error) for error in invalid.errors()]
    # Credentials are looked at even when something else is wrong: one error, not one after another.
    auth = settings.auth.type if settings else _auth_type(values)
    if auth == "oauth2_client_credentials":
        problems += [
            missing(key)
            for key in ("client_id", "client_secret", "token_url")
            if not values.get(key)
        ]
    if problems or settings is None:
        raise SettingsError(list(dict.fromkeys(problems)))
    return settings


def read_schedule() -> str:
    """The cron expression of the schedule, which is needed before a run starts.

    Raises:
        SettingsError: it is set, but is not a cron expression.
    """
    return str(_read_alone("schedule"))


def read_initial_value() -> datetime:
    """Where the first synchronisation starts, UTC: the months of a replay begin there.

    Raises:
        SettingsError: it is set, but is not a time.
    """
    found: datetime = _read_alone("initial_value")
    return found


def read_freshness() -> timedelta:
    """How old the newest order, and so the newest materialization, may be.

    Raises:
        SettingsError: it is set, but is not a number of hours.
    """
    return timedelta(hours=_read_alone("freshness_hours"))


def set_default(key: str, value: Any) -> None:
    """Set one of dlt's own options for this process, unless it is set by somebody else."""
    if dlt.config.get(key) is None:
        dlt.config[key] = value


def _read_alone(key: str) -> Any:
    """One setting, whatever the others are."""
    found = _Lookup()
    value = found.value(key, str)
    try:
        return getattr(OrdersSettings(**({} if value is None else {key: value})), key)
    except ValidationError as invalid:
        raise SettingsError([found.explain(error) for error in invalid.errors()]) from None


NO_ALERTS = (
    'No alerts are sent: sources.orders.alerts.urls is not set. Add urls = ["<URL>"] under '
    "[sources.orders.alerts] in .dlt/secrets.toml; the README shows the URLs of Slack and of email."
)


def read_alerts() -> Alerts:
    """Who is told what is wrong, whatever else is set: a run may fail for its settings.

    Raises:
        SettingsError: something is set that cannot be right. URLs are not shown.
    """
    found = _Lookup()
    values = found.nested("alerts", Alerts)
    ours = _variable("alerts.")
    problems = [problem for problem in found.unknown_keys(values) if ours in problem]
    try:
        alerts = OrdersSettings(**values).alerts
    except ValidationError as invalid:
        problems += [found.explain(error) for error in invalid.errors()]
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    return alerts


def is_configured(key: str) -> bool:
    """Whether any provider has a value for a setting, so that it is not just the default."""
    return _Lookup().value(key, str) is not None


def read_places(destination: str = "duckdb") -> dict[str, str]:
    """Where each setting that is set was found: those of [sources.orders] by their key, and dlt's own
    of a destination by their full name."""
    found = _Lookup()
    found.table(OrdersSettings, ())
    return found.places | found.places_of_dlt(destination)


def missing(key: str) -> str:
    """The message for a setting that has no value and no default."""
    *table, name = key.split(".")
    section = ".".join([*SECTION, *table])
    example = "https://api.example.com/oauth/token" if name.endswith("url") else "..."
    return (
        f"sources.orders.{key} is missing. Looked in the environment variable {_variable(key)}, "
        f"then in .dlt/secrets.toml and .dlt/config.toml under [{section}]. "
        f'Fix: add {name} = "{example}" under [{section}] in .dlt/secrets.toml, '
        "or set the variable."
    )


class _Lookup:
    """Looks settings up in dlt's providers by full name, and remembers where each was found."""

    def __init__(self) -> None:
        try:
            context = Container()[PluggableRunContext]
            self._providers: list[ConfigProvider] = list(context.providers.providers)
        except TomlProviderReadException as unreadable:
            raise SettingsError([str(unreadable)]) from None
        self.places: dict[str, str] = {}

    def value(self, key: str, hint: Any, *, of: ConfigProvider | None = None) -> Any:
        """The raw value of a dotted key, from the first provider that has it, or None."""
        *table, name = key.split(".")
        for provider in [of] if of else self._providers:
            value, full_key = provider.get_value(name, hint, None, *SECTION, *table)
            if value is None or (_is_placeholder(value) and name not in MAY_BE_EMPTY):
                continue
            self.places[key] = _place(provider.name, full_key)
            return _plain(value)
        return None

    def table(
        self, model: type[_Table], path: tuple[str, ...], *, of: ConfigProvider | None = None
    ) -> dict[str, Any]:
        """The values of all settings of a table that are set somewhere."""
        values: dict[str, Any] = {}
        for name, field in model.model_fields.items():
            key = ".".join((*path, name))
            if name == "auth":
                kind = self._auth_type(key)
                values |= self.nested(key, AUTH_TYPES[kind])
                if isinstance(values.get(key), dict):
                    values[key].setdefault("type", kind)
            elif name in TABLES:
                values |= self.nested(key, TABLES[name])
            else:
                hint = TSecretStrValue if "Secret" in str(field.annotation) else str
                value = self.value(key, hint, of=of)
                if value is not None:
                    values[name] = self._decode(field.annotation, value)
        return values

    def places_of_dlt(self, destination: str) -> dict[str, str]:
        """Where dlt's own settings of the destination were found; its credentials whole or in parts."""
        places: dict[str, str] = {}
        for *sections, name in (
            ("pipelines", "orders", "destination_type"),
            ("pipelines", "orders", "dataset_name"),
            ("destination", destination, "credentials"),
            ("destination", destination, "credentials", "database"),
            ("destination", destination, "credentials", "host"),
        ):
            for provider in self._providers:
                value, full_key = provider.get_value(name, str, None, *sections)
                if value is not None:
                    places[".".join([*sections, name])] = _place(provider.name, full_key)
                    break
        return places

    def nested(self, key: str, model: type[_Table]) -> dict[str, Any]:
        """A table may be given whole (TOML, or JSON in one variable) and key by key; what a provider
        says wins over what those after it say, in either form."""
        values: dict[str, Any] = {}
        for provider in reversed(self._providers):
            whole = self.value(key, dict, of=provider)
            whole = self._decode(dict, whole) if whole is not None else {}
            if not isinstance(whole, dict):
                return {key: whole}
            given = {name: value for name, value in whole.items() if not _is_placeholder(value)}
            values |= given
            self.places |= {f"{key}.{name}": self.places[key] for name in given}
            values |= self.table(model, (key,), of=provider)
        if key == "auth":
            # Keys of another kind of login, from a provider that this one's type has overruled.
            values = {
                name: value
                for name, value in values.items()
                if name in model.model_fields or name not in AUTH_KEYS
            }
        return {key: values} if values else {}

    def _auth_type(self, key: str) -> str:
        whole = self._decode(dict, self.value(key, dict))
        default = whole.get("type") if isinstance(whole, dict) else None
        kind = self.value(f"{key}.type", str) or default or "oauth2_client_credentials"
        is_known = isinstance(kind, str) and kind in AUTH_TYPES
        return kind if is_known else "oauth2_client_credentials"

    @staticmethod
    def _decode(annotation: Any, value: Any) -> Any:
        """Lists and tables are JSON in the environment."""
        holds_json = "dict" in str(annotation) or "tuple" in str(annotation)
        if holds_json and isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value

    def unknown_keys(self, values: Mapping[str, Any]) -> Iterator[str]:
        """Misspelt settings: without this, a typo is silence and the default applies."""
        known = {_variable(key): key for key in _known_keys(values)}
        prefix = _variable("")
        for variable in sorted(os.environ):
            if variable.startswith(prefix) and variable not in known:
                key = variable.removeprefix(prefix).lower().replace("__", ".")
                yield _unknown(key, f"the environment variable {variable}", known.values())
        for provider in self._providers:
            table, _ = provider.get_value(SECTION[-1], dict, None, *SECTION[:-1])
            if isinstance(table, dict):
                for key in table:
                    if key not in OrdersSettings.model_fields:
                        yield _unknown(key, _place(provider.name, key), known.values())

    def _place_of(self, key: str) -> str:
        """Where a key, or the table it is in, was found."""
        parts = key.split(".")
        places = (self.places.get(".".join(parts[:n])) for n in range(len(parts), 0, -1))
        return next((place for place in places if place), "an argument")

    def explain(self, error: Any) -> str:
        """One validation error as a sentence: key, place, what is wrong, fix. Never a secret."""
        path = [str(part) for part in error["loc"]]
        if path[:1] == ["auth"] and path[1:2] and path[1] in AUTH_TYPES:
            del path[1]  # pydantic says which kind of table it took it for
        if path[:1] == ["params"] and len(path) > 2:
            path = path[:2]  # and which of the types of a parameter it tried
            error = error | {"msg": "must be text, a number, true or false"}
        key = ".".join(path)
        if not path:
            return f"sources.orders.{error['msg'].removeprefix('Value error, ')}."
        if error["type"] == "missing":
            return missing(key)
        place = self._place_of(key)
        if error["type"] == "extra_forbidden":
            return _unknown(key, place, _known_keys({}))
        if error["type"] == "union_tag_invalid":  # the table is what is wrong, its type is why
            place = self._place_of(f"{key}.type")
            names = ", ".join(AUTH_TYPES)
            given = error["input"].get("type") if isinstance(error["input"], dict) else None
            return f"sources.orders.{key}.type = {given!r} (from {place}) is none of {names}."
        shown = f" = {error['input']!r}" if _may_be_shown(key, error["input"]) else ""
        what = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
        return f"sources.orders.{key}{shown} (from {place}) is not valid: {what}. Correct it there."


def _auth_type(values: Mapping[str, Any]) -> str:
    auth = values.get("auth") or {}
    return str(auth.get("type", "oauth2_client_credentials")) if isinstance(auth, dict) else ""


def _known_keys(values: Mapping[str, Any]) -> list[str]:
    auth = AUTH_TYPES.get(_auth_type(values), OAuth2ClientCredentials)
    nested = [f"auth.{name}" for name in auth.model_fields]
    nested += [f"{table}.{name}" for table in TABLES for name in TABLES[table].model_fields]
    return [*OrdersSettings.model_fields, *nested]


def _unknown(key: str, place: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    hint = f" Did you mean {close[0]}?" if close else " The README has a table of all settings."
    return f"sources.orders.{key} (from {place}) is not a setting.{hint}"


def _variable(key: str) -> str:
    return "__".join([*SECTION, *key.split(".")]).upper()


def _place(provider: str, full_key: str) -> str:
    if provider == "Environment Variables":
        return f"the environment variable {full_key}"
    return f".dlt/{provider}" if provider.endswith(".toml") else provider


def _plain(value: Any) -> Any:
    """TOML values carry their formatting along; take the plain value."""
    return value.unwrap() if hasattr(value, "unwrap") else value


def _is_placeholder(value: Any) -> bool:
    """A value copied from the example file and not filled in counts as missing."""
    return isinstance(value, str) and (not value.strip() or bool(re.fullmatch(r"<.*>", value)))


def _may_be_shown(key: str, value: Any) -> bool:
    """Numbers, and texts that cannot hold a secret: no table, no credential, no address with one."""
    secrets = {"client_secret", "token", "api_key", "password", "client_id", "username"}
    secrets.add("personal_data_key")
    table, _, name = key.rpartition(".")
    if key.startswith("alerts.urls"):
        return False
    if isinstance(value, str):
        whole = key in ("auth", "params", "auth.extra", *TABLES)
        holds_more = whole or table in ("params", "auth")
        return name not in secrets and not holds_more and not {"@", "?"} & set(value)
    return isinstance(value, (int, float)) and name not in secrets
