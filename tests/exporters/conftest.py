"""A topic of predictions on a real broker, and rows to put into it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

# The driver of the feed's tests is a plain module beside them.
sys.path.insert(0, str(Path(__file__).parent))

from feed_driver import PARTITIONS, Running, Start, known

from exporters.gateway import Gateway
from stream.embedded.kafka import EmbeddedKafka
from stream.records import MAX_BLOCK_RECORDS, PREDICTION, Records, encode_block, partition_of
from stream.settings import Settings

MakeRows = Callable[..., Records]
Publish = Callable[..., Awaitable[None]]
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def make_rows() -> MakeRows:
    """Make PREDICTION rows: for each symbol in turn, seq from ``first`` on; content follows from these."""

    def make(symbols: list[str], count: int, first: int = 1, now_ns: int | None = None) -> Records:
        rows = np.zeros(len(symbols) * count, PREDICTION)
        rows["symbol"] = symbols * count
        seq = np.repeat(np.arange(first, first + count), len(symbols))
        at_ns = time.time_ns() if now_ns is None else now_ns
        rows["seq"] = rows["source_offset"] = seq
        rows["event_ns"] = 1_700_000_000_000_000_000 + seq * 1_000_000
        rows["ref_price"] = 100 + seq / 100
        rows["horizon_ns"] = 1_000_000_000
        rows["model_id"], rows["feature_hash"] = 0xFEDCBA9876543210, seq
        rows["p_down"], rows["p_flat"], rows["p_up"] = 0.2, 0.3, 0.5
        rows["expected_return_bps"], rows["spread_bps"] = 0.25, 2.5
        for step, stage in enumerate(("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")):
            rows[stage] = at_ns + step * 10_000
        return rows

    return make


@pytest.fixture
async def topic(kafka: EmbeddedKafka, fresh_name: Callable[[str], str]) -> str:
    """A fresh topic with PARTITIONS partitions."""
    name = fresh_name("predictions")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    await admin.close()
    return name


@pytest.fixture
async def publish(kafka: EmbeddedKafka, topic: str) -> AsyncIterator[Publish]:
    """Send rows as the engine does: each symbol to its partition, in blocks of ``block_rows``."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=1)
    await producer.start()

    async def send(rows: Records, block_rows: int = MAX_BLOCK_RECORDS) -> None:
        partitions = partition_of(rows["symbol"], PARTITIONS)
        sent = []
        for partition in range(PARTITIONS):
            ours = rows[partitions == partition]
            ours["source_partition"] = partition
            for start in range(0, len(ours), block_rows):
                block = encode_block(ours[start : start + block_rows])
                sent.append(await producer.send(topic, block, partition=partition))
        await asyncio.gather(*sent)

    async def send_bytes(data: bytes, partition: int = 0) -> None:
        await producer.send_and_wait(topic, data, partition=partition)

    send.bytes = send_bytes  # type: ignore[attr-defined]
    yield send
    await producer.stop()


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds; fail with its last value when it does not."""

    async def wait(condition: Callable[[], object], within_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + within_s
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            assert time.monotonic() < deadline_s, f"did not come true within {within_s} s; last: {value!r}"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture(scope="module")
def feed_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of one file's gateways alone: they create the standard topics, with our number of partitions.

    What a test puts into a standard topic stays there, and other files' tests would see it.
    """
    with EmbeddedKafka(tmp_path_factory.mktemp("feed-kafka")) as server:
        yield server


@pytest.fixture
async def start(kafka: EmbeddedKafka, topic: str, eventually: Any) -> AsyncIterator[Start]:
    """Start a gateway on the test's topic."""
    started: list[Running] = []

    async def go(kafka: EmbeddedKafka = kafka, first_step_within_s: float = 10.0, **changes: Any) -> Running:
        settings = Settings(**{"kafka": kafka.bootstrap, "gateway_port": 0, "partitions": PARTITIONS, **changes})
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        gateway = Gateway(settings, topic, first_step_within_s=first_step_within_s)
        task = asyncio.create_task(gateway.run(stop, ready.set_result))
        running = Running(await asyncio.wait_for(ready, 20), stop, task)
        started.append(running)
        await known(running, eventually, status="ok")
        return running

    yield go
    for running in started:
        await running.stop()


@pytest.fixture
async def gateway(start: Start) -> Running:
    """A gateway with the settings as they are."""
    return await start()
