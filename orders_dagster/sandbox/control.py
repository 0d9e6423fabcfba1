"""The routes under `/_sandbox`: what tests and the demo look at and turn.

Here: HTTP over the sandbox's own state, without credentials and without faults. Not here: any
behaviour; each route calls one method of what it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .answers import json_answer
from .exact_json import loads
from .state import Sandbox
from .times import iso

_CHUNK = 500  # orders written at once, some hundred KB

Handler = Callable[[Sandbox, Request], Awaitable[Response]]


def control_routes(sandbox: Sandbox) -> list[Route]:
    """The routes of one sandbox."""

    def route(method: str, path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await handler(sandbox, request)
            except ValueError as error:
                return json_answer({"error": str(error)}, 400)

        return Route(f"/_sandbox/{path}", endpoint, methods=[method])

    return [
        route("GET", "state", _state),
        route("GET", "orders", _all_orders),
        route("POST", "orders", _upsert),
        route("GET", "orders/{order_id:path}", _one_order),
        route("DELETE", "orders/{order_id:path}", _delete),
        route("POST", "change", _change),
        route("POST", "faults", _faults),
        route("POST", "token", _token),
        route("POST", "settings", _settings),
        route("GET", "requests", _requests),
    ]


async def _state(sandbox: Sandbox, _: Request) -> Response:
    newest = sandbox.shop.newest()
    return json_answer(
        {
            "orders": sandbox.shop.orders,
            "items": sandbox.shop.items,
            "newest_last_modified_date": None if newest is None else iso(newest),
            "now": iso(sandbox.shop.now()),
            "requests": sandbox.request_count,
            "tokens_issued": sandbox.tokens.issued,
            "tokens_valid": sandbox.tokens.count_valid(),
            "faults": dict(sandbox.faults.given),
            "settings": asdict(sandbox.settings),
        }
    )


async def _all_orders(sandbox: Sandbox, _: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        chunk: list[bytes] = []
        for order in sandbox.shop.everything():
            chunk.append(order + b"\n")
            if len(chunk) == _CHUNK:
                yield b"".join(chunk)
                chunk.clear()
                await asyncio.sleep(0)  # others get their turn, and a client that left is noticed
        yield b"".join(chunk)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _one_order(sandbox: Sandbox, request: Request) -> Response:
    order = sandbox.shop.get(request.path_params["order_id"])
    if order is None:
        return _no_such_order(request)
    return Response(order, media_type="application/json")


async def _upsert(sandbox: Sandbox, request: Request) -> Response:
    body = loads(await request.body())
    orders = body if isinstance(body, list) else [body]
    created = sandbox.shop.upsert(orders)
    return json_answer({"created": created, "replaced": len(orders) - created})


async def _delete(sandbox: Sandbox, request: Request) -> Response:
    if not sandbox.shop.delete(request.path_params["order_id"]):
        return _no_such_order(request)
    return json_answer({"deleted": request.path_params["order_id"]})


def _no_such_order(request: Request) -> Response:
    return json_answer({"error": f"no order {request.path_params['order_id']!r}"}, 404)


async def _change(sandbox: Sandbox, request: Request) -> Response:
    names = ("new", "modify", "modify_twice", "remove_items", "seed")
    counts = await _object(request, names)
    for name, value in counts.items():
        if type(value) is not int or (value < 0 and name != "seed"):
            raise ValueError(f"{name}: {value!r} is no whole number from 0 up")
    return json_answer(asdict(sandbox.shop.change(**counts)))


async def _faults(sandbox: Sandbox, request: Request) -> Response:
    body = await _object(request, ("script", "spec"))
    if "script" in body:
        sandbox.faults.set_script(_texts(body["script"]))
    if "spec" in body:
        sandbox.faults.set_spec(str(body["spec"] or ""))
    return json_answer({"scripted": sandbox.faults.left(), "spec": sandbox.faults.spec})


def _texts(script: Any) -> list[str]:
    if not isinstance(script, list) or not all(isinstance(text, str) for text in script):
        raise ValueError('script: write a list of faults, like ["503", "ok", "429@1"]')
    return script


async def _token(sandbox: Sandbox, request: Request) -> Response:
    body = await _object(request, ("answer", "lifetime", "revoke_all"))
    if "lifetime" in body:
        sandbox.tokens.set_lifetime(body["lifetime"])
    if "answer" in body:
        sandbox.tokens.scripted_answer = body["answer"]
    if body.get("revoke_all"):
        sandbox.tokens.revoke_all()
    return json_answer({"tokens_valid": sandbox.tokens.count_valid()})


async def _settings(sandbox: Sandbox, request: Request) -> Response:
    changes = await _object(request)
    sandbox.change_settings(
        {name: float(v) if isinstance(v, Decimal) else v for name, v in changes.items()}
    )
    return json_answer(asdict(sandbox.settings))


async def _requests(sandbox: Sandbox, _: Request) -> Response:
    return json_answer({"requests": [asdict(record) for record in sandbox.requests]})


async def _object(request: Request, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON object in the body; a name that is not known is an error, not a surprise."""
    body = loads(await request.body() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object")
    for name in body:
        if names and name not in names:
            raise ValueError(f"{name}: not known here; known are {', '.join(names)}")
    return body
