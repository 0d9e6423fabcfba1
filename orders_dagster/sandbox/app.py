"""The API that a pipeline talks to: a token endpoint and the orders.

Here: the two public routes, in the order in which a real server decides: gateway trouble, then
credentials, then parameters, then the page. Not here: the routes for tests (`control.py`), and
what each of those steps knows (`faults.py`, `auth.py`, `query.py`, `shop.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answers import Dropped, failure, json_answer, page_body, spoiled, unauthorized
from .auth import basic_credentials, bearer_token, is_authorized, is_client
from .control import control_routes
from .faults import ORDERS, TOKEN, Fault
from .query import BadParameter, read_query
from .recording import RequestLog, note_fault
from .state import Sandbox


def build_app(sandbox: Sandbox) -> Starlette:
    """The application that serves one sandbox."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        churn = asyncio.create_task(sandbox.churn())
        yield
        churn.cancel()
        with suppress(asyncio.CancelledError):
            await churn

    async def token(request: Request) -> Response:
        return await _token(sandbox, request)

    async def orders(request: Request) -> Response:
        return await _orders(sandbox, request)

    routes = [
        Route("/oauth/token", token, methods=["POST"]),
        Route("/v1/orders", orders, methods=["GET"]),
        *control_routes(sandbox),
    ]
    return Starlette(
        routes=routes, lifespan=lifespan, middleware=[Middleware(RequestLog, sandbox=sandbox)]
    )


async def _token(sandbox: Sandbox, request: Request) -> Response:
    form = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
    fault = _next_fault(sandbox, request, TOKEN)
    trouble = await _trouble(sandbox, request, fault)
    if trouble is not None:
        return trouble
    return spoiled(fault, _token_answer(sandbox, request, form), sandbox.connections)


def _token_answer(sandbox: Sandbox, request: Request, form: dict[str, list[str]]) -> Response:
    in_body = form.get("client_id", [""])[0], form.get("client_secret", [""])[0]
    credentials = basic_credentials(request) or in_body
    if not is_client(credentials, sandbox.options):
        headers = {"WWW-Authenticate": 'Basic realm="sandbox"'}
        return json_answer({"error": "invalid_client"}, 401, headers)
    grant = form.get("grant_type", [""])[0]
    if not grant:
        return json_answer({"error": "invalid_request", "parameter": "grant_type"}, 400)
    if grant != "client_credentials":
        return json_answer({"error": "unsupported_grant_type"}, 400)
    return json_answer(sandbox.tokens.answer(), headers={"Cache-Control": "no-store"})


async def _orders(sandbox: Sandbox, request: Request) -> Response:
    fault = _next_fault(sandbox, request, ORDERS)
    trouble = await _trouble(sandbox, request, fault)
    if trouble is not None:
        return trouble
    if not is_authorized(request, sandbox.options, sandbox.tokens):
        return unauthorized(sandbox.options.auth)
    try:
        answer = await _page(sandbox, request, empty=fault is not None and fault.name == "empty")
    except BadParameter as error:
        return json_answer({"error": str(error), "parameter": error.parameter}, 400)
    return spoiled(fault, answer, sandbox.connections)


async def _page(sandbox: Sandbox, request: Request, empty: bool) -> Response:
    options, settings = sandbox.options, sandbox.settings
    query = read_query(
        request.query_params.multi_items(),
        options.max_limit,
        settings.ignore_sort,
        settings.ignore_filter,
        also_allowed=("api_key",) if options.auth == "api_key" else (),
    )
    if settings.latency_ms:
        await sandbox.pause(settings.latency_ms / 1000)
    limit = min(query.limit, settings.page_cap or query.limit)
    orders, total = sandbox.shop.page(
        query.since, query.before, query.sort, query.offset, limit, settings.unstable_ties
    )
    shown_total = None if settings.no_total else total
    body = page_body(options.shape, [] if empty else orders, shown_total, query.limit, query.offset)
    return Response(body, media_type="application/json")


def _next_fault(sandbox: Sandbox, request: Request, endpoint: str) -> Fault | None:
    fault = sandbox.faults.next(endpoint)
    if fault is not None:
        note_fault(request, fault)
    return fault


async def _trouble(sandbox: Sandbox, request: Request, fault: Fault | None) -> Response | None:
    """The answer, if it is decided before credentials are looked at."""
    if fault is None:
        return None
    if fault.name == "slow":
        await sandbox.pause(fault.seconds or 0)
    if fault.name == "drop":
        return Dropped(sandbox.connections)
    if fault.name == "401":
        if fault.endpoint == TOKEN:
            return json_answer({"error": "invalid_client"}, 401)
        sandbox.tokens.revoke(bearer_token(request))
        return unauthorized(sandbox.options.auth)
    return None if fault.status is None else failure(fault.status, fault.seconds)
