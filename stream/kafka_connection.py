"""aiokafka's connection to a broker with fewer copies: most of what a block costs outside the lane was spent here.

aiokafka copies what a broker sends five times on its way to a message, and what it sends eight times on its way to
the socket, and goes through its schemas field by field. Here

* an answer is received where it stays: the bytes of a frame go from the socket into its own buffer;
* the two requests that carry blocks, Produce and Fetch, and their answers are packed and unpacked in one go, and
  batches go to the socket as they are. Their versions are those that aiokafka agrees on with every broker since
  Kafka 2.3; other requests and versions go aiokafka's way.

What a connection promises, how it ends and who waits for it are aiokafka's. `use_lean_connections` puts this
connection in the place of aiokafka's for the whole process.
"""

import asyncio
import logging
import struct
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import aiokafka.conn
from aiokafka import errors
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.util import wait_for

logger = logging.getLogger(__name__)

# What a broker sends is read so much at a time, but for the rest of a frame, which is read into its place.
_STAGED_BYTES: Final = 1 << 16
# Copying less than this costs less than one more buffer to write from.
_JOINED_BYTES: Final = 1 << 15
# A broker answers a fetch with 50 MiB, or with one larger batch. Beyond this it is not a broker that answers.
_MAX_FRAME_BYTES: Final = 1 << 28

_INT32: Final = struct.Struct(">i")
_INT16: Final = struct.Struct(">h")
_PAIR: Final = struct.Struct(">ii")
_HEADER: Final = struct.Struct(">hhih")  # api, version, correlation id, length of the client's name
_PRODUCE: Final = struct.Struct(">hii")  # acks, timeout in ms, number of topics
_PRODUCED: Final = struct.Struct(">ihqqq")  # partition, error, offset, timestamp, log start
_FETCH: Final = struct.Struct(">iiiibiii")  # replica, wait in ms, least and most bytes, isolation, session, topics
_FETCH_PARTITION: Final = struct.Struct(">iiqqi")  # partition, leader's epoch, offset, log start, most bytes
_FETCHED: Final = struct.Struct(">ihii")  # throttled in ms, error, session, number of topics
_FETCHED_PARTITION: Final = struct.Struct(">ihqqqi")  # partition, error, end, stable end, log start, aborted
_ABORTED: Final = struct.Struct(">qq")  # producer, offset


class LeanConnection(AIOKafkaConnection):
    """A connection to a broker."""

    async def connect(self) -> tuple[Any, Any]:
        """Connect, agree on versions and authenticate.

        Raises:
            OSError, TimeoutError, KafkaError: as aiokafka's.
        """
        self._posted: dict[int, float] = {}  # when each request was sent that waits for its answer
        self._overdue: asyncio.TimerHandle | None = None
        self._closed_fut = closed = self._loop.create_future()
        secure = self._ssl_context if self._security_protocol in ("SSL", "SASL_SSL") else None
        self._name = self._client_id.encode()
        async with asyncio.timeout(self._request_timeout):
            self._writer, self._reader = await self._loop.create_connection(
                lambda: _Frames(self, closed), self.host, self.port, ssl=secure
            )
        self._read_task = self._loop.create_future()  # aiokafka's `close` asks for it; nothing reads in a task
        self._read_task.set_result(None)
        if self._max_idle_ms is not None:
            self._idle_handle = self._loop.call_soon(self._idle_check, weakref.ref(self))
        try:
            await self._do_version_lookup()
            if self._security_protocol in ("SASL_SSL", "SASL_PLAINTEXT"):
                await self._do_sasl_handshake()
        except BaseException:
            self.close()
            raise
        return self._reader, self._writer

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request; return what is awaited for the answer.

        Raises:
            KafkaConnectionError: the connection is closed.
        """
        if self._writer is None:
            raise errors.KafkaConnectionError(f"no connection to the broker at {self.host}:{self.port}")
        built = request.prepare(self._versions)
        encode = _ENCODERS.get(type(built))
        number = self._write(built, None if encode is None else encode(built))
        if not expect_response:
            return asyncio.sleep(0)
        answer = self._loop.create_future()
        self._requests.append((number, built, answer))
        return wait_for(answer, self._request_timeout)

    def post(self, request: Any, then: Callable[[Any, Exception | None], None]) -> bool:
        """Send a request; its answer, or why there is none, is handed to a function in the turn in which it comes.

        Returns:
            Whether it was sent: there is a connection, and the request is one of those that carry blocks.
        """
        built = self.prepared(request)
        return built is not None and self._post(built, _ENCODERS[type(built)](built), then)

    def prepared(self, request: Any) -> Any:
        """Return a request in the version for this broker; None where `post_built` has no way to send it."""
        if self._writer is None:
            return None
        built = request.prepare(self._versions)
        return built if type(built) in _ENCODERS else None

    def post_built(
        self, built: Any, body: bytes | bytearray, then: Callable[[Any, Exception | None], None]
    ) -> bool:
        """As `post`, for a request that is `prepared` and encoded."""
        return self._post(built, [body], then)

    def _post(
        self, built: Any, body: Sequence[bytes | bytearray], then: Callable[[Any, Exception | None], None]
    ) -> bool:
        if self._writer is None:
            return False
        number = self._write(built, body)
        self._requests.append((number, built, _Answer(then)))
        self._posted[number] = time.monotonic()
        if self._overdue is None:
            self._overdue = self._loop.call_later(self._request_timeout, self._look_for_overdue)
        return True

    def _write(self, built: Any, body: Sequence[bytes | bytearray] | None) -> int:
        number: int = self._next_correlation_id()
        if body is None:
            parts = [built.build_request_header(number, self._client_id).encode(), built.encode()]
        else:
            head = _HEADER.pack(built.API_KEY, built.API_VERSION, number, len(self._name))
            parts = [head + self._name, *body]
        size_bytes = sum(map(len, parts))
        parts.insert(0, _INT32.pack(size_bytes))
        if size_bytes < _JOINED_BYTES:
            self._writer.write(b"".join(parts))
        else:
            self._writer.writelines(parts)
        return number

    def _look_for_overdue(self) -> None:
        self._overdue = None
        oldest_s = next(iter(self._posted.values()), None)
        if oldest_s is None or self._writer is None:
            return
        left_s = oldest_s + self._request_timeout - time.monotonic()
        if left_s > 0:
            self._overdue = self._loop.call_later(left_s, self._look_for_overdue)
        else:
            late = TimeoutError(f"no answer within {self._request_timeout} s")
            self.close(reason=CloseReason.CONNECTION_TIMEOUT, exc=late)

    def on_frame(self, frame: bytes | bytearray) -> None:
        """Take an answer of the broker, without its size."""
        number, request, answer = cast("tuple[int, Any, asyncio.Future[Any]]", self._requests[0])
        decode = _DECODERS.get(type(request))
        if decode is None or _INT32.unpack_from(frame)[0] != number:
            self._handle_frame(bytes(frame))
            return
        response = None if answer.done() else decode(frame, _INT32.size)
        self._last_action = time.monotonic()
        self._requests.popleft()
        self._posted.pop(number, None)
        if not answer.done():
            answer.set_result(response)


class _Answer:
    """What stands for a future among the requests of a connection: who waits is called at once."""

    __slots__ = ("_is_done", "_then")

    def __init__(self, then: Callable[[Any, Exception | None], None]) -> None:
        self._then, self._is_done = then, False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, response: Any) -> None:
        self._is_done = True
        self._then(response, None)

    def set_exception(self, error: Exception) -> None:
        self._is_done = True
        self._then(None, error)


class _Frames(asyncio.BufferedProtocol):
    """Cuts what a broker sends into frames, each behind its size in four bytes."""

    def __init__(self, connection: LeanConnection, closed: "asyncio.Future[None]") -> None:
        # Weakly, as in aiokafka: a connection that nobody closed is closed when it is collected.
        self._connection = weakref.ref(connection)
        self._closed = closed
        self._is_over = False
        self._staged = memoryview(bytearray(_STAGED_BYTES))
        self._staged_bytes = 0
        self._frame: bytearray | None = None  # of which not all has come
        self._frame_bytes = 0

    def at_eof(self) -> bool:
        """Whether nothing more will come: aiokafka asks its reader."""
        return self._is_over

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to write what comes next."""
        if self._frame is not None:
            return memoryview(self._frame)[self._frame_bytes :]
        return self._staged[self._staged_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has been written."""
        try:
            if self._frame is None:
                self._staged_bytes += nbytes
                self._cut()
            else:
                self._frame_bytes += nbytes
                if self._frame_bytes == len(self._frame):
                    frame, self._frame = self._frame, None
                    self._deliver(frame)
        except Exception as error:
            logger.exception("what a broker answered cannot be read")
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Let those who wait for an answer know."""
        self._is_over = True
        if not self._closed.done():
            self._closed.set_result(None)
        self._end(error or EOFError("the broker closed the connection"))

    def _cut(self) -> None:
        start, end = 0, self._staged_bytes
        while end - start >= _INT32.size and self._frame is None:
            (size_bytes,) = _INT32.unpack_from(self._staged, start)
            if not 0 <= size_bytes <= _MAX_FRAME_BYTES:
                raise errors.KafkaConnectionError(f"an answer of {size_bytes} bytes: this is no Kafka broker")
            start += _INT32.size
            if end - start >= size_bytes:
                self._deliver(bytes(self._staged[start : start + size_bytes]))
                start += size_bytes
            else:
                self._frame, self._frame_bytes = bytearray(size_bytes), end - start
                self._frame[: end - start] = self._staged[start:end]
                start = end
        self._staged_bytes = end - start
        if start and start < end:  # the beginning of a size
            self._staged[: end - start] = bytes(self._staged[start:end])

    def _deliver(self, frame: bytes | bytearray) -> None:
        connection = self._connection()
        if connection is not None and connection.connected():
            connection.on_frame(frame)

    def _end(self, error: Exception) -> None:
        connection = self._connection()
        if connection is not None:
            connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)


class Answered:
    """A client that has the answer to the one request that it is given."""

    def __init__(self, client: Any, answer: Any, error: Exception | None) -> None:
        self._client, self._answer, self._error = client, answer, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        """Return the answer, or raise why there is none."""
        if self._error is not None:
            raise self._error
        return self._answer


def connection_to(client: Any, node: int) -> LeanConnection | None:
    """Return the connection of an aiokafka client for blocks to and from a node, or None where there is none."""
    connection = client._conns.get((node, ConnectionGroup.DEFAULT))  # noqa: SLF001
    return connection if isinstance(connection, LeanConnection) else None


def use_lean_connections() -> None:
    """Let every client of Kafka that this process opens from now on use `LeanConnection`."""
    aiokafka.conn.AIOKafkaConnection = LeanConnection


def _text(value: str | None) -> bytes:
    if value is None:
        return _INT16.pack(-1)
    raw = value.encode()
    return _INT16.pack(len(raw)) + raw


def _encode_produce(request: Any) -> list[bytes]:
    parts = []
    head = _text(request.transactional_id)
    head += _PRODUCE.pack(request.required_acks, request.timeout, len(request.topics))
    for topic, partitions in request.topics:
        head += _text(topic) + _INT32.pack(len(partitions))
        for partition, batch in partitions:
            parts += [head + _PAIR.pack(partition, len(batch)), batch]
            head = b""
    return [*parts, head] if head else parts


def encode_fetch(request: Any) -> tuple[bytes, dict[tuple[str, int], int]]:
    """Return a request of version 11, and where in there the offset of each partition stands: eight bytes."""
    body = _FETCH.pack(
        request.replica_id,
        request.max_wait_time,
        request.min_bytes,
        request.max_bytes,
        request.isolation_level,
        request.session_id,
        request.session_epoch,
        len(request.topics),
    )
    places = {}
    for topic, partitions in request.topics:
        body += _text(topic) + _INT32.pack(len(partitions))
        for partition in partitions:
            places[topic, partition[0]] = len(body) + _PAIR.size
            body += _FETCH_PARTITION.pack(*partition)
    body += _INT32.pack(len(request.forgotten_topics_data))
    for topic, forgotten in request.forgotten_topics_data:
        body += _text(topic) + struct.pack(f">i{len(forgotten)}i", len(forgotten), *forgotten)
    return body + _text(request.rack_id), places


def _topic(frame: bytes | bytearray, at: int) -> tuple[str, int, int]:
    """Return the name of a topic, how many partitions follow, and where."""
    (length,) = _INT16.unpack_from(frame, at)
    at += _INT16.size
    name = frame[at : at + length].decode()
    (count,) = _INT32.unpack_from(frame, at + length)
    return name, count, at + length + _INT32.size


def _decode_produced(frame: bytes | bytearray, at: int) -> Any:
    (count,) = _INT32.unpack_from(frame, at)
    at += _INT32.size
    topics = []
    for _ in range(count):
        topic, partitions, at = _topic(frame, at)
        end = at + partitions * _PRODUCED.size
        topics.append((topic, list(_PRODUCED.iter_unpack(frame[at:end]))))
        at = end
    return ProduceResponse_v7(topics, *_INT32.unpack_from(frame, at))


def _decode_fetched(frame: bytes | bytearray, at: int) -> Any:
    throttled_ms, error, session, count = _FETCHED.unpack_from(frame, at)
    at += _FETCHED.size
    view = memoryview(frame)
    topics = []
    for _ in range(count):
        topic, partitions, at = _topic(frame, at)
        found = []
        for _ in range(partitions):
            *told, aborted = _FETCHED_PARTITION.unpack_from(frame, at)
            at += _FETCHED_PARTITION.size
            end = at + max(aborted, 0) * _ABORTED.size
            transactions = None if aborted < 0 else list(_ABORTED.iter_unpack(frame[at:end]))
            replica, size_bytes = _PAIR.unpack_from(frame, end)
            at = end + _PAIR.size
            end = at + max(size_bytes, 0)
            if end > len(frame):
                raise ValueError(f"a batch of {size_bytes} bytes where {len(frame) - at} are left")
            found.append((*told, transactions, replica, None if size_bytes < 0 else bytes(view[at:end])))
            at = end
        topics.append((topic, found))
    return FetchResponse_v11(throttled_ms, error, session, topics)


_ENCODERS: Final[dict[type, Callable[[Any], list[bytes]]]] = {
    ProduceRequest_v7: _encode_produce,
    FetchRequest_v11: lambda request: [encode_fetch(request)[0]],
}
_DECODERS: Final[dict[type, Callable[[bytes | bytearray, int], Any]]] = {
    ProduceRequest_v7: _decode_produced,
    FetchRequest_v11: _decode_fetched,
}
