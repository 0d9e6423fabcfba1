"""What the sandbox can be told: at the start, and while it runs.

Here: the options of the command line as one frozen value, checked once, and the few of them that
can be changed at run time. Not here: the command line's own words (`__main__.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .times import STYLES, read_time

SHAPES = ("orders", "bare", "nested")
AUTHS = ("oauth2", "bearer", "api_key", "http_basic", "none")

# Secrets of a fake, printed at the start: they protect nothing and are to be copied.
BEARER_TOKEN = "sandbox-token"  # noqa: S105
API_KEY = "sandbox-key"


@dataclass(frozen=True)
class SandboxOptions:
    """Every option of `python -m orders_dagster.sandbox`, under the same name."""

    host: str = "127.0.0.1"
    port: int = 8010
    ready_file: str | None = None

    # Orders
    orders: int = 2000
    seed: int = 1
    days: int = 365
    now: str | None = None
    orders_from: str | None = None
    churn: float = 0.0

    # Logging in
    auth: str = "oauth2"
    client_id: str = "sandbox"
    client_secret: str = "sandbox-secret"  # noqa: S105 - printed at the start
    token_lifetime: float = 3600

    # Paging
    max_limit: int = 1000
    page_cap: int | None = None
    unstable_ties: bool = False

    # APIs that are different
    shape: str = "orders"
    cursor_style: str = "iso"
    ignore_sort: bool = False
    ignore_filter: bool = False
    no_total: bool = False

    # Trouble
    faults: str = ""
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        _one_of("auth", self.auth, AUTHS)
        _one_of("shape", self.shape, SHAPES)
        _one_of("cursor_style", self.cursor_style, STYLES)
        _at_least("port", self.port, 0)
        if self.port > 65535:
            raise ValueError(f"port: {self.port} is beyond 65535; 0 takes a free one")
        _at_least("orders", self.orders, 0)
        _at_least("days", self.days, 0)
        _at_least("token_lifetime", self.token_lifetime, 0)
        _at_least("max_limit", self.max_limit, 1)
        if self.now is not None and read_time(self.now) is None:
            raise ValueError(f"now: {self.now!r} is no time; write it like 2025-06-30T12:00:00Z")
        Settings.of(self).check()


@dataclass
class Settings:
    """What `POST /_sandbox/settings` changes while the sandbox runs."""

    latency_ms: float
    page_cap: int | None
    ignore_sort: bool
    ignore_filter: bool
    unstable_ties: bool
    no_total: bool
    churn: float

    @classmethod
    def of(cls, options: SandboxOptions) -> Settings:
        """The settings that the sandbox starts with."""
        return cls(**{one.name: getattr(options, one.name) for one in fields(cls)})

    def changed(self, changes: dict[str, Any]) -> Settings:
        """A checked copy with the named settings changed; raises ValueError for a bad one."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in changes:
            _one_of("setting", name, tuple(values))
        settings = Settings(**(values | changes))
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ValueError for the first setting that makes no sense."""
        _at_least("latency_ms", self.latency_ms, 0)
        _at_least("churn", self.churn, 0)
        if self.page_cap is not None:
            _at_least("page_cap", self.page_cap, 1)
        for name in ("ignore_sort", "ignore_filter", "unstable_ties", "no_total"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: {getattr(self, name)!r} is neither true nor false")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is not known; choose from {', '.join(allowed)}")


def _at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise ValueError(f"{name}: {value!r} is no number from {least} up")
