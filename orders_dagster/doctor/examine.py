"""The examination: all probes in their order, the destination's too when the API is ill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from orders_dagster.doctor import answer, measure, reach, storage, window
from orders_dagster.doctor.finding import Finding, Unanswered, Unjudged, Verdict, fail, skip
from orders_dagster.doctor.known import Known
from orders_dagster.doctor.storage import Storage


@dataclass(frozen=True)
class Probe:
    """One question to the API.

    Attributes:
        settings: those to look at if a request that only this probe makes is refused.
    """

    name: str
    ask: Callable[[Known], Finding]
    settings: tuple[str, ...] = ()


API: Sequence[Probe] = (
    Probe("reach", reach.reach),
    Probe("TLS", reach.tls),
    Probe("token", reach.token),
    Probe("one page", reach.one_page),
    Probe("selector", answer.selector),
    Probe("page size", answer.page_size, ("limit_param", "page_size")),
    Probe("total", answer.total, ("limit_param",)),
    Probe("primary key", answer.primary_key),
    Probe("cursor", answer.cursor),
    Probe("filter", window.filtered, ("params", "cursor_format")),
    Probe("sort", window.sorted_by_date, ("params",)),
    Probe("start included", window.start_included, ("params", "cursor_format")),
    Probe("end excluded", window.end_excluded, ("params", "cursor_format")),
    Probe("offset", window.offset, ("offset_param",)),
    Probe("precision", measure.precision),
    Probe("clock", measure.clocks),
    Probe("rate limit", measure.rate),
)

DESTINATION: Sequence[tuple[str, Callable[[Storage], Finding]]] = (
    ("warehouse reached", storage.reached),
    ("warehouse free", storage.free),
    ("warehouse writable", storage.writable),
)

NAMES = (*(probe.name for probe in API), *(name for name, _ in DESTINATION))

Told = Callable[[str], None]


def examine_api(known: Known, starts: Told) -> Iterator[tuple[str, Finding]]:
    """Each probe of the API by its name, as it is judged."""
    for probe in API:
        starts(probe.name)
        yield probe.name, _judged(partial(probe.ask, known), probe.settings)


def examine_destination(opened: Storage, starts: Told) -> Iterator[tuple[str, Finding]]:
    """Each probe of the destination."""
    for name, ask in DESTINATION:
        starts(name)
        yield name, _judged(partial(ask, opened), ())


def _judged(ask: Callable[[], Finding], settings: tuple[str, ...]) -> Finding:
    try:
        return ask()
    except Unjudged as reason:
        return skip(str(reason))
    except Unanswered as what:
        return fail(f"asked for such a page, {what}", *settings)
    except Exception as error:
        # Its message may hold what the API has answered. The other probes are still worth asking.
        return fail(f"cannot be judged: the answer ends in {type(error).__name__}")


def worst(findings: Sequence[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    return next((v for v in (Verdict.FAIL, Verdict.WARN) if v in verdicts), Verdict.OK)
