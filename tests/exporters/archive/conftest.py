"""Messages as Kafka gives them, without Kafka."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from stream.records import TICK, Records, encode_block


@dataclass(frozen=True)
class Sent:
    """A message of Kafka."""

    offset: int
    value: bytes | None
    timestamp: int = 1_700_000_000_000
    headers: Sequence[tuple[str, bytes]] = ()


@pytest.fixture
def make_messages() -> Callable[..., list[Sent]]:
    """Make blocks of ticks over some days, of which one is no block: ``make_messages(count, first_offset)``."""

    def make(count: int, first: int = 0, days: int = 2, seed: int = 7) -> list[Sent]:
        random = np.random.default_rng([seed, first])
        found = []
        for offset in range(first, first + count):
            ticks: Records = np.zeros(int(random.integers(1, 40)), TICK)
            ticks["symbol"] = random.choice([b"AIG", b"BRK.B", b"EURUSD"], len(ticks))
            day = 15_900 + random.integers(0, days, len(ticks))
            ticks["event_ns"] = day * 86_400_000_000_000 + random.integers(0, 86_400_000_000_000, len(ticks))
            ticks["price"] = random.normal(100, 1, len(ticks))
            ticks["bid"] = np.nan
            ticks["source_seq"] = random.integers(0, 1 << 63, len(ticks), np.uint64)
            found.append(Sent(offset, encode_block(ticks), 1_700_000_000_000 + offset))
        if count > 5:
            found[3] = Sent(first + 3, b"not a block", 5, [("tickloom-error", b"bad magic")])
            found[4] = Sent(first + 4, None, 6)
        return found

    return make
