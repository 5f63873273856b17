"""What is done to the engine, and when: a schedule that a seed repeats."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind of fault. Killed is SIGKILL, paused is SIGSTOP and then SIGCONT, asked is SIGTERM."""

    WORKER_KILLED = "worker killed"
    WORKERS_KILLED = "both workers killed"
    WORKER_PAUSED = "worker paused within its session"
    WORKER_CUT_OFF = "worker paused beyond its session"
    WORKER_ASKED = "worker asked to stop"
    JOINED_KILLED = "third worker joins, is killed"
    JOINED_ASKED = "third worker joins, leaves"
    BROKER_KILLED = "broker killed, restarted"
    BROKER_PAUSED = "broker paused"
    BROKER_AND_WORKER_KILLED = "broker and worker killed"
    REDIS_EXPORTER_KILLED = "redis exporter killed"
    CLICKHOUSE_EXPORTER_KILLED = "clickhouse exporter killed"
    GATEWAY_KILLED = "gateway killed"
    SOURCE_KILLED = "source killed"


# What a fault interrupts, and so where its end shows: see `flows`.
SHOWS_IN: Final = {
    Kind.REDIS_EXPORTER_KILLED: "redis",
    Kind.CLICKHOUSE_EXPORTER_KILLED: "clickhouse",
    Kind.GATEWAY_KILLED: "feed",
}

# Each thing that can happen to a worker or to the broker, and one way out.
SHORT: Final = (
    Kind.WORKER_KILLED,
    Kind.WORKER_PAUSED,
    Kind.WORKER_CUT_OFF,
    Kind.BROKER_KILLED,
    Kind.BROKER_PAUSED,
    Kind.GATEWAY_KILLED,
)
# 24 times a worker or the broker, or both, are killed.
LONG: Final = (
    *[Kind.WORKER_KILLED] * 7,
    *[Kind.WORKERS_KILLED] * 3,
    *[Kind.BROKER_KILLED] * 6,
    *[Kind.BROKER_AND_WORKER_KILLED] * 3,
    *[Kind.JOINED_KILLED] * 2,
    *[Kind.WORKER_PAUSED] * 3,
    *[Kind.WORKER_CUT_OFF] * 5,
    *[Kind.WORKER_ASKED] * 2,
    *[Kind.JOINED_ASKED] * 2,
    *[Kind.BROKER_PAUSED] * 3,
    *[Kind.REDIS_EXPORTER_KILLED] * 2,
    *[Kind.CLICKHOUSE_EXPORTER_KILLED] * 2,
    *[Kind.GATEWAY_KILLED] * 2,
    *[Kind.SOURCE_KILLED] * 2,
)
# At the end, with the rest of the replay coming as fast as it can be read.
UNDER_FULL_LOAD: Final = (Kind.WORKER_KILLED, Kind.BROKER_KILLED)

_LONGEST_WAIT_S: Final = 3.0


@dataclass(frozen=True)
class Fault:
    """One fault."""

    kind: Kind
    after_s: float  # since what the fault before it interrupted flows again
    victim: int  # which of those that it may hit
    length: float  # 0 to 1: between the shortest and the longest time that its kind may last

    def lasts_s(self, shortest_s: float, longest_s: float) -> float:
        """Return how long it lasts."""
        return shortest_s + self.length * (longest_s - shortest_s)


def schedule(seed: int, kinds: Sequence[Kind]) -> list[Fault]:
    """Return a fault of each of ``kinds``, in an order and at moments that only ``seed`` decides."""
    chance = random.Random(seed)  # noqa: S311  (to be repeated, not to be secret)
    order = list(kinds)
    chance.shuffle(order)
    return [
        Fault(kind, chance.uniform(0.0, _LONGEST_WAIT_S), chance.randrange(1 << 16), chance.random())
        for kind in order
    ]
