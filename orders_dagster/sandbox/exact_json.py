"""JSON whose numbers stay what they are.

Here: reading JSON so that 2.55 is Decimal("2.55"), and writing Decimals back as the same number.
The standard encoder refuses Decimals, and a detour over float turns 0.1 + 0.2 into a neighbour of
0.3, which in a fake shop would show as a wrong total in the warehouse of whoever tests with it.
Not here: what an order means.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring as _quote
from json.encoder import encode_basestring_ascii as _quote_ascii
from typing import Any

from .times import from_datetime, iso


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def loads(text: str | bytes) -> Any:
    """The value of a JSON text, fractions as Decimal; NaN and Infinity are refused."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse)


def dumps(value: object) -> bytes:
    """Compact JSON in UTF-8, exact for Decimals; times become ISO 8601 with `Z`."""
    try:
        return _text(value).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can escape but UTF-8 cannot hold.
        return _ascii(_text(value)).encode()


def _ascii(text: str) -> str:
    return "".join(c if c < "\x7f" else _quote_ascii(c)[1:-1] for c in text)


def _text(value: object) -> str:
    # The commonest types first: a file of half a million items passes through here.
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, dict):
        pairs = [f"{_quote(str(key))}:{_text(member)}" for key, member in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_text(member) for member in value]) + "]"
    return _scalar(value)


def _decimal(value: Decimal) -> str:
    return str(value) if value.is_finite() else "null"


def _scalar(value: object) -> str:
    """The rarer types, which only a Parquet file brings."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "null"
    if isinstance(value, datetime):
        return _quote(_moment(value))
    if isinstance(value, date | time):
        return _quote(value.isoformat())
    if isinstance(value, bytes | bytearray):
        return _quote(value.hex())
    return _quote(str(value))  # UUIDs and intervals


def _moment(value: datetime) -> str:
    us = from_datetime(value)
    if us % 1000 == 0:
        return iso(us)
    # A file may know microseconds; cutting them would make ties that it does not have.
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat(timespec="microseconds") + "Z"
