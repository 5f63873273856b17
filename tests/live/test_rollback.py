"""A poisoned model is promoted while ticks flow: what came of its predictions takes it out of service."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from live_engine import Engine

from agents import features
from models.promotion import promote, read_models
from models.registry import Registry, Version
from models.rollback import NAME
from models.simulated import simulated_markets
from stream.records import MODEL_EVENT, ModelEventKind, Records, decode_block, encode_block, partition_of
from stream.topics import MODEL_EVENTS, TICKS

pytest.importorskip("onnx")

from bench.other_model import write_poisoned_model

pytestmark = pytest.mark.timeout(300)

MARKET_S = 1_200.0
QUIET_MARKETS = (b".2", b".4")  # 70 symbols, 350 ticks/s
BLOCK_ROWS = 512
# Thirty times as fast as the market: a window of 12 s takes 0.4.
ROWS_PER_S = 10_000
S = 1_000_000_000


def market() -> Iterator[Records]:
    """Yield ticks of markets that the champion was not trained on, as they would come."""
    for chunk in simulated_markets(77, MARKET_S):
        quiet = np.logical_or.reduce([np.char.endswith(chunk["symbol"], name) for name in QUIET_MARKETS])
        ticks = chunk[quiet]
        ticks = ticks[np.argsort(ticks["event_ns"], kind="stable")]
        yield from np.split(ticks, range(BLOCK_ROWS, len(ticks), BLOCK_ROWS))


async def send_market(engine: Engine, until: asyncio.Event) -> int:
    """Send ticks until the event is set; return how many there were."""
    sent, partitions = 0, engine.settings.partitions
    loop = asyncio.get_running_loop()
    async with AIOKafkaProducer(bootstrap_servers=engine.bootstrap) as producer:
        begun_s = loop.time()
        for ticks in market():
            if until.is_set():
                break
            numbers = partition_of(ticks["symbol"], partitions)
            for number in np.unique(numbers).tolist():
                await producer.send(TICKS, encode_block(ticks[numbers == number]), partition=number)
            sent += len(ticks)
            await asyncio.sleep(max(0.0, begun_s + sent / ROWS_PER_S - loop.time()))
    return sent


async def events(engine: Engine) -> Records:
    messages = await engine.read_topic(MODEL_EVENTS, partitions=1)
    return np.concatenate([decode_block(message.value, MODEL_EVENT) for message in messages])


async def test_a_poisoned_model_is_taken_out_of_service_and_nothing_is_lost(engine: Engine, tmp_path: Path) -> None:
    worker = await engine.start("worker", "worker")
    outcomes = await engine.start("outcomes", "outcomes")
    over = asyncio.Event()
    sending = asyncio.create_task(send_market(engine, over))
    await engine.until(lambda: outcomes.health.get("settled", 0) > 5_000, "outcomes are known")
    assert outcomes.health["rollbacks"] == 0, "a model that is as good as in training stays"

    base = engine.settings.model
    write_poisoned_model(base, tmp_path / "poison" / "model.onnx", gain=4.0)
    registry = Registry(engine.settings.registry_url)
    poison = registry.publish(tmp_path / "poison" / "model.onnx", by="test")
    poison_id = Version.parse(poison).model_id
    await promote(
        registry, engine.bootstrap, poison, reason="by mistake", by="test", base=base, available=features.NAMES
    )
    await engine.until(lambda: serving(worker) == {f"{poison_id:016x}"}, "the worker serves the poisoned model")
    await engine.until(lambda: outcomes.health["rollbacks"] == 1, "it is taken out of service")
    previous = registry.aliases().champion
    assert previous is not None
    good_id = Version.parse(previous).model_id
    await engine.until(lambda: serving(worker) == {f"{good_id:016x}"}, "the worker serves the one before")
    said = await read_models(engine.bootstrap)
    assert said.champion is not None
    assert (said.champion.version, said.champion.by, said.champion.urgent) == (previous, NAME, True)

    over.set()
    sent = await sending
    await engine.until(lambda: engine.made() == sent, "everything that was sent is predicted")
    rows = await engine.predictions()
    order = np.lexsort((rows["seq"], rows["symbol"]))
    symbols, seqs = rows["symbol"][order], rows["seq"][order].astype(np.int64)
    assert len(rows) == sent
    assert ((np.diff(seqs) == 1) | (symbols[1:] != symbols[:-1])).all()
    told = await events(engine)
    kinds = [ModelEventKind(kind) for kind in told["kind"]]
    # The champion was trained on another market than this one, and what it takes and says may drift.
    assert [kind for kind in kinds if kind not in (ModelEventKind.SERVED, ModelEventKind.DRIFTED)] == [
        ModelEventKind.TRIPPED,
        ModelEventKind.ROLLED_BACK,
    ]
    [served] = told[(told["kind"] == ModelEventKind.SERVED) & (told["model_id"] == poison_id)]
    [tripped] = told[told["kind"] == ModelEventKind.TRIPPED]
    poisoned = int((rows["model_id"] == poison_id).sum())
    known_then, market_s = int(tripped["predictions"]), int(tripped["event_ns"] - served["event_ns"]) / S
    print(f"{poisoned} poisoned predictions of {sent}; the verdict after {known_then} of them, {market_s:.0f} s")
    assert tripped["model_id"] == poison_id
    assert market_s < 60 * 12
    assert 0 < known_then <= poisoned < sent


def serving(worker: Any) -> set[str]:
    """Return the ids of the models that the lanes serve."""
    return set(worker.health.get("serving", {}).values())
