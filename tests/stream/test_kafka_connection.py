import asyncio
import struct
from collections.abc import Callable
from typing import Any

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from stream.embedded.kafka import EmbeddedKafka
from stream.kafka_connection import (
    LeanConnection,
    _decode_fetched,
    _decode_produced,
    _encode_produce,
    _Frames,
    encode_fetch,
)

INT16 = st.integers(-(1 << 15), (1 << 15) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(max_size=12)
BATCH = st.binary(max_size=200)


def topics(*partition: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.tuples(TEXT, st.lists(st.tuples(*partition), max_size=4)), max_size=3)


@given(st.none() | TEXT, INT16, INT32, topics(INT32, BATCH))
def test_a_produce_request_is_the_bytes_that_aiokafka_would_send(
    transaction: str | None, acks: int, timeout_ms: int, sent: list[Any]
) -> None:
    request = ProduceRequest_v7(transaction, acks, timeout_ms, sent)
    assert b"".join(_encode_produce(request)) == request.encode()


@given(
    st.tuples(INT32, INT32, INT32, INT32, st.integers(-128, 127), INT32, INT32),
    topics(INT32, INT32, INT64, INT64, INT32),
    st.lists(st.tuples(TEXT, st.lists(INT32, max_size=3)), max_size=2),
    TEXT,
)
def test_a_fetch_request_is_the_bytes_that_aiokafka_would_send(
    head: tuple[int, ...], asked: list[Any], forgotten: list[Any], rack: str
) -> None:
    request = FetchRequest_v11(*head, asked, forgotten, rack)
    body, places = encode_fetch(request)
    assert body == request.encode()
    offsets = {(topic, one[0]): one[2] for topic, partitions in asked for one in partitions}
    assert {place: int.from_bytes(body[at : at + 8], "big", signed=True) for place, at in places.items()} == offsets


@given(topics(INT32, INT16, INT64, INT64, INT64), INT32, st.binary(max_size=8))
def test_what_became_of_a_produce_request_reads_as_aiokafka_reads_it(
    told: list[Any], throttled_ms: int, before: bytes
) -> None:
    answer = ProduceResponse_v7(told, throttled_ms)
    assert _decode_produced(before + answer.encode(), len(before)) == answer


@given(
    INT32,
    INT16,
    INT32,
    topics(
        INT32,
        INT16,
        INT64,
        INT64,
        INT64,
        st.none() | st.lists(st.tuples(INT64, INT64), max_size=3),
        INT32,
        st.none() | BATCH,
    ),
    st.booleans(),
)
def test_what_was_fetched_reads_as_aiokafka_reads_it(
    throttled_ms: int, error: int, session: int, fetched: list[Any], is_received_in_place: bool
) -> None:
    answer = FetchResponse_v11(throttled_ms, error, session, fetched)
    raw = b"head" + answer.encode()
    assert _decode_fetched(bytearray(raw) if is_received_in_place else raw, 4) == answer


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3), st.data())
def test_a_fetch_answer_that_was_cut_off_is_refused(batches: list[bytes], data: st.DataObject) -> None:
    partitions = [(number, 0, 1, 1, 0, [], -1, batch) for number, batch in enumerate(batches)]
    raw = FetchResponse_v11(0, 0, 0, [("ticks", partitions)]).encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises((ValueError, struct.error)):
        _decode_fetched(raw[:cut], 0)


class Taking:
    """Stands where a connection does, and keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ended: list[BaseException] = []

    def connected(self) -> bool:
        return not self.ended

    def on_frame(self, frame: bytes | bytearray) -> None:
        self.frames.append(bytes(frame))

    def close(self, reason: Any, exc: BaseException) -> None:
        self.ended.append(exc)


def receive(frames: _Frames, raw: bytes, reads: list[int]) -> None:
    """Give bytes to a protocol as an event loop does: never more at once than the room that it offers."""
    at = 0
    for most in [*reads, *[len(raw)] * len(raw)]:
        room = frames.get_buffer(-1)
        some = raw[at : at + min(most, len(room))]
        if not some:
            return
        room[: len(some)] = some
        frames.buffer_updated(len(some))
        at += len(some)


@given(
    st.lists(st.binary(max_size=50) | st.integers(0, 200_000).map(bytes), max_size=6),
    st.lists(st.integers(1, 90_000), max_size=30),
)
def test_frames_are_whole_however_they_arrive(sent: list[bytes], reads: list[int]) -> None:
    async def run() -> Taking:
        taking = Taking()
        frames = _Frames(taking, asyncio.get_running_loop().create_future())  # type: ignore[arg-type]
        receive(frames, b"".join(struct.pack(">i", len(frame)) + frame for frame in sent), reads)
        return taking

    taking = asyncio.run(run())
    assert taking.frames == sent
    assert not taking.ended


async def serve(answer: bytes) -> asyncio.Server:
    """Serve something that reads once, answers this and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an answer of 1213486160 bytes: this is no Kafka broker"),
        (struct.pack(">i", -7), "an answer of -7 bytes: this is no Kafka broker"),
        (b"", "the broker closed the connection"),
        (struct.pack(">i", 100) + b"half", "the broker closed the connection"),
        (struct.pack(">ii", 4, 12345), "Correlation ids do not match"),
        (struct.pack(">ii", 4, 1) + b"", "unpack requires a buffer"),
    ],
    ids=["not Kafka", "negative", "silent", "cut off", "of another request", "too short"],
)
def test_an_answer_that_is_none_ends_the_connection_with_the_reason(answer: bytes, reason: str) -> None:
    async def run() -> BaseException:
        server = await serve(answer)
        async with server:
            with pytest.raises(Exception) as told:  # noqa: PT011  (aiokafka says it in several ways)
                await create_conn(*server.sockets[0].getsockname()[:2], request_timeout_ms=5_000)
        return told.value

    error = asyncio.run(run())
    said = f"{error!r} {error.__cause__!r}"
    assert reason in said


async def make_topic(kafka: EmbeddedKafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()


async def read(kafka: EmbeddedKafka, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


def test_a_connection_that_was_closed_says_so_to_who_sends_on_it(kafka: EmbeddedKafka) -> None:
    async def run() -> None:
        connection = await create_conn("127.0.0.1", kafka.port)
        assert isinstance(connection, LeanConnection)
        assert connection.connected()
        await connection.close()
        assert not connection.connected()
        with pytest.raises(KafkaConnectionError, match="no connection to the broker"):
            await connection.send(ApiVersionRequest())

    asyncio.run(run())


def test_a_producer_that_wants_no_acknowledgement_does_not_wait_for_one(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("unacknowledged")

    async def run() -> list[bytes]:
        await make_topic(kafka, topic)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks=0) as producer:
            for number in range(3):
                await producer.send_and_wait(topic, bytes([number]), partition=0)
            return await read(kafka, topic, 3)

    assert asyncio.run(run()) == [b"\0", b"\1", b"\2"]


def test_batches_of_every_size_come_back_as_they_were_sent(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    assert aiokafka.conn.AIOKafkaConnection is LeanConnection
    topic = fresh_name("sizes")
    sizes = [0, 1, 100, 30_000, 65_531, 65_532, 65_536, 70_000, 400_000, 900_000]
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def run() -> list[bytes]:
        await make_topic(kafka, topic)
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, enable_idempotence=True, max_request_size=1_000_000
        ) as producer:
            for value in sent:
                await producer.send_and_wait(topic, value, partition=0)
        return await read(kafka, topic, len(sent))

    assert asyncio.run(run()) == sent
