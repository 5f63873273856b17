"""A database of a test's own, and sinks that write into it."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

# What these tests share is a plain module beside them.
sys.path.insert(0, str(Path(__file__).parent))

from trial_database import KnownTicks, url_of

from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from stream.embedded.clickhouse import EmbeddedClickHouse


@pytest.fixture
def url(clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]) -> str:
    """The address of a database that nobody made yet."""
    return url_of(clickhouse, fresh_name("db"))


@pytest.fixture
async def sink(url: str) -> AsyncIterator[PredictionSink]:
    """Writes predictions, and knows nothing of their ticks."""
    made = PredictionSink(url, KnownTicks())
    yield made
    await made.close()


@pytest.fixture
async def plain_sink(url: str) -> AsyncIterator[ClickHouseSink]:
    """Writes everything else."""
    made = ClickHouseSink(url)
    yield made
    await made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    """A server of this test alone, to be frozen and killed."""
    with EmbeddedClickHouse(tmp_path) as server:
        yield server
