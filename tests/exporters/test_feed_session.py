"""Whatever comes through a socket, it can only end its own connection: garbage, floods, half-open handshakes."""

import asyncio
import contextlib
import gc
import json
from typing import Any

import pytest
from feed_driver import Running, Start, known
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from exporters.feed_client import FeedClient
from exporters.protocol import MAX_HANDSHAKES, MAX_INBOUND_PER_S, Code
from stream.embedded.kafka import EmbeddedKafka


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


def address(gateway: Running) -> tuple[str, int]:
    return "127.0.0.1", int(gateway.where.feed.split(":")[2].split("/")[0])


# ---- what may be said ------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
symbols = st.lists(st.sampled_from(["AIG", "BAC", "*", "A*", "", "é", "x" * 25]) | st.text(max_size=26), max_size=5)
likely = {
    "op": st.sampled_from(["subscribe", "unsubscribe", "list", "ping", "auth"]),
    "id": st.integers() | st.text(max_size=70),
    "channel": st.sampled_from(["prediction", "tick", "bar.1s", "model", "status", "halt", "news"]),
    "symbols": symbols,
    "mode": st.sampled_from(["full", "latest", "throttle"]),
    "throttle_ms": st.integers(-10, 100_000),
    "replay_from_ns": st.integers(-1, 2**64),
    "resume": st.fixed_dictionaries(
        {"epoch": st.text(max_size=30), "seqs": st.dictionaries(st.text(max_size=5), anything, max_size=3)}
    ),
    "token": anything,
}
shaped = st.fixed_dictionaries(
    {"op": likely["op"]}, optional={name: value | anything for name, value in likely.items() if name != "op"}
)
messages = st.one_of(
    shaped.map(json.dumps),
    anything.map(json.dumps),
    st.text(max_size=200),
    st.binary(max_size=200),
)


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(said=st.lists(messages, min_size=1, max_size=MAX_INBOUND_PER_S - 5))
async def test_every_message_has_an_answer_in_the_protocol(
    gateway: Running, caplog: pytest.LogCaptureFixture, said: list[str | bytes]
) -> None:
    caplog.clear()
    async with gateway.client() as client:
        for message in said:
            await client.socket.send(message)
        await client.say(op="ping", id="the end")
        errors = 0
        while (
            message := await client.next(
                "pong", "error", "subscribed", "unsubscribed", "subscriptions", "authenticated"
            )
        )["id"] != "the end":
            if message["type"] == "error":
                errors += 1
                assert message["code"] in set(Code)
                assert len(message["message"]) < 1000
        assert errors <= len(said)
    assert "fault of the gateway" not in caplog.text


# ---- what may be sent ------------------------------------------------------------------------------------------

HELLO = (
    b"GET /feed HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked, as a client's must be
        (b"\xf1\x80\x00\x00\x00\x00", 1002),  # reserved bits
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # no such opcode
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007),  # not UTF-8
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009),  # says it has 2**63 bytes
        (
            b"\x01\xfe\xff\xff\x00\x00\x00\x00"
            + b"a" * 65_535
            + b"\x80\xfe\xff\xff\x00\x00\x00\x00"
            + b"a" * 65_535,
            1009,
        ),
        (b"\x89\xfe\x00\x80\x00\x00\x00\x00" + b"a" * 128, 1002),  # a ping that is too long
    ],
    ids=["unmasked", "reserved", "opcode", "utf8", "huge", "fragments", "ping"],
)
async def test_a_frame_that_is_none_closes_its_connection_with_a_code(
    gateway: Running, frame: bytes, code: int
) -> None:
    async with gateway.client("AIG") as good, gateway.client("AIG") as bad:
        bad.socket.transport.write(frame)
        assert (await bad.closed())[0] == code
        await good.say(op="ping", id=1)
        await good.next("pong")


async def test_a_frame_that_is_cut_off_leaves_nothing_behind(gateway: Running, eventually: Any) -> None:
    for _ in range(20):
        async with gateway.client("AIG") as client:
            client.socket.transport.write(b"\x81\xfe\xff\xff\x00\x00\x00\x00half of it")
            await asyncio.sleep(0)
            client.socket.transport.abort()
    await known(gateway, eventually, clients=0)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n\r\n",
        b"GET /feed HTTP/1.1\r\nHost: here\r\n\r\n",
        b"POST /feed HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        HELLO + b"Sec-WebSocket-Key: short\r\n\r\n",
        HELLO + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        HELLO + b"".join(b"X-%d: 1\r\n" % number for number in range(400)) + b"\r\n",
    ],
    ids=["http", "no upgrade", "post", "key", "long header", "many headers"],
)
async def test_a_handshake_that_is_none_is_refused_at_once(gateway: Running, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(*address(gateway))
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 2"))
    writer.close()
    async with gateway.client("AIG") as client:
        await client.next("heartbeat", "epoch")


async def test_a_subprotocol_that_is_not_spoken_is_refused_in_words(gateway: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(gateway.where.feed, subprotocols=[Subprotocol("tickloom.binary.v9")])
    assert refused.value.response.status_code == 400
    assert b"tickloom.binary.v1" in (refused.value.response.body or b"")


async def test_handshakes_that_never_end_keep_nobody_out_who_is_in_and_are_limited(
    start: Start, publish: Any, make_rows: Any
) -> None:
    gateway = await start(gateway_clients=20)
    halves = []
    async with gateway.client("AIG", mode="full") as client:
        try:
            for _ in range(20 + MAX_HANDSHAKES + 30):
                halves.append(await asyncio.open_connection(*address(gateway)))
                halves[-1][1].write(HELLO[:30])
            for reader, _ in halves[-30:]:
                with contextlib.suppress(ConnectionResetError):  # as what we said was not read
                    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503")
            refused = next(line for line in (await gateway.metrics()).splitlines() if 'reason="handshakes"' in line)
            assert int(float(refused.rpartition(" ")[2])) == 31  # the client counts as well
            await publish(make_rows(["AIG"], 3))
            await client.until("AIG", 3)
        finally:
            for _, writer in halves:
                writer.close()
        await asyncio.sleep(0.2)
        async with gateway.client("AIG") as another:
            await another.until("AIG", 3)


async def test_many_connections_leave_nothing_behind(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 50))
    await known(gateway, eventually, predictions=50)

    async def visit(number: int) -> None:
        async with gateway.client() as client:
            await client.say(op="subscribe", symbols=["*"], mode="full", replay_from_ns=0)
            await client.say(op="subscribe", symbols=["*"], channel="tick")
            if number % 3 == 0:
                client.socket.transport.abort()
            elif number % 3 == 1:
                await client.next("replay_completed")

    for start_at in range(0, 75, 25):
        await asyncio.gather(*(visit(number) for number in range(start_at, start_at + 25)))
    await known(gateway, eventually, clients=0)
    await asyncio.sleep(0.1)
    gc.collect()
    assert [one for one in gc.get_objects() if type(one) is FeedClient] == []
    sessions = ("serve_session", "conn_handler", "CatchUp.run", "close")
    assert [task for task in asyncio.all_tasks() if any(name in repr(task.get_coro()) for name in sessions)] == []
