"""Trouble on purpose: which request gets which fault.

Here: reading fault specifications, and drawing the fault of each request, either from a script
(exactly these, in this order) or by probability from a seeded generator. Not here: what a fault
does to an answer (`answers.py`).

    429          answers that status, as does any from 400 to 599; 429 with `Retry-After: 1`
    429@5        the same with `Retry-After: 5`
    401          refuses a good token and revokes it
    drop         closes the connection without an answer
    truncate     announces the whole body, sends half of it, closes the connection
    garble       200 with an HTML page
    nobody       200 with `{}`
    empty        200 with no orders on the page, but the right total
    slow         answers after 0.3 s; `slow@1.5` after 1.5 s
    token.503    any of these but `empty`, at the token endpoint
    ok           no fault (in scripts)

Orders and tokens draw from generators of their own: one token more or less does not change which
page fails.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

ORDERS, TOKEN = "orders", "token"

_NAMES = ("ok", "drop", "truncate", "garble", "nobody", "empty", "slow")
_AT_TOKEN = "token."  # noqa: S105 - a prefix
# Those that take a number of seconds after @, and the seconds when they are not given.
_SECONDS = {"slow": 0.3, "429": 1.0}


@dataclass(frozen=True)
class Fault:
    """One fault: a name or a status code, where it strikes, its seconds if it has any."""

    name: str
    endpoint: str = ORDERS
    seconds: float | None = None

    @property
    def status(self) -> int | None:
        """The status code to answer, for the faults that are one."""
        return int(self.name) if self.name.isdigit() else None

    @classmethod
    def read(cls, text: str) -> Fault:
        """Read `503`, `429@2`, `token.drop`; ValueError for what is no fault."""
        name, _, seconds = text.strip().partition("@")
        endpoint = TOKEN if name.startswith(_AT_TOKEN) else ORDERS
        name = name.removeprefix(_AT_TOKEN)
        is_status = len(name) == 3 and name.isdigit() and 400 <= int(name) <= 599
        if not is_status and (name not in _NAMES or (name == "empty" and endpoint == TOKEN)):
            raise ValueError(
                f"faults: {text!r} is no fault; write a status from 400 to 599 or one of"
                f" {', '.join(_NAMES)}, optionally with seconds (slow@1.5, 429@2) or token. before"
            )
        if seconds and not (is_status or name == "slow"):
            raise ValueError(f"faults: {text!r}: only a status and slow take seconds; drop the @")
        return cls(name, endpoint, _number(seconds, text) if seconds else _SECONDS.get(name))


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"faults: {where!r}: {text!r} is no number from 0 up")
    return number


def read_spec(spec: str) -> list[tuple[Fault, float]]:
    """Read `429:0.05,slow@1.5:0.1` into faults with their probability per request."""
    chances = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        text, colon, chance = part.partition(":")
        if not colon:
            raise ValueError(f"faults: {part!r} has no probability; write it like {part}:0.05")
        chances.append((Fault.read(text), _number(chance, part)))
    for endpoint in (ORDERS, TOKEN):
        total = sum(chance for fault, chance in chances if fault.endpoint == endpoint)
        if total > 1 + 1e-9:
            raise ValueError(f"faults: {spec!r} adds up to {total:g}; keep the sum at 1 or below")
    return chances


class Faults:
    """The faults of one sandbox. The script of an endpoint comes before its probabilities."""

    def __init__(self, spec: str, seed: int) -> None:
        self.given: Counter[str] = Counter()
        self._seed = seed
        self._scripts: dict[str, deque[Fault]] = {ORDERS: deque(), TOKEN: deque()}
        self.set_spec(spec)

    def set_spec(self, spec: str) -> None:
        """Replace the probabilities and begin their sequence anew; an empty text ends them."""
        self._chances = read_spec(spec)
        self.spec = spec
        self._rngs = {name: Random(f"faults {name} {self._seed}") for name in self._scripts}

    def set_script(self, script: Sequence[str]) -> None:
        """Replace the faults of the next requests, one for each."""
        faults = [Fault.read(text) for text in script]
        for endpoint, queue in self._scripts.items():
            queue.clear()
            queue.extend(fault for fault in faults if fault.endpoint == endpoint)

    def left(self) -> int:
        """How many scripted faults are still to come."""
        return sum(len(queue) for queue in self._scripts.values())

    def next(self, endpoint: str) -> Fault | None:
        """The fault of the request that arrives now."""
        fault = self._draw(endpoint)
        if fault is None or fault.name == "ok":
            return None
        self.given[f"{_AT_TOKEN if endpoint == TOKEN else ''}{fault.name}"] += 1
        return fault

    def _draw(self, endpoint: str) -> Fault | None:
        script = self._scripts[endpoint]
        if script:
            return script.popleft()
        left = self._rngs[endpoint].random()
        for fault, chance in self._chances:
            if fault.endpoint == endpoint:
                left -= chance
                if left < 0:
                    return fault
        return None
