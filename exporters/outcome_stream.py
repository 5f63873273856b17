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

from agents.drift import Drift
from exporters.intake import Intake, Message
from exporters.outcome_board import OutcomeBoard
from exporters.waiting import BROKER_PATIENCE_S, Backoff, pause
from models.artifact import load
from models.guard import Guard, Trip
from models.promotion import Promotion
from models.registry import Registry
from models.watch import PartitionWatch, Service
from stream.clock import NS_PER_S, Clock
from stream.errors import ModelError, RecordError, RegistryError, ServerError
from stream.records import MAX_BLOCK_RECORDS, MODEL_EVENT, ModelEventKind, Records, encode_block, join_records
from stream.settings import Settings
from stream.telemetry import Health
from stream.topics import (
    MODEL_EVENTS,
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
        self._settings, self._guard, self._registry = settings, guard, registry
        self._board, self._intake, self._health, self._clock = board, intake, health, clock
        self._watches: dict[int, PartitionWatch] = {}
        self._next: dict[TopicPartition, int] = {}
        self._sends: list[asyncio.Future[Any]] = []
        self._producer: Any = None
        self._consumer: Any = None
        self._served: Service | None = None
        self._acted: Trip | None = None
        self._act_after_s = self._kept_s = self._told_s = 0.0
        self._drifted: set[str] = set()

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
            for client in (self._consumer, self._producer):
                with contextlib.suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(client.stop(), BROKER_PATIENCE_S)

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
        watch = PartitionWatch(number, settings.cost_bps, int(settings.outcome_patience_s * NS_PER_S))
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
        await self._act()
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
            for watch in self._watches.values():
                watch.know(bands)
                watch.keep_shadows({model for model in running if model is not None})
                if service is not None:
                    watch.serve(service)
            if service is not None and service != self._served:
                await self._on_service(service)
            await self._guard.keep_previous_in_shadow()
            self._health.recover("models")
        except (ModelError, RegistryError) as error:
            self._health.fail("models", f"{error}; outcomes of models that are not known are not told")

    async def _on_service(self, service: Service) -> None:
        self._served = service
        self._board.answers, self._drifted = await asyncio.to_thread(self._answers, service), set()
        promotion = self._guard.said.champion
        why = "the model of the settings" if promotion is None else f"{promotion.by}: {promotion.reason}"
        await self._event(ModelEventKind.SERVED, service.model_id, service.previous_id or 0, 0.0, why)

    def _answers(self, service: Service) -> Drift | None:
        champion = self._guard.said.champion
        path = self._settings.model if champion is None else self._registry.fetch(champion.version)
        expected = load(path, self._guard.available).card.training.get("answers")
        return None if expected is None else Drift(expected, ANSWERS)

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
            self._watch_answers(rows)
        for start in range(0, len(outcomes), MAX_BLOCK_RECORDS):
            await self._send(OUTCOMES, part.partition, outcomes[start : start + MAX_BLOCK_RECORDS])

    def _watch_answers(self, rows: Records) -> None:
        drift, service = self._board.answers, self._served
        if drift is not None and service is not None:
            ours = rows[rows["model_id"] == service.model_id][:: max(1, len(rows) // 64)]
            drift.add(np.stack([ours[name] for name in ANSWERS], axis=1))

    async def _send(self, topic: str, partition: int, records: Records) -> None:
        self._sends.append(await self._producer.send(topic, encode_block(records), partition=partition))

    async def _bound_sends(self, most: int) -> None:
        if len(self._sends) > most:
            sends, self._sends = self._sends, []
            await asyncio.gather(*sends)

    async def _act(self) -> None:
        """Take the model in service out of it, if a trial says so."""
        trip = self._guard.trip(self._watches.values())
        if trip is None or time.monotonic() < self._act_after_s:
            return
        service, known = trip.service, self._board.since_promotion()
        other = 0 if service.previous_id is None else service.previous_id
        if self._acted is None or self._acted.service != service:
            self._acted = trip
            logger.error("%s, %d outcomes since it was promoted", trip, known)
            await self._event(ModelEventKind.TRIPPED, service.model_id, other, trip.e_value, str(trip))
        if not self._settings.rollback:
            self._health.fail("rollback", f"{trip}, and the setting rollback is off: promote another one")
            return
        self._act_after_s = time.monotonic() + _ACT_AGAIN_S
        try:
            watches = self._watches.values()
            shares = np.mean([watch.served.frequencies() for watch in watches], axis=0)
            clock_ns = max(watch.served.clock_ns for watch in watches)
            promotion = await self._guard.go_back(trip, shares, clock_ns)
        except (ModelError, RegistryError, ServerError) as error:
            self._board.failed_rollbacks += 1
            self._health.fail("rollback", f"{trip}, and it stays in service: {error}")
            await self._event(ModelEventKind.ROLLBACK_FAILED, service.model_id, other, trip.e_value, str(error))
            return
        self._board.rollbacks += 1
        self._health.recover("rollback")
        logger.error("%s is in service again: %s", promotion.version, trip)
        text = f"{promotion.version}: {trip}"
        await self._event(ModelEventKind.ROLLED_BACK, service.model_id, promotion.model_id, trip.e_value, text)

    async def _event(self, kind: ModelEventKind, model: int, other: int, value: float, text: str) -> None:
        event = np.zeros(1, MODEL_EVENT)
        event["at_ns"], event["kind"], event["model_id"], event["other_id"] = self._clock(), kind, model, other
        event["event_ns"] = max((max(0, watch.served.clock_ns) for watch in self._watches.values()), default=0)
        event["value"], event["predictions"] = min(value, 1e300), self._board.since_promotion()
        event["detail"] = text.encode("ascii", "replace")[: MODEL_EVENT["detail"].itemsize]
        await self._send(MODEL_EVENTS, 0, event)

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
        await self._tell_drift()

    async def _tell_drift(self) -> None:
        drift, service = self._board.answers, self._served
        psi = {} if drift is None else drift.psi()
        for name, value in psi.items():
            if value > MUCH_DRIFT and service is not None and name not in self._drifted:
                self._drifted.add(name)
                text = f"{name} has left the training span: PSI {value:.3g}"
                await self._event(ModelEventKind.DRIFTED, service.model_id, 0, value, text)

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
