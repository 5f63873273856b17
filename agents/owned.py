"""A lane that this worker has, with all that is under way for it, and what it takes in one go."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agents.checkpoint import LastBlock
from agents.feature_tap import FeatureTap
from agents.lane import Lane
from agents.swaps import Swap

# Blocks that wait are applied together up to this size: about 1,200 ticks, some 10 ms of work for the event loop.
_MAX_TOGETHER_BYTES: Final = 128 << 10
# A swap begins so long ahead, by the pace of the last blocks, that the brokers have its record when ticks get
# there. An acknowledgement takes 2 to 5 ms; where more work than the machine can do waits, 75.
_AHEAD_S: Final = 1.0
_URGENT_AHEAD_S: Final = 0.1
_PACE_S: Final = 0.25  # over which the pace is taken
_IDLE_S: Final = 1.0


@dataclass
class Pace:
    """How many blocks of a lane come in a second."""

    blocks_per_s: float = 0.0
    _mark: tuple[float, int] = (-math.inf, 0)  # when, and the offset then

    def count(self, offset: int) -> None:
        """Take note that the lane has got to ``offset``."""
        now_s = time.monotonic()
        since_s, since = self._mark
        if now_s - since_s >= _PACE_S:
            self.blocks_per_s = (offset - since) / (now_s - since_s)
            self._mark = now_s, offset

    def ahead(self, *, urgent: bool) -> int:
        """Return how many blocks will come while the brokers acknowledge a message."""
        is_idle = time.monotonic() - self._mark[0] > _IDLE_S
        return 0 if is_idle else math.ceil(self.blocks_per_s * (_URGENT_AHEAD_S if urgent else _AHEAD_S))


@dataclass
class OwnedLane:
    """A lane with what it has sent since its last checkpoint."""

    tp: Any
    lane: Lane
    next_offset: int  # of the block that comes next
    last: LastBlock  # before it
    kept: int = -1  # the next offset of the last checkpoint
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    checkpoint_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    swap_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sends: list["asyncio.Future[Any]"] = field(default_factory=list)
    # No swap of ours begins before: an owner before us may have predicted all that there was when we came.
    first_free: int = 0
    swaps: dict[str, Swap] = field(default_factory=dict)  # the records that this lane goes by, by key
    # Swaps whose records the brokers may not have: (offset, the acknowledgement). Nothing from there on is applied.
    unrecorded: list[tuple[int, "asyncio.Future[Any]"]] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    tap: FeatureTap | None = None  # from the first block on that features are published of


def portions(messages: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut what waits into what is applied together."""
    start, size_bytes = 0, 0
    for index, message in enumerate(messages):
        size_bytes += len(message.value or b"")
        if size_bytes >= _MAX_TOGETHER_BYTES:
            yield messages[start : index + 1]
            start, size_bytes = index + 1, 0
    if start < len(messages):
        yield messages[start:]
