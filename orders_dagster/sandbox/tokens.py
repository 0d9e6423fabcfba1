"""Access tokens: issued, expired, revoked.

Here: which tokens are good at this moment, and what the token endpoint answers when a test has
scripted it. Not here: the endpoint itself and the other ways to log in (`auth.py`).

Tokens really expire, and they are random: a client that keeps one too long, or that makes one up,
is refused, as it would be by a real API.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any


class Tokens:
    """All tokens of one sandbox. `clock` may be replaced, to expire tokens without waiting."""

    def __init__(
        self, lifetime_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lifetime_seconds = lifetime_seconds
        self.clock = clock
        self.issued = 0
        # A JSON body that the token endpoint answers instead of a token; None for a real one.
        self.scripted_answer: Any = None
        self._expiry: dict[str, float] = {}

    def set_lifetime(self, seconds: Any) -> None:
        """Let tokens issued from now on live that long."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal):
            raise ValueError(f"lifetime: {seconds!r} is no number of seconds")
        self.lifetime_seconds = seconds if isinstance(seconds, int) else float(seconds)

    def answer(self) -> Any:
        """The JSON body for a client that showed the right credentials."""
        if self.scripted_answer is not None:
            return self.scripted_answer
        token = secrets.token_urlsafe(32)
        self._expiry[token] = self.clock() + self.lifetime_seconds
        self.issued += 1
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime_seconds}

    def valid(self, token: str) -> bool:
        """Whether a token was issued here and is neither expired nor revoked."""
        return self.clock() < self._expiry.get(token, float("-inf"))

    def count_valid(self) -> int:
        """How many tokens are good now; forgets the others, so that a long demo stays small."""
        self._expiry = {token: end for token, end in self._expiry.items() if self.clock() < end}
        return len(self._expiry)

    def revoke(self, token: str) -> None:
        """Refuse one token from now on."""
        self._expiry.pop(token, None)

    def revoke_all(self) -> None:
        """Refuse every token that was issued so far."""
        self._expiry.clear()
