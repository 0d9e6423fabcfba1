"""The doctor, before APIs and warehouses that are wrong in one way each: it names that one, the setting to
change, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orders_dagster.cli import main
from orders_dagster.destination import orders_pipeline
from orders_dagster.doctor.examine import NAMES, examine_api, worst
from orders_dagster.doctor.known import Known
from orders_dagster.local import free_port
from orders_dagster.settings import read_settings
from orders_dagster_tests.small_api import Answer, Api, Refusal
from orders_dagster_tests.world import Project, Shop, holder

CERTIFICATES = Path(__file__).parent / "certificates"
README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

PAGE = 20
BEGINNING = datetime(
    2024, 1, 13, 6, tzinfo=UTC
)  # from the 13th on, no day can be taken for a month
OF_THE_API = NAMES[: NAMES.index("warehouse reached")]
NEEDS_A_PAGE = OF_THE_API[OF_THE_API.index("one page") + 1 : OF_THE_API.index("clock")]
MOST_REQUESTS = 13  # a dozen, and one for the token


@dataclass(frozen=True)
class Examination:
    """What the doctor prints with --json."""

    exit_code: int | None
    output: str
    document: dict[str, Any]

    @property
    def probes(self) -> dict[str, dict[str, Any]]:
        return {probe["probe"]: probe for probe in self.document["probes"]}

    @property
    def wrong(self) -> dict[str, str]:
        """The verdicts of the probes that are not OK."""
        return {name: p["verdict"] for name, p in self.probes.items() if p["verdict"] != "OK"}


def examine() -> Examination:
    """`orders-dagster doctor --json`."""
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    found = Examination(result.exit_code, result.output, json.loads(result.stdout))
    assert tuple(found.probes) == NAMES
    return no_more_than_it_may(found)


def examine_api_only() -> Examination:
    """The same without the command and the warehouse, which takes half a second."""
    known = Known(read_settings())
    found = dict(examine_api(known, lambda probe: None))
    document = {
        "verdict": worst([*found.values()]),
        "probes": [{"probe": name} | asdict(finding) for name, finding in found.items()],
        "requests": len(known.wire.exchanges),
    }
    assert tuple(found) == OF_THE_API
    text = json.dumps(document)
    return no_more_than_it_may(Examination(None, text, json.loads(text)))


def no_more_than_it_may(found: Examination) -> Examination:
    """Nothing that the doctor prints is a value of an order, ever, and it asks for little."""
    assert not re.search(r"ORD-|customers\.example|2024-01-[123]", found.output), found.output
    assert found.document["requests"] <= MOST_REQUESTS
    return found


def order(n: int, **fields: Any) -> dict[str, Any]:
    """The n-th of the shop's orders, 8 hours after the one before it; every 15th
    is dated as that one is."""
    at = BEGINNING + timedelta(hours=8 * (n - (n % 15 == 14)), milliseconds=1123 * (n + 1))
    if n % 15 == 14:
        at -= timedelta(milliseconds=1123)
    return {
        "order_id": f"ORD-{n}",
        "number": 70_000 + n,
        "customer": {"email": f"{n}@customers.example"},
        "last_modified_date": at.isoformat(timespec="milliseconds"),
        "items": [{"sku": "A"}],
    } | fields


ORDERS = [order(n) for n in range(60)]


def read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return datetime.strptime(text, "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC)


def honest(query: dict[str, str], orders: list[dict[str, Any]] = ORDERS, **how: Any) -> Any:
    """A page of an API that keeps to everything, but for `how`."""
    cut: Callable[[datetime], datetime] = how.get("cut", lambda time: time)
    dates = [o["last_modified_date"] for o in ORDERS]
    if "filters_by" in how:
        dates = [o[how["filters_by"]] for o in orders]
    at = [cut(datetime.fromisoformat(date)) for date in dates]
    found = list(zip(orders, at, strict=False))
    if "modified_since" in query and not how.get("ignores_filter"):
        start = cut(read(query["modified_since"]) + how.get("zone", timedelta()))
        found = [
            (o, t) for o, t in found if t > start or (t == start and "excludes_start" not in how)
        ]
    if "modified_before" in query and not {"ignores_filter", "ignores_end"} & set(how):
        end = cut(read(query["modified_before"]) + how.get("zone", timedelta()))
        end -= how.get("ends_early", timedelta())
        found = [(o, t) for o, t in found if t < end or (t == end and "includes_end" in how)]
    if how.get("ignores_sort"):
        random.Random(1).shuffle(found)
    if how.get("newest_first"):
        found.reverse()
    offset, limit = int(query.get("offset", 0)), int(query.get("limit", 50))
    limit = how["always"] if "always" in how else min(limit, how.get("cap", 1000))
    offset *= how.get("skips_times", 1)
    rows = [o for o, _ in found[offset : offset + limit]]
    total = len(orders) if how.get("counts_all") else how.get("counts", int)(len(found))
    return {"orders": rows, "total": len(rows) if how.get("counts_page") else total}


def changed(**fields: Callable[[int], Any]) -> list[dict[str, Any]]:
    """The orders with other fields; None takes a field away."""
    made = [order(n) | {name: make(n) for name, make in fields.items()} for n in range(60)]
    return [{name: value for name, value in o.items() if value is not None} for o in made]


def with_dates(pattern: str) -> list[dict[str, Any]]:
    return changed(
        last_modified_date=lambda n: datetime.fromisoformat(
            ORDERS[n]["last_modified_date"]
        ).strftime(pattern)
    )


def whole_days(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def whole_seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)


@pytest.fixture
def serve(project: Project) -> Iterator[Callable[..., Api]]:
    """Starts an API that is honest but for some ways, and points the project at it."""
    with ExitStack() as stack:

        def start(
            answer: Callable[[dict[str, str]], Answer] | None = None,
            certificate: str | None = None,
            **how: Any,
        ) -> Api:
            pem = CERTIFICATES / f"{certificate}.pem" if certificate else None
            api = Api(answer or (lambda query: honest(query, **how)), pem)
            stack.enter_context(api.running())
            project.point_at(api.url, login=False)
            project.set(page_size=PAGE)
            return api

        yield start


@dataclass(frozen=True)
class Case:
    """An API that is wrong in one way, and what is to be said of it."""

    name: str
    how: dict[str, Any]
    probe: str
    verdict: str
    settings: list[str]
    suggestion: str | None = None
    skipped: tuple[str, ...] = ()


WINDOWS = ("filter", "sort", "start included", "end excluded")
DATES = [str(o["last_modified_date"]) for o in ORDERS]
MANY_CHANGED_LATER = changed(created=lambda n: DATES[n - 10 if n % 3 == 0 and n >= 10 else n])
SOME_WITHOUT_ID = changed(order_id=lambda n: f"ORD-{n}" if n % (PAGE // 2) else None)
IDS_OF_NO_USE = changed(order_id=lambda n: [f"ORD-{n}"])
IDS_TWICE = changed(order_id=lambda n: f"ORD-{n // 2}")
ID_CALLED_ID = changed(order_id=lambda n: None, id=lambda n: f"ORD-{n}")
DATE_IN_META = changed(
    last_modified_date=lambda n: None,
    meta=lambda n: {"updatedAt": DATES[n], "createdAt": "2023-05-05"},
)
SOME_UNDATED = changed(last_modified_date=lambda n: "soon" if n % 5 == 3 else DATES[n])
OWN_DATES = with_dates("%Y|%j|%H|%M")
DATES_BY_DAY_FIRST = with_dates("%d/%m/%Y %H:%M:%S")
DAYS = with_dates("%Y-%m-%d")

DAY_FIRST = 'cursor_format = "%d/%m/%Y %H:%M:%S"'
FORMAT = ["cursor_format", "cursor_path"]
CASES = [
    Case("a page is capped", {"cap": 10}, "page size", "WARN", ["page_size"], "page_size = 10"),
    Case("limit ignored", {"always": 25}, "page size", "WARN", ["limit_param"]),
    Case("limit ignored, by chance right", {"always": PAGE}, "page size", "WARN", ["limit_param"]),
    Case("total of the page", {"counts_page": True}, "total", "WARN", ["total_path"]),
    Case("ids missing", {"orders": SOME_WITHOUT_ID}, "primary key", "WARN", ["primary_key"]),
    Case(
        "ids twice",
        {"orders": IDS_TWICE},
        "primary key",
        "FAIL",
        ["primary_key"],
        'primary_key = "number"',
    ),
    Case(
        "another id",
        {"orders": ID_CALLED_ID},
        "primary key",
        "FAIL",
        ["primary_key"],
        'primary_key = "id"',
    ),
    Case(
        "ids that are lists",
        {"orders": IDS_OF_NO_USE},
        "primary key",
        "FAIL",
        ["primary_key"],
        'primary_key = "number"',
    ),
    Case(
        "another date",
        {"orders": DATE_IN_META},
        "cursor",
        "FAIL",
        ["cursor_path"],
        'cursor_path = "meta.updatedAt"',
    ),
    Case("some dates unreadable", {"orders": SOME_UNDATED}, "cursor", "WARN", ["cursor_path"]),
    Case(
        "dates unreadable",
        {"orders": OWN_DATES},
        "cursor",
        "FAIL",
        FORMAT,
        "",
        (*WINDOWS, "precision"),
    ),
    Case(
        "dates in another way",
        {"orders": DATES_BY_DAY_FIRST, "cut": whole_seconds},
        "cursor",
        "FAIL",
        FORMAT,
        DAY_FIRST,
    ),
    Case(
        "filter ignored",
        {"ignores_filter": True},
        "filter",
        "FAIL",
        ["params"],
        skipped=("start included", "end excluded"),
    ),
    Case(
        "the number is of all orders",
        {"counts_all": True},
        "filter",
        "FAIL",
        ["total_path"],
    ),
    Case("a number of items", {"counts": lambda n: 3 * n}, "filter", "FAIL", ["total_path"]),
    Case("a number with five more", {"counts": lambda n: n + 5}, "filter", "FAIL", ["total_path"]),
    Case(
        "filter in a zone behind",
        {"zone": timedelta(hours=-10)},
        "filter",
        "FAIL",
        ["params", "cursor_format"],
        "does the filter read dates in another time zone than they are written in?",
        skipped=("start included", "end excluded"),
    ),
    Case(
        "end in a zone behind",
        {"ends_early": timedelta(hours=1)},
        "end excluded",
        "FAIL",
        ["params", "cursor_format"],
    ),
    Case(
        "filter goes by the creation",
        {"orders": MANY_CHANGED_LATER, "filters_by": "created"},
        "filter",
        "FAIL",
        ["params"],
        skipped=("start included", "end excluded"),
    ),
    Case(
        "filter in another zone",
        {"zone": timedelta(hours=2)},
        "start included",
        "FAIL",
        ["params", "cursor_format"],
        skipped=("end excluded",),
    ),
    Case("sort ignored", {"ignores_sort": True}, "sort", "FAIL", ["params"]),
    Case("newest first", {"newest_first": True}, "sort", "FAIL", ["params"], "the other direction"),
    Case("start excluded", {"excludes_start": True}, "start included", "WARN", ["params"]),
    Case("end ignored", {"ignores_end": True}, "end excluded", "FAIL", ["params"]),
    Case("end included", {"includes_end": True}, "end excluded", "WARN", ["params"]),
    Case("offset ignored", {"skips_times": 0}, "offset", "FAIL", ["offset_param"]),
    Case("offset counts pages", {"skips_times": PAGE}, "offset", "FAIL", ["offset_param"]),
    Case("offset skips too many", {"skips_times": 3}, "offset", "FAIL", ["offset_param"]),
    Case(
        "dates are days",
        {"orders": DAYS, "cut": whole_days},
        "precision",
        "WARN",
        ["cursor_path"],
    ),
    Case(
        "filter by days",
        {"cut": whole_days},
        "precision",
        "FAIL",
        ["cursor_format"],
        'cursor_format = "%Y-%m-%d"',
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_wrong_is_named_and_nothing_else(serve: Callable[..., Api], case: Case) -> None:
    """A doctor that finds five things for one cause, or none, is of no use."""
    serve(**case.how)

    found = examine_api_only()

    assert found.wrong == {case.probe: case.verdict} | dict.fromkeys(case.skipped, "SKIP")
    probe = found.probes[case.probe]
    assert probe["settings"] == [f"sources.orders.{name}" for name in case.settings]
    assert case.suggestion is None or probe["suggestion"] == case.suggestion
    assert found.document["verdict"] == case.verdict


def test_an_honest_api_is_well(serve: Callable[..., Api]) -> None:
    """The API of the cases above, without a fault: what they find is the fault."""
    serve()

    assert examine_api_only().wrong == {}


def test_a_healthy_shop_and_warehouse_are_well_and_nothing_is_left_behind(
    project: Project, shop: Callable[..., Shop]
) -> None:
    """The reference configuration: exit code 0, few requests, no file, no order loaded."""
    store = shop(orders=600)

    found = examine()

    assert (found.exit_code, found.wrong, found.document["verdict"]) == (0, {}, "OK")
    assert len(store.requests()) == found.document["requests"] <= 8
    assert not project.database.exists()
    assert not list(project.directory.glob("*.wal"))


def test_a_warehouse_in_use_is_left_as_it_is(project: Project, shop: Callable[..., Shop]) -> None:
    """The doctor writes beside the orders, and takes it away again."""
    shop(orders=600)
    project.synchronise()
    tables = "SELECT schema_name, table_name, estimated_size FROM duckdb_tables() ORDER BY ALL"
    before = project.query(tables), project.orders()

    found = examine()

    assert found.wrong == {}
    assert "in ecommerce" in found.probes["warehouse writable"]["message"]
    assert (project.query(tables), project.orders()) == before


# --- the way to the API


def test_a_host_that_is_not_there(project: Project) -> None:
    """Nothing can be said of the API then, but of the warehouse all."""
    project.point_at(f"http://127.0.0.1:{free_port()}", login=False)

    found = examine()

    skipped = {"TLS", "one page", *NEEDS_A_PAGE, "clock", "rate limit"}
    assert found.wrong == {"reach": "FAIL"} | dict.fromkeys(skipped, "SKIP")
    assert found.probes["reach"]["settings"] == ["sources.orders.base_url"]
    assert "connection refused" in found.probes["reach"]["message"]
    assert all(found.probes[name]["message"] for name in skipped)
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("certificate", "is_trusted", "words", "setting"),
    [
        ("valid", False, "nobody this machine trusts", "REQUESTS_CA_BUNDLE"),
        ("expired", True, "not valid today", "sources.orders.base_url"),
        ("elsewhere", True, "for another name", "sources.orders.base_url"),
    ],
)
def test_a_certificate_that_is_not_accepted(
    serve: Callable[..., Api],
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    is_trusted: bool,
    words: str,
    setting: str,
) -> None:
    """It tells what is wrong with it: the three have different people who can mend them."""
    serve(certificate=certificate)
    if is_trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATES / f"{certificate}.pem"))

    found = examine_api_only()

    skipped = ("one page", *NEEDS_A_PAGE, "clock", "rate limit")
    assert found.wrong == {"TLS": "FAIL"} | dict.fromkeys(skipped, "SKIP")
    assert words in found.probes["TLS"]["message"]
    assert found.probes["TLS"]["settings"] == [setting]


def test_a_certificate_that_is_trusted(
    serve: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that the doctor names is the one that helps."""
    serve(certificate="valid")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATES / "valid.pem"))

    assert examine_api_only().wrong == {}


def test_an_address_of_tls_where_there_is_none(serve: Callable[..., Api], project: Project) -> None:
    """https in the setting, http on the server."""
    project.set(base_url=serve().url.replace("http", "https"))

    found = examine_api_only()

    assert found.probes["TLS"]["verdict"] == "FAIL"
    assert "does not speak TLS" in found.probes["TLS"]["message"]
    assert found.probes["reach"]["verdict"] == "OK"


def test_orders_that_travel_unencrypted(serve: Callable[..., Api], project: Project) -> None:
    """Between this machine and another one (here: this one, by a name that does not look like it)."""
    project.set(base_url=serve().url.replace("127.0.0.1", "0x7f000001"))

    found = examine_api_only()

    assert found.wrong == {"TLS": "WARN"}
    assert found.probes["TLS"]["settings"] == ["sources.orders.base_url"]
    assert 'base_url = "https://' in found.probes["TLS"]["suggestion"]


@pytest.mark.parametrize(
    ("settings", "fault", "named"),
    [
        ({"client_secret": "wr0ng-s3cret"}, "", ["client_id", "client_secret", "auth"]),
        ({"token_url": "{url}/token"}, "", ["token_url"]),
        ({"token_url": "http://127.0.0.1:9/token"}, "", ["token_url"]),
        ({}, "token.nobody", ["token_url"]),
    ],
    ids=[
        "a wrong secret",
        "a wrong address",
        "an address where nothing is",
        "no token in the answer",
    ],
)
def test_no_token(
    project: Project,
    shop: Callable[..., Shop],
    settings: dict[str, str],
    fault: str,
    named: list[str],
) -> None:
    """Each has its own setting, and the secret is in no message."""
    store = shop(orders=30)
    project.set(**{name: value.format(url=store.url) for name, value in settings.items()})
    if fault:
        store.script(fault)

    found = examine_api_only()

    skipped = ("one page", *NEEDS_A_PAGE)
    assert found.wrong == {"token": "FAIL"} | dict.fromkeys(skipped, "SKIP")
    assert found.probes["token"]["settings"] == [f"sources.orders.{name}" for name in named]
    assert "s3cret" not in found.output


def test_an_end_that_is_refused_is_named(project: Project, shop: Callable[..., Shop]) -> None:
    """The first page needs none, so that it is met only when windows are cut."""
    shop(orders=300)
    ends = {"modified_since": "{start}", "until": "{end}", "sort": "last_modified_date"}
    project.set(params=ends)

    found = examine_api_only()

    assert found.wrong == {"end excluded": "FAIL"}
    assert "with until, it answers 400" in found.probes["end excluded"]["message"]
    assert found.probes["end excluded"]["settings"][0] == "sources.orders.params"


def test_a_page_for_people_is_no_page_of_orders(serve: Callable[..., Api]) -> None:
    """Whoever is not logged in is often led to where people log in: 200, and HTML."""
    api = serve()
    api.login_page = "/login"

    found = examine_api_only()

    assert found.wrong == {"one page": "FAIL"} | dict.fromkeys(NEEDS_A_PAGE, "SKIP")
    message = found.probes["one page"]["message"]
    assert f"it redirects to {api.url}/login, as to a login" in message
    assert "no JSON (text/html)" in message


STRICT = {"modified_since": "{start}", "modified_before": "{end}", "sort": "last_modified_date"}


@pytest.mark.parametrize(
    ("options", "settings", "named", "words"),
    [
        ({}, {"path": "/v2/orders"}, "path", "404"),
        ({}, {"params": STRICT | {"expand": "items"}}, "params", "without the parameter expand"),
        ({"max_limit": 100}, {}, "page_size", "limit=200"),
        ({}, {"limit_param": "per_page"}, "limit_param", "without the parameter per_page"),
    ],
    ids=["a wrong path", "an unknown parameter", "too large a page", "an unknown limit"],
)
def test_no_page(
    project: Project,
    shop: Callable[..., Shop],
    options: dict[str, Any],
    settings: dict[str, Any],
    named: str,
    words: str,
) -> None:
    """The API only says that it does not want the request; which part of it is found by leaving it out."""
    shop(orders=300, **options)
    project.set(**settings)

    found = examine_api_only()

    assert found.wrong == {"one page": "FAIL"} | dict.fromkeys(NEEDS_A_PAGE, "SKIP")
    assert found.probes["one page"]["settings"] == [f"sources.orders.{named}"]
    assert words in found.probes["one page"]["message"]


def test_credentials_that_may_not_read_orders(serve: Callable[..., Api], project: Project) -> None:
    """A key that the API refuses shows with the first page, and is not shown."""
    serve(lambda query: Refusal(403))
    project.set(auth__type="bearer", auth__token="s3cret-token")

    found = examine_api_only()

    assert found.wrong == {"one page": "FAIL"} | dict.fromkeys(NEEDS_A_PAGE, "SKIP")
    assert found.probes["one page"]["settings"] == ["sources.orders.auth"]
    assert "s3cret" not in found.output


@pytest.mark.parametrize(
    ("total_path", "wrong"),
    [("", {"selector": "WARN"}), ("total", {"selector": "WARN", "total": "FAIL"})],
)
def test_a_page_without_content(
    serve: Callable[..., Api], project: Project, total_path: str, wrong: dict[str, str]
) -> None:
    """Nothing was found, where the API says so by a 204."""
    serve(lambda query: Refusal(204))
    project.set(total_path=total_path)

    found = examine_api_only()

    assert {name: verdict for name, verdict in found.wrong.items() if verdict != "SKIP"} == wrong
    assert "the answer is empty" in found.probes["selector"]["message"]


def test_a_page_that_is_no_json(shop: Callable[..., Shop]) -> None:
    """A gateway's page in place of the API's."""
    shop(orders=30).script("garble", "garble", "garble")

    found = examine_api_only()

    assert found.probes["one page"]["verdict"] == "FAIL"
    assert found.probes["one page"]["settings"] == [
        "sources.orders.base_url",
        "sources.orders.path",
    ]


# --- what is in an answer


def test_a_number_that_ends_somewhere_is_no_fault(serve: Callable[..., Api]) -> None:
    """Elasticsearch counts up to 10,000: the pipeline reads on, and counts smaller windows."""
    serve(counts=lambda n: min(n, 35))

    assert examine_api_only().wrong == {}


def test_an_empty_shop_may_have_null_for_its_list(serve: Callable[..., Api]) -> None:
    """So some languages write an empty list; the number says that nothing is missing."""
    serve(lambda query: {"orders": None, "total": 0})

    assert examine_api_only().probes["selector"]["verdict"] == "WARN"


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (
            lambda page: {
                "data": {"sales": page["orders"], "facets": [{}]},
                "total": page["total"],
            },
            "data.sales",
        ),
        *(
            (
                lambda page, name=name: {name: page["orders"], "total": page["total"]},
                path,
            )
            for name, path in {
                "results": "results",
                "sales-orders": "sales-orders",
                "aufträge": "'aufträge'",
                "where": "'where'",
                "1st": "'1st'",
            }.items()
        ),
    ],
)
def test_a_list_that_is_elsewhere(
    serve: Callable[..., Api], make: Callable[[Any], Answer], path: str
) -> None:
    """The path of the list is suggested, and the other probes look there."""
    serve(lambda query: make(honest(query)))

    found = examine_api_only()

    assert found.wrong == {"selector": "FAIL"}
    assert found.probes["selector"]["settings"] == ["sources.orders.data_selector"]
    assert found.probes["selector"]["suggestion"] == f'data_selector = "{path}"'


def test_an_answer_without_any_list(serve: Callable[..., Api]) -> None:
    """What is there is told by its keys."""
    serve(lambda query: {"message": "ORD-1 is for 1@customers.example", "code": 7})

    found = examine_api_only()

    assert found.wrong == {"selector": "FAIL"} | dict.fromkeys(NEEDS_A_PAGE[1:], "SKIP")
    assert "code, message" in found.probes["selector"]["message"]


@pytest.mark.parametrize(
    ("extra", "suggestion"),
    [
        (lambda page: {}, 'total_path = ""'),
        (
            lambda page: {"paging": {"count": page["total"]}, "status": 200},
            'total_path = "paging.count"',
        ),
    ],
    ids=["no total", "a total elsewhere"],
)
def test_a_total_that_is_not_there(
    serve: Callable[..., Api], extra: Callable[[Any], dict[str, Any]], suggestion: str
) -> None:
    """If another number counts the orders it is suggested, otherwise that there is none."""
    serve(lambda query: {"orders": (page := honest(query))["orders"]} | extra(page))

    found = examine_api_only()

    assert found.wrong == {"total": "FAIL"}
    assert found.probes["total"]["settings"] == ["sources.orders.total_path"]
    assert found.probes["total"]["suggestion"] == suggestion


def test_an_empty_page_beside_a_total(serve: Callable[..., Api]) -> None:
    """A run stops there: nothing else can be looked at, and that is not well."""
    serve(lambda query: {"orders": [], "total": 1200})

    found = examine_api_only()

    assert found.probes["total"]["verdict"] == "FAIL"
    assert "the page has none" in found.probes["total"]["message"]


def test_a_page_that_is_capped_without_a_total(serve: Callable[..., Api], project: Project) -> None:
    """Whether there are more is seen behind the page."""
    serve(lambda query: {"orders": honest(query, cap=10)["orders"]})
    project.set(total_path="")

    found = examine_api_only()

    assert found.wrong == {"page size": "WARN"}
    assert found.probes["page size"]["suggestion"] == "page_size = 10"


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize(
    "keys", [("1@customers.example", "A1-ORD-70001", "70003"), ("jane", "roe")]
)
def test_a_list_by_id_is_described_without_its_ids(
    serve: Callable[..., Api], keys: tuple[str, ...], others: bool
) -> None:
    """An order under its number, its customer's address or name: keys that are values."""
    orders = {key: ORDERS[n] for n, key in enumerate(keys)}
    serve(lambda query: (orders if others and keys[0] != "jane" else {}) | {"orders": orders})

    found = examine_api_only()

    assert found.probes["selector"]["verdict"] == "FAIL"
    message = found.probes["selector"]["message"]
    assert "the answer is an object with the keys" in message, message
    assert "orders" in message
    assert not re.search("7000|jane|customers", found.output)


def test_an_empty_list_is_no_healthy_one(serve: Callable[..., Api]) -> None:
    """A filter that the API understands otherwise empties it as an empty shop does."""
    serve(orders=[])

    found = examine_api_only()

    assert found.wrong["selector"] == "WARN"
    assert found.probes["selector"]["settings"] == [
        "sources.orders.params",
        "sources.orders.initial_value",
    ]
    assert set(found.wrong.values()) == {"SKIP", "WARN"}


@pytest.mark.parametrize("there_are", [1, 2])
def test_a_shop_with_hardly_any_orders(serve: Callable[..., Api], there_are: int) -> None:
    """Too few to tell is no fault."""
    serve(orders=ORDERS[:there_are])

    found = examine_api_only()

    assert set(found.wrong.values()) == {"SKIP"}
    assert found.probes["selector"]["verdict"] == "OK"
    assert found.document["verdict"] == "OK"


@pytest.mark.parametrize("total_path", ["total", ""])
def test_a_shop_whose_orders_are_on_one_page(
    serve: Callable[..., Api], project: Project, total_path: str
) -> None:
    """A short page is not one that was capped."""
    serve(orders=ORDERS[: PAGE - 5])
    project.set(total_path=total_path)

    assert "page size" not in examine_api_only().wrong


def test_an_end_that_the_api_does_not_know(project: Project, shop: Callable[..., Shop]) -> None:
    """The first page of a run does not name an end, so that only later pages would fail."""
    shop(orders=300)
    params = {name: value for name, value in STRICT.items() if name != "modified_before"}
    project.set(params=params | {"until": "{end}"})

    found = examine_api_only()

    assert found.wrong == {"end excluded": "FAIL"}
    assert found.probes["end excluded"]["settings"][0] == "sources.orders.params"


def test_an_api_that_is_read_by_offset(serve: Callable[..., Api], project: Project) -> None:
    """It needs no filter and no sort, and is not told that it lacks them."""
    serve(ignores_sort=True, ignores_filter=True)
    project.set(paging="offset")

    found = examine_api_only()

    assert found.wrong == dict.fromkeys(WINDOWS, "SKIP")
    assert found.document["verdict"] == "OK"


# --- measures


@pytest.mark.parametrize(("seconds", "words"), [(3600, "ahead"), (-3600, "behind")])
def test_clocks_that_are_an_hour_apart(
    serve: Callable[..., Api], project: Project, seconds: int, words: str
) -> None:
    """Told in seconds, with a lag that would bridge it, which is then enough."""
    serve().seconds_ahead = seconds

    found = examine_api_only()

    assert found.wrong == {"clock": "WARN"}
    assert words in found.probes["clock"]["message"]
    assert found.probes["clock"]["settings"] == ["sources.orders.lag_seconds"]
    suggested = re.search(r"lag_seconds = (\d+)", found.probes["clock"]["suggestion"])
    assert suggested
    project.set(lag_seconds=suggested[1])
    assert examine_api_only().wrong == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit-Policy": "6000;w=60"},
        {"RateLimit-Policy": '"default";q=6000;w=60'},
        {
            "RateLimit-Limit": "6000, 6000;w=60",
            "RateLimit-Remaining": "5999",
            "RateLimit-Reset": "50",
        },
        {"RateLimit": "limit=6000, remaining=599, reset=50"},
        {"X-RateLimit-Limit": "6000", "X-RateLimit-Remaining": "12", "X-RateLimit-Reset": "42"},
        {"X-Rate-Limit-Limit": "6000", "X-Rate-Limit-Reset": "42"},
    ],
    ids=lambda headers: ", ".join(headers),
)
def test_a_limit_of_the_rate(
    serve: Callable[..., Api], project: Project, headers: dict[str, str]
) -> None:
    """In each of the spellings: a hundred a second, to which the setting that is suggested keeps."""
    serve().also = headers

    found = examine_api_only()

    assert found.wrong == {"rate limit": "WARN"}
    assert found.probes["rate limit"]["settings"] == ["sources.orders.max_requests_per_second"]
    assert found.probes["rate limit"]["suggestion"] == "max_requests_per_second = 100"
    project.set(max_requests_per_second=100, workers=64)
    assert examine_api_only().wrong == {}


def test_an_api_that_is_asked_too_often_already(serve: Callable[..., Api]) -> None:
    """A 429 that a retry has cured is told all the same."""
    refusals = [Refusal(429, {"Retry-After": "0"})]
    serve(lambda query: refusals.pop() if query and refusals else honest(query))

    found = examine_api_only()

    assert found.wrong == {"rate limit": "WARN"}
    assert "429" in found.probes["rate limit"]["message"]


# --- the warehouse


def test_a_file_that_another_process_holds(serve: Callable[..., Api], project: Project) -> None:
    """Who it is, by name and number; the API is well."""
    serve()
    project.execute("CREATE TABLE anything (n INT)")

    with holder(project) as process:
        found = examine()

    assert found.wrong == {"warehouse free": "FAIL", "warehouse writable": "SKIP"}
    assert f"process {process.pid}" in found.probes["warehouse free"]["message"]
    assert found.exit_code == 1


def test_a_synchronisation_that_is_running(serve: Callable[..., Api]) -> None:
    """The doctor does not disturb it, and takes it for no fault."""
    serve()

    with orders_pipeline(0) as pipeline:
        found = examine()
        assert Path(pipeline.working_dir).is_dir()

    skipped = ("warehouse reached", "warehouse writable")
    assert found.wrong == {"warehouse free": "WARN"} | dict.fromkeys(skipped, "SKIP")
    assert found.exit_code == 0


def test_a_place_where_no_file_can_be_made(
    serve: Callable[..., Api], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is none."""
    serve()
    (project.directory / "file").touch()
    place = project.directory / "file" / "orders.duckdb"
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(place))

    found = examine()

    skipped = ("warehouse free", "warehouse writable")
    assert found.wrong == {"warehouse reached": "FAIL"} | dict.fromkeys(skipped, "SKIP")
    assert found.probes["warehouse reached"]["settings"] == ["destination.duckdb.credentials"]


def test_a_warehouse_that_can_only_be_read(
    serve: Callable[..., Api], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be opened, and a run would fail when it loads."""
    serve()
    project.execute("CREATE TABLE anything (n INT)")
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__DATABASE", str(project.database))
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__READ_ONLY", "true")

    found = examine()

    assert found.wrong == {"warehouse writable": "FAIL"}
    assert found.probes["warehouse writable"]["settings"] == ["destination.duckdb.credentials"]


def test_a_destination_that_dlt_does_not_know(
    serve: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in its name is a slip in one setting."""
    serve()
    monkeypatch.setenv("PIPELINES__ORDERS__DESTINATION_TYPE", "dukdb")

    found = examine()

    skipped = ("warehouse free", "warehouse writable")
    assert found.wrong == {"warehouse reached": "FAIL"} | dict.fromkeys(skipped, "SKIP")
    assert found.probes["warehouse reached"]["settings"] == ["pipelines.orders.destination_type"]


# --- what is printed


def test_settings_that_cannot_be_read(project: Project) -> None:
    """Nothing is asked then; every problem is told, with an exit code of its own."""
    project.set(page_sise=10, auth__type="none", paging="both")

    text = CliRunner().invoke(main, ["doctor"])
    as_json = CliRunner().invoke(main, ["doctor", "--json"])

    assert (text.exit_code, as_json.exit_code) == (2, 2)
    assert "Did you mean page_size" in text.stderr
    assert len(json.loads(as_json.stdout)["problems"]) == 2


def test_each_probe_is_one_line_and_each_setting_has_its_source(
    project: Project, shop: Callable[..., Shop]
) -> None:
    """As it is read: settings with their place, verdicts, and at the end what that means."""
    shop(orders=300)
    project.set(data_selector="sales")

    result = CliRunner().invoke(main, ["doctor"])

    lines = result.stdout.splitlines()
    assert [
        line[6:25].strip() for line in lines if line[:4].strip() in ("OK", "FAIL", "WARN", "SKIP")
    ] == [*NAMES]
    (line,) = [line for line in lines if line.startswith("FAIL")]
    assert line.endswith('→ sources.orders.data_selector: data_selector = "orders"')
    settings = {
        line.split()[0]: line for line in lines if line.endswith(")") and line[:1].islower()
    }
    assert settings["page_size"].endswith("200  (default)")
    assert settings["data_selector"].endswith(
        "sales  (the environment variable SOURCES__ORDERS__DATA_SELECTOR)"
    )
    assert str(project.database) in settings["destination.duckdb.credentials"]
    assert lines[-1].startswith("A run would stop")
    assert result.exit_code == 1


def test_no_secret_is_printed(serve: Callable[..., Api], project: Project) -> None:
    """What the doctor prints is pasted into tickets: text and JSON, whatever holds the secret."""
    api = serve()
    project.set(
        base_url=api.url.replace("http://", "http://user:s3cret-in-address@"),
        client_id="s3cret-client",
        client_secret="s3cret-secret",
        token_url=f"{api.url}/token?key=s3cret-in-query",
        path="/v1/orders?api_key=s3cret-in-path",
        auth__type="api_key",
        auth__name="X-Key",
        auth__api_key="s3cret-key",
        params=STRICT | {"access_token": "s3cret-parameter", "sig": "s3cret-signature"},
    )

    found, text = examine(), CliRunner().invoke(main, ["doctor"])

    assert found.wrong == {}
    assert "s3cret" not in found.output + text.output
    shown = {one["key"]: one["value"] for one in found.document["settings"]}
    hidden = ("client_id", "client_secret", "auth.api_key", "params.access_token", "params.sig")
    assert all(set(shown[key]) == {"*"} for key in hidden)
    assert shown["params.sort"] == "last_modified_date"


def test_a_value_of_a_table_that_is_given_whole_has_its_source(
    serve: Callable[..., Api], project: Project
) -> None:
    """One variable with JSON in it: the keys in it come from there, the others do not."""
    serve()
    project.unset("retry__backoff_factor")
    project.set(retry={"max_retries": 1})

    sources = {one["key"]: one["source"] for one in examine().document["settings"]}

    assert sources["retry.max_retries"] == "the environment variable SOURCES__ORDERS__RETRY"
    assert sources["retry.backoff_factor"] == "default"


def test_the_paths_of_personal_data_are_no_secret(
    serve: Callable[..., Api], project: Project
) -> None:
    """Their table is the user's own and has one place; a name in it may look like a secret."""
    serve()
    project.set(personal_data={"customer.api_key": "drop"})

    shown = {one["key"]: one for one in examine().document["settings"]}

    (key,) = [key for key in shown if key.startswith("personal_data.")]
    assert shown[key]["value"] == "drop"
    assert shown[key]["source"] == "the environment variable SOURCES__ORDERS__PERSONAL_DATA"


def test_a_person_who_watches_sees_how_far_it_is(serve: Callable[..., Api]) -> None:
    """A bar on a terminal; a file or a log gets the verdicts only."""
    serve()
    terminal, inside = pty.openpty()
    command = [sys.executable, "-c", "from orders_dagster.cli import main; main()", "doctor"]
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(inside)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while some := os.read(terminal, 1 << 16):
                shown += some
    os.close(terminal)

    assert process.returncode == 0, shown.decode()
    assert f"19/{len(NAMES)}" in shown.decode()
    assert f"19/{len(NAMES)}" not in CliRunner().invoke(main, ["doctor"]).output


def test_the_help_shows_examples() -> None:
    """What a person types first."""
    result = CliRunner().invoke(main, ["doctor", "--help"])

    assert result.exit_code == 0
    assert "orders-dagster doctor --json" in result.output
    assert "2  the settings cannot be read" in result.output
    assert "doctor" in CliRunner().invoke(main, ["--help"]).output


def test_every_probe_is_in_the_readme() -> None:
    """A verdict that nobody explains is a riddle."""
    section = README.partition("### A doctor")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    assert tuple(name for row in rows for name in re.findall("`([^`]+)`", row)) == NAMES
