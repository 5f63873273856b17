"""The lanes of one worker: a Faust agent that feeds blocks of ticks to `Lane`s, and their checkpoints.

The order of effects, which makes crashes harmless:

1. predictions are sent and acknowledged by the brokers;
2. then the state rows that changed go to the table's changelog, each with the offset that it has seen;
3. then the blocks are acknowledged to Faust, which commits their offsets.

A crash in between repeats blocks. Symbols whose state has seen a block skip it; the others give the same
predictions with the same (symbol, seq) again, which every consumer drops. Nothing is lost or counted twice.

One agent serves all partitions of the worker, with a `Lane` for each: a lane is rebuilt from the table after
every rebalance, so that start-up, recovery and rebalance are one path.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.lane import Lane
from agents.metrics import LaneMetrics
from stream.app import StateTable, TickloomApp
from stream.errors import InvariantError, RecordError
from stream.records import MAX_BLOCK_RECORDS, PREDICTION, TICK, Records, decode_block, encode_block, partition_of
from stream.telemetry import Health
from stream.topics import PREDICTIONS, REJECTED_TICKS, STATE_TABLE, TICKS

logger = logging.getLogger(__name__)

# Blocks sent and not yet acknowledged, for each lane; beyond it the lane waits for the brokers.
_MAX_UNACKNOWLEDGED = 256
# Blocks that wait are applied together up to this size: about 1,200 ticks, some 10 ms of work for the event loop.
_MAX_TOGETHER_BYTES = 128 << 10


@dataclass
class _OwnedLane:
    """A lane with what it has sent since its last checkpoint."""

    lane: Lane
    next_offset: int  # of the block that comes next
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    checkpoint_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sends: list["asyncio.Future[Any]"] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)


class Lanes:
    """All lanes of this worker, attached to a Faust application."""

    def __init__(
        self,
        app: TickloomApp,
        partitions: int,
        new_lane: Callable[[int], Lane],
        checkpoint_s: float,
        health: Health,
        metrics: LaneMetrics,
    ) -> None:
        """Attach the agent, the table and the checkpoint timer to ``app``.

        Args:
            app: from `stream.app.create_app`, not started yet.
            partitions: of the topic of ticks.
            new_lane: makes an empty lane for a partition.
            checkpoint_s: seconds between checkpoints.
            health: where troubles are told.
            metrics: where everything is counted.
        """
        self.app = app
        self.health = health
        self.metrics = metrics
        self.owned: dict[int, _OwnedLane] = {}
        self._partitions = partitions
        self._new_lane = new_lane
        self.failure: BaseException | None = None
        self._closed_generation = -1  # of the consumer group: its partitions were given up, nothing more is applied
        self.table: StateTable = app.Table(
            STATE_TABLE,
            key_type=bytes,
            value_type=bytes,
            partitions=partitions,
        )
        ticks = app.topic(TICKS, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
        app.agent(ticks, name="lanes", concurrency=1)(self._consume)
        app.timer(checkpoint_s, name="checkpoint")(self.checkpoint_all)
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_before_shutdown.connect(self._on_shutdown)

    async def _consume(self, stream: Any) -> None:
        """The Faust agent: every block of ticks of every partition that this worker owns.

        Blocks that wait already are applied together, up to a bound: the cost of a call to the kernel, to the
        model and to the producer is then shared, and a backlog is worked off many times faster. When nothing
        waits, which is the rule, a block is applied at once.
        """
        waiting: dict[int, list[Any]] = {}
        size_bytes = 0
        async for event in stream.noack().events():
            waiting.setdefault(event.message.partition, []).append(event)
            size_bytes += len(event.value or b"")
            if size_bytes < _MAX_TOGETHER_BYTES and not stream.channel.queue.empty():
                continue
            together, waiting, size_bytes = waiting, {}, 0
            try:
                for partition, events in together.items():
                    await self._process(partition, events)
            except Exception as error:
                # Faust would start the agent anew without these blocks, and the state would have them all the same.
                await self._crash(error)
                raise

    async def _process(self, partition: int, events: list[Any]) -> None:
        # What the agent still holds when its partitions are taken away, or from before, comes again.
        events = [event for event in events if self._is_ours(event.message.generation_id)]
        if not events:
            return
        owned = await self._lane(events[0].message.tp)
        async with owned.lock:
            if not self._is_ours(events[-1].message.generation_id):
                return
            events = await self._unseen(owned, events)
            blocks: list[tuple[int, Records]] = []
            for event in events:
                try:
                    blocks.append((event.message.offset, decode_block(event.value or b"", TICK)))
                except RecordError as error:
                    await self._dead_letter(owned, event, error)
            if blocks:
                await self._apply(owned, blocks)
            owned.events.extend(events)
        sends = owned.sends  # a checkpoint may put another list in its place
        if len(sends) > _MAX_UNACKNOWLEDGED:
            oldest = len(sends) - _MAX_UNACKNOWLEDGED // 2
            await asyncio.gather(*sends[:oldest])
            del sends[:oldest]

    async def _apply(self, owned: _OwnedLane, blocks: list[tuple[int, Records]]) -> None:
        output = owned.lane.apply(blocks)
        partition = owned.lane.partition
        output.predictions["published_ns"] = owned.lane.clock()
        for topic, records in ((PREDICTIONS, output.predictions), (REJECTED_TICKS, output.rejected)):
            for start in range(0, len(records), MAX_BLOCK_RECORDS):
                block = encode_block(records[start : start + MAX_BLOCK_RECORDS])
                owned.sends.append(await self.app.producer.send(topic, None, block, partition, None, None))
        self.metrics.on_blocks(len(blocks), owned.lane, output)

    async def _dead_letter(self, owned: _OwnedLane, event: Any, error: RecordError) -> None:
        """Put bytes that are not a block of ticks aside, as they came, with the reason in the headers."""
        message = event.message
        where = f"{message.topic}[{message.partition}]@{message.offset}"
        logger.error("rejected %s: %s", where, error)
        self.metrics.blocks[type(error).__name__] += 1
        headers = [("tickloom-error", str(error).encode()), ("tickloom-source", where.encode())]
        raw = event.value if isinstance(event.value, bytes) else b""
        owned.sends.append(
            await self.app.producer.send(REJECTED_TICKS, None, raw, message.partition, None, headers)
        )

    def _is_ours(self, generation: int) -> bool:
        current = self.app.consumer_generation_id
        return self.failure is None and generation == current and generation > self._closed_generation

    async def _unseen(self, owned: _OwnedLane, events: list[Any]) -> list[Any]:
        """Return the events that the lane has not seen, in order and without a hole.

        Raises:
            InvariantError: blocks that the broker has did not come.
        """
        unseen = []
        for event in events:
            tp, offset = event.message.tp, event.message.offset
            if offset < owned.next_offset:
                continue  # after a rebalance Faust fetches some twice
            if offset > owned.next_offset:
                # A hole in the log itself (retention, markers of transactions), or blocks lost on the way to us?
                there_is = await self.app.first_offset_from(tp, owned.next_offset)
                if there_is < offset:
                    raise InvariantError(f"{tp.topic}[{tp.partition}]: {offset} came before {there_is}")
            owned.next_offset = offset + 1
            unseen.append(event)
        return unseen

    async def _lane(self, tp: Any) -> _OwnedLane:
        owned = self.owned.get(tp.partition)
        if owned is None:
            start = await self.app.first_uncommitted(tp)
            lane = self._new_lane(tp.partition)
            rows = {key: value for key, value in self.table.data.items() if self._partition_of(key) == tp.partition}
            lane.restore(rows.values())
            owned = self.owned[tp.partition] = _OwnedLane(lane, start)
            logger.info("lane %d: restored %d symbols, goes on at %d", tp.partition, len(rows), start)
        return owned

    def _partition_of(self, key: bytes) -> int:
        return int(partition_of(np.array([key], PREDICTION["symbol"]), self._partitions)[0])

    async def checkpoint_all(self) -> None:
        """Checkpoint every lane that has news. Called by a timer; safe to call at any time."""
        for owned in list(self.owned.values()):
            await self._checkpoint(owned)

    async def _checkpoint(self, owned: _OwnedLane) -> None:
        async with owned.checkpoint_lock:
            # The snapshot is taken between two blocks; what follows runs beside the lane, which goes on.
            async with owned.lock:
                events, owned.events = owned.events, []
                sends, owned.sends = owned.sends, []
                # After a failure a row may be ahead of what was sent: it must not be kept.
                if not events or self.failure is not None:
                    return
                rows = owned.lane.take_dirty()
            try:
                with self.metrics.checkpoint_seconds.time():
                    await asyncio.gather(*sends)
                    writes = [await self.table.write(owned.lane.partition, *row) for row in rows]
                    await asyncio.gather(*writes)
            except Exception as error:  # noqa: BLE001  (a lost acknowledgement must stop the worker, whatever it is)
                await self._crash(InvariantError(f"lane {owned.lane.partition}: the brokers refused: {error!r}"))
                return
            for event in events:
                event.ack()

    async def _on_revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        await self._release()

    async def _on_shutdown(self, app: Any, **_: Any) -> None:
        await self._release()

    async def _release(self) -> None:
        """Checkpoint and commit while the partitions are still ours, then forget them."""
        self._closed_generation = self.app.consumer_generation_id
        lanes = list(self.owned.values())
        try:
            async with asyncio.timeout(self.app.conf.broker_session_timeout / 2):
                for owned in lanes:
                    await self._checkpoint(owned)
                if lanes:
                    await self.app.consumer.commit()
        except TimeoutError:
            # Not lost: the next owner repeats what was not committed.
            logger.warning("no checkpoint before the partitions were given up: the brokers did not answer")
        self.owned.clear()

    async def _crash(self, error: BaseException) -> None:
        """Stop the worker loudly: going on would break a promise."""
        self.failure = error
        self.health.fail("lanes", str(error))
        await self.app.crash(error)
