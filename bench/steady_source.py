"""Sends ticks to Kafka at a steady rate, by a schedule that waits for nothing: the source of `bench.soak`.

Each tick's ``event_ns`` and ``recv_ns`` are the moment at which it was due, so that a latency which is counted from
there holds what a late source, a full producer or a slow broker cost: no coordinated omission.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import uvloop
from prometheus_client import CollectorRegistry

from bench import markets
from stream.clock import NS_PER_S
from stream.kafka_loops import use_lean_clients
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import Records

_STEP_S: Final = 0.002
_TELL_S: Final = 0.1
_SYMBOLS: Final = 100
_SIMULATED_TICKS: Final = 1_000_000


class Schedule:
    """An endless market: the same ticks round and round, tick n due at ``start_ns`` + n / rate."""

    def __init__(self, ticks: Records, rate_per_s: float, start_ns: int) -> None:
        self._ticks = ticks
        self._rate_per_s = rate_per_s
        self._start_ns = start_ns
        self.sent = 0

    def due(self, now_ns: int, limit: int) -> Records:
        """Return what is due and was not returned yet, ``TICK[N]`` with N <= ``limit``."""
        count = min(int((now_ns - self._start_ns) / NS_PER_S * self._rate_per_s) - self.sent, limit)
        numbers = np.arange(self.sent, self.sent + max(count, 0))
        due = np.take(self._ticks, numbers % len(self._ticks))
        due["source_seq"] = numbers + 1
        due["stream_id"] = 1
        due["event_ns"] = due["recv_ns"] = self._start_ns + (numbers / self._rate_per_s * NS_PER_S).astype(np.int64)
        self.sent += len(due)
        return due


async def run(
    bootstrap: str, partitions: int, rate_per_s: float, seconds: float, ticks: Records, sent: Path
) -> None:
    """Send for so many seconds; write how many ticks were sent into ``sent`` on the way."""
    metrics = PublisherMetrics(CollectorRegistry())
    limit = round(rate_per_s * seconds)
    async with TickPublisher(bootstrap, partitions, 1.0, metrics) as publisher:
        schedule = Schedule(ticks, rate_per_s, time.time_ns())
        tell_s = 0.0
        while schedule.sent < limit:
            due = schedule.due(time.time_ns(), limit - schedule.sent)
            if len(due):
                await publisher.publish(due)
            if time.monotonic() > tell_s:
                tell_s = time.monotonic() + _TELL_S
                tell(sent, schedule.sent)
            await asyncio.sleep(_STEP_S)
        await publisher.flush()
    tell(sent, schedule.sent)


def tell(path: Path, count: int) -> None:
    """Write a number so that a reader sees this one or the one before it."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(str(count), "utf-8")
    unfinished.replace(path)


def main() -> None:
    """Read the command line of `bench.soak`, and send."""
    use_lean_clients()
    bootstrap, partitions, rate_per_s, seconds, sent, *recorded = sys.argv[1:]
    if recorded:
        ticks = markets.recorded_day(Path(recorded[0]), recorded[1], None)
    else:
        ticks = markets.simulated(_SYMBOLS, _SIMULATED_TICKS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(bootstrap, int(partitions), float(rate_per_s), float(seconds), ticks, Path(sent)))


if __name__ == "__main__":
    main()
