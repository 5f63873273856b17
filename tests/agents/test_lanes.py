"""Lanes in Faust, on a real broker: what goes in comes out, once, in order, however workers come and go."""

import asyncio
import itertools
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError
from lane_worker import PARTITIONS, Worker
from markets import FUTURE_NS, LATENESS_NS, Feed
from recurrent import Recurrent

from agents.lane import Lane, compile_kernels
from agents.state import decode_state
from agents.state_reader import describe_state, read_state
from agents.windows import Windows
from stream.embedded.kafka import EmbeddedKafka
from stream.records import (
    HEADER,
    PREDICTION,
    PREDICTION_CONTENT_BYTES,
    REJECTED,
    TICK,
    Records,
    Reject,
    decode_block,
    encode_block,
    partition_of,
)
from stream.topics import PREDICTIONS, REJECTED_TICKS, STATE_CHANGELOG, TICKS, create_topics

pytestmark = pytest.mark.timeout(300)

PATIENCE_S = 60.0
Identity = tuple[bytes, int]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of our own: the names of topics and group are fixed, and others must not read along."""
    with EmbeddedKafka(tmp_path_factory.mktemp("lanes-kafka")) as server:
        if server.degraded_reason is not None:
            pytest.skip(server.degraded_reason)
        asyncio.run(create_topics(server.bootstrap, PARTITIONS, 1, 1.0))
        compile_kernels(Recurrent())
        yield server.bootstrap


class Kafka:
    """What a test sends and reads."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap)

    async def send(self, ticks: Records) -> None:
        """Send ticks as blocks, each to its partition."""
        numbers = partition_of(ticks["symbol"], PARTITIONS)
        for number in np.unique(numbers):
            await self.producer.send_and_wait(TICKS, encode_block(ticks[numbers == number]), partition=int(number))

    async def read(self, topic: str) -> list[Any]:
        """Return every message of a topic."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap, fetch_max_wait_ms=20) as consumer:
            parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(parts)
            await consumer.seek_to_beginning(*parts)
            ends = await consumer.end_offsets(parts)
            messages: list[Any] = []
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    messages += batch
        return messages

    async def predictions(self, prefix: str) -> Records:
        """Return every prediction of symbols that start so, repetitions included."""
        blocks = [decode_block(message.value, PREDICTION) for message in await self.read(PREDICTIONS)]
        every = np.concatenate([np.zeros(0, PREDICTION), *blocks])
        return every[np.char.startswith(every["symbol"], prefix.encode())]

    async def ticks(self, prefix: str) -> list[tuple[int, int, Records]]:
        """Return (partition, offset, ticks) of each block of ticks of symbols that start so."""
        found = []
        for message in await self.read(TICKS):
            if (message.value or b"").startswith(b"TLB1\x01\x00\x01\x00"):
                ticks = decode_block(message.value, TICK)
                if ticks["symbol"][0].startswith(prefix.encode()):
                    found.append((message.partition, message.offset, ticks))
        return sorted(found, key=lambda block: block[:2])


@pytest.fixture
async def kafka_io(broker: str) -> AsyncIterator[Kafka]:
    """Sends to and reads from the broker."""
    io = Kafka(broker)
    async with io.producer:
        yield io


NewWorker = Callable[[str], Any]


@pytest.fixture
def new_worker(broker: str, tmp_path: Path) -> NewWorker:
    """``async with new_worker("w1") as worker`` runs one, and stops it in the end."""

    @asynccontextmanager
    async def run(name: str) -> AsyncIterator[Worker]:
        worker = Worker(broker, tmp_path, name)
        await worker.app.start()
        try:
            yield worker
        finally:
            async with asyncio.timeout(30):
                await worker.app.stop()

    return run


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.05)
    pytest.fail(what)


def identities(predictions: Records) -> dict[Identity, set[bytes]]:
    """Return the different contents of each (symbol, seq)."""
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    seen: dict[Identity, set[bytes]] = {}
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    for key, row in zip(keys, raw, strict=True):
        seen.setdefault(key, set()).add(row[:PREDICTION_CONTENT_BYTES].tobytes())
    return seen


def undisturbed(blocks: list[tuple[int, int, Records]]) -> dict[Identity, set[bytes]]:
    lanes = {number: Lane(number, Windows(LATENESS_NS, FUTURE_NS), Recurrent()) for number in range(PARTITIONS)}
    outputs = [lanes[number].apply([(offset, ticks)]).predictions for number, offset, ticks in blocks]
    return identities(np.concatenate([np.zeros(0, PREDICTION), *outputs]))


def trades(feed: Feed, prefix: str, rounds: int, symbols: int = 8) -> Records:
    return np.concatenate(
        [feed.trade(f"{prefix}{number}", 100.0 + turn % 4) for turn in range(rounds) for number in range(symbols)]
    )


async def test_each_accepted_tick_is_predicted_and_its_state_can_be_read(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "PLAIN", 50))
        await until(lambda: worker.metrics.predictions >= 400, "all ticks are predicted")
    got = identities(await kafka_io.predictions("PLAIN"))
    assert got == undisturbed(await kafka_io.ticks("PLAIN"))
    assert len(got) == 400
    row = await read_state(kafka_io.bootstrap, "PLAIN3")
    assert row is not None
    described = describe_state(row)
    assert (described["symbol"], described["seq"], described["last_price"]) == ("PLAIN3", 50, 100.0 + 49 % 4)
    assert await read_state(kafka_io.bootstrap, "NEVER-SEEN") is None


async def test_what_is_not_a_block_is_put_aside_and_nothing_stops(kafka_io: Kafka, new_worker: NewWorker) -> None:
    feed = Feed()
    tick = feed.trade("BAD0", 1.0)
    number = int(partition_of(tick["symbol"], PARTITIONS)[0])
    later = bytearray(encode_block(tick))
    later[HEADER.fields["version"][1]] = 9
    async with new_worker("w1") as worker:
        garbage = await kafka_io.producer.send_and_wait(
            TICKS, b"garbage that is no block of BAD0", partition=number
        )
        await kafka_io.producer.send_and_wait(TICKS, bytes(later), partition=number)
        await kafka_io.producer.send_and_wait(TICKS, None, key=b"BAD0", partition=number)
        await kafka_io.send(np.concatenate([tick, feed.trade("BAD0", np.nan)]))
        await until(lambda: worker.metrics.predictions >= 1, "the good tick is predicted")
        assert worker.metrics.blocks["BadBlock"] == 2
        assert worker.metrics.blocks["UnknownVersion"] == 1
        assert worker.health.problems == {}
    rejected = [message for message in await kafka_io.read(REJECTED_TICKS) if message.partition == number]
    raw = {message.value: dict(message.headers) for message in rejected if message.headers}
    told = raw[b"garbage that is no block of BAD0"]
    assert told["tickloom-source"] == f"{TICKS}[{number}]@{garbage.offset}".encode()
    assert b"these bytes start with b'garb'" in told["tickloom-error"]
    assert b"TICK block of version 9; this tickloom reads version 1" in raw[bytes(later)]["tickloom-error"]
    [record] = [
        record
        for message in rejected
        if not message.headers
        for record in decode_block(message.value, REJECTED)
        if record["tick"]["symbol"] == b"BAD0"
    ]
    assert record["reason"] == Reject.NOT_FINITE
    assert record["source_index"] == 1


async def test_an_offset_is_committed_only_once_the_state_that_saw_it_is_kept(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    order: list[tuple[str, int]] = []
    async with new_worker("w1") as worker:
        write, send = worker.lanes.table.write, worker.app.producer.send

        async def slow_write(partition: int, key: bytes, value: bytes) -> Any:
            acknowledged = await write(partition, key, value)
            if key == b"ORDER0":
                acknowledged.add_done_callback(
                    lambda _: order.append(("kept", int(decode_state(value)["offset"][0])))
                )
                await asyncio.sleep(0.05)
            return acknowledged

        async def noted_send(topic: str, *arguments: Any) -> Any:
            acknowledged = await send(topic, *arguments)
            if topic == PREDICTIONS:
                acknowledged.add_done_callback(lambda _: order.append(("predicted", -1)))
            return acknowledged

        worker.lanes.table.write, worker.app.producer.send = slow_write, noted_send
        commit = worker.app.consumer._commit

        async def noted_commit(offsets: Any) -> Any:
            order.extend(("committed", offset) for tp, offset in offsets.items() if tp.topic == TICKS)
            return await commit(offsets)

        worker.app.consumer._commit = noted_commit
        for _ in range(30):
            await kafka_io.send(feed.trade("ORDER0", 1.0))
            await asyncio.sleep(0.02)
        await until(lambda: worker.metrics.predictions >= 30, "all ticks are predicted")
        await until(lambda: any(what == "committed" for what, _ in order), "a checkpoint was committed")
    kept = -1
    for what, offset in order:
        if what == "kept":
            kept = offset
        elif what == "committed":
            assert offset <= kept + 1, f"{offset} was committed when the state had seen {kept}"
    first = {name: next(at for at, (what, _) in enumerate(order) if what == name) for name in ("predicted", "kept")}
    assert first["predicted"] < first["kept"]


@asynccontextmanager
async def load(kafka_io: Kafka, prefix: str) -> AsyncIterator[None]:
    """Send ticks all the time."""
    feed = Feed()
    running = True

    async def run() -> None:
        for turn in itertools.count():
            if not running:
                return
            await kafka_io.send(
                np.concatenate([feed.trade(f"{prefix}{number}", 100.0 + turn % 4) for number in range(8)])
            )
            await asyncio.sleep(0.004)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        running = False
        await task


async def finish(kafka_io: Kafka, new_worker: NewWorker, prefix: str) -> None:
    """Let a last worker take up what is left; compare all predictions with those of an undisturbed run."""
    expected = undisturbed(await kafka_io.ticks(prefix))
    async with new_worker("last"):

        async def complete() -> bool:
            return set(identities(await kafka_io.predictions(prefix))) >= set(expected)

        await until(complete, "every tick is predicted")
    assert identities(await kafka_io.predictions(prefix)) == expected


async def test_stopping_and_starting_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    async with load(kafka_io, "STOP"):
        for _ in range(4):
            async with new_worker("w1") as worker:
                await until(lambda made=worker.metrics: made.predictions > 100, "the worker predicts")
                assert worker.lanes.failure is None
    await finish(kafka_io, new_worker, "STOP")


async def test_a_worker_that_joins_and_leaves_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    async with load(kafka_io, "JOIN"), new_worker("w1") as first:
        await until(lambda: first.metrics.predictions > 100, "the first predicts")
        async with new_worker("w2") as second:
            await until(lambda: second.metrics.predictions > 50, "the second predicts")
            assert not set(first.lanes.owned) & set(second.lanes.owned)
        before = first.metrics.predictions
        await until(lambda: len(first.lanes.owned) >= 3, "the first has all partitions that tick")
        await until(lambda: first.metrics.predictions > before + 100, "the first goes on")
        assert first.lanes.failure is None
        assert second.lanes.failure is None
    await finish(kafka_io, new_worker, "JOIN")


async def test_a_worker_that_is_killed_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker, tmp_path: Path
) -> None:
    async def count() -> int:
        return len(await kafka_io.predictions("KILL"))

    script = Path(__file__).with_name("lane_worker.py")
    async with load(kafka_io, "KILL"):
        for _ in range(2):
            before = await count()
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(script),
                kafka_io.bootstrap,
                str(tmp_path),
                "killed",
                stderr=DEVNULL,
                stdout=DEVNULL,
            )
            try:

                async def predicts(before: int = before) -> bool:
                    return await count() > before + 300

                await until(predicts, "the worker predicts")
            finally:
                child.kill()
                await child.wait()
    await finish(kafka_io, new_worker, "KILL")


async def test_a_send_that_fails_stops_the_worker_and_keeps_no_state_ahead_of_its_predictions(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    # Faust once started the agent anew: the state had the block, its predictions were never sent.
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(feed.trade("FAIL0", 1.0))
        await until(lambda: worker.metrics.predictions >= 1, "the first tick is predicted")
        send = worker.app.producer.send

        async def failing(topic: str, *arguments: Any) -> Any:
            if topic == PREDICTIONS:
                raise KafkaTimeoutError
            return await send(topic, *arguments)

        worker.app.producer.send = failing
        await kafka_io.send(feed.trade("FAIL0", 1.01))
        await until(lambda: worker.lanes.failure is not None, "the worker says that it failed")
        assert "lanes" in worker.health.problems
        worker.app.producer.send = send
        await kafka_io.send(feed.trade("FAIL0", 1.02))
        await asyncio.sleep(0.5)
    await finish(kafka_io, new_worker, "FAIL")


async def test_a_changelog_keeps_rows_in_the_partition_of_their_symbol(kafka_io: Kafka) -> None:
    rows = [message for message in await kafka_io.read(STATE_CHANGELOG) if message.value is not None]
    assert rows
    for message in rows:
        assert message.partition == int(partition_of(np.array([message.key], TICK["symbol"]), PARTITIONS)[0])
        assert decode_state(message.value)["symbol"][0] == message.key
