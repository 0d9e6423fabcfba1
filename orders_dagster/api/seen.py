"""How many different orders were seen: of one timestamp, or behind one offset, there may be millions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc


class Seen:
    """Counts different orders, in eight bytes each.

    By a hash of 64 bits, which is another one in each process. Of ten million orders two have the same in
    one case of 370,000; then the number of those seen never adds up, and the next run reads them.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, identities: Iterable[str]) -> None:
        self._hashes.extend(map(hash, identities))

    def __len__(self) -> int:
        values = pa.Array.from_buffers(
            pa.int64(), len(self._hashes), [None, pa.py_buffer(self._hashes)]
        )
        different = pc.unique(values)
        if len(different) < len(self._hashes):
            self._hashes = array("q")
            self._hashes.frombytes(different.buffers()[1].slice(0, 8 * len(different)))
        return len(different)


def identities(keys: list[str], at: int) -> list[str]:
    """What tells the rows of the page at an offset apart: those without an id, their place."""
    return [key if key != "None" else f"{at + n} of none" for n, key in enumerate(keys)]
