"""Promotions while ticks flow: workers swap, die in the middle of it, join later, and refuse what is damaged."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))

from markets import random_market

from agents import features
from agents.lane import Lane
from agents.timeline import Timeline
from agents.windows import Windows
from models.predictor import load_predictor
from models.promotion import CHAMPION_KEY, ModelsTopic, Promotion, promote, read_models, rollback, send_models
from models.registry import Registry, Version
from stream.clock import NS_PER_S
from stream.demo.parts import Part, Role
from stream.embedded.kafka import EmbeddedKafka
from stream.records import (
    PREDICTION,
    PREDICTION_CONTENT_BYTES,
    TICK,
    Records,
    decode_block,
    encode_block,
    partition_of,
)
from stream.settings import Settings
from stream.topics import PREDICTIONS, SHADOW_PREDICTIONS, TICKS, create_topics

pytest.importorskip("onnx")

from bench.other_model import write_other_model

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4
SYMBOLS = 24
PATIENCE_S = 60.0


class Flow:
    """Kafka, some workers, and ticks that flow all the time."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings, self.root = settings, root
        self.bootstrap = str(settings.kafka)
        self.registry = Registry(settings.registry_url)
        self.parts: dict[str, Part] = {}
        self.sent = 0
        self._pump: asyncio.Task[None] | None = None

    async def start(self, name: str) -> Part:
        part = self.parts[name] = Part(Role(name, ["worker", "--name", name], {}), self.settings, self.root)
        part.start()
        await self.until(lambda: part.healthy, f"{name} is ready")
        return part

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(int(PATIENCE_S / 0.05)):
                await asyncio.gather(*(part.poll(session) for part in self.parts.values()))
                if condition():
                    return
                await asyncio.sleep(0.05)
        said = {name: (part.health, part.last_lines()) for name, part in self.parts.items()}
        pytest.fail(f"not within {PATIENCE_S} s: {what}; {said}")

    def serving(self) -> set[str]:
        """Return the ids that lanes serve, all partitions or none."""
        served: dict[str, str] = {}
        for part in self.parts.values():
            served |= part.health.get("serving", {}) if part.alive else {}
        return set(served.values()) if len(served) == PARTITIONS else set()

    async def until_served(self, version: str) -> None:
        right = f"{Version.parse(version).model_id:016x}"
        await self.until(lambda: self.serving() == {right}, f"all lanes serve {version}")

    def flow(self) -> None:
        self._pump = asyncio.create_task(self._send())

    async def stop_flow(self) -> None:
        assert self._pump is not None
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)

    async def _send(self) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            ticks = random_market(np.random.default_rng(1), 200_000, symbols=SYMBOLS)
            numbers = partition_of(ticks["symbol"], PARTITIONS)
            for start in range(0, len(ticks), 20):
                some, where = ticks[start : start + 20], numbers[start : start + 20]
                for number in np.unique(where):
                    block = encode_block(some[where == number])
                    # Cancelled in between, it is sent or not: what Kafka has is what counts.
                    await asyncio.shield(producer.send(TICKS, block, partition=int(number)))
                await asyncio.sleep(0.01)

    async def read(self, topic: str, dtype: Any) -> list[tuple[int, int, Records]]:
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(parts)
            await consumer.seek_to_beginning(*parts)
            ends = await consumer.end_offsets(parts)
            found = []
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(each.partition, each.offset, decode_block(each.value, dtype)) for each in batch]
        return sorted(found, key=lambda block: block[:2])

    def replayed(self, blocks: list[tuple[int, int, Records]], said: ModelsTopic) -> dict[Any, bytes]:
        """Return what lanes of this process answer, that go by what the topic says of swaps."""
        settings = self.settings
        models = {Version.parse(each).model_id: self.registry.fetch(each) for each in self.registry.versions()}
        loaded = {model_id: load_predictor(path, available=features.NAMES) for model_id, path in models.items()}
        lanes = {}
        for number in range(PARTITIONS):
            windows = Windows(int(settings.lateness_s * NS_PER_S), int(settings.future_s * NS_PER_S))
            lanes[number] = Lane(number, windows, load_predictor(settings.model))
            lanes[number].timeline = Timeline(lanes[number].predictor, windows)
            for swap in said.swaps_of(number):
                lanes[number].timeline.add(swap, loaded[swap.model_id])
        answers = [lanes[number].apply([(offset, ticks)]).predictions for number, offset, ticks in blocks]
        return dict(pair for predictions in answers for pair in identities(predictions))


def identities(predictions: Records) -> list[tuple[Any, bytes]]:
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    return [(key, row[PREDICTION_CONTENT_BYTES].tobytes()) for key, row in zip(keys, raw, strict=True)]


@pytest.fixture
async def flow(tmp_path: Path) -> AsyncIterator[Flow]:
    kafka = await asyncio.to_thread(EmbeddedKafka(tmp_path).start)
    try:
        settings = Settings(
            kafka=kafka.bootstrap, data_dir=tmp_path, session_timeout_s=4.0, checkpoint_s=0.5, future_s=1e9
        )
        await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
        running = Flow(settings, tmp_path)
        yield running
        for part in running.parts.values():
            await asyncio.to_thread(part.stop)
    finally:
        await asyncio.to_thread(kafka.stop)


def published(flow: Flow, seed: int) -> str:
    path = flow.root / "made" / f"{seed}" / "model.onnx"
    write_other_model(flow.settings.model, path, seed=seed)
    return flow.registry.publish(path, by="test")


async def test_swaps_while_ticks_flow_and_workers_die_and_join_are_exactly_those_of_a_replay(flow: Flow) -> None:
    first, second, third = (published(flow, seed) for seed in (1, 2, 3))
    told = {"by": "test", "available": features.NAMES}
    await flow.start("worker-1")
    flow.flow()
    await flow.until(lambda: flow.parts["worker-1"].health["predictions"] > 500, "predictions flow")

    await promote(flow.registry, flow.bootstrap, first, reason="better", base=flow.settings.model, **told)
    await flow.until_served(first)

    # Killed in the middle of the next swap; another one takes the lanes over.
    await promote(flow.registry, flow.bootstrap, second, reason="better still", **told)
    os.kill(flow.parts["worker-1"].pid, signal.SIGKILL)
    await flow.start("worker-2")
    await flow.until_served(second)

    # Damaged after it was published: refused, told, and what served goes on serving.
    path = flow.registry.fetch(third)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    sha256 = flow.registry.manifest(third)["sha256"]
    hostile = Promotion(third, Version.parse(third).model_id, sha256, 99, second, "looks fine", "somebody", 1)
    await send_models(flow.bootstrap, [(CHAMPION_KEY, hostile.to_json())])
    worker = flow.parts["worker-2"]
    await flow.until(lambda: third in worker.health.get("refused_models", {}), "the damaged model is refused")
    assert "is damaged: its SHA-256 is" in worker.health["refused_models"][third]
    assert worker.healthy
    assert flow.serving() == {f"{Version.parse(second).model_id:016x}"}
    path.unlink()
    path.with_name("model.json").unlink()

    # The generation of that message is beyond the registry's: a rollback comes after it all the same.
    await rollback(flow.registry, flow.bootstrap, reason="worse", **told)
    await flow.until_served(first)
    await flow.stop_flow()

    ticks = await flow.read(TICKS, TICK)
    said = await read_models(flow.bootstrap)
    right = flow.replayed(ticks, said)
    got: dict[Any, set[bytes]] = {}
    for _ in range(100):
        got.clear()
        for _, _, predictions in await flow.read(PREDICTIONS, PREDICTION):
            for key, content in identities(predictions):
                got.setdefault(key, set()).add(content)
        if len(got) >= len(right):
            break
        await asyncio.sleep(0.1)
    assert {key: {content} for key, content in right.items()} == got
    assert len(said.swaps) >= 3 * PARTITIONS
    served = {np.frombuffer(content, "<u8", 1, 56)[0] for content in right.values()}
    assert len(served) == 3
    for _ in range(100):  # a worker tells once in a while
        if third in (await read_models(flow.bootstrap)).workers["worker-2"]["refused_models"]:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the topic does not say that the damaged model was refused")


async def test_a_challenger_predicts_in_shadow_and_is_not_served(flow: Flow) -> None:
    from models.promotion import challenge, retire

    version = published(flow, 5)
    worker = await flow.start("worker-1")
    flow.flow()
    await challenge(flow.registry, flow.bootstrap, version, reason="is it better?", by="test")
    challenger = f"{Version.parse(version).model_id:016x}"
    await flow.until(lambda: worker.health.get("challengers") == [challenger], "the challenger runs")
    before = worker.health["predictions"]
    await flow.until(lambda: worker.health["predictions"] > before + 500, "predictions flow")
    await retire(flow.registry, flow.bootstrap, version, reason="no", by="test")
    await flow.until(lambda: worker.health.get("challengers") == [], "the challenger is gone")
    await flow.stop_flow()
    shadow = np.concatenate([records for _, _, records in await flow.read(SHADOW_PREDICTIONS, PREDICTION)])
    assert len(shadow) >= 500
    assert set(shadow["model_id"].tolist()) == {Version.parse(version).model_id}
    served = np.concatenate([records for _, _, records in await flow.read(PREDICTIONS, PREDICTION)])
    assert Version.parse(version).model_id not in set(served["model_id"].tolist())
    # On the same ticks, of the same features.
    hashes = dict(zip(zip(served["symbol"], served["seq"], strict=True), served["feature_hash"], strict=True))
    assert all(hashes[each["symbol"], each["seq"]] == each["feature_hash"] for each in shadow[:500])
