"""aiokafka's sender and fetcher as we run them: what goes wrong on the way loses nothing and repeats nothing."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import ConnectionGroup
from aiokafka.conn import create_conn
from aiokafka.errors import CorruptRecordException, KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7

from stream import kafka_connection
from stream.embedded.kafka import EmbeddedKafka
from stream.kafka_fetch import Fetch
from stream.kafka_fetcher import LeanFetcher
from stream.kafka_loops import LeanSender

NOT_LEADER = 6
COUNT = 300
Trouble = Callable[[int, Any], object]


async def make_topic(kafka: EmbeddedKafka, topic: str, partitions: int = 2) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()


def nothing(*_: Any) -> None:
    """Make no trouble."""


async def produce(
    kafka: EmbeddedKafka, topic: str, trouble: Callable[[int, Any], object] = lambda *_: None
) -> None:
    """Send numbers to two partitions in turn, each when it is acknowledged or a little before."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, enable_idempotence=True, retry_backoff_ms=10
    ) as producer:
        assert isinstance(producer._sender, LeanSender)
        sent = []
        for number in range(COUNT):
            sent.append(await producer.send(topic, str(number).encode(), partition=number % 2))
            if number % 7 == 0:
                await asyncio.gather(*sent)
            trouble(number, producer.client)
        async with asyncio.timeout(30):
            await asyncio.gather(*sent)


async def consume(kafka: EmbeddedKafka, topic: str, trouble: Trouble = nothing) -> list[list[int]]:
    """Read all numbers, by partition."""
    got: list[list[int]] = [[], []]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20, retry_backoff_ms=10
    )
    await consumer.start()
    try:
        assert isinstance(consumer._fetcher, LeanFetcher)
        consumer.assign([TopicPartition(topic, number) for number in range(2)])
        async with asyncio.timeout(30):
            for step in itertools.count():
                for messages in (await consumer.getmany(timeout_ms=200, max_records=10)).values():
                    for message in messages:
                        got[message.partition].append(int(message.value))
                if sum(map(len, got)) >= COUNT:
                    break
                trouble(step, consumer._client)
        assert not await consumer.getmany(timeout_ms=300)  # and nothing twice
    finally:
        await consumer.stop()
    return got


def lose_connection(every: int) -> Trouble:
    def lose(number: int, client: Any) -> None:
        if number % every == every - 1:
            for (_, group), connection in list(client._conns.items()):
                if group is ConnectionGroup.DEFAULT:
                    connection.close()

    return lose


ALL = [list(range(0, COUNT, 2)), list(range(1, COUNT, 2))]


def test_what_is_sent_comes_once_and_in_order_though_connections_are_lost(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("lost-connections")

    async def run() -> list[list[int]]:
        await make_topic(kafka, topic)
        await produce(kafka, topic, lose_connection(40))
        return await consume(kafka, topic, lose_connection(5))

    assert asyncio.run(run()) == ALL


def test_what_a_broker_refuses_is_sent_and_read_again(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, answers = fresh_name("refused"), itertools.count(1)
    produced, fetched = (kafka_connection._DECODERS[kind] for kind in (ProduceRequest_v7, FetchRequest_v11))

    def refuse_produced(frame: bytes, at: int) -> Any:
        answer = produced(frame, at)
        if next(answers) % 9:
            return answer
        told = [
            (name, [(one[0], NOT_LEADER, *one[2:]) for one in partitions]) for name, partitions in answer.topics
        ]
        return ProduceResponse_v7(told, answer.throttle_time_ms)

    def refuse_fetched(frame: bytes, at: int) -> Any:
        answer = fetched(frame, at)
        if next(answers) % 9:
            return answer
        told = [
            (name, [(one[0], NOT_LEADER, *one[2:-1], b"") for one in partitions])
            for name, partitions in answer.topics
        ]
        return FetchResponse_v11(answer.throttle_time_ms, answer.error_code, answer.session_id, told)

    monkeypatch.setitem(kafka_connection._DECODERS, ProduceRequest_v7, refuse_produced)
    monkeypatch.setitem(kafka_connection._DECODERS, FetchRequest_v11, refuse_fetched)

    async def run() -> list[list[int]]:
        await make_topic(kafka, topic)
        await produce(kafka, topic)
        return await consume(kafka, topic)

    assert asyncio.run(run()) == ALL
    assert next(answers) > 18


def test_what_one_does_to_partitions_between_two_fetches_counts_at_once(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("paused")
    first, second = partitions = [TopicPartition(topic, number) for number in range(2)]

    async def numbers(consumer: AIOKafkaConsumer, count: int, *of: TopicPartition) -> list[int]:
        got: list[int] = []
        async with asyncio.timeout(10):
            while len(got) < count:
                for messages in (await consumer.getmany(*of, timeout_ms=50, max_records=10)).values():
                    got += [int(message.value) for message in messages]
        return got

    async def run() -> None:
        await make_topic(kafka, topic)
        await produce(kafka, topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            consumer.pause(second)
            assert await numbers(consumer, COUNT // 2) == ALL[0]
            assert not await consumer.getmany(timeout_ms=300)
            consumer.resume(second)
            assert await numbers(consumer, COUNT // 2) == ALL[1]
            await consumer.seek_to_beginning(first)
            consumer.seek(second, 100)
            # Nobody takes the other one; it neither holds this one up nor is it lost.
            assert await numbers(consumer, COUNT // 2 - 100, second) == ALL[1][100:]
            async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
                for number in range(3):
                    await producer.send_and_wait(topic, str(number).encode(), partition=1)
                    assert await numbers(consumer, 1, second) == [number]
                assert await numbers(consumer, COUNT // 2) == ALL[0]
                await producer.send_and_wait(topic, b"7", partition=0)
            async with asyncio.timeout(10):
                assert int((await consumer.getone()).value) == 7
            assert [await consumer.position(partition) for partition in partitions] == [151, 153]
            assert [consumer.highwater(partition) for partition in partitions] == [151, 153]
        finally:
            await consumer.stop()

    asyncio.run(run())


def test_a_fetch_is_sent_again_as_it_was_also_beside_partitions_that_nobody_takes(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, counted = fresh_name("again"), Counter[str]()
    taken, paused, untaken = partitions = [TopicPartition(topic, number) for number in range(3)]

    def count(owner: type, name: str) -> None:
        function = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            counted[name] += 1
            return function(*arguments)

        monkeypatch.setattr(owner, name, counting)

    async def run() -> list[int]:
        await make_topic(kafka, topic, 3)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        got: list[int] = []
        await consumer.start()
        try:
            consumer.assign(partitions)
            consumer.pause(paused)
            async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer, asyncio.timeout(30):
                await producer.send_and_wait(topic, b"0", partition=untaken.partition)
                for number in range(100):
                    await producer.send_and_wait(topic, str(number).encode(), partition=taken.partition)
                    while len(got) <= number:
                        for messages in (await consumer.getmany(taken, timeout_ms=100)).values():
                            got += [int(message.value) for message in messages]
        finally:
            await consumer.stop()
        return got

    count(LeanFetcher, "_get_actions_per_node")
    count(Fetch, "read")
    assert asyncio.run(run()) == list(range(100))
    assert counted["_get_actions_per_node"] < counted["read"] / 3


def test_a_batch_that_was_damaged_on_the_way_is_told_and_nothing_is_lost(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = fresh_name("damaged")
    damaged: list[Any] = []
    fetched = kafka_connection._DECODERS[FetchRequest_v11]

    def damage(frame: bytes, at: int) -> Any:
        """Turn a bit of the last batch of partition 1, once."""
        answer = fetched(frame, at)
        for _, partitions in answer.topics:
            for place, one in enumerate(partitions):
                if one[0] == 1 and one[-1] and not damaged:
                    damaged.append(one)
                    partitions[place] = (*one[:-1], one[-1][:-1] + bytes([one[-1][-1] ^ 1]))
        return answer

    monkeypatch.setitem(kafka_connection._DECODERS, FetchRequest_v11, damage)

    async def run() -> tuple[list[list[int]], int]:
        got: list[list[int]] = [[], []]
        told = 0
        await make_topic(kafka, topic)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for number in range(6):  # each a batch
                await producer.send_and_wait(topic, str(number).encode(), partition=number % 2)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, number) for number in range(2)])
            async with asyncio.timeout(10):
                while sum(map(len, got)) < 6:
                    try:
                        read = await consumer.getmany(timeout_ms=100)
                    except CorruptRecordException:
                        told += 1
                        continue
                    for partition, messages in read.items():
                        got[partition.partition] += [int(message.value) for message in messages]
        finally:
            await consumer.stop()
        return got, told

    assert asyncio.run(run()) == ([[0, 2, 4], [1, 3, 5]], 1)
    assert len(damaged) == 1


class Relay:
    """Stands between a client and the broker, and can swallow what the broker answers."""

    def __init__(self, port: int) -> None:
        self.is_silent = False
        self.has_ended = asyncio.Event()
        self._port = port

    async def start(self) -> asyncio.Server:
        return await asyncio.start_server(self._talk, "127.0.0.1", 0)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass_on(reader, to_broker), self._pass_on(from_broker, writer, is_answer=True))
        self.has_ended.set()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool = False
    ) -> None:
        while some := await reader.read(1 << 16):
            if not (is_answer and self.is_silent):
                writer.write(some)
        writer.close()


def test_a_request_that_nobody_answers_ends_the_connection_in_its_time(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("silent")

    async def run() -> None:
        await make_topic(kafka, topic)
        relay = Relay(kafka.port)
        async with await relay.start() as server:
            connection = await create_conn(*server.sockets[0].getsockname()[:2], request_timeout_ms=600)
            request = FetchRequest(20, 1, 1 << 20, 0, [(topic, [(0, 0, 1 << 20)])])
            answers: asyncio.Queue[tuple[Any, Exception | None]] = asyncio.Queue()
            # What is answered in time is no reason to end it, however long ago it was sent.
            for _ in range(40):
                assert connection.post(request, lambda *told: answers.put_nowait(told))
                answer, error = await answers.get()
                assert error is None
                assert answer.topics[0][0] == topic
            assert connection.connected()
            relay.is_silent = True
            begun_s = time.monotonic()
            assert connection.post(request, lambda *told: answers.put_nowait(told))
            async with asyncio.timeout(10):
                answer, error = await answers.get()
            assert isinstance(error, KafkaConnectionError)
            assert isinstance(error.__cause__, TimeoutError)
            assert time.monotonic() - begun_s > 0.5
            assert not connection.connected()
            assert not connection.post(request, lambda *_: None)
            await relay.has_ended.wait()

    asyncio.run(run())
