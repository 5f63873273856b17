"""Reads every partition of ``predictions`` as it grows, without a group: each gateway sees everything.

First it walks back from the end, in windows that double, to find the newest prediction of each symbol; a symbol
that last ticked before what a few seconds of reading reach is met when it ticks again. Then it follows the end.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from exporters.cluster import cluster_id
from exporters.intake import Intake
from exporters.newest import last_of_each
from exporters.waiting import BROKER_PATIENCE_S, Backoff, pause
from stream.clock import Clock
from stream.errors import ServerError
from stream.records import Records
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_WATCH_EVERY_S: Final = 2.0
_RETRY_LIMIT_S: Final = 5.0
_FIRST_WINDOW_BLOCKS: Final = 1_000
_WALK_S: Final = 3.0  # the feed is not live before this is over
# A backlog is handed on in parts with a pause, 250,000 predictions/s: clients need time to read, or they would all
# count as slow after each outage of ours.
_PART_ROWS: Final = 512
_PART_PAUSE_S: Final = 0.002


class Tail:
    """Follows the topic, for as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        intake: Intake,
        health: Health,
        clock: Clock,
        on_epoch: Callable[[str], None],
        on_history: Callable[[Records], None],
        on_rows: Callable[[Records, int], None],
        on_ends: Callable[[dict[int, int], dict[int, int]], None],
    ) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            topic: where the blocks of PREDICTION are.
            intake: the door.
            health: told when Kafka is away.
            clock: the time in ns.
            on_epoch: called with the id of the cluster, when it is first known and when it changes.
            on_history: called with the newest rows from before we came: ``PREDICTION[symbols]``.
            on_rows: called with new rows and when they were read in ns.
            on_ends: called with where each partition ends, and where we are in it.
        """
        self._settings, self._topic, self._intake, self._health = settings, topic, intake, health
        self._clock = clock
        self._on_epoch, self._on_history, self._on_rows, self._on_ends = on_epoch, on_history, on_rows, on_ends
        self._epoch: str | None = None
        self._next: dict[TopicPartition, int] = {}
        self._consumer: Any = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set."""
        backoff = Backoff(_RETRY_LIMIT_S)
        while not stop.is_set():
            try:
                await self._run_connected(stop)
            except (KafkaError, ServerError, TimeoutError) as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka}: {error!r}; trying again")
                await pause(stop, backoff.next_s())

    async def _run_connected(self, stop: asyncio.Event) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # if retention overtakes us: the gap is then seen and told
            fetch_max_wait_ms=self._settings.fetch_wait_ms,
            request_timeout_ms=int(BROKER_PATIENCE_S * 1000) + self._settings.fetch_wait_ms,
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._consumer.start()
            await self._meet_cluster()
            await self._assign(stop)
            if stop.is_set():
                return
            if not self._next:
                await self._walk_back()
            for partition, offset in self._next.items():
                self._consumer.seek(partition, offset)
            self._health.recover("kafka")
            tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._follow(stop))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(self._consumer.stop(), BROKER_PATIENCE_S)

    async def _meet_cluster(self) -> None:
        epoch = await cluster_id(str(self._settings.kafka))
        if epoch != self._epoch:
            self._intake.forget_everything()
            self._next = {}
            self._on_epoch(epoch)
            self._epoch = epoch

    async def _assign(self, stop: asyncio.Event) -> None:
        while self._topic not in await self._consumer.topics() and not stop.is_set():
            self._health.fail("kafka", f"Kafka at {self._settings.kafka} has no topic {self._topic} yet; waiting")
            await pause(stop, 1.0)
        numbers = sorted(self._consumer.partitions_for_topic(self._topic) or ())
        if numbers:
            self._consumer.assign([TopicPartition(self._topic, number) for number in numbers])

    async def _walk_back(self) -> None:
        """Find the newest row of each symbol, and where to go on from."""
        partitions = sorted(self._consumer.assignment())
        begins = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        self._next = dict(ends)
        deadline_s = time.monotonic() + _WALK_S
        for partition in partitions:
            await self._walk_back_partition(partition, begins[partition], ends[partition], deadline_s)

    async def _walk_back_partition(
        self, partition: TopicPartition, begin: int, end: int, deadline_s: float
    ) -> None:
        window, stop = _FIRST_WINDOW_BLOCKS, end
        found: dict[bytes, Records] = {}
        while stop > begin and time.monotonic() < deadline_s:
            start = max(begin, stop - window)
            for row in await self._newest_between(partition, start, stop, deadline_s):
                found.setdefault(row["symbol"], np.array([row]))
            stop, window = start, 2 * window
        if found:
            rows = np.concatenate(list(found.values()))
            self._intake.remember(partition.partition, rows)
            self._on_history(rows)

    async def _newest_between(self, partition: TopicPartition, start: int, stop: int, deadline_s: float) -> Records:
        self._consumer.seek(partition, start)
        kept = [self._intake.decode([])]
        position = start
        while position < stop and time.monotonic() < deadline_s + _POLL_S:
            read = await self._consumer.getmany(partition, timeout_ms=int(_POLL_S * 1000))
            messages = [message for message in read.get(partition, []) if message.offset < stop]
            kept.append(last_of_each(self._intake.decode(messages)))
            position = await self._consumer.position(partition)
        return last_of_each(np.concatenate(kept))

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            read = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000))
            now_ns = self._clock()
            for partition, messages in read.items():
                self._next[partition] = messages[-1].offset + 1
                rows = self._intake.read(partition.partition, messages).rows
                for start in range(0, len(rows), _PART_ROWS):
                    if start:
                        await asyncio.sleep(_PART_PAUSE_S)
                    self._on_rows(rows[start : start + _PART_ROWS], now_ns)

    async def _watch(self) -> None:
        """Say for ever how far we are behind, and whether the broker answers.

        Raises:
            ServerError: the log ends before where we are: the cluster was wiped or the topic made anew.
        """
        while True:
            try:
                ends = await asyncio.wait_for(self._consumer.end_offsets(list(self._next)), BROKER_PATIENCE_S)
            except (KafkaError, TimeoutError) as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka} does not answer ({error!r}); waiting")
            else:
                self._health.recover("kafka")
                self._on_ends(
                    {p.partition: end for p, end in ends.items()}, {p.partition: self._next[p] for p in ends}
                )
                if await cluster_id(str(self._settings.kafka)) != self._epoch:
                    raise ServerError("another cluster answers now")
            await asyncio.sleep(_WATCH_EVERY_S)
