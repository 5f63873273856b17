"""Fixtures of these tests: the whole engine as its processes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# The helpers are plain modules beside the tests: live_engine, live_oracle.
sys.path.insert(0, str(Path(__file__).parent))

from live_engine import Engine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """A running set of servers; the test starts the roles."""
    running = await asyncio.to_thread(Engine, tmp_path)
    try:
        await running.open()
        yield running
    finally:
        await running.close()
