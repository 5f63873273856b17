"""The feed over real sockets and a real broker: what desks get, what becomes of those who misbehave, the page."""

import asyncio
import socket
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from feed_driver import PARTITIONS, Client, Running, Start, known, seqs
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from exporters.gateway import run_gateway
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import Records, encode_block
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
    assert list(beat["stages_us"]) == STAGES
    assert beat["stages_us"]["features"] == {"count": 6, "p50": 10.4, "p90": 10.4, "p99": 10.4, "p99.9": 10.4}
    assert (beat["predictions"], beat["symbols"], beat["clients"], beat["problems"]) == (6, 2, 1, {})


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


async def test_the_page_is_served_with_its_files_and_loads_nothing_from_elsewhere(gateway: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for path, kind in (("", "text/html"), ("app.js", "text/javascript"), ("style.css", "text/css")):
            async with session.get(gateway.where.page + path) as reply:
                assert (reply.status, reply.content_type) == (200, kind)
                assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'; connect-src 'self'")
                assert "https://" not in await reply.text()
        for path in ("nothing", "../gateway.py", "%2e%2e/gateway.py", "index.html"):
            async with session.get(gateway.where.page + path) as reply:
                assert reply.status == 404
        async with session.get(f"{gateway.where.telemetry}/metrics") as reply:
            assert "tickloom_feed_clients 0.0" in await reply.text()


async def test_pages_of_other_sites_are_kept_out(start: Start) -> None:
    gateway = await start()
    for origin in ("https://evil.example", "null", "http://evil.example:80"):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(gateway.where.feed, origin=origin)
    # A name that was made to point to this machine.
    with pytest.raises(InvalidStatus, match="403"):
        await connect(gateway.where.feed, origin="http://evil.example", additional_headers={"Host": "evil.example"})
    for origin in ("http://localhost:3000", gateway.where.page.rstrip("/")):
        async with gateway.client("AIG", origin=origin):
            pass


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
