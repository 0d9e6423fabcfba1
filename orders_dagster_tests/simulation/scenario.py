"""What a seed decides, before anything runs: the shop, its server, the settings, the runs.

Everything stays within what the README says an API must offer: changes carry a date that is not
older than the lag, dates of one order never go back, and a filter that excludes its start comes with
a lag. The exception is a deceitful server, which ignores the sort or the filter: there a run may stop
for good, but not be green and wrong. On pages of a few orders these may be in place by chance, as the
README says, so such a server gets pages that can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

HISTORIES = ("even", "gap", "sale day", "bulk edits", "one timestamp", "last minutes")
TELLING_PAGE = 20
MISHAPS = ("some lost", "some lost", "a time lost", "without their items", "emptied", "dropped")
ONE_STORY_IN = 25  # how rare the rarest oddities are

WITH_END = {
    "modified_since": "{start}",
    "modified_before": "{end}",
    "sort": "last_modified_date",
}
WITHOUT_END = {"modified_since": "{start}", "sort": "last_modified_date"}


@dataclass(frozen=True)
class Kill:
    """Where SIGKILL strikes a run: at the n-th `kind` of event, or after so many seconds.

    Kinds: "request" (when it arrives), "file" (opened, renamed, removed, ...), "statement" (before the
    warehouse gets it) and "answered" (after), "line" (of progress, `seconds` after it), "time".
    """

    kind: str
    n: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.kind == "time":
            return f"after {self.seconds:.3f} s"
        after = f" and {self.seconds:.3f} s" if self.kind == "line" else ""
        return f"at {self.kind} {self.n}{after}"


@dataclass(frozen=True)
class RunPlan:
    """One run: how busy the shop is, how bad the wire, and the kill."""

    seed: str
    changes_before: int
    change_chance: float
    fault_chance: float
    outage_at: int | None
    token_lifetime: float
    kill: Kill | None


@dataclass(frozen=True)
class Mishap:
    """What befalls the shop and the warehouse after the last run.

    Attributes:
        deleted: so many orders, in the shop.
        back: so many of those that the shop had deleted, created anew.
        kind: what befalls the warehouse: one of `MISHAPS`.
        run: a repair that is killed or disturbed, before the one that is judged.
    """

    deleted: int
    back: int
    kind: str
    run: RunPlan | None


@dataclass(frozen=True)
class Scenario:
    """One seed."""

    seed: int
    orders: int
    history: str
    whole_ids: bool
    whole_amounts_first: bool
    future_orders: int
    options: dict[str, Any]
    excludes_start: bool
    includes_end: bool
    skew_seconds: float
    lag_seconds: int
    settings: dict[str, Any]
    runs: tuple[RunPlan, ...]
    mishap: Mishap | None

    @property
    def is_comparable(self) -> bool:
        """The API can say how many orders it has in a window."""
        has_end = "{end}" in self.settings["params"].values()
        return bool(self.settings["paging"] == "seek" and has_end and self.settings["total_path"])

    @property
    def has_other_edges(self) -> bool:
        """The filter does not include the start of a window, or not exclude its end."""
        return self.excludes_start or self.includes_end

    @property
    def is_deceitful(self) -> bool:
        """The server ignores what the settings rely on."""
        ignores = self.options["ignore_sort"] or self.options["ignore_filter"]
        return bool(ignores and self.settings["paging"] == "seek")

    @property
    def cursor_style(self) -> str:
        return str(self.options["cursor_style"])

    @property
    def tick_us(self) -> int:
        """The precision of the shop's dates."""
        return 1_000_000 if self.cursor_style in ("epoch_seconds", "rfc2822") else 1_000


def scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = Random(f"scenario {seed}")
    options = _server(rng)
    excludes_start, includes_end = _rare(rng), _rare(rng)
    coarse = options["cursor_style"] in ("epoch_seconds", "rfc2822")
    lag = rng.choice((2, 60, 300) if coarse or excludes_start else (0, 0, 1, 60, 300, 300))
    orders = rng.choice((0, 1, rng.randint(2, 60), *(rng.randint(50, 400) for _ in range(5))))
    settings, page = _settings(rng, options, orders)
    if page:
        options["page_cap"] = page
    return Scenario(
        seed=seed,
        orders=orders,
        history=rng.choice(HISTORIES),
        whole_ids=rng.random() < 0.3,
        whole_amounts_first=rng.random() < 0.3,
        future_orders=rng.randint(1, 5) if _rare(rng) else 0,
        options=options,
        excludes_start=excludes_start,
        includes_end=includes_end,
        skew_seconds=rng.uniform(-lag / 4, lag / 4) if lag >= 60 else 0.0,
        lag_seconds=lag,
        settings=settings | {"lag_seconds": lag},
        runs=tuple(_run(rng, f"{seed}/{n}") for n in range(rng.choice((1, 2, 2, 3)))),
        mishap=_mishap(Random(f"mishap {seed}"), seed),
    )


def _rare(rng: Random, one_in: int = ONE_STORY_IN) -> bool:
    return rng.randrange(one_in) == 0


def _server(rng: Random) -> dict[str, Any]:
    style = rng.choices(
        ("iso", "epoch_milliseconds", "epoch_seconds", "rfc2822", "offset"), (60, 12, 10, 6, 12)
    )[0]
    return {
        "orders": 0,
        "cursor_style": style,
        "shape": rng.choices(("orders", "nested", "bare"), (70, 20, 10))[0],
        "no_total": rng.random() < 0.15,
        "unstable_ties": rng.random() < 0.2,
        "ignore_sort": False,
        "ignore_filter": False,
        "page_cap": None,
    }


def _settings(rng: Random, options: dict[str, Any], orders: int) -> tuple[dict[str, Any], int]:
    """Settings that fit the server, and the page size it caps at, 0 for none."""
    # At most some 60 pages a run: a seed is to take a second, not a minute.
    smallest = max(2, orders // 60)
    size = max(smallest, rng.choice((2, 3, 7, 20, 50, 100, 200)))
    cap = rng.randint(min(smallest, size), size) if rng.random() < 0.3 else 0
    if orders <= 60 and _rare(rng):
        cap = 1
    settings: dict[str, Any] = {
        "page_size": size,
        "workers": rng.choice((1, 1, 2, 8)),
        "checkpoint_orders": 50_000,
        "paging": "seek",
        "params": rng.choice((WITH_END, WITH_END, WITHOUT_END)),
        "cursor_format": {"offset": "iso"}.get(
            options["cursor_style"], str(options["cursor_style"])
        ),
    }
    if rng.random() < 0.6:
        settings["checkpoint_orders"] = max(5, orders // rng.choice((1, 2, 3, 4)))
    if rng.random() < 0.08:
        settings |= {"paging": "offset", "params": rng.choice(({}, {"sort": "order_id"}))}
        options |= {"ignore_sort": rng.random() < 0.5, "ignore_filter": rng.random() < 0.5}
    elif _rare(rng):
        options[rng.choice(("ignore_sort", "ignore_filter"))] = True
        if options["ignore_sort"]:
            settings["page_size"] = max(size, TELLING_PAGE)
            cap = max(cap, TELLING_PAGE) if cap else 0
    return settings | _shape(options), cap


def _shape(options: dict[str, Any]) -> dict[str, Any]:
    shape = options["shape"]
    selector = {"orders": "orders", "nested": "data.sales", "bare": "$"}[shape]
    total = {"orders": "total", "nested": "paging.total", "bare": ""}[shape]
    return {"data_selector": selector, "total_path": "" if options["no_total"] else total}


def _run(rng: Random, seed: str) -> RunPlan:
    return RunPlan(
        seed=seed,
        changes_before=rng.choice((0, 0, 1, 5, 40)),
        change_chance=rng.choice((0.0, 0.1, 0.3, 1.0)),
        fault_chance=rng.choice((0.0, 0.0, 0.03, 0.1, 0.3)),
        outage_at=rng.randint(1, 30) if rng.random() < 0.1 else None,
        token_lifetime=rng.choice((3600, 3600, 3600, 2, 0.3)),
        kill=_kill(rng) if rng.random() < 0.65 else None,
    )


def _mishap(rng: Random, seed: int) -> Mishap | None:
    if rng.random() < 0.7:
        return None
    return Mishap(
        deleted=rng.choice((0, 1, 3, 10)),
        back=rng.choice((0, 0, 1, 3)),
        kind=rng.choice(MISHAPS),
        run=_run(rng, f"{seed}/mishap") if rng.random() < 0.5 else None,
    )


def _kill(rng: Random) -> Kill:
    kind = rng.choice(("request", "file", "file", "statement", "answered", "line", "time"))
    if kind == "request":
        return Kill(kind, int(rng.paretovariate(0.6)))
    if kind == "file":  # a run has about 650 of them, and 500 more with each checkpoint
        return Kill(kind, rng.randint(1, rng.choice((700, 700, 2500))))
    if kind in ("statement", "answered"):  # about 40, and 30 more
        return Kill(kind, rng.randint(1, rng.choice((45, 45, 150))))
    if kind == "line":  # "Read", "Normalized, loading": what follows is the load
        return Kill(kind, rng.choice((1, 2, 2, 2, 4, 4, 6)), rng.uniform(0, 0.12))
    return Kill(kind, seconds=rng.uniform(0, 0.7))
