"""What a checkpoint says of itself, so that its reader knows whether the state that it recovered is whole.

A checkpoint of a lane is its `STATE` rows and, after them, one `MARKER` in the same partition of the changelog.
Rows and marker come back by way of Faust's recovery of the table, which has raced with rebalances before
(`stream/consumer.py`); a row that is missing or old would give wrong predictions, silently.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Final, Self

import numpy as np

from agents.state import decode_state
from stream.errors import UnknownVersion
from stream.records import Records

MARKER_VERSION: Final = 2
MARKER: Final = np.dtype(
    [
        ("version", "<u8"),
        ("next_offset", "<i8"),  # every block of ticks before it is in the rows
        ("symbols", "<u8"),  # rows that there were
        ("ticks", "<u8"),  # accepted by all of them together: rows may be newer than their marker, never older
        ("last_offset", "<i8"),  # of the last block before next_offset; -1 where it is not known
        ("last_crc", "<u8"),  # CRC-32 of that block: a topic that was made anew has another one there
    ]
)

# No symbol starts with this byte.
_MARKER_KEY: Final = b"\x00checkpoint-%d"


class LastBlock:
    """The last block of ticks that a lane has seen, by which it knows its topic again."""

    def __init__(self, offset: int = -1, crc: int = 0) -> None:
        """Name a block by its offset, -1 for none, and its CRC-32."""
        self.offset = offset
        self._crc: int | None = crc
        self._block = b""

    @classmethod
    def of(cls, offset: int, block: bytes | None) -> Self:
        """Return that of a block as it came: 0.4 MB of it are summed up when asked for, not at each block."""
        last = cls(offset)
        last._crc, last._block = None, block or b""
        return last

    @property
    def crc(self) -> int:
        """The CRC-32 of the block."""
        if self._crc is None:
            self._crc, self._block = zlib.crc32(self._block), b""
        return self._crc

    def __eq__(self, other: object) -> bool:
        """Whether both are the same block."""
        return isinstance(other, LastBlock) and (self.offset, self.crc) == (other.offset, other.crc)

    __hash__ = None  # type: ignore[assignment]


NO_BLOCK: Final = LastBlock()


def marker_row(
    partition: int, next_offset: int, states: Records, last: LastBlock = NO_BLOCK
) -> tuple[bytes, bytes]:
    """Return the (key, value) that ends a checkpoint of ``states``, ``STATE[S]``, after the block ``last``."""
    seqs = int(states["seq"].sum())
    marker = np.array((MARKER_VERSION, next_offset, len(states), seqs, last.offset, last.crc), MARKER)
    return _MARKER_KEY % partition, marker.tobytes()


def is_marker(key: bytes) -> bool:
    """Return whether a key of the changelog is that of a marker, not of a symbol."""
    return key.startswith(b"\x00")


def is_newer(row: bytes, other: bytes) -> bool:
    """Return whether ``row`` has seen at least as many blocks as ``other`` of the same key has.

    Where they cannot be compared, the later one counts: whoever uses it says what is wrong with it.
    """
    try:
        if len(row) == MARKER.itemsize:
            return bool(_marker(row)["next_offset"] >= _marker(other)["next_offset"])
        return bool(decode_state(row)["offset"][0] >= decode_state(other)["offset"][0])
    except UnknownVersion:
        return True


class Recovered:
    """What a table holds of one lane."""

    def __init__(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Take the marker and the symbols' rows of a partition out of a table's content."""
        marker = rows.get(_MARKER_KEY % partition)
        self.marker: Records | None = None if marker is None else _marker(marker)
        self.rows = [value for key, value in rows.items() if not is_marker(key)]

    def why_not_whole(self, committed: int | None) -> str | None:
        """Return what is missing, in plain words, or None.

        Args:
            committed: the offset that the group goes on at, or None where it never committed any.
        """
        if self.marker is None:
            return None if committed is None else f"offset {committed} was committed, but there is no checkpoint"
        next_offset, symbols, ticks = self.marker["next_offset"], self.marker["symbols"], self.marker["ticks"]
        if committed is not None and committed > next_offset:
            return f"offset {committed} was committed, but the last checkpoint is of {next_offset}"
        seen = sum(int(decode_state(row)["seq"][0]) for row in self.rows)
        if len(self.rows) < symbols or seen < ticks:
            return f"the last checkpoint is of {symbols} symbols, {ticks} ticks; here are {len(self.rows)}, {seen}"
        return None

    def newest_offset(self) -> int:
        """Return the offset of the newest block that any row has seen, -1 where there is none."""
        return max((int(decode_state(row)["offset"][0]) for row in self.rows), default=-1)

    def last_block(self) -> LastBlock:
        """Return the last block before the checkpoint."""
        if self.marker is None:
            return NO_BLOCK
        return LastBlock(int(self.marker["last_offset"]), int(self.marker["last_crc"]))


def newest_of(messages: Iterable[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    """Return the newest row of each key from all (key, value) of a partition of the changelog, in their order."""
    rows: dict[bytes, bytes] = {}
    for key, value in messages:
        if value is None:
            rows.pop(key, None)
        elif key not in rows or is_newer(value, rows[key]):
            rows[key] = value
    return rows


def _marker(raw: bytes) -> Records:
    version = int.from_bytes(raw[:8], "little")
    if version != MARKER_VERSION or len(raw) != MARKER.itemsize:
        raise UnknownVersion(
            f"a checkpoint's marker of version {version} with {len(raw)} bytes; this tickloom reads version "
            f"{MARKER_VERSION} with {MARKER.itemsize} bytes. Run the version that wrote it, or start over with the "
            "ticks that there are: stop all workers and run `tickloom topics --forget-state`"
        )
    marker: Records = np.frombuffer(raw, MARKER, 1)[0]
    return marker
