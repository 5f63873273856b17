"""A night's retraining in a whole engine: two workers, one training, and a better model serves."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from live_engine import Engine

from models.night import Night
from models.promotion import read_models
from models.registry import Registry
from models.settings_file import write_train_settings
from models.train import TrainSettings
from stream.clock import NS_PER_S, wall_ns
from stream.records import Records, encode_block, partition_of
from stream.sources.simulator import Simulator, symbol_names
from stream.topics import TICKS

pytest.importorskip("tensorflow")
pytest.importorskip("sklearn")

from bench.other_model import write_poisoned_model

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

CHAMPION = Path(__file__).resolve().parents[2] / "models" / "champion" / "model.onnx"
MARKET_S, RATE_PER_S, BLOCK_ROWS = 3600.0, 30.0, 512
SMALL = TrainSettings(
    units=8,
    epochs=4,
    streams=8,
    steps=32,
    burn_in=16,
    learning_rate=3e-3,
    feature_names=("book_imbalance", "return_1_bps", "volatility_64_bps", "spread_bps"),
)


async def send(engine: Engine, ticks: Records) -> None:
    numbers = partition_of(ticks["symbol"], engine.settings.partitions)
    async with AIOKafkaProducer(bootstrap_servers=engine.bootstrap) as producer:
        for block in np.split(np.arange(len(ticks)), range(BLOCK_ROWS, len(ticks), BLOCK_ROWS)):
            for number in np.unique(numbers[block]).tolist():
                some = ticks[block][numbers[block] == number]
                await producer.send_and_wait(TICKS, encode_block(some), partition=number)


def recent_market() -> Records:
    """Ticks of the last minutes."""
    start_ns = wall_ns() - int(MARKET_S * NS_PER_S)
    return Simulator(symbol_names(3), 11, start_ns, RATE_PER_S).until(start_ns + int(MARKET_S * NS_PER_S), 1 << 20)


@pytest.fixture
async def engine(tmp_path: Path) -> Any:
    settings_file = tmp_path / "small.json"
    write_train_settings(settings_file, SMALL)
    poor = tmp_path / "poor.onnx"
    write_poisoned_model(CHAMPION, poor, gain=2.0)
    night: dict[str, Any] = {
        "retrain_at": "* * * * * */5",  # cron with seconds: each five of them
        "retrain_settings": settings_file,
        "model": poor,
        "retrain_shadow_s": 4.0,
        # Few ticks prove little: what is tested here is the way.
        "retrain_level": 0.9999,
        "retrain_calibration_error": 1.0,
    }
    running = await asyncio.to_thread(lambda: Engine(tmp_path, **night))
    try:
        await running.open()
        yield running
    finally:
        await running.close()


async def test_of_two_workers_one_retrains_and_both_serve_what_is_better(engine: Engine) -> None:
    await send(engine, recent_market())
    for number in (1, 2):
        await engine.start(f"worker-{number}", "worker", "--name", f"worker-{number}")
    workers = list(engine.parts.values())

    def night(part: Any) -> Night | None:
        told = part.health.get("retrain")
        return None if told is None else Night(**told)

    def is_over() -> bool:
        nights = [night(part) for part in workers]
        return all(each is not None and each.is_over for each in nights)

    await engine.until(is_over, "the night is over")
    said = await read_models(engine.bootstrap)
    (told,) = said.nights.values()
    assert told.state == "done", told
    assert told.attempt == 1
    registry = Registry(engine.settings.registry_url)
    (run,) = (engine.root / "retrain").iterdir()
    steps = json.loads((run / "journal.json").read_text())["steps"]
    assert steps["end"]["outcome"] == "promoted", steps["end"]
    assert said.champion is not None
    assert said.champion.version == steps["register"]["version"] == registry.aliases().champion
    assert said.champion.by == f"retrain {told.night}"
    version = said.champion.version
    assert registry.card(version) is not None
    await engine.until(lambda: all(part.health.get("champion") == version for part in workers), "both know")
