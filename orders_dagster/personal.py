"""Personal data: the fields of orders that a setting names are hashed, masked or dropped.

It happens to the orders of a page as they were parsed, before anything is made of them (step.py), so
that nothing behind it (rows, rejected orders, files, logs, reports) has to know what is personal. Paging
has looked at their keys and dates by then, which settings.py lets nobody cover.

A path is names of fields joined by dots, and names may hold dots themselves: `customer.email` is the
field `email` of `customer`, and a field `customer.email`. Lists are passed through. What stands at the
path becomes one text, be it a value or an object with everything in it, the names of its fields included.
What stands on the way to it and leads no further, a text where `customer` should be an object, may hold
anything, and is masked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from orders_dagster.rejected import exact_json

MASK = "***"
"""What is left of a masked value: neither what it was nor how long."""

HASH_DIGITS = 32
"""Of a hash, in hexadecimal: 128 bits, enough to tell the values of any shop apart."""

_Change = Callable[[Any], Any]
_Paths = frozenset[tuple[tuple[str, ...], str]]
"""What is left of paths behind the fields that lead here, each with the whole path."""


class PersonalData:
    """Hashes, masks or drops the fields of orders; compiled once for a run.

    Args:
        treatments: "hash", "mask" or "drop", by path.
        key: of the hashes.

    Attributes:
        unseen: the paths that no order has had so far, not even with a null.
    """

    def __init__(self, treatments: Mapping[str, str], key: bytes = b"") -> None:
        if "hash" in treatments.values() and not key:
            raise ValueError("a hash without a key can be undone by guessing")
        changes = {"hash": _keyed_hash(key), "mask": _masked, "drop": None}
        self.unseen = {
            path
            for path in treatments
            if not any(path.startswith(f"{outer}.") for outer in treatments)
        }
        self._order = _compiled(
            {path: changes[treatment] for path, treatment in treatments.items()}, self.unseen
        )
        self._is_idle = not treatments

    def protect(self, orders: list[Any]) -> list[Any]:
        """The same list with the same orders, but for what is personal in them: they were just parsed,
        and belong to nobody else."""
        if not self._is_idle:
            _change_each(orders, self._order)
        return orders


class _Object:
    """What happens to the objects at one place.

    Args:
        fields: the name of a field, what is done with it (None: it is dropped), and the path that names it.
        unseen: the paths that are taken out when they are met.
    """

    def __init__(self, fields: list[tuple[str, _Change | None, str]], unseen: set[str]) -> None:
        self._fields = fields
        self._unseen = unseen

    def __call__(self, value: Any) -> Any:
        if type(value) is not dict:
            return MASK
        for name, change, path in self._fields:
            if name in value:
                self._unseen.discard(path)
                if change is None:
                    del value[name]
                elif type(inner := value[name]) is list:
                    _change_each(inner, change)
                elif inner is not None:
                    value[name] = change(inner)
        return value


def _compiled(changes: Mapping[str, _Change | None], unseen: set[str]) -> _Object:
    """What happens to an order, for every way to read the dots of the paths."""

    @cache
    def object_at(paths: _Paths) -> _Object:
        left: dict[str, set[tuple[tuple[str, ...], str]]] = {}
        for rest, path in paths:
            for n in range(1, len(rest) + 1):
                left.setdefault(".".join(rest[:n]), set()).add((rest[n:], path))
        return _Object([field(name, frozenset(inner)) for name, inner in left.items()], unseen)

    def field(name: str, inner: _Paths) -> tuple[str, _Change | None, str]:
        for rest, path in inner:
            if not rest:  # and whatever is further in is covered with it
                return name, changes[path], path
        return name, object_at(inner), ""

    return object_at(frozenset((tuple(path.split(".")), path) for path in changes))


def _change_each(elements: list[Any], change: _Change) -> None:
    """Change what is in a list, and in the lists in it. No recursion: nobody knows how deep they are."""
    lists = [elements]
    for one in lists:
        for index, element in enumerate(one):
            if type(element) is list:
                lists.append(element)
            elif element is not None:
                one[index] = change(element)


def _masked(value: Any) -> str:  # noqa: ARG001
    return MASK


def _keyed_hash(key: bytes) -> _Change:
    """The same text or number has the same hash wherever it stands, `7` that of `"7"`; an object that of
    its JSON with sorted names."""
    keyed = hmac.new(key, digestmod=hashlib.sha256)

    def hashed(value: Any) -> str:
        text = value if type(value) is str else exact_json(value)
        mac = keyed.copy()
        mac.update(text.encode("utf-8", "replace"))
        return mac.hexdigest()[:HASH_DIGITS]

    return hashed
