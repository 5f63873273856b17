"""The lanes of one worker: a Faust agent that feeds blocks of ticks to `Lane`s, and their checkpoints.

The order of effects, which makes crashes harmless:

1. predictions are sent and acknowledged by the brokers;
2. then the state rows that changed go to the table's changelog, each with the offset that it has seen, and a marker
   that says what a whole recovery has;
3. then the offset before which all is kept is committed.

A crash in between repeats blocks. Symbols whose state has seen a block skip it; the others give the same
predictions with the same (symbol, seq) again, which every consumer drops. Nothing is lost or counted twice.

One agent serves all partitions of the worker, with a `Lane` for each: a lane is rebuilt from the table after
every rebalance, so that start-up, recovery and rebalance are one path. A lane counts offsets: what it has seen it
skips, and what does not come it reads again itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import numpy as np
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from agents.checkpoint import LastBlock, marker_row
from agents.lane import Lane
from agents.metrics import LaneMetrics
from agents.outlet import Outlet
from agents.owned import OwnedLane, portions
from agents.recovery import Recovery, made_anew
from agents.swapping import Models, Swapping
from agents.swaps import Swap
from stream.app import StateTable, TickloomApp
from stream.early import EarlySender
from stream.errors import InvariantError, RecordError
from stream.records import TICK, Records, decode_block
from stream.telemetry import Health
from stream.topics import STATE_TABLE, TICKS

logger = logging.getLogger(__name__)

# After so much the producer has its turn. Before it, what the lanes of one fetch say goes out as one request.
_TURN_BYTES: Final = 32 << 10
# Blocks that are read again come in portions of so many.
_PORTION_BLOCKS: Final = 64
# Rows of a checkpoint that are copied in one go, some 0.1 ms, before ticks have their turn again.
_SLICE_ROWS: Final = 16
# Checkpoints take at most this share of a worker's time: with ten thousand busy symbols they come less often.
_CHECKPOINT_SHARE: Final = 0.1
# A partition that has more than we have seen, and does not move for so long while nothing else does: read it again.
_STUCK_S: Final = 3.0


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
        models: Models | None = None,
        worker: str = "",
        features_every_ms: int | None = None,
        early: EarlySender | None = None,
    ) -> None:
        """Attach the agent, the table and the timers to ``app``.

        Args:
            app: from `stream.app.create_app`, not started yet.
            partitions: of the topic of ticks.
            new_lane: makes an empty lane for a partition.
            checkpoint_s: seconds between checkpoints, at the least.
            health: where troubles are told.
            metrics: where everything is counted.
            models: what lanes swap to; None for the one of ``new_lane``, for ever.
            worker: this one's name.
            features_every_ms: which feature rows are published, as `FeatureTap` takes it; None for none.
            early: sends copies of predictions straight to gateways; None for none.
        """
        self.app = app
        self.health = health
        self.metrics = metrics
        self.owned: dict[int, OwnedLane] = {}
        self._partitions = partitions
        self._new_lane = new_lane
        self.failure: BaseException | None = None
        self._closed_generation = -1  # of the consumer group: its partitions were given up, nothing more is applied
        self._checkpoint_due_s = 0.0
        self._progress: dict[int, tuple[int, float]] = {}  # by partition: next offset, and since when it is that
        self.table: StateTable = app.Table(
            STATE_TABLE,
            key_type=bytes,
            value_type=bytes,
            partitions=partitions,
        )
        self._outlet = Outlet(app, metrics, models, features_every_ms, early)
        self._swapping = None if models is None else Swapping(app, models, metrics, worker, self._is_held)
        self._recovery = Recovery(app, self.table, partitions, metrics)
        ticks = app.topic(TICKS, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
        app.agent(ticks, name="lanes", concurrency=1)(self._consume)
        app.timer(checkpoint_s, name="checkpoint")(self._checkpoint_if_due)
        app.timer(1.0, name="watch")(self.read_what_does_not_come)
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_before_shutdown.connect(self._on_shutdown)

    async def _consume(self, stream: Any) -> None:
        """The Faust agent: every block of ticks of every partition that this worker owns.

        Faust hands over the first message after a start; from then on the agent empties the consumer's inbox.
        Blocks that wait there are applied together, up to a bound: they share the cost of a call to the kernel, the
        model and the producer. When nothing waits, which is the rule, a block is applied at once.
        """
        async for _ in stream.noack().events():
            try:
                async with aclosing(self.app.consumer.takes()) as takes:
                    async for generation, inbox in takes:
                        await self._empty(generation, inbox)
            except Exception as error:
                # Faust would start the agent anew without these blocks, and the state would have them all the same.
                await self._crash(error)
                raise

    async def _empty(self, generation: int, inbox: Mapping[Any, list[Any]]) -> None:
        """Apply what was taken from the inbox: messages by partition."""
        taken_bytes = 0
        for tp, messages in inbox.items():
            for portion in portions(messages):
                await self._process(tp, portion, generation)
                taken_bytes += sum(len(message.value or b"") for message in portion)
                if taken_bytes >= _TURN_BYTES:
                    taken_bytes = 0
                    await asyncio.sleep(0)  # the producer's turn

    async def _process(self, tp: Any, messages: Sequence[Any], generation: int) -> None:
        # What the agent still holds when its partitions are taken away, or from before, comes again.
        if not self._is_ours(generation):
            return
        owned = await self._lane(tp)
        if owned is None:
            return
        async with owned.lock:
            if self._is_ours(generation):
                await self._take(owned, messages)
        await self._outlet.bound(owned)

    async def _take(self, owned: OwnedLane, messages: Sequence[Any]) -> None:
        """Apply what the lane has not seen of messages that came in the order of their offsets."""
        unseen: list[Any] = []
        for message in messages:
            due = unseen[-1].offset + 1 if unseen else owned.next_offset
            if message.offset > due:
                await self._apply(owned, unseen)
                unseen = []
                await self._read_again(owned, message.offset)
            if message.offset >= due:
                unseen.append(message)
            else:
                self._check_repetition(owned, message)
        await self._apply(owned, unseen)

    def _check_repetition(self, owned: OwnedLane, message: Any) -> None:
        self.metrics.blocks["repeated"] += 1
        if message.offset == owned.last.offset and LastBlock.of(message.offset, message.value) != owned.last:
            raise made_anew(owned.tp.partition, f"block {message.offset} came again, and it is another one")

    async def _apply(self, owned: OwnedLane, messages: Sequence[Any]) -> None:
        if not messages:
            return
        blocks: list[tuple[int, Records]] = []
        for message in messages:
            try:
                blocks.append((message.offset, decode_block(message.value or b"", TICK)))
            except RecordError as error:
                await self._outlet.dead_letter(owned, message, error)
        if blocks:
            await self._outlet.apply(owned, blocks)
        owned.next_offset = messages[-1].offset + 1
        owned.pace.count(owned.next_offset)
        owned.last = LastBlock.of(messages[-1].offset, messages[-1].value)

    async def _read_again(self, owned: OwnedLane, end: int) -> None:
        """Read blocks that did not come, up to ``end``, from the brokers, and apply them.

        Raises:
            ServerError: the brokers do not give them.
        """
        start = owned.next_offset
        logger.warning("%s[%d]: %d to %d did not come; reading them", TICKS, owned.tp.partition, start, end)
        portion: list[Any] = []
        first: int | None = None
        async for message in self.app.read(owned.tp, start, end):
            first = message.offset if first is None else first
            portion.append(message)
            self.metrics.blocks["read_again"] += 1
            if len(portion) == _PORTION_BLOCKS:
                await self._apply(owned, portion)
                await self._outlet.bound(owned)
                portion = []
        await self._apply(owned, portion)
        owned.next_offset = max(owned.next_offset, end)
        if first != start:  # a hole in the log itself: it begins later now, or there are marks of transactions
            await self._tell_what_is_gone(owned.tp, start, end)

    async def _tell_what_is_gone(self, tp: Any, start: int, end: int) -> None:
        oldest = min(int((await self.app.consumer.earliest_offsets(tp))[tp]), end)
        if oldest > start:
            self.metrics.blocks["lost_to_retention"] += oldest - start
            lost = f"{tp.topic}[{tp.partition}]: the brokers deleted {start} to {oldest} before they were applied"
            logger.error("%s: raise the retention, or run enough workers", lost)

    def _is_ours(self, generation: int) -> bool:
        current = self.app.consumer_generation_id
        return self.failure is None and generation == current and generation > self._closed_generation

    async def _lane(self, tp: Any) -> OwnedLane | None:
        """Return the lane of a partition, made from the table where there is none; None if it is not ours now."""
        owned = self.owned.get(tp.partition)
        if owned is None and tp in self.app.consumer.starts:
            generation = self.app.consumer_generation_id
            recovered = await self._recovery.rows_of(tp)
            lane = self._new_lane(tp.partition)
            plan = None
            if self._swapping is not None and self._is_ours(generation):
                plan = await self._swapping.plan(tp.partition, self.app.consumer.starts[tp])
                self._swapping.begin(lane, plan)
            lane.restore(recovered.rows, self.table.superseded)
            if not self._is_ours(generation) or tp.partition in self.owned:
                return self.owned.get(tp.partition)
            start = self.app.consumer.starts[tp]
            owned = self.owned[tp.partition] = OwnedLane(tp, lane, start, recovered.last_block())
            if self._swapping is not None and plan is not None:
                await self._swapping.start(owned, plan)
            logger.info("lane %d: restored %d symbols, goes on at %d", tp.partition, len(recovered.rows), start)
        return owned

    def _is_held(self, owned: OwnedLane) -> bool:
        return self.owned.get(owned.lane.partition) is owned and self._is_ours(self.app.consumer_generation_id)

    async def adopt_models(self) -> None:
        """Bring every lane to the models that there are now, each at a block that it has not seen.

        Safe to call at any time; a lane that cannot stops the worker.
        """
        if self._swapping is not None:  # all at once: each waits for an acknowledgement
            adopting = [self._swap_safely(self._swapping.adopt(owned)) for owned in self.owned.values()]
            await asyncio.gather(*adopting)

    async def check_swap(self, swap: Swap) -> None:
        """Look at a record of a swap that was read: see `Swapping.check`."""
        owned = self.owned.get(swap.partition)
        if owned is not None and self._swapping is not None:
            await self._swap_safely(self._swapping.check(owned, swap))

    async def _swap_safely(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await doing
        except Exception as error:  # noqa: BLE001  (as in the agent: a lane that cannot go on stops the worker)
            await self._crash(InvariantError(f"a swap was not recorded: {error!r}"))

    def recent_features(self, symbols: int) -> list[NDArray[np.float32]]:
        """Return copies of the feature rows that some symbols have kept, ``float32[<= RECENT_ROWS, F]`` each."""
        found: list[NDArray[np.float32]] = []
        for owned in self.owned.values():
            found += owned.lane.recent_features(symbols // len(self.owned))
        return found

    async def lane_of(self, partition: int) -> Lane | None:
        """Return the lane of a partition, or None where this worker does not have it now."""
        owned = self.owned.get(partition)
        mine = [tp for tp in self.app.consumer.starts if tp.partition == partition]
        if owned is None and mine:
            owned = await self._lane(mine[0])
        return None if owned is None else owned.lane

    async def read_what_does_not_come(self) -> None:
        """Read blocks that the brokers have and that do not come. Called by a timer; safe to call at any time."""
        now_s = time.monotonic()
        for tp, start in list(self.app.consumer.starts.items()):
            owned = self.owned.get(tp.partition)
            at = start if owned is None else owned.next_offset
            end = self.app.consumer.highwater(tp)
            before, since_s = self._progress.get(tp.partition, (-1, now_s))
            is_busy = owned is not None and owned.lock.locked()
            if end is not None and end < at and not is_busy:
                await self._check_end(tp, at)
            if end is None or at >= end or at != before or is_busy:
                self._progress[tp.partition] = at, now_s
            elif now_s - since_s > _STUCK_S:
                await self._unstick(tp, end)

    async def _check_end(self, tp: Any, at: int) -> None:
        try:
            await self._recovery.check_end(tp, at)
        except KafkaError:
            logger.warning("%s[%d]: the brokers do not tell where it ends; asking again", tp.topic, tp.partition)
        except InvariantError as error:
            await self._crash(error)

    async def _unstick(self, tp: Any, end: int) -> None:
        generation = self.app.consumer_generation_id
        try:
            owned = await self._lane(tp)
            if owned is not None:
                async with owned.lock:
                    if self._is_ours(generation) and owned.next_offset < end:
                        await self._read_again(owned, end)
        except Exception as error:  # noqa: BLE001  (as in the agent: a lane that cannot go on stops the worker)
            await self._crash(error)

    async def _checkpoint_if_due(self) -> None:
        begun_s = time.monotonic()
        if begun_s >= self._checkpoint_due_s:
            await self.checkpoint_all()
            ended_s = time.monotonic()
            self._checkpoint_due_s = ended_s + (ended_s - begun_s) * (1 / _CHECKPOINT_SHARE - 1)

    async def checkpoint_all(self) -> None:
        """Checkpoint every lane that has news. Safe to call at any time."""
        for owned in list(self.owned.values()):
            await self._checkpoint(owned)

    async def _checkpoint(self, owned: OwnedLane) -> None:
        async with owned.checkpoint_lock:
            try:
                if owned.next_offset != owned.kept and self.failure is None:
                    with self.metrics.checkpoint_seconds.time():
                        await self._keep(owned)
            except Exception as error:  # noqa: BLE001  (a lost acknowledgement must stop the worker, whatever it is)
                await self._crash(InvariantError(f"lane {owned.lane.partition}: the brokers refused: {error!r}"))

    async def _keep(self, owned: OwnedLane) -> None:
        """Write what has changed, a few rows at a time between two blocks; the lane goes on beside it.

        Rows are independent: one that is written later than another has seen more blocks, and says so.
        """
        lane, writes = owned.lane, []
        async with owned.lock:
            next_offset = owned.next_offset
            marker = marker_row(lane.partition, next_offset, lane.windows.states[: lane.windows.count], owned.last)
            dirty = lane.changed()
        for start in range(0, len(dirty), _SLICE_ROWS):
            async with owned.lock:
                # After a failure a row may be ahead of what was sent: it must not be kept.
                if self.failure is not None:
                    return
                sends, owned.sends = owned.sends, []
                rows = lane.take(dirty[start : start + _SLICE_ROWS])
            await asyncio.gather(*sends)
            writes += await self.table.write(lane.partition, rows)
        sends, owned.sends = owned.sends, []
        await asyncio.gather(*sends, *writes)
        await asyncio.gather(*await self.table.write(lane.partition, [marker]))
        if self.owned.get(lane.partition) is owned:
            owned.kept = next_offset
            self.app.consumer.kept[owned.tp] = next_offset

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
        self.metrics.models.serving.clear()
        self._progress.clear()

    async def _crash(self, error: BaseException) -> None:
        """Stop the worker loudly: going on would break a promise."""
        self.failure = error
        self.health.fail("lanes", str(error))
        await self.app.crash(error)
