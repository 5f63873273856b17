"""Compiled: which symbols a lane has a row for, and which it may have."""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from stream.compiled import compiled, inlined
from stream.records import SYMBOL_BYTES, Reject, symbol_words

EMPTY_SLOT: Final = -1


class Home(NamedTuple):
    """What a symbol must be to live in a lane. Only one without a row is looked at, so it costs others nothing."""

    partition: int  # of the lane
    partitions: int  # of the topic; with 1 every symbol belongs here
    keys: NDArray[np.uint64]  # [K, 3] words of the symbols that may be; none for any
    slots: NDArray[np.int32]  # their hash table


def home_of(partition: int, partitions: int, symbols: NDArray[np.bytes_] | None) -> Home:
    """Return the home of a lane's symbols.

    Args:
        partition: of the lane.
        partitions: of the topic.
        symbols: ``S24[K]``, the only ones that may be; None for any.
    """
    keys = np.zeros((0, SYMBOL_BYTES // 8), np.uint64) if symbols is None else symbol_words(np.unique(symbols))
    slots = empty_slots(len(keys))
    home = Home(partition, partitions, keys, slots)
    for row in range(len(keys)):
        slots[find_slot(keys[row], keys, slots)] = row
    return home


def empty_slots(symbols: int) -> NDArray[np.int32]:
    """Return a hash table for so many symbols, at most half full."""
    return np.full(1 << (2 * max(symbols, 1) - 1).bit_length(), EMPTY_SLOT, np.int32)


@compiled
def find_slot(words: Any, keys: Any, slots: Any) -> Any:
    """Return the slot that holds the row of a symbol, or where it belongs if it is new."""
    return find_slot_inlined(words, keys, slots)


@inlined
def find_slot_inlined(words: Any, keys: Any, slots: Any) -> Any:
    mask = uint64(len(slots) - 1)
    value = words[0] ^ (words[1] * uint64(0x9E3779B97F4A7C15)) ^ (words[2] * uint64(0xC2B2AE3D27D4EB4F))
    value = (value ^ (value >> uint64(32))) * uint64(0xD6E8FEB86659FD93)
    slot = (value ^ (value >> uint64(32))) & mask
    while True:
        row = slots[slot]
        if row == EMPTY_SLOT:
            return slot
        if keys[row, 0] == words[0] and keys[row, 1] == words[1] and keys[row, 2] == words[2]:
            return slot
        slot = (slot + uint64(1)) & mask


@compiled
def index_symbols(keys: Any, slots: Any, count: int, home: Any) -> None:
    """Fill the hash table of empty ``slots`` with those of the first ``count`` keys that may have a row.

    A row whose symbol is not wanted any more stays as it is, and is not found: its ticks are those of a new symbol.
    """
    for row in range(count):
        if check_symbol(keys[row], home) == 0:
            slots[find_slot(keys[row], keys, slots)] = row


@compiled
def check_symbol(words: Any, home: Any) -> Any:
    """Return 0 where a symbol may have a row in the lane, else a `Reject`."""
    if not _is_symbol(words):
        return Reject.BAD_SYMBOL.value
    if len(home.keys) > 0 and home.slots[find_slot(words, home.keys, home.slots)] == EMPTY_SLOT:
        return Reject.UNKNOWN_SYMBOL.value
    if _partition_of(words, home.partitions) != home.partition:
        return Reject.WRONG_PARTITION.value
    return 0


@compiled
def _is_symbol(words: Any) -> Any:
    # The rule of ``encode_symbol``.
    ended = False
    for position in range(24):
        byte = (words[position >> 3] >> uint64(8 * (position & 7))) & uint64(0xFF)
        if byte == 0 and position > 0:
            ended = True
        elif ended or byte < 33 or byte > 126:
            return False
    return True


@compiled
def _partition_of(words: Any, partitions: int) -> Any:
    # The rule of ``stream.records.partition_of``.
    mixed = uint64(0)
    for column in range(3):
        mixed ^= words[column]
        mixed = (mixed ^ (mixed >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> uint64(27))) * uint64(0x94D049BB133111EB)
        mixed ^= mixed >> uint64(31)
    return int(mixed % uint64(partitions))
