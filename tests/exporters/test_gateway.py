"""The feed over real sockets and a real broker: what desks get, what becomes of those who misbehave, the page."""

import asyncio
import socket
import time
from typing import Any

import aiohttp
import jwt
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from feed_driver import PARTITIONS, Client, Message, Running, Start, known, seqs
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from exporters.feed_wire import FEED_HEADER
from exporters.gateway import run_gateway
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import (
    MODEL_EVENT,
    PREDICTION,
    REJECTED,
    ModelEventKind,
    Records,
    Reject,
    TickKind,
    empty_ticks,
    encode_block,
)
from stream.settings import Settings

STAGES = ["source_to_lane", "features", "inference", "publish", "publish_to_gateway", "total", "publish_to_send"]


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


async def test_a_full_feed_begins_with_a_snapshot_and_goes_on_without_a_gap(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 5))
    await known(gateway, eventually, predictions=10)
    async with gateway.client("AIG", "*", mode="full") as client:
        first = await client.items(2)
        assert sorted((item["type"], item["symbol"], item["seq"]) for item in first) == [
            ("snapshot", "AIG", 5),
            ("snapshot", "BAC", 5),
        ]
        await publish(make_rows(["AIG", "BAC"], 40, first=6), block_rows=7)
        more = await client.items(80)
    assert seqs(more, "AIG") == seqs(more, "BAC") == list(range(6, 46))
    assert {item["type"] for item in more} == {"prediction"}
    item = more[0]
    assert (item["p_down"], item["p_flat"], item["p_up"]) == (0.2, 0.3, 0.5)
    assert (item["ref_price"], item["expected_return_bps"]) == (100.06, 0.25)
    assert (item["model"], item["warming"], item["horizon_ns"]) == ("fedcba9876543210", False, 1_000_000_000)
    assert item["published_ns"] - item["recv_ns"] == 40_000


async def test_only_what_was_subscribed_to_comes(gateway: Running, publish: Any, make_rows: Any) -> None:
    async with gateway.client("AIG", mode="full") as one, gateway.client("BAC", mode="latest") as other:
        await publish(make_rows(["AIG", "BAC", "C"], 3))
        assert {item["symbol"] for item in await one.until("AIG", 3)} == {"AIG"}
        assert {item["symbol"] for item in await other.until("BAC", 3)} == {"BAC"}
        await one.say(op="unsubscribe", id=2, channel="prediction", symbols=["AIG"])
        await one.next("unsubscribed")
        await one.say(op="subscribe", id=3, symbols=["C"], mode="full")
        await publish(make_rows(["AIG", "C"], 3, first=4))
        assert {item["symbol"] for item in await one.until("C", 6)} == {"C"}


async def test_the_first_of_a_new_symbol_is_a_snapshot(gateway: Running, publish: Any, make_rows: Any) -> None:
    async with gateway.client("*", mode="full") as full, gateway.client("*") as latest:
        await publish(make_rows(["NEW"], 3, first=7))
        got = [(item["type"], item["seq"]) for item in await full.until("NEW", 9)]
        assert got == [("snapshot", 7), ("prediction", 8), ("prediction", 9)]
        assert (await latest.until("NEW", 9))[0]["type"] == "snapshot"


async def test_latest_skips_and_says_how_many(gateway: Running, publish: Any, make_rows: Any) -> None:
    async with gateway.client("*") as client:
        await publish(make_rows(["AIG"], 1))
        assert [item["skipped"] for item in await client.until("AIG", 1)] == [0]
        await publish(make_rows(["AIG", "BAC"], 500, first=2))
        items = await client.until("AIG", 501)
        mine = [item for item in items if item["symbol"] == "AIG"]
        assert sum(1 + item["skipped"] for item in mine) == 500
        assert len(mine) < 100


async def test_the_heartbeat_tells_where_the_symbols_are_and_how_the_engine_does(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    async with gateway.client("AIG") as client:
        await client.next("epoch", "heartbeat")
        await publish(make_rows(["AIG", "BAC"], 3))
        await client.until("AIG", 3)
        beat = await client.next("heartbeat")
    assert beat["seqs"] == {"AIG": 3}
    assert beat["epoch"]
    assert "predictions" not in beat  # which is a list wherever it is
    assert list(beat["stages_us"]) == STAGES
    assert beat["stages_us"]["features"] == {"count": 6, "p50": 10.4, "p90": 10.4, "p99": 10.4, "p99.9": 10.4}
    assert (beat["received"], beat["symbols"], beat["clients"], beat["problems"]) == (6, 2, 1, {})


async def test_what_the_engine_repeats_comes_once_and_what_is_missing_is_counted(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    async with gateway.client("*", mode="full") as client:
        await publish(make_rows(["AIG"], 5))
        await publish(make_rows(["AIG"], 5))
        await publish(make_rows(["AIG"], 3, first=4))
        await publish.bytes(b"not a block")
        await publish(make_rows(["AIG"], 2, first=10))
        assert seqs(await client.until("AIG", 11), "AIG") == [1, 2, 3, 4, 5, 6, 10, 11]
    health = await gateway.health()
    assert (health["duplicates"], health["missing"], health["bad"], health["predictions"]) == (7, 3, 1, 8)


def stalled(url: str, **more: Any) -> Any:
    """A connection that takes hardly anything unless somebody reads."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect(("127.0.0.1", port))
    return {"sock": sock, "max_queue": 1, **more}


async def test_a_slow_full_client_is_warned_and_closed_and_nobody_else_notices(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_queue=2000)
    async with (
        gateway.client("*", mode="full", **stalled(gateway.where.feed)) as slow,
        gateway.client("*", mode="full") as quick,
    ):
        for first in range(1, 8001, 500):
            await publish(make_rows(["AIG"], 500, first=first), block_rows=100)
            items = await quick.until("AIG", first + 499)
            assert seqs(items, "AIG") == list(range(first, first + 500))
        await known(gateway, eventually, slow_closes=1)
        messages = await slow.rest()
        got = [item["seq"] for message in messages for item in message.get("predictions", [])]
        assert slow.socket.close_code == 4008
        assert slow.socket.close_reason == f"too slow: 2000 waited; last delivered: AIG seq {got[-1]}"
        assert got == list(range(1, got[-1] + 1))
        assert (await quick.next("heartbeat"))["slow_closes"] == 1


async def test_a_full_client_that_catches_up_in_time_loses_nothing(
    start: Start, publish: Any, make_rows: Any
) -> None:
    gateway = await start(gateway_queue=8000)
    async with gateway.client("*", mode="full", **stalled(gateway.where.feed)) as slow:
        await publish(make_rows(["AIG"], 6000), block_rows=100)
        await asyncio.sleep(1)
        got: list[int] = []
        warned = False
        while not got or got[-1] < 6000:
            message = await slow.next("snapshot", "prediction", "warning")
            warned |= message["type"] == "warning"
            got += [item["seq"] for item in message.get("predictions", [])]
        assert got == list(range(1, 6001))
        assert warned


async def test_a_slow_latest_client_stays_and_gets_what_is_new(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    symbols = [f"S{number}" for number in range(200)]
    async with gateway.client("*", **stalled(gateway.where.feed)) as slow:
        for first in range(1, 101):
            await publish(make_rows(symbols, 1, first=first))
        await known(gateway, eventually, predictions=20_000)
        got = 0
        newest: dict[str, int] = {}
        while newest.get("S7") != 100 or min(newest.values()) < 100:
            for item in await slow.items(1):
                got += 1 + item["skipped"]
                newest[item["symbol"]] = item["seq"]
        assert got == 20_000
    health = await gateway.health()
    assert health["slow_closes"] == 0
    assert health["skipped"] + health["sent"] == 20_000


async def test_a_bad_message_gets_an_error_and_harms_nothing(gateway: Running) -> None:
    async with gateway.client("AIG") as client:
        await client.socket.send("what?")
        assert (await client.next("error"))["code"] == "not_json"
        await client.say(op="subscribe", id=7, symbols=["AIG"], mode="fast")
        error = await client.next("error")
        assert (error["code"], error["id"]) == ("unknown_mode", 7)
        await client.say(op="ping", id=8)
        assert (await client.next("pong"))["id"] == 8
        await client.say(op="list", id=9)
        listed = (await client.next("subscriptions"))["channels"]
        assert listed == {"prediction": {"AIG": {"mode": "latest", "throttle_ms": None}}}


async def test_one_that_sends_too_much_is_closed_and_the_others_stay(gateway: Running) -> None:
    async with gateway.client("AIG") as good, gateway.client("AIG") as big, gateway.client("AIG") as often:
        await big.socket.send("x" * 70_000)
        assert (await big.closed())[0] == 1009
        for number in range(25):
            await often.say(op="ping", id=number)
        assert await often.closed() == (4029, "more than 20 messages a second")
        await good.say(op="ping", id=1)
        await good.next("pong")


async def test_nobody_without_the_token_comes_in(start: Start, publish: Any, make_rows: Any) -> None:
    gateway = await start(feed_token=SecretStr("open-sesame"), first_step_within_s=0.5)
    bearer = {"additional_headers": {"Authorization": "Bearer open-sesame"}}
    async with gateway.client("*", **bearer) as client:
        await publish(make_rows(["AIG"], 1))
        await client.until("AIG", 1)
    async with connect(gateway.where.feed) as socket:
        client = Client(socket)
        await client.next("auth_required")
        await client.say(op="auth", id=1, token="open-sesame")
        assert (await client.next("authenticated"))["id"] == 1
        await client.next("hello")
        await client.say(op="subscribe", symbols=["*"])
        await client.until("AIG", 1)
    async with connect(gateway.where.feed, additional_headers={"Authorization": "Bearer sesame"}) as socket:
        assert (await Client(socket).closed())[0] == 4401
    for first in ({"op": "auth", "token": "sesame"}, {"op": "subscribe", "symbols": ["*"]}, {"op": "auth"}):
        async with connect(gateway.where.feed) as socket:
            await Client(socket).say(**first)
            assert (await Client(socket).next("error"))["code"] == "unauthorised"
            assert (await Client(socket).closed())[0] == 4401
    async with connect(gateway.where.feed) as socket:
        code, reason = await Client(socket).closed()
        assert (code, reason[:20]) == (4401, "no token within 0.5 ")


async def test_a_client_that_subscribes_to_nothing_is_closed(start: Start) -> None:
    gateway = await start(first_step_within_s=0.3)
    async with gateway.client() as idle, gateway.client("AIG") as good:
        assert await idle.closed() == (4408, "no subscription within 0.3 s")
        await good.next("heartbeat")


async def test_a_planned_stop_is_announced(start: Start, publish: Any, make_rows: Any) -> None:
    gateway = await start()
    async with gateway.client("*") as client:
        stopping = asyncio.create_task(gateway.stop())
        assert (await client.next("going_away"))["deadline_ms"] == 1000
        await publish(make_rows(["AIG"], 1))
        await client.until("AIG", 1)  # the feed goes on until the end
        assert await client.closed() == (1001, "the gateway stops")
        await stopping


async def test_plain_http_says_where_the_feed_is(gateway: Running) -> None:
    base = gateway.where.feed.replace("ws://", "http://").removesuffix("/feed")
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/app.js", "/%2e%2e/gateway.py"):
            async with session.get(base + path) as reply:
                assert (reply.status, await reply.text()) == (
                    404,
                    "the feed is at /feed; the page is of `tickloom api`\n",
                )
        async with session.get(f"{gateway.where.telemetry}/metrics") as reply:
            assert "tickloom_feed_clients 0.0" in await reply.text()


async def test_pages_of_other_sites_are_kept_out(start: Start) -> None:
    gateway = await start()
    for origin in ("https://evil.example", "null", "http://evil.example:80"):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(gateway.where.feed, origin=origin)
    # A name that was made to point to this machine.
    port = int(gateway.where.feed.rpartition(":")[2].partition("/")[0])
    with pytest.raises(InvalidStatus, match="403"):
        await connect(f"ws://evil.example:{port}/feed", origin=f"http://evil.example:{port}", host="127.0.0.1")
    for origin in ("http://localhost:3000", "http://127.0.0.1:8080"):
        async with gateway.client("AIG", origin=origin):
            pass


async def test_the_page_of_the_gateways_host_and_those_that_are_named_may_connect(start: Start) -> None:
    gateway = await start(
        feed_token=SecretStr("open-sesame"), gateway_origins="https://desk.example, https://risk.example:8443"
    )
    port = int(gateway.where.feed.rpartition(":")[2].partition("/")[0])

    def go(origin: str, host: str) -> Any:
        token = {"Authorization": "Bearer open-sesame"}
        return connect(f"ws://{host}/feed", origin=origin, host="127.0.0.1", port=port, additional_headers=token)

    for origin, host in (
        ("https://desk.example", "feed.example"),
        ("https://risk.example:8443", "feed.example"),
        ("http://trade.example:8080", "trade.example:8765"),
    ):
        async with go(origin, host) as socket:
            await Client(socket).next("hello")
    for origin in ("https://risk.example", "http://trade.example:8080"):
        with pytest.raises(InvalidStatus, match="403"):
            await go(origin, "feed.example")


async def test_two_gateways_give_the_same(start: Start, publish: Any, make_rows: Any) -> None:
    one, other = await start(), await start()
    async with one.client("*", mode="full") as first, other.client("*", mode="full") as second:
        await publish(make_rows(["AIG"], 50), block_rows=3)
        assert await first.until("AIG", 50) == await second.until("AIG", 50)
        assert (await first.next("heartbeat"))["epoch"] == (await second.next("heartbeat"))["epoch"]


async def test_clients_outlive_the_broker(
    start: Start, tmp_path: Any, make_rows: Any, topic: str, eventually: Any
) -> None:
    with EmbeddedKafka(tmp_path) as broker:
        await make_topic(broker, topic)
        gateway = await start(broker)
        async with gateway.client("*", mode="full") as client:
            await send(broker, topic, make_rows(["AIG"], 5))
            assert seqs(await client.until("AIG", 5), "AIG") == [1, 2, 3, 4, 5]
            await asyncio.to_thread(broker.kill)

            async def told() -> bool:
                return "does not answer" in (await gateway.health())["problems"].get("kafka", "")

            await eventually(told)
            while not (await client.next("heartbeat"))["problems"]:
                pass  # those that came before
            await asyncio.to_thread(broker.restart)
            await send(broker, topic, make_rows(["AIG"], 7))
            assert seqs(await client.until("AIG", 7), "AIG") == [6, 7]
            await known(gateway, eventually, missing=0, status="ok")


async def make_topic(broker: EmbeddedKafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()


async def send(broker: EmbeddedKafka, topic: str, rows: Records) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    await producer.send_and_wait(topic, encode_block(rows), partition=0)
    await producer.stop()


async def test_a_gateway_says_what_it_lacks(kafka: EmbeddedKafka) -> None:
    with pytest.raises(SettingsError, match="needs the setting `kafka`"):
        await run_gateway(Settings(), asyncio.Event())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            await run_gateway(Settings(kafka=kafka.bootstrap, gateway_port=port), asyncio.Event())


async def test_a_restarted_gateway_knows_the_past(start: Start, publish: Any, make_rows: Any) -> None:
    await publish(make_rows(["AIG", "BAC"], 300), block_rows=10)
    gateway = await start()
    async with gateway.client("*", mode="full") as client:
        newest = {item["symbol"]: (item["type"], item["seq"]) for item in await client.items(2)}
        assert newest == {"AIG": ("snapshot", 300), "BAC": ("snapshot", 300)}
        health = await gateway.health()
        assert np.isnan(float(health["stages_us"]["total"].get("p50", "nan")))  # the past is no latency of ours


JWT_KEY = "a-secret-of-more-than-32-characters"


def signed(seconds: float = 60.0, **claims: Any) -> str:
    claims = {"aud": "tickloom", "exp": time.time() + seconds, "channels": ["*"], "symbols": ["*"]} | claims
    return jwt.encode(claims, JWT_KEY, "HS256")


def bearer(token: str) -> Message:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


async def test_a_jwt_shows_what_it_grants_and_no_more(start: Start, publish: Any, make_rows: Any) -> None:
    gateway = await start(feed_jwt_key=SecretStr(JWT_KEY))
    granted = signed(channels=["prediction"], symbols=["A*"])
    async with connect(gateway.where.feed, **bearer(granted)) as socket:
        client = Client(socket)
        assert (await client.next("hello"))["channels"] == ["prediction"]
        await client.say(op="subscribe", id=2, symbols=["*"])
        error = await client.next("error")
        assert (error["code"], error["id"]) == ("forbidden", 2)
        await client.say(op="subscribe", id=3, symbols=["AIG"], channel="tick")
        assert "the channels prediction; not tick" in (await client.next("error"))["message"]
        await client.follow("A*", mode="full")
        await publish(make_rows(["BAC", "AIG"], 3))
        assert {item["symbol"] for item in await client.until("AIG", 3)} == {"AIG"}
        # A token that grants less than what is followed cannot take the place of the other.
        await client.say(op="auth", id=4, token=signed(symbols=["B*"]))
        assert (await client.next("error"))["code"] == "forbidden"
        assert (await client.closed())[0] == 4403
    async with connect(gateway.where.feed, **bearer(signed(channels=[]))) as socket:
        assert (await Client(socket).closed())[0] == 4403


async def test_a_token_that_ends_is_announced_can_be_renewed_and_else_ends_the_connection(start: Start) -> None:
    gateway = await start(feed_jwt_key=SecretStr(JWT_KEY))
    async with (
        gateway.client("*", **bearer(signed(2.0))) as renewed,
        gateway.client("*", **bearer(signed(2.0))) as forgotten,
    ):
        assert (await renewed.next("auth_expiring"))["within_ms"] < 2000
        await renewed.say(op="auth", id=1, token="nonsense")
        assert (await renewed.next("error"))["code"] == "unauthorised"
        await renewed.say(op="auth", id=2, token=signed(60))
        assert (await renewed.next("authenticated"))["expires_ns"] > time.time_ns() + 50_000_000_000
        assert await forgotten.closed() == (4401, "the token's time is over")
        await renewed.say(op="ping", id=3)
        await renewed.next("pong")


async def test_a_throttle_lets_one_through_in_its_time_and_may_be_changed(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    async with gateway.client() as client:
        await client.follow("AIG", mode="throttle", throttle_ms=300)
        for seq in range(1, 101):
            await publish(make_rows(["AIG"], 1, first=seq))
            await asyncio.sleep(0.01)
        messages: list[Message] = []
        while not messages or messages[-1]["predictions"][0]["seq"] < 100:
            messages.append(await client.next("snapshot", "prediction"))
        assert sum(1 + message["predictions"][0]["skipped"] for message in messages) == 100
        sent_ms = [message["send_ns"] / 1e6 for message in messages]
        assert min(np.diff(sent_ms)) > 290
        assert len(messages) >= 3
        await client.follow("AIG", mode="full")
        await publish(make_rows(["AIG"], 50, first=101))
        assert seqs(await client.until("AIG", 150), "AIG") == [100, *range(101, 151)]


async def test_a_binary_client_gets_the_records_themselves(gateway: Running, publish: Any, make_rows: Any) -> None:
    rows = make_rows(["AIG"], 30)
    async with gateway.client("*", mode="full", subprotocols=["tickloom.binary.v1"]) as client:
        assert client.socket.subprotocol == "tickloom.binary.v1"
        await publish(rows, block_rows=10)
        got: list[Records] = []
        while not got or got[-1]["seq"][-1] < 30:
            raw = await client.socket.recv()
            if isinstance(raw, bytes):
                header = np.frombuffer(raw, FEED_HEADER, 1)[0]
                assert (header["magic"], header["channel"], header["has_skipped"]) == (b"TLF1", 1, 0)
                got.append(np.frombuffer(raw, PREDICTION, header["count"], FEED_HEADER.itemsize))
        read = np.concatenate(got)
        for name in ("symbol", "seq", "ref_price", "p_up", "feature_hash", "published_ns"):
            assert (read[name] == rows[name]).all()
        await client.follow("*", mode="latest")
        while not isinstance(raw := await client.socket.recv(), bytes):
            pass
        header = np.frombuffer(raw, FEED_HEADER, 1)[0]
        assert (header["is_snapshot"], header["has_skipped"], header["count"]) == (1, 1, 1)
        assert len(raw) == FEED_HEADER.itemsize + PREDICTION.itemsize + 4


async def test_compression_is_for_who_asks_for_it(gateway: Running, publish: Any, make_rows: Any) -> None:
    asking = f"{gateway.where.feed}?compress=deflate"
    async with gateway.client("*", mode="full") as plain, connect(asking) as socket:
        assert plain.socket.protocol.extensions == []  # the client offered; we do not by default
        client = Client(socket)
        await client.next("hello")
        assert [str(extension.name) for extension in socket.protocol.extensions] == ["permessage-deflate"]
        await client.follow("*", mode="full")
        await publish(make_rows(["AIG"], 900), block_rows=300)
        assert await client.until("AIG", 900) == await plain.until("AIG", 900)


async def test_a_subprotocol_that_nobody_speaks_is_refused_with_words(gateway: Running) -> None:
    with pytest.raises(InvalidStatus, match="400") as caught:
        await connect(gateway.where.feed, subprotocols=["mqtt"])
    assert b"tickloom.json.v1 and tickloom.binary.v1, not mqtt" in caught.value.response.body
    async with gateway.client(subprotocols=["mqtt", "tickloom.json.v1"]) as client:
        assert client.socket.subprotocol == "tickloom.json.v1"


def some_ticks(symbol: str, prices: list[float]) -> Records:
    ticks = empty_ticks(len(prices))
    ticks["symbol"], ticks["kind"], ticks["price"], ticks["size"] = symbol, TickKind.TRADE, prices, 1.0
    ticks["source_seq"] = np.arange(len(prices)) + 1
    ticks["event_ns"] = ticks["recv_ns"] = time.time_ns() + np.arange(len(prices))
    return ticks


async def test_ticks_halts_and_rejections_have_channels_of_their_own(
    gateway: Running, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    name = fresh_name("T")
    ticks = some_ticks(name, [1.5, float("nan"), 2.5])
    ticks["kind"][1] = TickKind.HALT
    await send(kafka, "ticks", ticks[:1])
    async with gateway.client() as client:
        await client.follow(name, channel="halt", mode="full")
        await client.follow(name, channel="tick", mode="full")
        first = (await client.next("snapshot"))["ticks"]
        assert [(tick["kind"], tick["price"], tick["bid"]) for tick in first] == [("trade", 1.5, None)]
        await send(kafka, "ticks", ticks[1:])
        message = await client.next("tick")
        assert [(tick["kind"], tick["price"]) for tick in message["ticks"]] == [("halt", None), ("trade", 2.5)]
        assert message["ticks"][0]["prev"] == first[0]["seq"]
        assert message["ticks"][1]["prev"] == message["ticks"][0]["seq"] == message["ticks"][1]["seq"] - 1
        halt = await client.next("snapshot")
        assert [(halt["channel"], event["event"]) for event in halt["events"]] == [("halt", "halt")]
        assert halt["events"][0]["seq"] == message["ticks"][0]["seq"]
        beat = await client.next("heartbeat")
        assert beat["channels"]["tick"] == {name: message["ticks"][1]["seq"]}
        # What was missed can be had from Kafka and from memory alike.
        resume = {"epoch": beat["epoch"], "seqs": {name: first[0]["seq"]}}
        await client.follow(name, channel="tick", mode="full", resume=resume)
        again = await client.next("tick")
        assert again["ticks"] == message["ticks"]

    rejected = np.zeros(3, REJECTED)
    rejected["tick"], rejected["reason"] = ticks, [Reject.LATE, Reject.LATE, Reject.CROSSED]
    async with gateway.client() as client:
        await client.follow(name, channel="status", mode="full")
        await client.next("epoch")  # the topic is read from now on
        await send(kafka, "ticks.rejected", rejected)
        events = (await client.next("snapshot"))["events"] + (await client.next("status"))["events"]
        details = [(event["event"], event["details"]["reason"], event["details"]["ticks"]) for event in events]
        assert details == [("rejected", "late", 2), ("rejected", "crossed", 1)]
        assert events[1]["prev"] == events[0]["seq"]


async def test_what_happens_to_models_is_told(gateway: Running, kafka: EmbeddedKafka) -> None:
    async with gateway.client() as client:
        await client.follow("*", channel="model", mode="full")
        await client.next("epoch")  # the topics are read from now on
        tripped = np.zeros(2, MODEL_EVENT)
        tripped["kind"], tripped["model_id"], tripped["detail"] = list(ModelEventKind)[:2], 0xAB, b"so it is"
        tripped["value"] = [float("nan"), 7.5]
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        await producer.send_and_wait("models", b'{"version":"v1"}', key=b"champion", partition=0)
        await producer.send_and_wait("models", None, key=b"challenger/ab", partition=0)
        await producer.send_and_wait("model.scores", b"no JSON", key=b"ab", partition=0)
        await producer.send_and_wait("model.scores", b'{"hits":3}', key=b"ab", partition=0)
        await producer.send_and_wait("model.events", encode_block(tripped), partition=0)
        await producer.stop()
        got: dict[str, list[Message]] = {}
        while len(got.get("events", [])) < 2 or len(got) < 4:
            for event in (await client.next("snapshot", "model"))["events"]:
                got.setdefault(event["symbol"], []).append(event)
    assert got["champion"][0]["details"] == {"key": "champion", "version": "v1"}
    assert got["challenger"][0]["details"] == {"key": "challenger/ab", "removed": True}
    assert (got["scores/ab"][0]["event"], got["scores/ab"][0]["details"]["hits"]) == ("scores", 3)
    assert [event["event"] for event in got["events"]] == [kind.name.lower() for kind in list(ModelEventKind)[:2]]
    assert [event["details"]["value"] for event in got["events"]] == [None, 7.5]
    assert got["events"][1]["prev"] == got["events"][0]["seq"]


async def test_a_bar_comes_when_it_is_over(gateway: Running, publish: Any, make_rows: Any) -> None:
    async with gateway.client() as client:
        await client.follow("AIG", channel="bar.1s", mode="full")
        await publish(make_rows(["AIG"], 2999))  # 1 ms apart
        bars = (await client.next("snapshot"))["bars"]
        assert [bars[0][name] for name in ("open", "high", "low", "close")] == [110.0, 119.99, 110.0, 119.99]
        assert (bars[0]["ticks"], bars[0]["last_seq"]) == (1000, 1999)
        await publish(make_rows(["AIG"], 1, first=3000))
        bar = (await client.next("bar.1s"))["bars"][0]
        assert (bar["prev"], bar["seq"], bar["ticks"]) == (bars[0]["seq"], bars[0]["seq"] + 1, 1000)


async def test_two_gateways_share_a_port(start: Start, publish: Any, make_rows: Any) -> None:
    one = await start(gateway_shared_port=True)
    port = int(one.where.feed.rpartition(":")[2].partition("/")[0])
    other = await start(gateway_shared_port=True, gateway_port=port)
    await publish(make_rows(["AIG"], 5))
    clients = 0
    while not (await one.health())["sent"] or not (await other.health())["sent"]:
        async with one.client("AIG", mode="full") as client:
            assert seqs(await client.until("AIG", 5), "AIG")[-1] == 5
        clients += 1
        assert clients < 200  # the kernel spreads connections by their port


async def test_no_more_clients_than_the_limit_come_in(start: Start) -> None:
    gateway = await start(gateway_clients=2)
    async with gateway.client("AIG"), gateway.client("AIG"):
        with pytest.raises(InvalidStatus, match="503"):
            await connect(gateway.where.feed)


async def raw_connection(gateway: Running, *, upgrade: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(gateway.where.feed.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if upgrade:
        writer.write(
            b"GET /feed HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_garbage_of_every_kind_ends_its_own_connection_and_leaves_nothing_behind(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    random = np.random.default_rng(7)
    tasks_before = len(asyncio.all_tasks())
    async with gateway.client("*", mode="full") as good:
        writers = []
        for number in range(60):
            upgrade = number % 3 > 0
            _, writer = await raw_connection(gateway, upgrade=upgrade)
            garbage = random.bytes(int(random.integers(1, 400)))
            if number % 3 == 2:  # frames with lengths that lie, and requests that are cut off
                garbage = bytes([0x81, 0xFF]) + (1 << 40).to_bytes(8, "big") + garbage
            writer.write(garbage)
            writers.append(writer)
        # A handshake that never ends, and a message that trickles in.
        for upgrade, data in ((False, b"GET /feed HT"), (True, bytes([0x01, 0x84, 0, 0, 0, 0, 0x7B]))):
            _, writer = await raw_connection(gateway, upgrade=upgrade)
            writer.write(data)
            writers.append(writer)
        await publish(make_rows(["AIG"], 500), block_rows=50)
        assert seqs(await good.until("AIG", 500), "AIG") == list(range(1, 501))
        for writer in writers:
            writer.close()
        await known(gateway, eventually, clients=1)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before + 6, within_s=15)
