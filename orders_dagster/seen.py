"""Which orders were seen: of one timestamp, behind one offset, or unchanged, there may be millions."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable

import pyarrow as pa
import pyarrow.compute as pc


class Seen:
    """Counts different orders, in eight bytes each.

    By a hash of 64 bits, which is another one in each process. Of ten million orders two have the same in
    one case of 370,000; then the number of those seen never adds up, and the next run reads them.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, identities: Iterable[Hashable]) -> None:
        self._hashes.extend(map(hash, identities))

    def discard(self, identities: Iterable[Hashable]) -> None:
        if self._hashes:
            among = pa.array(map(hash, identities), pa.int64())
            self._keep(self._values().filter(pc.invert(pc.is_in(self._values(), among))))

    def __len__(self) -> int:
        self._keep(pc.unique(self._values()))
        return len(self._hashes)

    def _values(self) -> pa.Int64Array:
        return pa.Array.from_buffers(
            pa.int64(), len(self._hashes), [None, pa.py_buffer(self._hashes)]
        )

    def _keep(self, values: pa.Int64Array) -> None:
        if len(values) < len(self._hashes):
            self._hashes = array("q")
            if len(values):
                self._hashes.frombytes(values.buffers()[1].slice(0, 8 * len(values)))


def identities(keys: list[str], at: int) -> list[str]:
    """What tells the rows of the page at an offset apart: those without an id, their place."""
    return [key if key != "None" else f"{at + n} of none" for n, key in enumerate(keys)]
