"""The reference configuration on a bare `rest_api_source`: what users have today.

Nothing of the project is in it, nor imported by it: it is also a contender of the benchmark. It is not
crippled either: it is what a reader of dlt's documentation would write for this API, with the total as
the rule when to stop.
"""

from __future__ import annotations

from typing import Any

from dlt.sources.helpers.requests import Client

ATTEMPTS = 4
"""The reference says "at most 3 retries", and dlt counts the first try."""


def reference(
    url: str, auth: Any = None, *, attempts: int = ATTEMPTS, backoff_factor: float = 2
) -> dict[str, Any]:
    """The reference configuration, in dlt's words; without an auth, for an API without login."""
    retrying = Client(
        raise_for_status=False,  # dlt's REST client looks at the status itself
        status_codes=(429, 500, 502, 503, 504),
        request_max_attempts=attempts,
        request_backoff_factor=backoff_factor,
    )
    client: dict[str, Any] = {"base_url": url, "session": retrying.session}
    if auth is not None:
        client["auth"] = auth
    return {
        "client": client,
        "resource_defaults": {"primary_key": "order_id", "write_disposition": "merge"},
        "resources": [
            {
                "name": "orders",
                "endpoint": {
                    "path": "/v1/orders",
                    "data_selector": "orders",
                    "params": {
                        "modified_since": "{incremental.start_value}",
                        "sort": "last_modified_date",
                    },
                    "paginator": {
                        "type": "offset",
                        "limit": 200,
                        "limit_param": "limit",
                        "offset_param": "offset",
                        "total_path": "total",
                    },
                    "incremental": {
                        "cursor_path": "last_modified_date",
                        "initial_value": "2000-01-01T00:00:00Z",
                    },
                },
            }
        ],
    }
