"""Replays into a real Kafka: complete, in order, once; stopped, killed and resumed."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import Records, partition_of
from stream.settings import Settings
from stream.sources.replay import Replay
from stream.sources.replaying import MAX_SPEED, run_replay

PARTITIONS = 4
T0 = 1_577_923_200_000_000_000
DAY = date(2013, 10, 7)
SETTINGS = Settings(partitions=PARTITIONS)

CHILD = """
import asyncio, sys
from pathlib import Path
from stream.settings import Settings
from stream.sources.replay import Replay
from stream.sources.replaying import run_replay
bootstrap, topic, path, run = sys.argv[1:]
replay = Replay([Path(path)], run=run)
asyncio.run(run_replay(Settings(partitions=4), bootstrap, replay, asyncio.Event(), speed=100, topic=topic))
"""


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tick_topic: Any) -> Any:
    return await tick_topic(kafka.bootstrap, PARTITIONS)


@pytest.fixture
def day(shared_data: Path) -> Path:
    return shared_data / "ticks" / "us_equity"


@pytest.fixture
def crypto(shared_data: Path) -> Path:
    return shared_data / "ticks" / "crypto"


def assert_holds_once(blocks: list[list[Records]], expected: Records) -> None:
    """Every partition holds its ticks, each once, in order, byte for byte but for the time of receipt."""
    partitions = partition_of(expected["symbol"], PARTITIONS)
    for partition, parts in enumerate(blocks):
        own = expected[partitions == partition].copy()
        seen = np.concatenate(parts) if parts else own[:0]
        assert len(seen) == len(own)
        assert np.all(seen["recv_ns"] > 0)
        own["recv_ns"] = seen["recv_ns"]
        assert seen.tobytes() == own.tobytes()


async def test_a_day_at_full_speed_is_complete_and_a_second_run_adds_nothing(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, day: Path
) -> None:
    told: list[dict[str, Any]] = []
    for accepted in (1_152_741, 0):
        figures = await run_replay(
            SETTINGS,
            kafka.bootstrap,
            Replay([day], DAY),
            asyncio.Event(),
            speed=MAX_SPEED,
            progress=told.append,
            topic=topic,
        )
        assert figures["state"] == "finished"
        assert figures["ticks"] == accepted
        assert figures["position"] == figures["total"] == 1_152_741
        assert figures["unacknowledged_ticks"] == 0
    assert told[-1] == figures
    assert_holds_once(await read_blocks(kafka.bootstrap, topic), next(Replay([day], DAY).days()))


async def test_a_replay_that_is_stopped_and_started_again_goes_on_where_it_was(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, crypto: Path
) -> None:
    replay = Replay([crypto], symbols=["BTCUSDT.spot", "ETHUSDT.usdm", "ETHUSDT.spot"])
    accepted, runs = 0, 0
    figures: dict[str, Any] = {"state": "stopped"}
    while figures["state"] == "stopped":
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.0, stop.set)
        figures = await run_replay(SETTINGS, kafka.bootstrap, replay, stop, speed=100, topic=topic)
        accepted += figures["ticks"]
        runs += 1
    (expected,) = replay.days()
    assert runs > 2
    assert accepted == len(expected)
    assert_holds_once(await read_blocks(kafka.bootstrap, topic), expected)


async def test_a_replay_that_is_killed_again_and_again_leaves_every_tick_there_once(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, crypto: Path, fresh_name: Callable[[str], str]
) -> None:
    run = fresh_name("run")

    async def count() -> int:
        return sum(len(block) for blocks in await read_blocks(kafka.bootstrap, topic) for block in blocks)

    for kill_at in (1, 80_000, None):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, kafka.bootstrap, topic, str(crypto), run, stderr=asyncio.subprocess.PIPE
        )
        while kill_at is not None and await count() < kill_at:
            await asyncio.sleep(0.05)
        if kill_at is not None:
            child.kill()
        _, said = await child.communicate()
        assert child.returncode == (0 if kill_at is None else -signal.SIGKILL), said.decode()
    assert_holds_once(await read_blocks(kafka.bootstrap, topic), next(Replay([crypto], run=run).days()))


async def test_true_speed_follows_the_event_clock(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, write_ticks: Any
) -> None:
    offsets_ns = np.arange(0, 600) * 1_000_000  # a tick each millisecond
    path = write_ticks("trades_A.parquet", ts_ns=T0 + offsets_ns, symbol="A", price=np.ones(600), size=np.ones(600))
    replay = Replay([path])
    await run_replay(SETTINGS, kafka.bootstrap, replay, asyncio.Event(), speed=1.0, topic=topic)
    blocks = await read_blocks(kafka.bootstrap, topic)
    ticks = np.concatenate([block for part in blocks for block in part])
    delays_ms = ((ticks["recv_ns"] - ticks["recv_ns"][0]) - offsets_ns) / 1e6
    assert np.percentile(np.abs(delays_ms), 50) < 20
    assert 0.5 < (ticks["recv_ns"][-1] - ticks["recv_ns"][0]) / 1e9 < 1.5
    assert_holds_once(blocks, next(replay.days()))


async def test_a_quiet_hour_at_true_speed_stops_at_once(kafka: EmbeddedKafka, topic: str, write_ticks: Any) -> None:
    path = write_ticks(
        "trades_A.parquet", ts_ns=[T0, T0 + 3_600 * 10**9], symbol="A", price=[1.0, 1.0], size=[1, 1]
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, stop.set)
    started_s = time.monotonic()
    figures = await run_replay(SETTINGS, kafka.bootstrap, Replay([path]), stop, topic=topic)
    assert figures["state"] == "stopped"
    assert figures["position"] == 1
    assert time.monotonic() - started_s < 5


async def test_a_speed_that_is_none_is_refused(write_ticks: Any) -> None:
    path = write_ticks("trades_A.parquet", ts_ns=[T0], symbol="A", price=[1.0], size=[1])
    for speed in (0.0, -1.0, float("nan")):
        with pytest.raises(SettingsError, match="speed of a replay"):
            await run_replay(SETTINGS, "127.0.0.1:9", Replay([path]), asyncio.Event(), speed=speed)
