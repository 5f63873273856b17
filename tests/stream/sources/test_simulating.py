"""The simulated market in a real Kafka: on time, and once, whatever kills it."""

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from stream.embedded.kafka import EmbeddedKafka
from stream.records import Records, partition_of
from stream.settings import Settings
from stream.sources.simulating import run_simulator
from stream.sources.simulator import Simulator, symbol_names

PARTITIONS = 3
SYMBOLS = 5
RATE_PER_S = 3_000.0

CHILD = f"""
import asyncio, sys
from pathlib import Path
from stream.settings import Settings
from stream.sources.simulating import run_simulator
bootstrap, topic, data_dir = sys.argv[1:]
asyncio.run(run_simulator(Settings(partitions={PARTITIONS}, data_dir=Path(data_dir)), bootstrap, asyncio.Event(),
                          symbols={SYMBOLS}, rate_per_s={RATE_PER_S}, topic=topic))
"""


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tick_topic: Any) -> Any:
    return await tick_topic(kafka.bootstrap, PARTITIONS)


async def run_for(
    seconds: float, kafka: EmbeddedKafka, topic: str, data_dir: Path, **options: Any
) -> dict[str, Any]:
    """Run the market for some seconds after its first second; Kafka may take its time before."""
    stop, runs = asyncio.Event(), asyncio.Event()
    settings = Settings(partitions=PARTITIONS, data_dir=data_dir)
    arguments = {"symbols": SYMBOLS, "rate_per_s": RATE_PER_S, "topic": topic} | options
    running = asyncio.create_task(
        run_simulator(settings, kafka.bootstrap, stop, progress=lambda _: runs.set(), **arguments)
    )
    await runs.wait()
    await asyncio.wait({running}, timeout=seconds)
    stop.set()
    return await running


def start_ns_of(data_dir: Path) -> int:
    with np.load(data_dir / "simulator.npz") as saved:
        return int(saved["start_ns"])


def assert_is_the_whole_stream(blocks: list[list[Records]], data_dir: Path) -> None:
    """Every tick of the simulated stream up to the last one is there, once, in order, and time never goes back."""
    parts = [np.concatenate(part) for part in blocks if part]
    last = max(int(part["source_seq"][-1]) for part in parts)
    expected = Simulator(symbol_names(SYMBOLS), 1, start_ns_of(data_dir), RATE_PER_S).chunk(last)
    partitions = partition_of(expected["symbol"], PARTITIONS)
    for seen in parts:
        own = expected[partitions == partition_of(seen["symbol"][:1], PARTITIONS)[0]].copy()
        assert seen["source_seq"].tolist() == own["source_seq"].tolist()
        assert np.all(np.diff(seen["event_ns"]) >= 0)
        assert np.all(seen["event_ns"] <= seen["recv_ns"] + 5_000_000)
        for name in ("event_ns", "recv_ns"):
            own[name] = seen[name]
        assert seen.tobytes() == own.tobytes()
    assert sum(len(part) for part in parts) == last


async def test_the_market_runs_on_our_clock_and_goes_on_after_a_stop(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, tmp_path: Path
) -> None:
    positions = []
    for _ in range(3):
        before_ns = time.time_ns()
        figures = await run_for(0.7, kafka, topic, tmp_path)
        assert figures["state"] == "stopped"
        assert figures["skipped_ticks"] == 0
        assert figures["unacknowledged_ticks"] == 0
        positions.append(figures["position"])
        blocks = await read_blocks(kafka.bootstrap, topic)
        fresh = np.concatenate([block for part in blocks for block in part if block["recv_ns"][0] >= before_ns])
        # At its best moment: a busy machine may be late, and a market that did not go on with the clock always is.
        assert np.min(fresh["recv_ns"] - fresh["event_ns"]) < 300_000_000
    assert positions[0] < positions[1] < positions[2]
    assert_is_the_whole_stream(blocks, tmp_path)


async def test_a_market_that_is_killed_comes_back_with_the_same_ticks(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, tmp_path: Path
) -> None:
    async def count() -> int:
        return sum(len(block) for blocks in await read_blocks(kafka.bootstrap, topic) for block in blocks)

    seen = 0
    for _ in range(2):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, kafka.bootstrap, topic, str(tmp_path), stderr=asyncio.subprocess.PIPE
        )
        while child.returncode is None and await count() < seen + 5_000:
            await asyncio.sleep(0.05)
        child.kill()
        _, said = await child.communicate()
        assert child.returncode == -signal.SIGKILL, said.decode()
        seen = await count()
    figures = await run_for(0.7, kafka, topic, tmp_path)
    assert figures["skipped_ticks"] > 0
    assert_is_the_whole_stream(await read_blocks(kafka.bootstrap, topic), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
async def test_a_damaged_checkpoint_opens_a_new_market(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / "simulator.npz").write_bytes(damage)
    figures = await run_for(0.3, kafka, topic, tmp_path)
    assert figures["position"] > 0
    assert_is_the_whole_stream(await read_blocks(kafka.bootstrap, topic), tmp_path)


async def test_another_rate_is_another_market(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any, tmp_path: Path
) -> None:
    await run_for(0.3, kafka, topic, tmp_path)
    await run_for(0.3, kafka, topic, tmp_path, rate_per_s=500.0)
    blocks = await read_blocks(kafka.bootstrap, topic)
    assert len({int(value) for part in blocks for block in part for value in block["stream_id"]}) == 2


async def test_health_tells_what_the_market_does(kafka: EmbeddedKafka, topic: str, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def progress(figures: dict[str, Any]) -> None:
        told.append(figures)

    stop = asyncio.Event()
    settings = Settings(partitions=PARTITIONS, data_dir=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = asyncio.create_task(
        run_simulator(
            settings,
            kafka.bootstrap,
            stop,
            symbols=SYMBOLS,
            rate_per_s=RATE_PER_S,
            port=port,
            progress=progress,
            topic=topic,
        )
    )
    while not (told and told[-1]["rate_per_s"]):
        await asyncio.sleep(0.05)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/health") as answer:
            health = await answer.json()
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = await answer.text()
    stop.set()
    await running
    assert (health["role"], health["status"], health["state"]) == ("simulator", "ok", "running")
    assert health["symbols"] == SYMBOLS
    assert health["regime"] in ("calm", "normal", "stressed")
    assert "tickloom_published_ticks_total" in metrics
    assert "tickloom_source_behind_seconds" in metrics
