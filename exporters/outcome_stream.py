"""`tickloom outcomes`: from predictions to outcomes, scores, and a rollback when it must be.

    predictions, predictions.shadow ─▶ PartitionWatch: join, score, try ─▶ outcomes, outcomes.state, model.scores
    models (promotions)             ─▶ Guard                            ─▶ models (a rollback), model.events

One process reads all partitions, without a group. Every few seconds it keeps what it knows of a partition in one
message of ``outcomes.state``, after the brokers have the outcomes before it; the message also says from which
predictions on to read again: the oldest whose horizon is to come. After a crash the outcomes since then are sent
again, and everybody who keeps them drops what he has by (symbol, seq, model); scores and trials count each once.
A second process would do the same once more, and does no harm.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from agents.outcomes import Costs
from exporters.intake import Intake, Message
from exporters.outcome_alarm import OutcomeAlarm
from exporters.outcome_board import OutcomeBoard
from exporters.waiting import BROKER_PATIENCE_S, Backoff, pause
from models.promotion import Promotion
from models.registry import Registry
from models.rollback import Guard
from models.watch import PartitionWatch
from stream.clock import NS_PER_S, Clock
from stream.ending import end_consumer
from stream.errors import ModelError, RecordError, RegistryError, ServerError
from stream.records import MAX_BLOCK_RECORDS, Records, encode_block, join_records
from stream.settings import Settings
from stream.telemetry import Health
from stream.topics import (
    MODEL_SCORES,
    MODELS,
    OUTCOME_STATE,
    OUTCOMES,
    PREDICTIONS,
    SHADOW_PREDICTIONS,
)

logger = logging.getLogger(__name__)

ANSWERS: Final = ("p_down", "p_flat", "p_up", "expected_return_bps")
MUCH_DRIFT: Final = 0.25
_STATE_KEY: Final = b"state"
_POLL_S: Final = 0.1
_GATHER_MS: Final = 50
_KEEP_EVERY_S: Final = 5.0
_TELL_EVERY_S: Final = 2.0
_ACT_AGAIN_S: Final = 5.0  # after a rollback that failed
_RETRY_LIMIT_S: Final = 5.0
_MOST_UNACKNOWLEDGED: Final = 256
_LARGEST_STATE_BYTES: Final = 8 << 20


class OutcomeStream:
    """The loop between Kafka and the partitions' watches."""

    def __init__(
        self,
        settings: Settings,
        guard: Guard,
        registry: Registry,
        board: OutcomeBoard,
        intake: Intake,
        health: Health,
        clock: Clock,
    ) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            guard: knows the models, and changes them.
            registry: where the models are.
            board: shows what is known.
            intake: decodes and checks predictions.
            health: told when Kafka or a rollback fails.
            clock: ns since 1970 UTC.
        """
        self._settings, self._guard, self._board = settings, guard, board
        self._intake, self._health = intake, health
        self._watches: dict[int, PartitionWatch] = {}
        self._next: dict[TopicPartition, int] = {}
        self._sends: list[asyncio.Future[Any]] = []
        self._producer: Any = None
        self._consumer: Any = None
        self._alarm = OutcomeAlarm(settings, guard, registry, board, health, clock, self._send)
        self._kept_s = self._told_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set; then keep what is known."""
        backoff = Backoff(_RETRY_LIMIT_S)
        while not stop.is_set():
            try:
                await self._run_connected(stop)
            except (KafkaError, TimeoutError, OSError, ServerError) as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka}: {error!r}; trying again")
                await pause(stop, backoff.next_s())

    async def _run_connected(self, stop: asyncio.Event) -> None:
        settings = self._settings
        self._sends = []
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_GATHER_MS,
            max_partition_fetch_bytes=_LARGEST_STATE_BYTES,
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka,
            acks="all",
            enable_idempotence=settings.idempotent_producer,
            compression_type="lz4",
            linger_ms=5,
            max_request_size=_LARGEST_STATE_BYTES,
        )
        try:
            await self._producer.start()
            await self._consumer.start()
            await asyncio.wait_for(self._begin(), 6 * BROKER_PATIENCE_S)
            self._health.recover("kafka")
            self._health.recover("outcomes")
            while not stop.is_set():
                await self._step()
            await self._keep()
        finally:
            await end_consumer(self._consumer)
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(self._producer.stop(), BROKER_PATIENCE_S)

    async def _begin(self) -> None:
        """Learn the models, take up each partition where it was kept, and go on from there."""
        partitions = range(self._settings.partitions)
        models = TopicPartition(MODELS, 0)
        self._consumer.assign([models])
        await self._consumer.seek_to_beginning(models)
        end = (await self._consumer.end_offsets([models]))[models]
        while await self._consumer.position(models) < end:
            self._take_models((await self._consumer.getmany(models, timeout_ms=200)).get(models, []))
        await self._guard.learn()
        states = await self._states([TopicPartition(OUTCOME_STATE, number) for number in partitions])
        topics = (PREDICTIONS, SHADOW_PREDICTIONS)
        parts = [TopicPartition(topic, number) for topic in topics for number in partitions]
        starts = await self._consumer.beginning_offsets(parts)
        ends = await self._consumer.end_offsets(parts)
        self._watches = self._board.watches = {}
        for number in partitions:
            self._take_up(number, states.get(number), ends)
        self._consumer.assign([models, *parts])
        self._consumer.seek(models, end)
        for part in parts:
            self._next[part] = max(starts[part], self._next.get(part, 0))
            self._consumer.seek(part, self._next[part])
        await self._on_promotion()

    async def _states(self, parts: list[TopicPartition]) -> dict[int, bytes]:
        """Return the newest message of each partition of the kept states."""
        self._consumer.assign(parts)
        ends = await self._consumer.end_offsets(parts)
        starts = await self._consumer.beginning_offsets(parts)
        waiting = {part for part in parts if ends[part] > starts[part]}
        for part in parts:
            self._consumer.seek(part, max(starts[part], ends[part] - 1))
        found: dict[int, bytes] = {}
        while waiting:
            for part, messages in (await self._consumer.getmany(*waiting, timeout_ms=200)).items():
                found[part.partition] = messages[-1].value
                waiting.discard(part)
        return found

    def _take_up(self, number: int, state: bytes | None, ends: dict[TopicPartition, int]) -> None:
        settings = self._settings
        watch = self._new_watch(number)
        if state is not None:
            try:
                for topic, offset in watch.restore(state).items():
                    part = TopicPartition(topic, number)
                    if offset > ends[part]:
                        raise RecordError(f"it has seen {offset} blocks of {topic}, which has {ends[part]}")
                    self._next[part] = offset
            except RecordError as error:
                # Scores and trials are figures, not money: to begin anew is right, and it is said.
                logger.error("outcomes of partition %d begin anew: %s", number, error)
                self._board.restarts += 1
                watch = self._new_watch(number)
                for topic in (PREDICTIONS, SHADOW_PREDICTIONS):
                    self._next.pop(TopicPartition(topic, number), None)
        self._watches[number] = watch
        logger.debug("partition %d of %d taken up", number, settings.partitions)

    def _new_watch(self, number: int) -> PartitionWatch:
        settings = self._settings
        costs = Costs(settings.fees_bps, settings.cost_bps)
        watch = PartitionWatch(number, costs, int(settings.outcome_patience_s * NS_PER_S))
        watch.know({terms.model_id: terms.dead_band_bps for terms in self._guard.terms.values()})
        return watch

    async def _step(self) -> None:
        read = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000))
        promotions = [said for part, of in read.items() if part.topic == MODELS for said in self._take_models(of)]
        if promotions:
            await self._on_promotion()
        for part, messages in read.items():
            if part.topic != MODELS:
                await self._take(part, messages)
        await self._bound_sends(_MOST_UNACKNOWLEDGED)
        await self._alarm.act()
        now_s = time.monotonic()
        if now_s - self._told_s > _TELL_EVERY_S:
            self._told_s = now_s
            await self._tell()
        if now_s - self._kept_s > _KEEP_EVERY_S:
            await self._keep()

    def _take_models(self, messages: Sequence[Any]) -> list[Promotion]:
        said = [self._guard.said.take(message.key, message.value) for message in messages]
        return [each for each in said if isinstance(each, Promotion)]

    async def _on_promotion(self) -> None:
        """Another model is in service, or runs in shadow, or does not any more."""
        try:
            await self._guard.learn()
            service = self._guard.service()
            bands = {terms.model_id: terms.dead_band_bps for terms in self._guard.terms.values()}
            running = set(self._guard.said.challengers) | ({service.previous_id} if service else set())
            is_new = any(watch.service != service for watch in self._watches.values())
            for watch in self._watches.values():
                watch.know(bands)
                watch.keep_shadows({model for model in running if model is not None})
                if service is not None:
                    watch.serve(service)
            if service is not None:
                await self._alarm.on_service(service, is_new=is_new)
            await self._guard.keep_previous_in_shadow()
            self._health.recover("models")
        except (ModelError, RegistryError) as error:
            self._health.fail("models", f"{error}; outcomes of models that are not known are not told")

    async def _take(self, part: TopicPartition, messages: Sequence[Message]) -> None:
        blocks = [(message.offset, self._intake.decode([message])) for message in messages]
        self._next[part] = messages[-1].offset + 1
        blocks = [(offset, rows) for offset, rows in blocks if len(rows)]
        if not blocks:
            return
        rows = join_records([rows for _, rows in blocks])
        offsets = np.repeat(np.array([offset for offset, _ in blocks]), [len(rows) for _, rows in blocks])
        is_shadow = part.topic == SHADOW_PREDICTIONS
        outcomes = self._watches[part.partition].take(rows, offsets, is_shadow=is_shadow)
        if not is_shadow:
            self._board.take(outcomes)
            self._alarm.look_at_answers(rows)
        for start in range(0, len(outcomes), MAX_BLOCK_RECORDS):
            await self._send(OUTCOMES, part.partition, outcomes[start : start + MAX_BLOCK_RECORDS])

    async def _send(self, topic: str, partition: int, records: Records) -> None:
        self._sends.append(await self._producer.send(topic, encode_block(records), partition=partition))

    async def _bound_sends(self, most: int) -> None:
        if len(self._sends) > most:
            sends, self._sends = self._sends, []
            await asyncio.gather(*sends)

    async def _tell(self) -> None:
        for part, at in self._next.items():
            end = self._consumer.highwater(part)
            if end is not None and part.topic == PREDICTIONS:
                self._board.lag_blocks[str(part.partition)] = max(0, end - at)
        for watch in self._watches.values():
            watch.give_up()
        for model, told in self._board.scores().items():
            value = orjson.dumps(told)
            self._sends.append(await self._producer.send(MODEL_SCORES, value, key=b"%016x" % model, partition=0))
        await self._alarm.tell_drift()

    async def _keep(self) -> None:
        """Keep what is known, after the outcomes before it."""
        await self._bound_sends(0)
        sends = []
        for number, watch in self._watches.items():
            offsets = {}
            for topic in (PREDICTIONS, SHADOW_PREDICTIONS):
                taken = self._next[TopicPartition(topic, number)]
                oldest = watch.oldest_offset(is_shadow=topic == SHADOW_PREDICTIONS)
                offsets[topic] = taken if oldest is None else min(taken, oldest)
            state = watch.save(offsets)
            sends.append(await self._producer.send(OUTCOME_STATE, state, key=_STATE_KEY, partition=number))
        await asyncio.gather(*sends)
        self._kept_s = time.monotonic()
