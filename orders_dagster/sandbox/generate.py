"""Generated orders: realistic in shape, the same for the same seed on every machine.

Here: the order of a given number, built when it is served, and the modification times of all
orders, drawn once at the start. Not here: what an order becomes after its first change
(`changes.py`).

Orders are written straight into JSON text rather than into dictionaries. A page of 200 is to be
served in under 5 ms, that is 25 microseconds an order, and encoding a dictionary alone takes
longer. Each order spends the 64 bytes of one keyed BLAKE2 digest, one field a byte, since seeding
a `random.Random` for each order would cost more than all the rest.

Amounts are integer cents until they are written: total == items + shipping + tax - discount holds
to the cent, where an item is quantity * unit_price less the discount of its line.
"""

from __future__ import annotations

import json
import random
import unicodedata
from array import array
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from typing import Any

from . import catalogue
from .exact_json import dumps, loads
from .index import Rank
from .times import DAY, write_time

# The bytes of a digest, by the field they decide; the items take the rest, two bytes each.
_COUNT, _MANY, _STATUS, _GUEST, _CUSTOMER, _PLACE, _HOUSE, _BILLING = 0, 1, 2, 3, 4, 6, 7, 8
_SHIPPING, _DISCOUNT, _TAGS, _NOTE, _GIFT, _JITTER, _ITEMS = 9, 10, 11, 12, 13, 14, 24

_COUNTS = (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 6)


def money(cents: int) -> str:
    """Cents as a JSON number, without the zeros that an API would not send either."""
    whole, rest = divmod(cents, 100)
    if not rest:
        return str(whole)
    return f"{whole}.{rest // 10}" if rest % 10 == 0 else f"{whole}.{rest:02d}"


def order_id_of(seq: int) -> str:
    """The order_id of a generated order."""
    return f"ORD-{seq + 1:08d}"


class GeneratedStock:
    """The first `count` generated orders, spread over `days` days up to `end`."""

    def __init__(self, count: int, seed: int, days: int, end: int, cursor_style: str) -> None:
        self._count = count
        self._key = str(seed).encode()[:64]
        self._style = cursor_style
        self._start = end - days * DAY
        self._step = days * DAY / max(1, count)
        self._lines = _lines()
        self.modified = array("q")
        self.items = 0
        self._draw_times(end, random.Random(f"modified {seed}"))

    def __len__(self) -> int:
        return self._count

    def by_id(self) -> Iterable[int]:
        """All seqs, sorted by order_id: the order of creation."""
        return range(self._count)

    def rank(self, seq: int) -> Rank:
        return (1, 0, order_id_of(seq), seq)

    def find(self, key: str) -> int | None:
        """The seq of an order_id, without a dictionary of a million."""
        digits = key.removeprefix("ORD-")
        if not (digits.isascii() and digits.isdigit()):
            return None
        seq = int(digits) - 1
        return seq if 0 <= seq < self._count and order_id_of(seq) == key else None

    def text(self, seq: int, modified: int, /) -> bytes:
        """The JSON of an order as it was before its first change in this process."""
        digest = self._digest(seq)
        return self._write(seq, digest, self._created(seq, digest), modified).encode()

    def fresh(self, number: int, now: int) -> dict[str, Any]:
        """A new order, placed and modified now; its number is any that was not used before."""
        seq = number - 1
        order: dict[str, Any] = loads(self._write(seq, self._digest(seq), now, now))
        return order

    def _digest(self, seq: int) -> bytes:
        return blake2b(seq.to_bytes(8, "little"), key=self._key).digest()

    def _more(self, seq: int) -> bytes:
        """Bytes for the rare order with dozens of items."""
        return b"".join(
            blake2b(seq.to_bytes(8, "little"), key=self._key, person=person).digest()
            for person in (b"more", b"even more")
        )

    def _item_count(self, digest: bytes) -> int:
        # One order in 256 is a bulk order, so that a child table sees long lists as well.
        if digest[_MANY] == 0:
            return 7 + digest[_COUNT] % 34
        return _COUNTS[digest[_COUNT] & 15]

    def _created(self, seq: int, digest: bytes) -> int:
        """Spread evenly, each somewhere within its own share of the time: never out of order."""
        jitter = (digest[_JITTER] << 8 | digest[_JITTER + 1]) / 65536
        return (self._start + int((seq + jitter) * self._step)) // 1000 * 1000

    def _draw_times(self, end: int, rng: random.Random) -> None:
        """Draw when each order was modified, and count the items while its digest is at hand."""
        modified = 0
        for seq in range(self._count):
            digest = self._digest(seq)
            created = self._created(seq, digest)
            modified = _modification(created, modified, end, rng.random(), rng.random())
            self.modified.append(modified)
            self.items += self._item_count(digest)
        if self._count:
            self.modified[-1] = end  # a shop of few orders is not hours old either

    def _write(self, seq: int, digest: bytes, created: int, modified: int) -> str:
        place = catalogue.PLACES[digest[_PLACE] & 15]
        lines, subtotal = self._write_items(seq, digest)
        shipping = catalogue.SHIPPING_CENTS[digest[_SHIPPING] & 7]
        tax = (subtotal * place[6] + 50) // 100
        discount = subtotal // 10 if digest[_DISCOUNT] < 40 else None
        total = subtotal + shipping + tax - (discount or 0)
        address = _write_address(place, digest[_HOUSE])
        billing = address if digest[_BILLING] < 64 else "null"
        return (
            f'{{"order_id":"{order_id_of(seq)}","order_number":{seq + 1},'
            f'"status":"{_status(digest[_STATUS], created, modified)}","currency":"{place[5]}",'
            f'"order_date":{self._time(created)},"last_modified_date":{self._time(modified)},'
            f'"customer":{_write_customer(digest)},"shipping_address":{address},'
            f'"billing_address":{billing},"subtotal":{money(subtotal)},'
            f'"shipping":{money(shipping)},"tax":{money(tax)},'
            f'"discount":{"null" if discount is None else money(discount)},'
            f'"total":{money(total)},"tags":{_TAG_TEXTS[digest[_TAGS] & 15]},'
            f'"note":{_NOTE_TEXTS[digest[_NOTE] & 31]},'
            f'"is_gift":{"true" if digest[_GIFT] < 20 else "false"},"items":[{lines}]}}'
        )

    def _write_items(self, seq: int, digest: bytes) -> tuple[str, int]:
        count = self._item_count(digest)
        source = digest[_ITEMS:] if count <= 20 else self._more(seq)
        lines = self._lines
        subtotal = 0
        texts = []
        for line in range(count):
            text, cents = lines[source[2 * line] << 6 | source[2 * line + 1] & 63]
            texts.append(f'{{"line":{line + 1},{text}')
            subtotal += cents
        return ",".join(texts), subtotal

    def _time(self, us: int) -> str:
        value = write_time(us, self._style)
        return str(value) if isinstance(value, int) else f'"{value}"'


def _modification(created: int, previous: int, end: int, kind: float, how_far: float) -> int:
    """When an order was last modified: at once, with its predecessor, in a weekly batch, later."""
    if kind < 0.05 and previous >= created:
        return previous  # to the millisecond: one bulk edit, one timestamp
    if kind < 0.10:
        modified = (created // (7 * DAY) + 1) * 7 * DAY  # the weekly batch, one timestamp as well
    elif kind < 0.30:
        modified = created
    else:
        modified = created + int(30 * DAY * how_far**3) // 1000 * 1000
    if modified <= end:
        return modified
    # Too recent for that: somewhere in the time that is left.
    return created + int((end - created) * how_far) // 1000 * 1000


def _status(byte: int, created: int, modified: int) -> str:
    if created == modified:
        return "paid" if byte & 1 else "pending"
    return catalogue.STATUSES[byte & 15]


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalpha())


@cache
def _lines() -> list[tuple[str, int]]:
    """Each product in each quantity, with and without discount, as JSON and in cents."""
    lines = []
    for product in range(256):
        name = f"{catalogue.ADJECTIVES[product >> 4]} {catalogue.NOUNS[product & 15]}"
        unit = catalogue.PRICES_CENTS[product * 37 % len(catalogue.PRICES_CENTS)]
        head = f'"sku":"{"ABCDEFGH"[product & 7]}{10000 + product * 83}","name":{_quote(name)}'
        for variant in range(64):
            quantity = catalogue.QUANTITIES[variant & 7]
            discount = unit * quantity // 10 if variant >> 3 == 0 else None
            shown = "null" if discount is None else money(discount)
            text = f'{head},"quantity":{quantity},"unit_price":{money(unit)},"discount":{shown}}}'
            lines.append((text, unit * quantity - (discount or 0)))
    return lines


def _write_address(place: tuple[Any, ...], house: int) -> str:
    street, city, postal_code, country, state = place[:5]
    shown = "null" if state is None else f'"{state}"'
    return (
        f'{{"street":"{street} {house + 1}","city":"{city}","postal_code":"{postal_code}",'
        f'"country":"{country}","state":{shown}}}'
    )


def _write_customer(digest: bytes) -> str:
    if digest[_GUEST] < 32:
        return "null"
    number = digest[_CUSTOMER] << 8 | digest[_CUSTOMER + 1]
    name, mail = _NAMES[number & 255]
    domain = "com" if number & 256 else "org"
    phone = "null" if number % 3 == 0 else f'"+49 30 {5550000 + number}"'
    return (
        f'{{"customer_id":"CUS-{number:06d}","name":"{name}",'
        f'"email":"{mail}.{number}@example.{domain}","phone":{phone}}}'
    )


_NAMES = [
    (f"{first} {last}", f"{_ascii(first)}.{_ascii(last)}")
    for first in catalogue.FIRST_NAMES
    for last in catalogue.LAST_NAMES
]
# Mostly empty, as in a real shop.
_TAG_TEXTS = [dumps(tags).decode() for tags in ((),) * 10 + catalogue.TAGS]
_NOTE_TEXTS = ["null"] * 24 + [_quote(note) for note in catalogue.NOTES]
