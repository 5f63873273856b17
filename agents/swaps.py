"""Which model serves which tick: swaps, as lanes decide and record them.

A lane that is to serve another model picks the offset of a block that it has not seen, writes a `Swap` to the
topic ``models``, waits until the brokers have it, and only then applies that block, with the new model. Whoever
applies the block again, after a crash or in a replay, reads the same record first and gets the same bytes.

A symbol does not switch at the swap's offset but at one of the ``spread_blocks`` from there on, by the hash of its
name: at that block its h and c are rebuilt from the feature rows in its `STATE`, which takes 40 us a symbol, and a
lane with thousands of symbols must not do all of them at once while ticks wait.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordError

SWAP_KEY: Final = "swap/"
# Symbols whose h and c are rebuilt before one block, on average: 2 take 0.1 ms, so that with 1,000 blocks a second
# a tenth of the worker's time goes there; 16 take some 0.7 ms, for a model that must go.
_GENTLE_SYMBOLS: Final = 2
_URGENT_SYMBOLS: Final = 16


@dataclass(frozen=True)
class Swap:
    """From ``offset`` on, a partition's ticks are for another model."""

    partition: int
    offset: int  # of the first block of ticks that it is about
    spread_blocks: int  # symbols switch at one of so many blocks, from the first on
    model_id: int
    version: str  # in the registry
    previous_id: int  # of the model that the lane served before
    generation: int  # of the consumer group: of two workers at odds, the one with the lower has lost the partition
    worker: str
    at_ns: int

    @property
    def key(self) -> str:
        """The key of the message."""
        return f"{SWAP_KEY}{self.partition}/{self.offset}"

    @property
    def end(self) -> int:
        """The first offset at which every symbol has switched."""
        return self.offset + self.spread_blocks

    def to_json(self) -> bytes:
        """Return the value of the message."""
        ids = {"model_id": f"{self.model_id:016x}", "previous_id": f"{self.previous_id:016x}"}
        return json.dumps({**vars(self), **ids}).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Return the swap that `to_json` wrote.

        Raises:
            RecordError: it is none.
        """
        try:
            value: dict[str, Any] = json.loads(raw)
            ids = {name: int(value[name], 16) for name in ("model_id", "previous_id")}
            swap = cls(**{**value, **ids})
            numbers = (swap.partition, swap.offset, swap.spread_blocks, swap.generation, swap.at_ns)
            if not all(type(number) is int for number in numbers) or swap.offset < 0 or swap.spread_blocks < 1:
                raise ValueError(f"partition, offset, spread, generation and time are {numbers}")
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(f"{raw[:200]!r} is no swap: {error!r}") from None
        return swap


def spread_of(symbols: int, *, urgent: bool) -> int:
    """Return over how many blocks a lane with so many symbols should switch them."""
    return max(1, -(-symbols // (_URGENT_SYMBOLS if urgent else _GENTLE_SYMBOLS)))


def due_offsets(words: NDArray[np.uint64], swap: Swap) -> NDArray[np.int64]:
    """Return the offset from which on each symbol is for the swap's model.

    Args:
        words: ``uint64[S, 3]``, the symbols (`stream.records.symbol_words`).
        swap: which.

    Returns:
        ``int64[S]``. Another hash than that which puts symbols into partitions, in one of which these all are.
    """
    mixed = np.full(len(words), 0x9E3779B97F4A7C15, np.uint64)
    for column in range(words.shape[1]):
        mixed = (mixed ^ words[:, column]) * np.uint64(0x9FB21C651E98DF25)
        mixed ^= mixed >> np.uint64(29)
    return swap.offset + (mixed % np.uint64(swap.spread_blocks)).astype(np.int64)
