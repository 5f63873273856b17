"""Fixtures and helpers of these tests: a broker, workers, markets to feed, a batch answer to compare with."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

# The helpers are plain modules beside the tests: markets, batch_features, recurrent, lane_kafka, lane_worker.
sys.path.insert(0, str(Path(__file__).parent))

from lane_kafka import Kafka, NewWorker
from lane_worker import PARTITIONS, Worker
from recurrent import Recurrent

from agents.lane import compile_kernels
from stream.embedded.kafka import EmbeddedKafka
from stream.topics import create_topics


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of our own: the names of topics and group are fixed, and others must not read along."""
    with EmbeddedKafka(tmp_path_factory.mktemp("lanes-kafka")) as server:
        if server.degraded_reason is not None:
            pytest.skip(server.degraded_reason)
        asyncio.run(create_topics(server.bootstrap, PARTITIONS, 1, 1.0))
        compile_kernels(Recurrent())
        yield server.bootstrap


@pytest.fixture
async def kafka_io(broker: str) -> AsyncIterator[Kafka]:
    """Sends to and reads from the broker."""
    io = Kafka(broker)
    async with io.producer:
        yield io


@pytest.fixture
def new_worker(broker: str, tmp_path: Path) -> NewWorker:
    """``async with new_worker("w1") as worker`` runs one, and stops it in the end."""

    @asynccontextmanager
    async def run(name: str, before: Callable[[Worker], Awaitable[None]] | None = None) -> AsyncIterator[Worker]:
        worker = Worker(broker, tmp_path, name)
        if before is not None:
            await before(worker)
        await worker.app.start()
        try:
            yield worker
        finally:
            async with asyncio.timeout(30):
                await worker.app.stop()

    return run
