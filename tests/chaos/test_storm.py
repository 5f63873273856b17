"""The short version of `make chaos`: whatever can befall a worker or the broker, once, at a random moment."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faults import SHORT
from live_engine import Engine
from storm import Storm

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """A running set of servers, with sessions that are over soon."""
    running = await asyncio.to_thread(Engine, tmp_path, session_timeout_s=4.0)
    try:
        await running.open()
        yield running
    finally:
        await running.close()


async def test_no_fault_loses_repeats_or_changes_a_prediction(engine: Engine, shared_data: Path) -> None:
    files = sorted((shared_data / "ticks" / "crypto").glob("*_spot_*.parquet"))
    seed = secrets.randbelow(1 << 32)
    print(f"repeat it with: make chaos ARGS='--short --seed {seed}'")
    storm = Storm(engine, files, 1.0, print)
    assert await storm.run(seed, SHORT) == []
    assert len(storm.recoveries) == len(SHORT)
    assert storm.own_stops() == []
