"""The process that replays recorded days into Kafka."""

import asyncio
import logging
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from stream.clock import Clock, wall_ns
from stream.errors import SettingsError
from stream.records import Records
from stream.settings import Settings
from stream.sources.delivery import Delivery, Progress
from stream.sources.pacing import Pace
from stream.sources.replay import Replay
from stream.topics import TICKS

logger = logging.getLogger(__name__)

MAX_SPEED: Final = math.inf
# Ticks handed over at once: 3.4 MB, some blocks for each partition.
_CHUNK: Final = 32_768


async def run_replay(
    settings: Settings,
    bootstrap: str,
    replay: Replay,
    stop: asyncio.Event,
    *,
    speed: float = 1.0,
    port: int = 0,
    progress: Progress | None = None,
    topic: str = TICKS,
) -> dict[str, Any]:
    """Publish a replay from where an earlier run of it stopped; return the last figures.

    Each day starts at once, at its first tick: the nights between are not waited for.

    Args:
        settings: partitions, linger, host.
        bootstrap: ``HOST:PORT[,HOST:PORT]`` of the brokers.
        replay: what to publish.
        stop: ends it early; what was accepted is acknowledged before it returns.
        speed: 1 is true speed, `MAX_SPEED` as fast as it goes.
        port: of ``/metrics`` and ``/health``; 0 picks a free one.
        progress: called with the figures about once a second, and at the end.
        topic: that ticks go to.

    Raises:
        SettingsError: the speed is not positive.
        SourceError: a file is damaged, or has nothing of the day.
        SinkUnavailable: stopped while Kafka was away.
        SinkRejected: Kafka will never take the ticks.
    """
    if not speed > 0:
        raise SettingsError(f"the speed of a replay is {speed}; right would be a positive number, or max")
    delivery = Delivery(
        settings, bootstrap, "replay", stop, stream_id=replay.stream_id, port=port, progress=progress, topic=topic
    )
    delivery.total = replay.total
    async with delivery:
        first_seq = int(delivery.already_there.min()) + 1
        days = replay.days(first_seq)
        state = "stopped"
        while not stop.is_set():
            delivery.state = "loading"
            day = await asyncio.to_thread(_next_day, days)
            delivery.state = "running"
            if day is None:
                state = "finished"
                break
            await _play(delivery, delivery.without_known(day), speed)
        await delivery.finish(state)
        if state == "finished" and delivery.accepted == 0:
            logger.info("nothing was published: Kafka holds all of this replay; give the run a name to repeat it")
        return delivery.figures()


def _next_day(days: Iterator[Records]) -> Records | None:
    return next(days, None)


async def _play(delivery: Delivery, ticks: Records, speed: float, clock: Clock = wall_ns) -> None:
    """Send one day's ticks as they become due."""
    if len(ticks) == 0:
        return
    event_ns = np.ascontiguousarray(ticks["event_ns"])
    pace = None if speed == MAX_SPEED else Pace(int(event_ns[0]), speed)
    sent = 0
    while sent < len(ticks) and not delivery.stop.is_set():
        end = min(sent + _CHUNK, len(ticks))
        if pace is not None:
            due = int(np.searchsorted(event_ns, pace.due_ns(), side="right"))
            if due <= sent:
                delivery.behind_s = 0.0
                await pace.wait_for(int(event_ns[sent]))
                continue
            end = min(end, due)
            delivery.behind_s = pace.behind_s(int(event_ns[sent]))
        chunk = ticks[sent:end]
        chunk["recv_ns"] = clock()
        await delivery.send(chunk)
        sent = end
