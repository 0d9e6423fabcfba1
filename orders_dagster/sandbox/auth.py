"""Who may ask: the credentials of a request.

Here: the client's credentials at the token endpoint, and whether a request for orders carries what
`--auth` asks for. Not here: the life of a token (`tokens.py`).
"""

from __future__ import annotations

import base64
import binascii
from hmac import compare_digest
from urllib.parse import unquote_plus

from starlette.requests import Request

from .options import API_KEY, BEARER_TOKEN, SandboxOptions
from .tokens import Tokens

# What a 401 says about the way to log in.
CHALLENGES = {
    "oauth2": 'Bearer error="invalid_token"',
    "bearer": 'Bearer error="invalid_token"',
    "http_basic": 'Basic realm="sandbox"',
    "api_key": 'ApiKey header="X-API-Key"',
}


def bearer_token(request: Request) -> str:
    """The token in the Authorization header; empty if there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def basic_credentials(request: Request) -> tuple[str, str] | None:
    """Name and password in the Authorization header."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, password


def is_client(credentials: tuple[str, str] | None, options: SandboxOptions) -> bool:
    """Whether these are the client's id and secret, form-encoded (RFC 6749) or as they are."""
    if credentials is None:
        return False
    name, secret = credentials
    pairs = {(name, secret), (unquote_plus(name), unquote_plus(secret))}
    return any(
        _same(name, options.client_id) and _same(secret, options.client_secret)
        for name, secret in pairs
    )


def is_authorized(request: Request, options: SandboxOptions, tokens: Tokens) -> bool:
    """Whether a request for orders carries the credentials that `--auth` asks for."""
    if options.auth == "none":
        return True
    if options.auth == "oauth2":
        return tokens.valid(bearer_token(request))
    if options.auth == "bearer":
        return _same(bearer_token(request), BEARER_TOKEN)
    if options.auth == "api_key":
        key = request.headers.get("x-api-key") or request.query_params.get("api_key", "")
        return _same(key, API_KEY)
    return is_client(basic_credentials(request), options)


def has_credentials(request: Request) -> bool:
    """Whether a request carries credentials of any kind, right or wrong."""
    headers = request.headers
    return "authorization" in headers or "x-api-key" in headers or "api_key" in request.query_params


def _same(given: str, right: str) -> bool:
    return compare_digest(given.encode(errors="replace"), right.encode())
