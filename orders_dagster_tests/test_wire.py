"""Faults on the wire, tokens, and answers that are no pages: what is retried, what stops, and how."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from requests import Response

from orders_dagster.api.connect import connect
from orders_dagster.api.session import Traffic
from orders_dagster.errors import (
    ApiRefused,
    ApiUnavailable,
    ApiUnreachable,
    CredentialsRefused,
    PagesDisagree,
    ResponseNotUnderstood,
    SettingsError,
)
from orders_dagster.local import free_port
from orders_dagster.settings import read_settings
from orders_dagster_tests.small_api import Answer, Answering, Api, Refusal, order, page
from orders_dagster_tests.world import Project, Shop, expected

OpenShop = Callable[..., Shop]
Serve = Callable[[Answering], Api]
ORDERS = [order(n, n) for n in range(5)]


@pytest.mark.parametrize(
    "fault", ["429@0", "500", "502", "503", "504", "drop", "truncate", "garble", "401"]
)
def test_a_fault_that_time_cures_is_retried(project: Project, shop: OpenShop, fault: str) -> None:
    """T4, T14 and the reference configuration: such a request is repeated, and nothing is lost."""
    store = shop(orders=500)
    project.set(workers=1)  # of several, one may meet both faults, and a second 401 is no cure
    store.script("ok", fault, "ok", fault)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    assert result.retries == (0 if fault == "401" else 2)


@pytest.mark.parametrize("fault", ["503", "drop", "truncate"])
def test_after_the_third_retry_the_run_stops_and_nothing_is_half_loaded(
    project: Project, shop: OpenShop, fault: str
) -> None:
    """T12: three retries are four attempts. A failed run leaves tables and watermark as they were."""
    store = shop(orders=600)
    project.set(workers=1)  # all four faults meet one request
    first = project.synchronise()
    before = project.orders()
    store.change(new=300)
    store.script("ok", *[fault] * 4)

    with pytest.raises(ApiUnavailable, match="failed 4 times in a row.*Nothing is half loaded"):
        project.synchronise()

    assert project.orders() == before
    healed = project.synchronise()
    assert healed.watermark_before == first.watermark_after
    assert project.orders() == expected(store.orders())


def test_retry_after_is_honoured(project: Project, shop: OpenShop) -> None:
    """A shop that says when to come back means it; our own backoff here would be 0.01 s."""
    store = shop(orders=10)
    store.script("429@1")

    result = project.synchronise()

    assert result.retries == 1
    assert result.extract_seconds >= 1


def test_a_wait_longer_than_a_run_should_take_stops_the_run(
    project: Project, shop: OpenShop
) -> None:
    """An hour of sleep would hold the warehouse's pool; the next scheduled run is the retry."""
    store = shop(orders=10)
    store.script("429@3600")

    with pytest.raises(ApiUnavailable, match="asks to come back in 3600 s"):
        project.synchronise()


def test_a_status_that_is_not_in_the_setting_is_not_retried(
    project: Project, shop: OpenShop
) -> None:
    """The list of statuses is the user's to make shorter."""
    store = shop(orders=10)
    project.set(retry__status_codes=[500])
    store.script("503")

    with pytest.raises(ApiRefused, match="503.*retry.status_codes"):
        project.synchronise()
    assert sum(request["path"] == "/v1/orders" for request in store.requests()) == 1


def test_a_wrong_client_secret_is_named_and_not_shown(project: Project, shop: OpenShop) -> None:
    """The first thing that goes wrong at a new shop: say which setting, and keep the secret."""
    shop(orders=10)
    project.set(client_secret="wrong-s3cret")

    with pytest.raises(CredentialsRefused) as refused:
        project.synchronise()

    assert "sources.orders.client_id and client_secret" in str(refused.value)
    assert "wrong-s3cret" not in str(refused.value)


def test_each_worker_keeps_its_connection(
    project: Project, shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    """However many there are; urllib3 would warn of each connection that it does not keep."""
    shop(orders=4000, latency_ms=20)
    project.set(page_size=20, workers=64)

    project.synchronise()

    assert "pool is full" not in caplog.text


@pytest.mark.parametrize("setting", ["base_url", "token_url"])
def test_an_unreachable_host_fails_at_once_and_names_its_setting(
    project: Project, shop: OpenShop, setting: str
) -> None:
    """Nothing has ever answered there, so it is the address: no minutes of backoff."""
    shop(orders=10)
    project.set(**{setting: f"http://127.0.0.1:{free_port()}/x"})
    project.set(retry__backoff_factor=60)

    with pytest.raises(ApiUnreachable, match=f"connection refused.*sources.orders.{setting}"):
        project.synchronise()


def test_a_path_that_does_not_exist_is_named(project: Project, shop: OpenShop) -> None:
    """A 404 is cured by a setting, not by waiting."""
    shop(orders=10)
    project.set(path="/v2/orders")

    with pytest.raises(ApiRefused, match="404.*sources.orders.path"):
        project.synchronise()


def test_a_parameter_the_api_does_not_know_is_named(project: Project, shop: OpenShop) -> None:
    """A 400 is about the parameters."""
    shop(orders=10)
    project.set(params={"updated_from": "{start}"})

    with pytest.raises(ApiRefused, match="400.*sources.orders.params"):
        project.synchronise()


def test_a_body_without_the_selector_shows_what_was_there(project: Project, shop: OpenShop) -> None:
    """T2: dlt takes it for an empty page, and the run is green with nothing loaded."""
    shop(orders=10)
    project.set(data_selector="data.sales")

    with pytest.raises(ResponseNotUnderstood) as error:
        project.synchronise()

    message = str(error.value)
    assert "answered 200" in message
    assert "the keys limit, offset, orders, total" in message
    assert "sources.orders.data_selector" in message


def test_a_body_that_is_no_json_is_retried_and_then_named(project: Project, shop: OpenShop) -> None:
    """T14: garbled once is the wire, garbled four times is the wrong address."""
    store = shop(orders=10)
    store.script(*["garble"] * 4)

    with pytest.raises(ResponseNotUnderstood, match=r"no JSON \(text/html\).*sources.orders.path"):
        project.synchronise()


def test_pages_that_never_add_up_stop_the_run(project: Project, shop: OpenShop) -> None:
    """A total that is never reached is an error to look at, not a load to trust."""
    store = shop(orders=700)
    store.script("ok", *["empty"] * 100)  # enough for each window that is read at once

    with pytest.raises(PagesDisagree, match="sources.orders.total_path"):
        project.synchronise()


def test_a_token_that_expires_during_the_run_is_renewed(project: Project, shop: OpenShop) -> None:
    """T19: tokens that live a second, over a run that takes longer."""
    store = shop(orders=1500, token_lifetime=1, latency_ms=100)
    project.set(workers=1)

    result = project.synchronise()

    assert project.orders() == expected(store.orders())
    tokens = [request for request in store.requests() if request["path"] == "/oauth/token"]
    assert len(tokens) >= 2
    assert result.retries == 0


def test_a_second_401_in_a_row_stops_the_run(project: Project, shop: OpenShop) -> None:
    """T4: a new token is the cure for a 401 once; after that it is the credentials."""
    store = shop(orders=10)
    store.script("401", "401")

    with pytest.raises(CredentialsRefused, match="401"):
        project.synchronise()


@pytest.mark.parametrize(
    "lifetime", ["3600", None, "soon", -1, 0, pytest.param(10**400, id="huge")]
)
def test_any_expires_in_is_dealt_with(project: Project, shop: OpenShop, lifetime: Any) -> None:
    """Token endpoints write it as text, or leave it out."""
    import requests

    store = shop(orders=10)
    form = {
        "grant_type": "client_credentials",
        "client_id": "sandbox",
        "client_secret": "sandbox-secret",
    }
    token = requests.post(f"{store.url}/oauth/token", data=form, timeout=10).json()
    answer = {"access_token": token["access_token"], "expires_in": lifetime}
    store.token(answer={key: value for key, value in answer.items() if value is not None})

    assert project.synchronise().loaded == 10


def test_credentials_may_go_into_the_header_of_the_token_request(
    project: Project, shop: OpenShop
) -> None:
    """`auth.credentials_in = "basic"`, as RFC 6749 prefers it."""
    shop(orders=10)
    project.set(auth__credentials_in="basic", auth__scope="orders:read", auth__extra={"x": "y"})

    assert project.synchronise().loaded == 10


def test_no_more_requests_per_second_than_allowed(project: Project, shop: OpenShop) -> None:
    """Ten requests at twenty a second take at least nine intervals of 50 ms."""
    shop(orders=900)
    project.set(page_size=100, max_requests_per_second=20)

    result = project.synchronise()

    assert result.extract_seconds >= (result.requests - 1) * 0.05


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bearer", {"auth__token": "sandbox-token"}),
        ("api_key", {"auth__api_key": "sandbox-key", "auth__name": "X-API-Key"}),
        (
            "api_key",
            {"auth__api_key": "sandbox-key", "auth__name": "api_key", "auth__location": "query"},
        ),
        ("http_basic", {"auth__username": "sandbox", "auth__password": "sandbox-secret"}),
        ("none", {}),
    ],
)
def test_other_kinds_of_login_are_settings(
    project: Project, shop: OpenShop, kind: str, settings: dict[str, str]
) -> None:
    """Not every API speaks OAuth2; dlt's own key names serve for the others."""
    shop(orders=10, auth=kind)
    project.unset("client_id", "client_secret", "token_url")
    project.set(auth__type=kind, **settings)

    assert project.synchronise().loaded == 10


def test_an_api_key_in_the_address_is_not_shown(project: Project, shop: OpenShop) -> None:
    """Addresses appear in messages; a key in one must not."""
    shop(orders=10, auth="api_key")
    project.set(
        auth__type="api_key", auth__api_key="k3y", auth__name="shopkey", auth__location="query"
    )

    with pytest.raises(SettingsError) as error:
        project.synchronise()

    assert "k3y" not in str(error.value)
    assert "shopkey=***" in str(error.value)


def test_an_api_key_may_be_a_cookie(project: Project, serve: Serve) -> None:
    """dlt takes `cookie` for a location, and raises NotImplementedError at the first request."""
    api = serve(lambda query: {"orders": [], "total": 0})
    project.set(
        auth__type="api_key", auth__api_key="k3y", auth__name="shop", auth__location="cookie"
    )

    project.synchronise()

    assert {headers.get("Cookie") for headers in api.headers} == {"shop=k3y"}


def test_an_api_key_in_a_cookie_goes_along_with_a_redirect(project: Project, serve: Serve) -> None:
    """requests makes that header anew, from the cookies that it knows."""

    def answer(query: dict[str, str]) -> Answer:
        if "again" in query:
            return {"orders": [], "total": 0}
        return Refusal(302, {"Location": "/v1/orders/?" + urlencode(query | {"again": "1"})})

    api = serve(answer)
    project.set(
        auth__type="api_key", auth__api_key="k3y", auth__name="shop", auth__location="cookie"
    )

    project.synchronise()

    assert {headers.get("Cookie") for headers in api.headers} == {"shop=k3y"}


def test_a_password_in_netrc_is_not_for_this_api(
    project: Project, shop: OpenShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests sends it to whoever has no login of requests' own, in place of ours."""
    shop(orders=10)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hunter2")
    monkeypatch.setenv("NETRC", str(netrc))

    assert project.synchronise().loaded == 10


def test_a_login_in_the_address_is_sent(project: Project, serve: Serve) -> None:
    """As it is by requests, where there is no other."""
    api = serve(lambda query: {"orders": [], "total": 0})
    project.set(base_url=api.url.replace("//", "//me:word@"))

    project.synchronise()

    assert {headers.get("Authorization") for headers in api.headers} == {"Basic bWU6d29yZA=="}


def test_a_bundle_of_certificates_that_is_not_there_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests raises a bare OSError."""
    project.point_at("https://127.0.0.1:1", login=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/corporate.pem")

    with pytest.raises(SettingsError, match="was not asked. Correct REQUESTS_CA_BUNDLE"):
        project.synchronise()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf8mb4",
        "application/json; charset=",
        "application/json; charset=utf-8, application/json",
        "application/json; charset=us-ascii",
    ],
)
def test_a_charset_that_cannot_be_meant_is_utf_8(
    project: Project, serve: Serve, content_type: str
) -> None:
    """RFC 8259 knows no other; a name that Python does not know made every page "no JSON"."""
    order = {"order_id": "A", "last_modified_date": "2026-01-01T00:00:00Z", "city": "Žatec"}
    first = json.dumps({"orders": [order], "total": 1}, ensure_ascii=False).encode()
    api = serve(lambda query: first if query["offset"] == "0" else {"orders": [], "total": 1})
    api.also = {"Content-Type": content_type}
    project.set(paging="offset")

    project.synchronise()

    assert project.query("SELECT city FROM ecommerce.orders") == [("Žatec",)]


def test_what_is_sent_before_an_answer_is_not_taken_for_it(project: Project, serve: Serve) -> None:
    """The answer itself would be that of the next request on the connection, and so on from there."""
    api = serve(lambda query: page(ORDERS, query))
    api.interim = 103, 2

    result = project.synchronise()

    assert (result.rows_in_table, result.retries) == (len(ORDERS), 0)


@pytest.mark.parametrize("status", [100, 103])
def test_an_answer_that_is_only_announced_is_not_waited_for(
    project: Project, serve: Serve, status: int
) -> None:
    """Each of them is something read in time."""
    api = serve(lambda query: page(ORDERS, query))
    api.interim = status, 1000

    with pytest.raises(ApiUnavailable, match="the connection broke off"):
        project.synchronise()


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(Refusal(302, {"Location": " "}), id="a redirect to nowhere"),
        pytest.param(Refusal(200, {"Content-Length": "7"}), id="two lengths"),
        pytest.param(
            Refusal(429, {"Retry-After": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}),
            id="a year too late",
        ),
    ],
)
def test_an_answer_with_odd_headers_is_retried(
    project: Project, serve: Serve, odd: Refusal
) -> None:
    answers = [odd]
    serve(lambda query: answers.pop() if answers else page(ORDERS, query))

    result = project.synchronise()

    assert (result.rows_in_table, result.retries) == (len(ORDERS), 1)


def test_a_redirect_in_a_circle_is_named(project: Project, serve: Serve) -> None:
    serve(lambda query: page(ORDERS, query)).redirect = "/v1/orders"

    with pytest.raises(ApiRefused, match="302.*sources.orders.base_url .it redirects again"):
        project.synchronise()


@pytest.mark.parametrize("status", [408, 425])
def test_a_status_that_is_about_the_moment_names_the_setting_of_retries(
    project: Project, serve: Serve, status: int
) -> None:
    serve(lambda query: Refusal(status))

    with pytest.raises(ApiRefused, match=f"{status}.*sources.orders.retry.status_codes"):
        project.synchronise()


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("https://shop.example/v1/orders", "https://shop.example:443/v1/orders/"),
        ("http://shop.example:80/v1/orders", "http://shop.example/v1/orders/"),
        ("http://shop.example/v1/orders", "https://shop.example:443/v1/orders"),
    ],
)
def test_a_redirect_may_write_out_the_port_that_is_meant(
    project: Project, asked: str, target: str
) -> None:
    """As load balancers do. It is the same host, and the message named it as another."""
    project.point_at("https://shop.example", login=False)
    answer = Response()
    answer.status_code, answer.url, answer.headers["Location"] = 302, asked, target

    session = connect(read_settings(), Traffic()).session

    assert session.get_redirect_target(answer) == target


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_no_log_of_a_library_shows_a_key_of_an_address(
    project: Project, serve: Serve, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """dlt and urllib3 log the addresses they ask for, as soon as somebody wants to see more."""
    serve(lambda query: {"orders": [], "total": 0})
    project.set(
        auth__type="api_key", auth__api_key="k3y", auth__name="shopkey", auth__location="query"
    )
    dlt = logging.getLogger("dlt")
    dlt.addHandler(caplog.handler)
    try:
        with caplog.at_level(level), caplog.at_level(level, "dlt"):
            project.synchronise()
    finally:
        dlt.removeHandler(caplog.handler)

    assert "/v1/orders" in caplog.text
    assert "k3y" not in caplog.text
