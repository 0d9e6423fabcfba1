"""A session for the API and the auth that signs its requests, from the settings."""

from __future__ import annotations

from typing import NamedTuple

from dlt.sources.helpers.rest_client.auth import (
    APIKeyAuth,
    AuthConfigBase,
    BearerTokenAuth,
    HttpBasicAuth,
)
from requests.auth import AuthBase

from orders_dagster.api.auth import ApiKeyInCookie, RenewingClientCredentials
from orders_dagster.api.query import not_shown, templates
from orders_dagster.api.session import ApiSession, Pace, Traffic
from orders_dagster.settings import (
    ApiKey,
    Bearer,
    HttpBasic,
    OAuth2ClientCredentials,
    OrdersSettings,
)


class Connection(NamedTuple):
    """What a client of the API needs."""

    session: ApiSession
    auth: AuthBase | None


def connect(settings: OrdersSettings, traffic: Traffic) -> Connection:
    """A session for the API and the auth that signs its requests."""
    pace = Pace(settings.max_requests_per_second)
    is_oauth2 = isinstance(settings.auth, OAuth2ClientCredentials)
    credentials = (
        "sources.orders.client_id and client_secret" if is_oauth2 else "sources.orders.auth"
    )

    def session(address: str, refused: str, refused_later: str, credentials: str) -> ApiSession:
        api_key = settings.auth
        return ApiSession(
            traffic=traffic,
            pace=pace,
            status_codes=settings.retry.status_codes,
            max_retries=settings.retry.max_retries,
            backoff_factor=settings.retry.backoff_factor,
            timeout_seconds=settings.request_timeout_seconds,
            address_setting=address,
            refused_settings=refused,
            refused_later=refused_later,
            credential_settings=credentials,
            secret_params=not_shown(templates(settings.params))
            | ({api_key.name} if isinstance(api_key, ApiKey) else set()),
            connections=max(settings.workers, 32),
        )

    api = session(
        "sources.orders.base_url",
        "sources.orders.base_url, sources.orders.path or sources.orders.params",
        "sources.orders.params, page_size or paging: other pages were read, so the path is right, and the "
        "API refuses this date, offset or limit",
        f"{credentials} (or what they are allowed to read)",
    )
    auth = _auth(
        settings,
        session(
            "sources.orders.token_url",
            f"sources.orders.token_url, {credentials}, or auth.scope and auth.extra",
            f"{credentials}, or tell the API's people: it has given tokens before",
            credentials,
        ),
    )
    if isinstance(auth, RenewingClientCredentials):
        api.renewable_auth = auth
    if isinstance(auth, AuthConfigBase):
        auth.resolve()  # or dlt would look for its keys again, and find NAME in the environment
    return Connection(api, auth)


def _auth(settings: OrdersSettings, token_session: ApiSession) -> AuthBase | None:
    auth = settings.auth
    if isinstance(auth, OAuth2ClientCredentials):
        secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
        scope = {"scope": auth.scope} if auth.scope else {}
        return RenewingClientCredentials(
            access_token_url=settings.token_url or "",
            client_id=settings.client_id or "",
            client_secret=secret,
            access_token_request_data={**scope, **auth.extra},
            credentials_in=auth.credentials_in,
            session=token_session,
        )
    if isinstance(auth, Bearer):
        return BearerTokenAuth(token=auth.token.get_secret_value())
    if isinstance(auth, ApiKey):
        kind = ApiKeyInCookie if auth.location == "cookie" else APIKeyAuth
        key = auth.api_key.get_secret_value()
        return kind(name=auth.name, api_key=key, location=auth.location)
    if isinstance(auth, HttpBasic):
        return HttpBasicAuth(username=auth.username, password=auth.password.get_secret_value())
    return None
