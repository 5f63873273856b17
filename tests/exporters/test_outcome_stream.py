"""Outcomes over a real broker: exactly what the pure join says, through restarts, and a poisoned model goes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry, generate_latest

from agents import features
from agents.outcomes import Costs, OutcomeJoin
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics
from exporters.outcome_board import OutcomeBoard
from exporters.outcome_stream import OutcomeStream
from models import fallback_model, rollback
from models.artifact import load
from models.promotion import promote, read_models
from models.registry import Registry, Version
from models.rollback import Guard
from stream.clock import wall_ns
from stream.embedded.kafka import EmbeddedKafka
from stream.records import MODEL_EVENT, OUTCOME, PREDICTION, ModelEventKind, Records, decode_block, encode_block
from stream.settings import Settings
from stream.telemetry import Health
from stream.topics import MODEL_EVENTS, MODEL_SCORES, OUTCOMES, PREDICTIONS, SHADOW_PREDICTIONS, create_topics

S = 1_000_000_000
PARTITIONS = 2
GOOD, POISON = (0.3, 0.4, 0.3), (0.98, 0.01, 0.01)


def write_model(folder: Path, name: str, shares: tuple[float, ...]) -> Path:
    folder = folder / name
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fallback_model, "NAME", name)  # the simplest model there is, but not the fallback
        fallback_model.write_fallback(
            folder / "model.onnx",
            np.array(shares),
            feature=features.NAMES[0],
            horizon_ns=10 * S,
            dead_band_bps=1.0,
            seen_from_ns=0,
            seen_to_ns=1,
        )
    return folder / "model.onnx"


class World:
    """A broker with topics, a registry, predictions of a random walk, and outcomes that run beside."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.settings = Settings(
            kafka=bootstrap,
            partitions=PARTITIONS,
            data_dir=folder,
            model=write_model(folder, "base", GOOD),
            fees_bps=0.25,
        )
        self.registry = Registry(self.settings.registry_url)
        self.board: Any = None
        self.seq = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Health]:
        stop, health = asyncio.Event(), Health("outcomes", {"outcomes": "starting"})
        guard = Guard(
            self.registry, str(self.settings.kafka), self.settings.model, features.NAMES, PARTITIONS, 0.001
        )
        read = IntakeMetrics(CollectorRegistry())
        self.metrics = CollectorRegistry()
        self.board = OutcomeBoard(self.metrics, guard, read, wall_ns)
        stream = OutcomeStream(self.settings, guard, self.registry, self.board, Intake(read), health, wall_ns)
        task = asyncio.create_task(stream.run(stop))
        try:
            yield health
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    def predictions(self, count: int, model: int, shares: tuple[float, ...], start: int | None = None) -> Records:
        """Return the next predictions of SYM, one a second; with ``start`` those that were made once more."""
        rows = np.zeros(count, PREDICTION)
        first = self.seq if start is None else start
        seq = first + 1 + np.arange(count)
        rows["symbol"], rows["seq"], rows["source_offset"] = b"SYM", seq, seq
        rows["event_ns"], rows["horizon_ns"] = 1_700_000_000 * S + seq * S, 10 * S
        walk = np.random.default_rng(3).normal(0, 1e-4, 1_000_000)
        rows["ref_price"] = 100 * np.exp(np.cumsum(walk[: first + count])[first:])
        rows["model_id"] = model
        rows["spread_bps"] = np.where(seq % 10 == 0, np.nan, seq % 3)
        rows["p_down"], rows["p_flat"], rows["p_up"] = shares
        if start is None:
            self.seq += count
        return rows

    async def send(self, rows: Records, topic: str = PREDICTIONS, block: int = 50) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka)
        await producer.start()
        for start in range(0, len(rows), block):
            await producer.send(topic, encode_block(rows[start : start + block]), partition=1)
        await producer.stop()

    async def read(self, topic: str, partition: int) -> list[Any]:
        part = TopicPartition(topic, partition)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([part])
            await consumer.seek_to_beginning(part)
            end, found = (await consumer.end_offsets([part]))[part], []
            while await consumer.position(part) < end:
                found += (await consumer.getmany(part, timeout_ms=200)).get(part, [])
            return found
        finally:
            await consumer.stop()

    async def records(self, topic: str, partition: int, dtype: Any) -> Records:
        blocks = [decode_block(message.value, dtype) for message in await self.read(topic, partition)]
        return np.concatenate([np.zeros(0, dtype), *blocks])

    async def serve_until_rolled_back(
        self, rollbacks: int, model: int, shares: tuple[float, ...], shadow: int | None = None
    ) -> int:
        """Let a model predict until it is taken out of service; return how many predictions it served."""
        served = 0
        while self.board.rollbacks < rollbacks:
            assert served < 2_000, f"not taken out of service: {self.board.trials()}"
            start, settled = self.seq, self.board.tallies()["settled"]
            await self.send(self.predictions(50, model, shares))
            if shadow is not None:
                await self.send(self.predictions(50, shadow, GOOD, start), SHADOW_PREDICTIONS)
            served += 50
            deadline_s = time.monotonic() + 10
            while (
                self.board.tallies()["settled"] < settled + (80 if shadow else 50) and time.monotonic() < deadline_s
            ):
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)  # one more turn of the loop: it may act on them
        return served

    @property
    def base_id(self) -> int:
        return int(orjson.loads(self.settings.model.with_suffix(".json").read_bytes())["model_id"], 16)


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of our own: the topics have their real names."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as server:
        if server.degraded_reason is not None:
            pytest.skip(server.degraded_reason)
        yield server


@pytest.fixture
async def world(own_kafka: EmbeddedKafka, tmp_path: Path) -> World:
    await create_topics(own_kafka.bootstrap, PARTITIONS, 1, 24.0)
    return World(own_kafka.bootstrap, tmp_path)


async def test_outcomes_survive_a_restart_and_models_that_are_worse_go_one_by_one(
    world: World, eventually: Any
) -> None:
    base = world.base_id
    sent = [world.predictions(500, base, GOOD)]
    async with world.running() as health:
        await eventually(lambda: not health.problems)
        await world.send(sent[0])
        await eventually(lambda: world.board.tallies()["settled"] == 489)
    # Stopped with 11 that wait; those come again, and the outcomes of the others do not.
    sent.append(world.predictions(500, base, GOOD))
    await world.send(sent[1])
    async with world.running() as health:
        await eventually(lambda: world.board.tallies()["settled"] == 500)
        scores = world.board.scores()[base]
        assert scores["all"]["outcomes"] == 989
        assert scores["role"] == "champion"
        told = await world.records(OUTCOMES, 1, OUTCOME)
        join = OutcomeJoin(1, Costs(world.settings.fees_bps, world.settings.cost_bps))
        join.know({base: 1.0})
        right = join.take(np.concatenate(sent), np.zeros(1_000, np.int64))
        for name in ("symbol", "seq", "model_id", "return_bps", "realised", "log_loss", "resolved_ns", "cost_bps"):
            np.testing.assert_array_equal(told[name], right[name])

        # Somebody promotes a model that is always sure of the wrong thing.
        poison = world.registry.publish(write_model(world.settings.data_dir, "poison", POISON), by="test")
        bootstrap = str(world.settings.kafka)
        await promote(
            world.registry,
            bootstrap,
            poison,
            reason="poisoned",
            by="test",
            base=world.settings.model,
            available=features.NAMES,
        )
        await eventually(lambda: world.board._guard.said.champion is not None)
        previous = world.registry.aliases().previous
        assert previous is not None
        # The one before is put into shadow by itself.
        await eventually(lambda: base in world.board._guard.said.challengers)
        poison_id = Version.parse(poison).model_id
        served = await world.serve_until_rolled_back(1, poison_id, POISON, shadow=base)
        assert served <= 400, "a model that is sure of the wrong thing goes within minutes of 1 tick a second"
        said = await read_models(bootstrap)
        assert said.champion is not None
        assert said.champion.version == previous
        assert said.champion.urgent
        assert said.champion.by == rollback.NAME
        await eventually(lambda: world.board._guard.service().model_id == base)
        assert "tickloom_model_rollbacks_total 1.0" in generate_latest(world.metrics).decode()
        # It is not put into shadow as "the one before", and not gone back to.
        assert poison_id not in (await read_models(bootstrap)).challengers
        await world.send(world.predictions(200, base, GOOD))

        async def is_told() -> bool:
            values = [orjson.loads(message.value) for message in await world.read(MODEL_SCORES, 0)]
            return {value["role"] for value in values[-2:]} == {"champion", "retired"}

        await eventually(is_told)

        # Now the one before turns bad as well. The poisoned one is not gone back to: the fallback takes over.
        await world.serve_until_rolled_back(2, base, POISON)
        said = await read_models(bootstrap)
        assert said.champion is not None
        assert said.champion.version.startswith("fallback/")
        assert said.champion.version not in (previous, poison)
        await eventually(lambda: world.board._guard.service().model_id == said.champion.model_id)
        assert world.board._guard.bad == {previous, poison}
        shares = load(world.registry.fetch(said.champion.version)).card.golden.answers[0, :3]
        assert shares.min() > 0.05
    events = await world.records(MODEL_EVENTS, 0, MODEL_EVENT)
    kinds = [ModelEventKind(kind) for kind in events["kind"]]
    others = [kind for kind in kinds if kind != ModelEventKind.SERVED]
    assert others == [ModelEventKind.TRIPPED, ModelEventKind.ROLLED_BACK] * 2
    tripped = events[np.array(kinds) == ModelEventKind.TRIPPED][0]
    assert tripped["model_id"] == poison_id
    assert 0 < tripped["predictions"] <= served
