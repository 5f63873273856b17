"""The models of one worker: it follows the topic ``models``, loads what is promoted, and tells what came of it.

All that takes time happens beside the lanes, in a thread: to fetch a file, to check it from its bytes to its
answers, and to try it out on the feature rows of symbols that tick here. A model that fails is refused with the
reason, and the lanes go on with what they have.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from agents.inference import MODEL_STATE_FLOATS, Predictor
from agents.lanes import Lanes
from agents.model_metrics import ModelMetrics
from agents.swapping import SETTINGS_VERSION, Candidate, Plan
from agents.swaps import Swap
from models.predictor import load_predictor
from models.promotion import WORKER_KEY, ModelsTopic, Promotion, send_models
from models.registry import Registry
from stream.clock import wall_ns
from stream.ending import end_consumer
from stream.errors import InvariantError, ModelError, ServerError, TickloomError
from stream.telemetry import Health
from stream.topics import MODELS

logger = logging.getLogger(__name__)

Engine = Literal["auto", "compiled", "onnxruntime"]

_POLL_MS: Final = 200
_RETRY_S: Final = 1.0
_TELL_EVERY_S: Final = 1.0
_TRIED_SYMBOLS: Final = 64
_TOPIC: Final = TopicPartition(MODELS, 0)


class ModelService:
    """What `agents.swapping.Models` asks for. ``async with`` follows the topic."""

    def __init__(
        self,
        bootstrap: str,
        registry: Registry,
        base: Predictor,
        engine: Engine,
        available: tuple[str, ...],
        worker: str,
        health: Health,
        metrics: ModelMetrics,
    ) -> None:
        """Make it; nothing is read yet.

        Args:
            bootstrap: brokers.
            registry: where promoted models are.
            base: the model of the settings, which serves until one is promoted.
            engine: what runs the models.
            available: the features in a row, in their order.
            worker: this one's name.
            health: where troubles with the topic are told.
            metrics: where refusals are counted.
        """
        self.wanted: Candidate | None = None
        self._challengers: dict[int, Predictor] = {}
        self.refused: dict[str, str] = {}  # why, by version
        self.said = ModelsTopic()
        self._bootstrap, self._registry, self._base = bootstrap, registry, base
        self._engine, self._available, self._worker = engine, available, worker
        self._health, self._metrics = health, metrics
        self._lanes: Lanes | None = None
        self._loaded: dict[tuple[str, str], Predictor] = {}  # by version and SHA-256 of the file
        self._consumer: Any = None
        self._read = 0  # offset in the topic
        self._changed = asyncio.Event()  # a role has: for `_keep_up`
        self._is_ready = asyncio.Event()  # the first champion is loaded, or refused
        self._tasks: list[asyncio.Task[None]] = []

    def attach(self, lanes: Lanes) -> None:
        """Say whose models these are, before anything starts."""
        self._lanes = lanes

    async def __aenter__(self) -> Self:
        """Follow the topic from its beginning."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await self._consumer.start()
        self._consumer.assign([_TOPIC])
        await self._consumer.seek_to_beginning(_TOPIC)
        for doing in (self._follow, self._keep_up, self._tell):
            self._tasks.append(asyncio.create_task(doing(), name=f"models {doing.__name__}"))
            self._tasks[-1].add_done_callback(self._on_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        for task in self._tasks:
            task.remove_done_callback(self._on_ended)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await end_consumer(self._consumer)

    @property
    def challengers(self) -> Mapping[int, Predictor]:
        """The challengers by model id."""
        return self._challengers

    async def plan(self, partition: int, start: int) -> Plan:
        """See `agents.swapping.Models.plan`. Waits while the brokers do not tell."""
        await self._catch_up()
        await self._is_ready.wait()
        known = self.said.swaps_of(partition)
        done = max((number for number, swap in enumerate(known, 1) if swap.end <= start), default=0)
        try:
            serving = self._base if not done else await self._predictor_of(known[done - 1])
            swaps = tuple([(swap, await self._predictor_of(swap)) for swap in known[done:]])
        except TickloomError as error:
            self._refuse("the model that a lane had", error)
            logger.error("lane %d: it goes on at %d with the model of the settings", partition, start)
            return Plan(self._base, (), tuple(known), Candidate(SETTINGS_VERSION, self._base, urgent=True))
        return Plan(serving, swaps, tuple(known))

    def swaps_of(self, partition: int) -> list[Swap]:
        """See `agents.swapping.Models.swaps_of`."""
        return self.said.swaps_of(partition)

    def on_challenger_failed(self, model_id: int, error: Exception) -> None:
        """Drop a challenger in all lanes, and say so."""
        if self._challengers.pop(model_id, None) is not None:
            self._metrics.challengers_dropped += 1
            role = self.said.challengers.get(model_id)
            self._refuse(f"challenger {model_id:016x}" if role is None else role.version, error)

    def figures(self) -> dict[str, Any]:
        """Return what `/health` and the topic tell of this worker's models."""
        champion = self.said.champion
        owned = {} if self._lanes is None else self._lanes.owned
        return {
            "champion": None if champion is None else champion.version,
            "serving": {
                str(partition): f"{lane.lane.predictor.model_id:016x}" for partition, lane in sorted(owned.items())
            },
            "challengers": [f"{model_id:016x}" for model_id in self._challengers],
            "refused_models": dict(self.refused),
        }

    async def _catch_up(self) -> None:
        """Wait until everything that the topic had when this was called is read."""
        while True:
            try:
                end = int((await self._consumer.end_offsets([_TOPIC]))[_TOPIC])
            except KafkaError as error:
                self._health.fail("models", f"the brokers do not tell where {MODELS} ends: {error!r}")
                await asyncio.sleep(_RETRY_S)
            else:
                break
        self._health.recover("models")
        while self._read < end:
            await asyncio.sleep(0.005)

    async def _follow(self) -> None:
        """Read the topic for ever."""
        while True:
            try:
                found = await self._consumer.getmany(_TOPIC, timeout_ms=_POLL_MS)
                position = await self._consumer.position(_TOPIC)
            except KafkaError as error:
                self._health.fail("models", f"cannot read {MODELS}: {error!r}")
                await asyncio.sleep(_RETRY_S)
                continue
            swaps: list[Swap] = []
            for message in found.get(_TOPIC, ()):
                news = self.said.take(message.key, message.value)
                if isinstance(news, Swap) and message.value is not None:
                    swaps.append(news)
                elif news is not None:
                    self._changed.set()
            if position > self._read:
                self._read = position
            for swap in swaps:
                if self._lanes is not None:
                    await self._lanes.check_swap(swap)

    async def _keep_up(self) -> None:
        """Load what roles name, whenever they change, and bring the lanes there."""
        await self._catch_up()
        while True:
            self._changed.clear()
            champion = self.said.champion
            if champion is not None:
                candidate = await self._candidate(champion)
                if candidate is not None and champion is self.said.champion:
                    self.wanted = Candidate(champion.version, candidate, champion.urgent)
            for model_id, role in list(self.said.challengers.items()):
                if model_id not in self._challengers and role.version not in self.refused:
                    challenger = await self._candidate(role)
                    if challenger is not None:
                        self._challengers[model_id] = challenger
            for model_id in set(self._challengers) - set(self.said.challengers):
                del self._challengers[model_id]
            self._is_ready.set()
            if self._lanes is not None:
                await self._lanes.adopt_models()
            await self._changed.wait()

    async def _candidate(self, role: Promotion) -> Predictor | None:
        """Return a model that has a role, loaded, checked and tried out; None where it is refused."""
        begun_s = time.monotonic()
        try:
            predictor = await self._load(role.version, role.sha256)
        except TickloomError as error:
            self._refuse(role.version, error)
            return None
        self.refused.pop(role.version, None)
        self._metrics.load_seconds.observe(time.monotonic() - begun_s)
        return predictor

    async def _predictor_of(self, swap: Swap) -> Predictor:
        """Return the model of a record.

        Raises:
            ModelError: it must not serve, or is not the one that the record means.
            RegistryError: it is not there.
        """
        if swap.model_id == self._base.model_id:
            return self._base
        if swap.version == SETTINGS_VERSION:
            raise ModelError(f"{swap} is for a model of other settings: {swap.model_id:016x}")
        return await self._load(swap.version, None)

    async def _load(self, version: str, sha256: str | None) -> Predictor:
        says = str((await asyncio.to_thread(self._registry.manifest, version)).get("sha256"))
        if sha256 is not None and says != sha256:
            raise ModelError(f"{version} has SHA-256 {says}; what was promoted has {sha256}")
        loaded = self._loaded.get((version, says))
        if loaded is None:
            recent = [] if self._lanes is None else self._lanes.recent_features(_TRIED_SYMBOLS)
            loaded = await asyncio.to_thread(self._load_now, version, recent)
            self._loaded[version, says] = loaded
        return loaded

    def _load_now(self, version: str, recent: list[NDArray[np.float32]]) -> Predictor:
        predictor = load_predictor(self._registry.fetch(version), self._engine, available=self._available)
        if f"{predictor.model_id:016x}" != version[-16:]:
            raise ModelError(f"{version} holds another model, {predictor.model_id:016x}")
        _try_out(predictor, recent)
        return predictor

    def _refuse(self, version: str, error: Exception) -> None:
        logger.error("model %s is refused: %s", version, error)
        self.refused[version] = str(error)
        self._metrics.refused += 1

    async def _tell(self) -> None:
        """Tell the topic what this worker serves and refuses, whenever that changes."""
        told: dict[str, Any] | None = None
        while True:
            figures = self.figures()
            if figures != told:
                try:
                    status = orjson.dumps({**figures, "at_ns": wall_ns()})
                    await send_models(self._bootstrap, [(f"{WORKER_KEY}{self._worker}", status)])
                    told = figures
                except ServerError as error:
                    logger.warning("%s", error)
            await asyncio.sleep(_TELL_EVERY_S)

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        logger.critical("%s ended", task.get_name(), exc_info=task.exception())
        self._health.fail("models", f"{task.get_name()} ended: {task.exception()!r}; start the worker again")


def _try_out(predictor: Predictor, recent: list[NDArray[np.float32]]) -> None:
    """Run a model over the feature rows of symbols that tick here.

    Raises:
        ModelError: an answer is not finite.
    """
    for features in recent:
        h, c = np.zeros((2, 1, MODEL_STATE_FLOATS), np.float32)
        count = len(features)
        if count == 0:
            continue
        try:
            predictor.run(
                features, np.zeros(count, np.int64), np.arange(count), h, c, np.empty((count, 4), np.float32)
            )
        except InvariantError as error:
            raise ModelError(f"on real feature rows: {error}") from None
