"""The sandbox API, as a client sees it over HTTP.

Everything else is tested against this fake, so it is held here to what it promises: exact amounts,
half-open windows, and trouble that looks to a client like the real thing. Nothing of the project
itself is used.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests

from orders_dagster.sandbox import RunningSandbox, SandboxOptions, running
from orders_dagster.sandbox.faults import Faults
from orders_dagster.sandbox.index import SORTS, UNDATED, Index, Rank
from orders_dagster.sandbox.times import iso, read_time, write_time
from orders_dagster_tests.world import Closing

RETAILER = Path(__file__).resolve().parents[2] / "shared" / "data" / "online_retail_orders.parquet"
NOON = "2025-06-30T12:00:00.000Z"
GOOD = {
    "grant_type": "client_credentials",
    "client_id": "sandbox",
    "client_secret": "sandbox-secret",
}


def get(sandbox: RunningSandbox, headers: dict[str, str] | None = None, **params: Any) -> Any:
    return requests.get(f"{sandbox.url}/v1/orders", params=params, headers=headers, timeout=30)


def page(sandbox: RunningSandbox, **params: Any) -> dict[str, Any]:
    answer = get(sandbox, **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json(parse_float=Decimal))


def ids(sandbox: RunningSandbox, **params: Any) -> list[str]:
    return [order["order_id"] for order in page(sandbox, **params)["orders"]]


def control(sandbox: RunningSandbox, path: str, body: Any) -> dict[str, Any]:
    data = body if isinstance(body, str) else json.dumps(body)
    answer = requests.post(f"{sandbox.url}/_sandbox/{path}", data=data, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def look(sandbox: RunningSandbox, path: str) -> Any:
    answer = requests.get(f"{sandbox.url}/_sandbox/{path}", timeout=30)
    answer.raise_for_status()
    return answer.json(parse_float=Decimal)


def everything(sandbox: RunningSandbox) -> list[dict[str, Any]]:
    answer = requests.get(f"{sandbox.url}/_sandbox/orders", timeout=60)
    return [json.loads(line, parse_float=Decimal) for line in answer.content.split(b"\n") if line]


def ask_token(sandbox: RunningSandbox, **form: str) -> requests.Response:
    return requests.post(f"{sandbox.url}/oauth/token", data=GOOD | form, timeout=30)


def with_token(sandbox: RunningSandbox) -> dict[str, str]:
    return {"Authorization": f"Bearer {ask_token(sandbox).json()['access_token']}"}


def order(order_id: str, modified: str = NOON, **fields: Any) -> dict[str, Any]:
    return {"order_id": order_id, "last_modified_date": modified, **fields}


@pytest.fixture(scope="module")
def plain() -> Iterator[RunningSandbox]:
    """A shop that no test changes, without login."""
    with running(auth="none", orders=600, now=NOON) as sandbox:
        yield sandbox


@pytest.fixture
def empty(closing: Closing) -> Iterator[RunningSandbox]:
    """A shop without orders, for tests that bring their own."""
    with closing.later() as stack:
        yield stack.enter_context(running(auth="none", orders=0))


@pytest.fixture
def closed(closing: Closing) -> Iterator[RunningSandbox]:
    """A shop that wants a token."""
    with closing.later() as stack:
        yield stack.enter_context(running(orders=20))


# Logging in


def test_a_token_asked_for_in_the_body_opens_the_orders(closed: RunningSandbox) -> None:
    """The way of the reference configuration, from credentials to a page."""
    answer = ask_token(closed)

    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert get(closed, headers).json()["total"] == 20


def test_a_token_asked_for_with_a_basic_header_opens_the_orders(closed: RunningSandbox) -> None:
    """Many token endpoints take the credentials only there."""
    answer = requests.post(
        f"{closed.url}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=("sandbox", "sandbox-secret"),
        timeout=30,
    )

    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert get(closed, headers).status_code == 200


@pytest.mark.parametrize("wrong", [{"client_id": "other"}, {"client_secret": "x"}])
def test_a_wrong_client_gets_no_token(closed: RunningSandbox, wrong: dict[str, str]) -> None:
    """A client with the wrong settings must see the error that a real server gives."""
    answer = ask_token(closed, **wrong)

    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})


def test_an_unknown_grant_type_gets_no_token(closed: RunningSandbox) -> None:
    """RFC 6749 gives this mistake a name of its own."""
    answer = ask_token(closed, grant_type="password")

    assert (answer.status_code, answer.json()) == (400, {"error": "unsupported_grant_type"})


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer made-up", "Basic c2FuZGJveDp4"])
def test_orders_without_a_good_token_are_refused(
    closed: RunningSandbox, header: str | None
) -> None:
    """A client that forgets its token, or makes one up, must not get through."""
    answer = get(closed, {"Authorization": header} if header else None)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json()["error"] == "invalid_token"


def test_a_token_is_good_until_its_lifetime_ends_and_no_longer(closed: RunningSandbox) -> None:
    """Expiry is real: a client that keeps its token too long must notice."""
    closed.tokens.clock = lambda: 1000.0
    headers = with_token(closed)

    closed.tokens.clock = lambda: 1000.0 + 3599.9
    assert get(closed, headers).status_code == 200
    closed.tokens.clock = lambda: 1000.0 + 3600
    assert get(closed, headers).status_code == 401


def test_no_two_tokens_are_alike(closed: RunningSandbox) -> None:
    """Tokens cannot be guessed from one another."""
    assert len({ask_token(closed).json()["access_token"] for _ in range(20)}) == 20


def test_the_token_endpoint_can_be_told_what_to_answer(closed: RunningSandbox) -> None:
    """For clients that must survive an answer without a token, a short life, a revocation."""
    headers = with_token(closed)

    control(closed, "token", {"answer": {"message": "try later"}})
    assert ask_token(closed).json() == {"message": "try later"}
    control(closed, "token", {"answer": None, "lifetime": 5})
    assert ask_token(closed).json()["expires_in"] == 5
    assert get(closed, headers).status_code == 200
    control(closed, "token", {"revoke_all": True})
    assert get(closed, headers).status_code == 401


@pytest.mark.parametrize(
    ("auth", "right", "wrong"),
    [
        ("bearer", {"Authorization": "Bearer sandbox-token"}, {"Authorization": "Bearer x"}),
        ("api_key", {"X-API-Key": "sandbox-key"}, {"X-API-Key": "x"}),
        ("http_basic", {"Authorization": "Basic c2FuZGJveDpzYW5kYm94LXNlY3JldA=="}, {}),
        ("none", {}, None),
    ],
)
def test_each_other_way_to_log_in_works(
    auth: str, right: dict[str, str], wrong: dict[str, str] | None
) -> None:
    """The clients of APIs that know no OAuth2 have something to run against, too."""
    with running(auth=auth, orders=3) as sandbox:
        assert get(sandbox, right).status_code == 200
        if wrong is not None:
            assert get(sandbox, wrong).status_code == 401


def test_an_api_key_may_stand_in_the_query_but_not_in_the_record() -> None:
    """Keys in a query end up in logs; the sandbox's own record is not one of them."""
    with running(auth="api_key", orders=3) as sandbox:
        assert get(sandbox, api_key="sandbox-key", limit=1).status_code == 200

        record = look(sandbox, "requests")["requests"][0]
        assert (record["query"], record["authorization"]) == ("api_key=%2A%2A%2A&limit=1", True)


# Parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "ten"),
        ("limit", "1.5"),
        ("limit", ""),
        ("limit", "9" * 5000),
        ("offset", "-1"),
        ("offset", "1e3"),
        ("modified_since", "yesterday"),
        ("modified_since", "2025-13-01T00:00:00Z"),
        ("modified_before", ""),
        ("sort", "total"),
        ("sort", ""),
        ("page", "2"),
    ],
)
def test_a_bad_parameter_is_named(plain: RunningSandbox, name: str, value: str) -> None:
    """A misspelt or malformed parameter must not be served as if it had not been there."""
    parameters: dict[str, Any] = {name: value}
    answer = get(plain, **parameters)

    assert answer.status_code == 400
    assert answer.json().keys() == {"error", "parameter"}
    assert answer.json()["parameter"] == name


def test_a_parameter_given_twice_is_refused(plain: RunningSandbox) -> None:
    """Which of the two counts is nothing that a client should find out by chance."""
    answer = requests.get(f"{plain.url}/v1/orders?limit=1&limit=2", timeout=30)

    assert (answer.status_code, answer.json()["parameter"]) == (400, "limit")


@pytest.mark.parametrize(
    "time",
    [
        "2025-06-30T12:00:00.000Z",
        "2025-06-30T12:00:00Z",
        "2025-06-30T12:00:00",
        "2025-06-30T14:00:00+02:00",
        "1751284800",
        "1751284800000",
        "Mon, 30 Jun 2025 12:00:00 GMT",
    ],
)
def test_a_time_in_any_style_means_the_same(empty: RunningSandbox, time: str) -> None:
    """Requests are understood in every style in which the sandbox can answer."""
    control(empty, "orders", [order("before", "2025-06-30T11:59:59.999Z"), order("at", NOON)])

    assert ids(empty, modified_since=time) == ["at"]
    assert ids(empty, modified_before=time) == ["before"]


@pytest.mark.parametrize(
    "style", ["iso", "epoch_seconds", "epoch_milliseconds", "rfc2822", "offset"]
)
def test_a_time_in_an_answer_can_be_sent_back(style: str) -> None:
    """Whatever the style: `modified_since` the newest date shown finds the newest order."""
    with running(auth="none", orders=50, cursor_style=style) as sandbox:
        newest = page(sandbox, sort="-last_modified_date", limit=1)["orders"][0]

        shown = newest["last_modified_date"]
        assert isinstance(shown, int) == style.startswith("epoch")
        assert newest["order_id"] in ids(sandbox, modified_since=shown)


def test_times_are_written_as_each_style_has_it() -> None:
    """The text itself, since that is what a client's parser meets."""
    us = read_time("2025-06-30T12:00:00.250Z")

    assert us is not None
    assert write_time(us, "iso") == "2025-06-30T12:00:00.250Z"
    assert write_time(us, "epoch_seconds") == 1751284800
    assert write_time(us, "epoch_milliseconds") == 1751284800250
    assert write_time(us, "rfc2822") == "Mon, 30 Jun 2025 12:00:00 GMT"
    assert write_time(us, "offset") == "2025-06-30T14:00:00.250+02:00"


# Pages


def test_a_window_holds_its_start_but_not_its_end(empty: RunningSandbox) -> None:
    """Half-open windows side by side give every order once."""
    control(empty, "orders", [order(str(n), f"2025-06-30T12:00:00.00{n}Z") for n in range(1, 5)])
    start, end = "2025-06-30T12:00:00.002Z", "2025-06-30T12:00:00.004Z"

    assert ids(empty, modified_since=start, modified_before=end) == ["2", "3"]
    assert ids(empty, modified_before=start) == ["1"]
    assert ids(empty, modified_since=end) == ["4"]
    assert page(empty, modified_since=end, modified_before=start)["total"] == 0


def test_orders_come_sorted_as_asked(empty: RunningSandbox) -> None:
    """Each sort, and the order of creation when none is asked for."""
    times = {"b": "2025-01-02T00:00:00Z", "c": "2025-01-01T00:00:00Z", "a": "2025-01-03T00:00:00Z"}
    control(empty, "orders", [order(order_id, time) for order_id, time in times.items()])

    assert ids(empty) == ["b", "c", "a"]
    assert ids(empty, sort="last_modified_date") == ["c", "b", "a"]
    assert ids(empty, sort="-last_modified_date") == ["a", "b", "c"]
    assert ids(empty, sort="order_id") == ["a", "b", "c"]
    assert ids(empty, sort="-order_id") == ["c", "b", "a"]


def test_orders_of_one_timestamp_come_by_order_id(empty: RunningSandbox) -> None:
    """Ties are stable unless asked otherwise, so that a test can rely on a page."""
    control(empty, "orders", [order(order_id) for order_id in "dbca"])

    assert ids(empty, sort="last_modified_date") == ["a", "b", "c", "d"]


def test_unstable_ties_lose_a_plain_offset_reader_an_order(empty: RunningSandbox) -> None:
    """As real servers do: two pages of one timestamp contradict each other."""
    control(empty, "orders", [order(order_id) for order_id in "abcd"])
    control(empty, "settings", {"unstable_ties": True})

    pages = [ids(empty, sort="last_modified_date", limit=2, offset=n) for n in (0, 2)]
    assert len({order_id for page in pages for order_id in page}) < 4
    again = [tuple(ids(empty, sort="last_modified_date")) for _ in range(3)]
    assert len(set(again)) == 3
    assert {frozenset(page) for page in again} == {frozenset("abcd")}


def test_pages_put_together_are_all_orders(plain: RunningSandbox) -> None:
    """Offset and limit neither skip nor repeat; the total is that of the filter, not the page."""
    pages = [page(plain, sort="last_modified_date", limit=70, offset=n) for n in range(0, 700, 70)]

    assert {p["total"] for p in pages} == {600}
    assert [(p["limit"], p["offset"]) for p in pages][:2] == [(70, 0), (70, 70)]
    seen = [order["order_id"] for p in pages for order in p["orders"]]
    assert seen == ids(plain, sort="last_modified_date", limit=1000)
    assert len(set(seen)) == 600
    half = page(plain, modified_since="2025-01-01", limit=1)
    assert half["total"] == len(ids(plain, modified_since="2025-01-01", limit=1000)) < 600


def test_a_page_has_fifty_orders_unless_told_otherwise(plain: RunningSandbox) -> None:
    """The default limit, which a client that sends none depends on."""
    assert len(page(plain)["orders"]) == 50
    assert page(plain, offset=10**12)["orders"] == []


def test_a_capped_page_does_not_say_so() -> None:
    """The server that silently gives less than was asked for, which loses data for many clients."""
    with running(auth="none", orders=30, page_cap=10) as sandbox:
        capped = page(sandbox, limit=20)

        assert (len(capped["orders"]), capped["limit"], capped["total"]) == (10, 20, 30)


def test_an_ignored_sort_or_filter_is_no_error(empty: RunningSandbox) -> None:
    """APIs that ignore what they do not know must be noticed by the client, not by the server."""
    control(empty, "orders", [order("b", "2025-01-02"), order("a", "2025-01-01")])
    control(empty, "settings", {"ignore_sort": True, "ignore_filter": True})

    assert ids(empty, sort="last_modified_date", modified_since="2030-01-01") == ["b", "a"]


@pytest.mark.parametrize(
    ("shape", "no_total", "body"),
    [
        ("orders", False, {"orders": [], "total": 0, "limit": 50, "offset": 0}),
        ("orders", True, {"orders": [], "limit": 50, "offset": 0}),
        ("bare", False, []),
        ("nested", False, {"data": {"sales": []}, "paging": {"total": 0}}),
        ("nested", True, {"data": {"sales": []}, "paging": {}}),
    ],
)
def test_pages_come_in_each_shape(shape: str, no_total: bool, body: Any) -> None:
    """What an adaptable client is to be tested with."""
    with running(auth="none", orders=0, shape=shape, no_total=no_total) as sandbox:
        assert get(sandbox).json() == body


def test_the_index_agrees_with_a_sorted_list_whatever_happens() -> None:
    """Every page of every sort after hundreds of random changes, against the obvious way."""
    rng = random.Random(7)
    names = [str(rng.randrange(50)) for _ in range(400)]
    model: dict[int, int] = {}

    def rank(seq: int) -> Rank:
        return (1, 0, names[seq], seq)

    def expected(since: int | None, before: int | None, sort: str | None) -> list[int]:
        seqs = [
            seq
            for seq, time in model.items()
            if time == UNDATED
            or ((since is None or time >= since) and (before is None or time < before))
        ]
        seqs.sort(key=rank if sort in SORTS else None)
        if sort in ("last_modified_date", "-last_modified_date"):
            seqs.sort(key=model.__getitem__)
        if sort and sort.startswith("-"):
            seqs.reverse()
            undated = [seq for seq in seqs if model[seq] == UNDATED and "modified" in sort]
            seqs = [seq for seq in seqs if seq not in undated] + undated[::-1]
        return seqs

    def some_time() -> int:
        times: list[int] = [UNDATED, *range(12)]
        return rng.choice(times)

    model.update({seq: some_time() for seq in range(40)})
    index = Index(array("q", model.values()), sorted(model, key=rank), rank)
    for new in range(40, 400):
        seq = rng.choice(sorted(model))
        kind = rng.choice(("add", "remove", "move", "move"))
        if kind == "add":
            model[new] = some_time()
            index.add(new, model[new])
        elif kind == "remove" and len(model) > 1:
            index.remove(seq, model.pop(seq))
        else:
            before, model[seq] = model[seq], some_time()
            index.move(seq, before, model[seq])
        window = rng.choice([(None, None), (rng.randrange(12), None), (3, 9), (None, 5), (9, 3)])
        for sort in (None, *SORTS):
            whole = expected(*window, sort)
            offset, limit = rng.randrange(len(whole) + 3), rng.randrange(1, 30)
            page = index.page(*window, sort, offset, limit)
            assert page == (whole[offset : offset + limit], len(whole)), (window, sort)


# Faults


def script(sandbox: RunningSandbox, *faults: str) -> None:
    control(sandbox, "faults", {"script": list(faults)})


def test_a_status_fault_is_answered_with_retry_after(plain: RunningSandbox) -> None:
    """The faults come in the order of the script, and after it everything is well."""
    script(plain, "503", "429", "ok", "429@7")

    answers = [get(plain) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503, 429, 200, 429, 200]
    waits = [answer.headers.get("Retry-After") for answer in answers]
    assert waits == [None, "1", None, "7", None]


def test_a_dropped_connection_is_a_connection_error(plain: RunningSandbox) -> None:
    """No status, no body: what a client sees when a server dies."""
    script(plain, "drop")

    with pytest.raises(requests.exceptions.ConnectionError, match="without response"):
        get(plain)
    assert look(plain, "requests")["requests"][-1] | {"query": ""} == {
        "method": "GET",
        "path": "/v1/orders",
        "query": "",
        "authorization": False,
        "status": None,
        "fault": "drop",
    }


def test_a_dropped_connection_may_be_one_that_was_kept_alive(plain: RunningSandbox) -> None:
    """Clients reuse connections, and the next request takes a new one."""
    script(plain, "ok", "drop")

    with requests.Session() as session:
        session.get(f"{plain.url}/v1/orders", timeout=30)
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(f"{plain.url}/v1/orders", timeout=30)
        assert session.get(f"{plain.url}/v1/orders", timeout=30).status_code == 200


def test_a_truncated_body_is_shorter_than_announced(plain: RunningSandbox) -> None:
    """A connection that breaks in the middle of a page."""
    script(plain, "truncate")

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get(plain, limit=200)


def test_a_garbled_answer_is_a_200_that_is_no_json(plain: RunningSandbox) -> None:
    """The maintenance page of a proxy."""
    script(plain, "garble")

    answer = get(plain)
    assert (answer.status_code, answer.headers["Content-Type"][:9]) == (200, "text/html")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_an_answer_may_lack_its_orders(plain: RunningSandbox) -> None:
    """A 200 that would end a load early, with less than there is."""
    script(plain, "nobody", "empty")

    assert get(plain).json() == {}
    assert page(plain) == {"orders": [], "total": 600, "limit": 50, "offset": 0}


def test_a_slow_answer_is_a_good_one(plain: RunningSandbox) -> None:
    """Slowness by itself must change nothing."""
    script(plain, "slow@0.01", "ok")

    assert page(plain) == page(plain)


def test_a_401_fault_revokes_the_token_that_was_good(closed: RunningSandbox) -> None:
    """Sending the same token again does not help; a new one does."""
    headers = with_token(closed)
    script(closed, "401")

    assert [get(closed, headers).status_code for _ in range(2)] == [401, 401]
    assert get(closed, with_token(closed)).status_code == 200


def test_the_token_endpoint_has_faults_of_its_own(closed: RunningSandbox) -> None:
    """Each endpoint follows its own part of the script."""
    script(closed, "token.503", "500", "token.drop", "token.garble")

    assert ask_token(closed).status_code == 503
    with pytest.raises(requests.exceptions.ConnectionError):
        ask_token(closed)
    assert "html" in ask_token(closed).text
    headers = with_token(closed)
    assert [get(closed, headers).status_code for _ in range(2)] == [500, 200]


def test_faults_by_probability_repeat_themselves_for_a_seed() -> None:
    """A failing run can be run again; about as many faults as asked for."""

    def drawn(seed: int) -> list[str]:
        faults = Faults("503:0.2,drop:0.1,token.500:1", seed)
        names = []
        for _ in range(1000):
            fault = faults.next("orders")
            names.append(fault.name if fault else "ok")
            if seed == 1 and faults.next("token"):  # must not shift the faults of orders
                continue
        return names

    assert drawn(1) == drawn(1) != drawn(2)
    counts = Counter(drawn(1))
    assert counts.keys() == {"503", "drop", "ok"}
    assert 150 < counts["503"] < 250
    assert 70 < counts["drop"] < 130


def test_a_spec_strikes_over_http_and_is_counted() -> None:
    """`--faults` reaches the endpoint, and the state says what was given."""
    with running(auth="none", orders=5, faults="503:1") as sandbox:
        assert [get(sandbox).status_code for _ in range(3)] == [503] * 3
        control(sandbox, "faults", {"spec": ""})
        assert get(sandbox).status_code == 200
        assert look(sandbox, "state")["faults"] == {"503": 3}


@pytest.mark.parametrize(
    "spec",
    [
        "503",
        "503:x",
        "503:-1",
        "oops:0.1",
        "200:0.1",
        "drop@1:0.1",
        "503:0.6,drop:0.6",
        "token.empty:1",
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_at_the_start(spec: str) -> None:
    """A misspelt fault that never strikes would make a test pass for nothing."""
    with pytest.raises(ValueError, match="faults: "), running(orders=0, faults=spec):
        pass


# Changes


def assert_amounts_are_exact(order: dict[str, Any]) -> None:
    amounts = [
        item["quantity"] * item["unit_price"] - (item["discount"] or 0) for item in order["items"]
    ]
    assert order["subtotal"] == sum(amounts)
    charges = order["shipping"] + order["tax"] - (order["discount"] or 0)
    assert order["total"] == order["subtotal"] + charges


def test_a_change_touches_what_it_says_and_nothing_else() -> None:
    """What a synchronisation is measured by: each order is in one list, all others stay."""
    with running(auth="none", orders=300) as sandbox:
        before = {order["order_id"]: order for order in everything(sandbox)}
        counts = {"new": 5, "modify": 20, "modify_twice": 4, "remove_items": 6}
        touched = control(sandbox, "change", counts)
        after = {order["order_id"]: order for order in everything(sandbox)}

        lists = [touched[name] for name in ("new", "modified", "modified_twice", "items_removed")]
        assert [len(one) for one in lists] == [5, 20, 4, 6]
        every = {order_id for one in lists for order_id in one}
        assert len(every) == 35
        assert {order_id for order_id in after if after[order_id] != before.get(order_id)} == every
        assert set(after) - set(before) == set(touched["new"])
        newest_before = max(order["last_modified_date"] for order in before.values())
        assert min(after[order_id]["last_modified_date"] for order_id in every) > newest_before
        for order_id in touched["modified"]:
            changed = {name for name in after[order_id] if after[order_id] != before[order_id]}
            assert changed - {"last_modified_date"}
        for changed_order in after.values():
            assert_amounts_are_exact(changed_order)


def test_removed_items_are_gone_from_the_order() -> None:
    """The case in which a merge leaves orphans behind in a child table."""
    with running(auth="none", orders=100) as sandbox:
        before = {order["order_id"]: order for order in everything(sandbox)}
        touched = control(sandbox, "change", {"remove_items": 5})["items_removed"]

        for order_id in touched:
            items = look(sandbox, f"orders/{order_id}")["items"]
            assert len(items) == len(before[order_id]["items"]) - 1 > 0
            assert all(item in before[order_id]["items"] for item in items)


def test_an_order_modified_twice_ends_at_its_newest_version() -> None:
    """The second version is later than every first one of the same call."""
    with running(auth="none", orders=100) as sandbox:
        touched = control(sandbox, "change", {"new": 2, "modify": 10, "modify_twice": 3})

        newest = ids(sandbox, sort="-last_modified_date", limit=3)
        assert set(newest) == set(touched["modified_twice"])
        twice = {look(sandbox, f"orders/{one}")["last_modified_date"] for one in newest}
        once = {look(sandbox, f"orders/{one}")["last_modified_date"] for one in touched["modified"]}
        assert min(twice) > max(once)


def test_more_changes_than_orders_are_refused_and_change_nothing(empty: RunningSandbox) -> None:
    """Otherwise a test would count on changes that never happened."""
    control(empty, "orders", [order("a", items=[{"sku": "x"}])])
    answer = requests.post(f"{empty.url}/_sandbox/change", json={"remove_items": 1}, timeout=30)

    assert answer.status_code == 400
    assert "lose an item" in answer.json()["error"]
    assert everything(empty) == [order("a", items=[{"sku": "x"}])]


def test_the_same_seed_changes_the_same_orders() -> None:
    """A failing sequence of changes can be played again."""
    played = []
    for _ in range(2):
        with running(auth="none", orders=200, now=NOON) as sandbox:
            counts = {"new": 1, "modify": 5, "remove_items": 2, "seed": 42}
            played.append([control(sandbox, "change", counts) for _ in range(2)])

    assert played[0] == played[1]


def test_the_state_counts_what_is_there() -> None:
    """Orders and items are counted as they change, and must not drift from the truth."""
    with running(auth="none", orders=150) as sandbox:
        control(sandbox, "change", {"new": 9, "modify": 30, "remove_items": 12})
        control(sandbox, "orders", [order("x", items=[{}, {}]), order("ORD-00000003", items=[])])
        requests.delete(f"{sandbox.url}/_sandbox/orders/ORD-00000007", timeout=30)
        orders = everything(sandbox)
        state = look(sandbox, "state")

        assert state["orders"] == len(orders) == 159
        assert state["items"] == sum(len(order["items"]) for order in orders)
        newest = max(order["last_modified_date"] for order in orders)
        assert state["newest_last_modified_date"] == newest


def test_a_deleted_order_is_gone_and_may_come_back() -> None:
    """Hard deletes are what an incremental reader cannot see."""
    with running(auth="none", orders=3) as sandbox:
        url = f"{sandbox.url}/_sandbox/orders/ORD-00000002"

        assert [requests.delete(url, timeout=30).status_code for _ in range(2)] == [200, 404]
        assert requests.get(url, timeout=30).status_code == 404
        assert ids(sandbox) == ["ORD-00000001", "ORD-00000003"]
        control(sandbox, "orders", order("ORD-00000002"))
        assert ids(sandbox) == ["ORD-00000001", "ORD-00000003", "ORD-00000002"]


def test_an_order_is_put_as_it_is(empty: RunningSandbox) -> None:
    """Unknown fields stay and numbers keep every digit, through reading and writing."""
    body = (
        '{"order_id":"a/b","last_modified_date":"2025-01-01T00:00:00Z",'
        '"total":0.10000000000000000001,"big":12345678901234567890,"zero":1.00,"odd":{"ä":[null]}}'
    )
    assert control(empty, "orders", body) == {"created": 1, "replaced": 0}

    assert requests.get(f"{empty.url}/_sandbox/orders/a/b", timeout=30).text == body
    assert control(empty, "orders", body.replace("1.00", "2.00")) == {"created": 0, "replaced": 1}
    assert '"zero":2.00' in get(empty).text


def test_an_order_put_without_a_date_is_modified_now(empty: RunningSandbox) -> None:
    """The short way for tests to change an order."""
    before = look(empty, "state")["now"]
    control(empty, "orders", {"order_id": "a"})

    modified = page(empty)["orders"][0]["last_modified_date"]
    assert before <= modified <= look(empty, "state")["now"]


def test_rows_that_are_awkward_are_served_whatever_the_window(empty: RunningSandbox) -> None:
    """A reader must meet rows without an order_id or a readable date in order to reject them."""
    bad = [
        {"order_id": "null date", "last_modified_date": None},
        {"order_id": "bad date", "last_modified_date": "soon"},
        {"last_modified_date": "2025-01-01T00:00:00Z"},
        {"order_id": None, "last_modified_date": "2025-01-01T00:00:00Z"},
    ]
    control(empty, "orders", [*bad, order("good")])

    late = page(empty, modified_since="2025-06-01", sort="last_modified_date")
    shown = [row.get("order_id") for row in late["orders"]]
    assert (shown, late["total"]) == (["good", "bad date", "null date"], 3)
    backwards = page(empty, sort="-last_modified_date")["orders"]
    assert [row.get("order_id") for row in backwards][-2:] == ["bad date", "null date"]
    assert len(everything(empty)) == 5


def test_the_record_holds_what_was_asked_but_no_secret(closed: RunningSandbox) -> None:
    """Tests look here for what a client did; looking itself leaves no trace."""
    headers = with_token(closed)
    get(closed, headers, limit=2)
    get(closed)

    record = look(closed, "requests")
    fields = ("path", "query", "status", "authorization")
    assert [tuple(one[field] for field in fields) for one in record["requests"]] == [
        ("/oauth/token", "", 200, False),
        ("/v1/orders", "limit=2", 200, True),
        ("/v1/orders", "", 401, False),
    ]
    assert headers["Authorization"].split()[1] not in json.dumps(record)
    assert look(closed, "state")["requests"] == 3


def test_settings_change_at_run_time(empty: RunningSandbox) -> None:
    """What the server does can change between two pages."""
    control(empty, "orders", [order(order_id) for order_id in "abc"])

    settings = {"page_cap": 1, "no_total": True, "latency_ms": 0.5}
    assert control(empty, "settings", settings).items() >= settings.items()
    assert page(empty) == {"orders": [order("a")], "limit": 50, "offset": 0}
    control(empty, "settings", {"page_cap": None})
    assert len(page(empty)["orders"]) == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("settings", {"latency": 1}),
        ("settings", {"page_cap": 0}),
        ("settings", {"ignore_sort": "yes"}),
        ("change", {"modified": 1}),
        ("change", {"modify": -1}),
        ("change", {"modify": "1"}),
        ("faults", {"script": ["oops"]}),
        ("faults", {"script": "503"}),
        ("token", {"lifetime": "long"}),
        ("token", []),
        ("orders", "{"),
    ],
)
def test_a_control_that_is_misspelt_is_refused(plain: RunningSandbox, path: str, body: Any) -> None:
    """A test that turns a knob that is not there must hear of it."""
    data = body if isinstance(body, str) else json.dumps(body)
    answer = requests.post(f"{plain.url}/_sandbox/{path}", data=data, timeout=30)

    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}


def test_churn_changes_orders_while_they_are_served() -> None:
    """A shop that never stands still, and whose amounts are right all the same."""
    with running(auth="none", orders=100, churn=2000) as sandbox:
        # Each look is a request, so the loop waits for the server and not for a clock.
        for _ in range(5000):
            if look(sandbox, "state")["orders"] >= 120:
                break
        control(sandbox, "settings", {"churn": 0})
        orders = everything(sandbox)

        assert len(orders) >= 120
        assert look(sandbox, "state")["items"] == sum(len(order["items"]) for order in orders)
        for changed in orders:
            assert_amounts_are_exact(changed)


# Generated orders


def test_generated_amounts_add_up_to_the_cent(plain: RunningSandbox) -> None:
    """The totals that a warehouse is compared with; some are whole numbers, as JSON has them."""
    orders = everything(plain)

    for generated in orders:
        assert_amounts_are_exact(generated)
    totals = {type(order["total"]) for order in orders}
    assert totals == {int, Decimal}
    fractions = Counter(len(str(o["total"]).partition(".")[2]) for o in orders)
    assert fractions.keys() == {0, 1, 2}


def test_generated_orders_are_as_various_as_real_ones(plain: RunningSandbox) -> None:
    """Null and not null, empty and long, in every field that a schema could stumble over."""
    orders = everything(plain)

    for field in ("customer", "billing_address", "discount", "note"):
        assert {order[field] is None for order in orders} == {True, False}, field
    assert {order["status"] for order in orders} == {
        "pending", "paid", "shipped", "delivered", "cancelled", "refunded",
    }  # fmt: skip
    assert {bool(order["tags"]) for order in orders} == {True, False}
    assert {order["is_gift"] for order in orders} == {True, False}
    assert {1, 2, 3, 4, 5, 6} < {len(order["items"]) for order in orders}
    notes = "".join(order["note"] or "" for order in orders)
    assert {"ü", "🎂", "生", '"', "\n"} <= set(notes)
    customers = [order["customer"] for order in orders if order["customer"]]
    assert {customer["phone"] is None for customer in customers} == {True, False}
    mails = {customer["email"].rpartition("@")[2] for customer in customers}
    assert mails == {"example.com", "example.org"}
    assert {order["shipping_address"]["state"] is None for order in orders} == {True, False}


def test_generated_times_are_a_year_up_to_a_minute_ago(plain: RunningSandbox) -> None:
    """Spread over the days asked for, never before the order itself, some in one millisecond."""
    orders = everything(plain)

    modified = [order["last_modified_date"] for order in orders]
    assert all(order["order_date"] <= order["last_modified_date"] for order in orders)
    assert max(modified) == "2025-06-30T11:59:00.000Z"
    year_ago = datetime.fromisoformat(NOON) - timedelta(days=365, minutes=1)
    assert datetime.fromisoformat(min(modified)) >= year_ago
    assert len({time[:7] for time in modified}) >= 12
    assert len(set(modified)) < len(modified)
    created = [order["order_date"] for order in orders]
    assert all(a < b for a, b in pairwise(created))


def test_generated_orders_may_share_one_time() -> None:
    """As a bulk edit leaves them, which is the one place where a reader has to trust an offset."""
    with running(auth="none", orders=300, days=0, now=NOON) as sandbox:
        modified = {order["last_modified_date"] for order in everything(sandbox)}

    assert modified == {"2025-06-30T11:59:00.000Z"}


def test_the_same_seed_gives_the_same_orders() -> None:
    """Reproducible to the byte with `now`, and but for the times without."""

    def served(**options: Any) -> bytes:
        with running(auth="none", orders=300, **options) as sandbox:
            return requests.get(f"{sandbox.url}/_sandbox/orders", timeout=30).content

    def timeless(lines: bytes) -> list[dict[str, Any]]:
        orders = [json.loads(line) for line in lines.splitlines()]
        return [{k: v for k, v in order.items() if not k.endswith("_date")} for order in orders]

    first = served(now=NOON)
    assert first == served(now=NOON)
    assert first != served(now=NOON, seed=2)
    assert timeless(first) == timeless(served())


def test_new_orders_go_on_where_the_generated_ones_end(empty: RunningSandbox) -> None:
    """An order_id that a test has taken is not given again."""
    control(empty, "orders", order("ORD-00000002"))

    new = control(empty, "change", {"new": 3})["new"]
    assert new == ["ORD-00000001", "ORD-00000003", "ORD-00000004"]
    created = look(empty, f"orders/{new[0]}")
    assert created["order_date"] == created["last_modified_date"]


# Orders from a file


def test_ndjson_is_served_digit_by_digit(tmp_path: Path) -> None:
    """Amounts that a float cannot hold, rows that are awkward, an order_id that comes twice."""
    lines = [
        '{"order_id": "1", "last_modified_date": "2025-01-01T00:00:00Z", "total": 2.550}',
        '{"order_id": 7, "last_modified_date": 1735776000, "total": 1e2, "x": 0.10000000000000001}',
        '{"total": 3, "last_modified_date": null}',
        '{"order_id": "1", "last_modified_date": "2025-01-03T00:00:00+02:00", "note": "ü\\u2028"}',
    ]
    file = tmp_path / "orders.ndjson"
    file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")

    with running(auth="none", orders_from=str(file)) as sandbox:
        body = get(sandbox, sort="last_modified_date").text
        expected = [lines[0], lines[1], lines[3], lines[2]]
        assert body == f'{{"orders":[{",".join(expected)}],"total":4,"limit":50,"offset":0}}'
        assert look(sandbox, "orders/7")["total"] == Decimal("1e2")
        assert look(sandbox, "orders/1")["note"]


def test_dates_of_a_file_are_written_in_the_style_asked_for(tmp_path: Path) -> None:
    """One file serves for APIs of every style; dates that cannot be read stay."""
    file = tmp_path / "orders.jsonl"
    rows = [order("a", "2025-06-30T14:00:00+02:00", total=1), order("b", "soon")]
    file.write_text("\n".join(map(json.dumps, rows)))

    with running(auth="none", orders_from=str(file), cursor_style="epoch_seconds") as sandbox:
        dates = [row["last_modified_date"] for row in page(sandbox)["orders"]]
        assert dates == [1751284800, "soon"]


def test_parquet_is_served_with_exact_decimals_and_iso_times(tmp_path: Path) -> None:
    """Typed columns become JSON without a detour over float or local time."""
    file = tmp_path / "orders.parquet"
    duckdb.sql(
        f"""
        COPY (
            SELECT 'a' AS order_id, TIMESTAMPTZ '2025-06-30 14:00:00.25+02' AS last_modified_date,
                TIMESTAMP '2025-06-30 12:00:00' AS order_date, DATE '2025-06-30' AS day,
                12345678901234567890.12::DECIMAL(38, 2) AS total, NULL AS note,
                [{{'sku': 'x', 'unit_price': 2.55::DECIMAL(18, 2)}}] AS items
        ) TO '{file}'
        """
    )

    with running(auth="none", orders_from=str(file)) as sandbox:
        assert requests.get(f"{sandbox.url}/_sandbox/orders/a", timeout=30).text == (
            '{"order_id":"a","last_modified_date":"2025-06-30T12:00:00.250Z",'
            '"order_date":"2025-06-30T12:00:00.000Z","day":"2025-06-30",'
            '"total":12345678901234567890.12,"note":null,"items":[{"sku":"x","unit_price":2.55}]}'
        )


def test_reading_a_large_file_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """DuckDB's progress bar goes to stdout, where a parent process reads the sandbox's address."""
    file = tmp_path / "orders.parquet"
    duckdb.sql(f"COPY (SELECT i::VARCHAR AS order_id FROM range(200_000) r(i)) TO '{file}'")
    connect = duckdb.connect

    class Impatient:
        """A connection whose progress bar, if it is on, does not wait two seconds to appear."""

        def __enter__(self) -> Impatient:
            self.inner = connect()
            self.inner.execute("SET progress_bar_time = 0")  # which also switches the bar on
            return self

        def __exit__(self, *_: object) -> None:
            self.inner.close()

        def execute(self, sql: str, *parameters: Any) -> duckdb.DuckDBPyConnection:
            if sql.startswith("SELECT"):
                capfd.readouterr()  # forget the bars of the settings themselves
            return self.inner.execute(sql, *parameters)

    monkeypatch.setattr(duckdb, "connect", Impatient)
    with running(orders_from=str(file)) as sandbox:
        assert sandbox.shop.orders == 200_000

    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not RETAILER.exists(), reason="the retailer's file is not part of the project")
def test_the_retailers_orders_add_up_to_the_published_figures() -> None:
    """25,900 real orders through the API: every item, and the sum to the last decimal."""
    with running(auth="none", orders_from=str(RETAILER)) as sandbox:
        state = look(sandbox, "state")
        assert (state["orders"], state["items"]) == (25_900, 541_909)
        orders = everything(sandbox)
        items = [item for order in orders for item in order["items"]]
        amount = sum((item["quantity"] * item["unit_price"] for item in items), Decimal(0))
        assert amount == Decimal("9747747.934")
        assert all(isinstance(item["unit_price"], Decimal) for item in items)

        touched = control(sandbox, "change", {"new": 3, "modify": 10, "remove_items": 3})
        fresh = ids(sandbox, modified_since="2020-01-01", limit=100)
        assert set(fresh) == {order_id for group in touched.values() for order_id in group}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("orders.ndjson", '{"order_id": "1"}\n{"order_id": ', "orders.ndjson, line 2"),
        ("orders.json", '[{"order_id": "1"}]', "one order a line"),
        ("orders.ndjson", '{"total": NaN}', "NaN"),
        ("orders.parquet", "PAR0", "orders.parquet is no Parquet file"),
        ("orders.csv", "order_id\n1\n", "neither .parquet nor"),
        (None, "", "no file"),
    ],
)
def test_a_file_that_cannot_be_served_is_named(
    tmp_path: Path, name: str | None, content: str, message: str
) -> None:
    """Culprit and remedy, at the start and not in the middle of a test."""
    if name:
        (tmp_path / name).write_text(content)

    file = str(tmp_path / (name or "missing.parquet"))
    with pytest.raises(ValueError, match=message), running(orders_from=file):
        pass


# The process


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orders_dagster.sandbox", *arguments]
    root = Path(__file__).resolve().parents[1]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_says_where_it_answers_and_ends_quietly(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The way the demo uses it: a line and a file once it answers, and no traceback at the end."""
    ready = tmp_path / "url"
    with start("--port", "0", "--orders", "12", "--ready-file", str(ready)) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = line.split()[1]
            answer = requests.post(f"{url}/oauth/token", data=GOOD, timeout=30)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()

    secrets = "client_id=sandbox, client_secret=sandbox-secret"
    assert line == f"sandbox: {url}  (12 orders, {secrets})\n"
    assert ready.read_text().strip() == url
    assert answer.status_code == 200
    assert (process.returncode, errors) == (0, "")


def test_help_names_every_option() -> None:
    """No option is only to be found in the code."""
    with start("--help") as process:
        text, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    for field in dataclasses.fields(SandboxOptions):
        assert (
            f"--{field.name.replace('_', '-')} " in text
            or f"--{field.name.replace('_', '-')}]" in text
        )
    assert "examples:" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faults", "oops:1"], "'oops' is no fault"),
        (["--orders-from", "missing.parquet"], "no file 'missing.parquet'"),
        (["--port", "70000"], "beyond 65535"),
        (["--ready-file", "missing/url"], "no directory 'missing'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments: list[str], message: str) -> None:
    """Culprit and remedy, without a traceback."""
    with start("--port", "0", *arguments) as process:
        text, errors = process.communicate(timeout=30)

    assert (process.returncode, text, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_a_port_in_use_is_named(plain: RunningSandbox) -> None:
    """The commonest thing to go wrong at the start, and the option that helps."""
    port = plain.url.rpartition(":")[2]
    with start("--port", port) as process:
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 2
    assert port in errors
    assert "--port 0" in errors


def test_the_port_is_free_again_when_the_block_is_left() -> None:
    """Nothing goes on in the background of the next test."""
    with running(orders=1, auth="none") as sandbox:
        assert get(sandbox).status_code == 200

    with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
        get(sandbox)


def test_the_shop_may_be_changed_from_the_tests_own_thread() -> None:
    """`.shop` is the same state that HTTP shows."""
    with running(orders=4, auth="none") as sandbox:
        sandbox.shop.upsert([{"order_id": "mine"}])
        sandbox.shop.delete("ORD-00000001")

        expected = ["ORD-00000002", "ORD-00000003", "ORD-00000004", "mine"]
        assert ids(sandbox) == expected
        newest = sandbox.shop.newest()
        assert newest is not None
        assert look(sandbox, "state")["newest_last_modified_date"] == iso(newest)


def test_the_sandbox_shares_nothing_with_the_project() -> None:
    """A fake that shares the project's code shares its mistakes."""
    code = (
        "import sys, orders_dagster.sandbox.__main__;"
        "print(*(name for name in sys.modules if name.partition('.')[0] in"
        " ('orders_dagster', 'dagster', 'dlt')))"
    )
    root = Path(__file__).resolve().parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )

    shared = [n for n in answer.stdout.split() if not n.startswith("orders_dagster.sandbox")]
    assert shared == ["orders_dagster"]
