"""The settings as they were resolved: each with its value, as it may be shown, and where it was found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orders_dagster.api.query import not_shown, templates
from orders_dagster.doctor.storage import Storage
from orders_dagster.settings import OrdersSettings, flat, read_places

MASK = "****"
DEFAULT = "default"
_SECRET = re.compile(
    r"secret|token|key|passw|pwd|signature|auth|username|client_id|salt|credential", re.IGNORECASE
)
_NO_SECRET = ("primary_key", "token_url", "auth.type", "auth.credentials_in")

_OPEN_TABLES = ("params", "auth.extra", "personal_data")


@dataclass(frozen=True)
class Resolved:
    """One setting."""

    key: str
    value: str
    source: str


def resolved(settings: OrdersSettings, redact: Callable[[str], str]) -> list[Resolved]:
    """All settings, in the order of the README's table.

    Args:
        redact: makes an address showable.
    """
    places = read_places()
    hidden = {f"params.{name}" for name in not_shown(templates(settings.params))}
    return [
        Resolved(key, MASK if key in hidden else _shown(key, value, redact), _source(key, places))
        for key, value in flat(settings.model_dump(mode="json"))
    ]


def resolved_of_dlt(storage: Storage) -> list[Resolved]:
    """The settings of the destination, as dlt has resolved them."""
    places = read_places(storage.name)
    name, kind = storage.name, storage.kind
    values = {
        "pipelines.orders.destination_type": name if name == kind else f"{name} ({kind})",
        "pipelines.orders.dataset_name": storage.dataset,
        f"destination.{name}.credentials": storage.place if kind == "duckdb" else MASK,
    }
    return [Resolved(key, value, _source(key, places)) for key, value in values.items()]


def _source(key: str, places: Mapping[str, str]) -> str:
    """Where a key was found, or the table that holds it if its keys are the user's own."""
    table = next((table for table in _OPEN_TABLES if key.startswith(f"{table}.")), key)
    parts = (place for part, place in places.items() if part.startswith(f"{key}."))
    return places.get(key) or places.get(table) or next(parts, DEFAULT)


def _shown(key: str, value: Any, redact: Callable[[str], str]) -> str:
    if value is None or value == {}:
        return "–"
    table, _, name = key.rpartition(".")
    is_open = key.startswith("personal_data.") or key in _NO_SECRET
    if table == "auth.extra" or (_SECRET.search(name) and not is_open):
        return MASK
    if isinstance(value, str):
        return redact(value) if "://" in value or "?" in value else value
    return json.dumps(value)
