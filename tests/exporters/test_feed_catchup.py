"""A client that comes back is given what it missed and goes on without a gap, or is told that it cannot."""

import asyncio
import time
from typing import Any

import pytest
from feed_driver import Client, Message, Running, Start, known, seqs

from stream.embedded.kafka import EmbeddedKafka


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


async def epoch_of(gateway: Running) -> str:
    async with gateway.client() as client:
        return str((await client.next("heartbeat"))["epoch"])


async def resume(client: Client, epoch: str, *symbols: str, **last: int) -> list[Message]:
    """Subscribe and resume; return all messages with items up to and with `resumed`."""
    await client.follow(*symbols, mode="full", resume={"epoch": epoch, "seqs": last})
    got: list[Message] = []
    while not got or got[-1]["type"] != "resumed":
        got.append(await client.next("snapshot", "prediction", "reset", "resumed"))
    return got


def items(messages: list[Message]) -> list[Message]:
    return [item | {"type": message["type"]} for message in messages for item in message.get("predictions", [])]


async def test_what_was_missed_comes_from_memory_and_then_it_goes_on_live(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 40))
    await known(gateway, eventually, predictions=80)
    async with gateway.client() as client:
        messages = await resume(client, await epoch_of(gateway), "*", AIG=10)
        # BAC, of which it had nothing, begins with a snapshot; AIG with the next.
        assert seqs(items(messages), "AIG") == list(range(11, 41))
        assert [(i["type"], i["seq"]) for i in items(messages) if i["symbol"] == "BAC"] == [("snapshot", 40)]
        assert {item["type"] for item in items(messages) if item["symbol"] == "AIG"} == {"prediction"}
        assert messages[-1]["seqs"] == {"AIG": 40}
        await publish(make_rows(["AIG"], 3, first=41))
        assert seqs(await client.until("AIG", 43), "AIG") == [41, 42, 43]
        # Nothing was missed: that is no reset either.
        messages = await resume(client, messages[0]["epoch"], "AIG", AIG=43)
        assert [message["type"] for message in messages] == ["resumed"]


async def test_what_memory_no_longer_has_comes_from_kafka_while_the_feed_goes_on(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_memory=1024)
    total, more = 6000, 2000
    await publish(make_rows(["AIG", "BAC"], total), block_rows=25)
    await known(gateway, eventually, predictions=2 * total)
    epoch = await epoch_of(gateway)

    async def go_on() -> None:
        for first in range(total + 1, total + more + 1, 20):
            await publish(make_rows(["AIG", "BAC"], 20, first=first), block_rows=5)
            await asyncio.sleep(0.002)

    async with gateway.client("*", mode="full") as live, gateway.client() as late:
        await live.items(2, "snapshot")
        publishing = asyncio.create_task(go_on())
        messages = await resume(late, epoch, "AIG", "BAC", AIG=3, BAC=5000)
        assert "reset" not in [message["type"] for message in messages]
        got = items(messages)
        await publishing
        end = total + more
        while seqs(got, "AIG")[-1:] != [end] or seqs(got, "BAC")[-1:] != [end]:
            got += await late.items(1)
        assert seqs(got, "AIG") == list(range(4, end + 1))
        assert seqs(got, "BAC") == list(range(5001, end + 1))
        alive = await live.until("AIG", end)
        assert seqs(alive, "AIG") == list(range(total + 1, end + 1))
    assert (await gateway.health())["slow_closes"] == 0
    assert await counted(gateway, 'tickloom_feed_resumes_total{outcome="kafka"}') == 2


async def counted(gateway: Running, name: str) -> float:
    for line in (await gateway.metrics()).splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


@pytest.mark.parametrize(
    ("last", "reason"),
    [({"AIG": 500}, "ahead"), ({"AIG": 7}, "gone"), ({"NONE": 7}, "gone")],
    ids=["newer than what there is", "older than what there is", "of a symbol that never was"],
)
async def test_what_cannot_be_had_is_told_and_begins_with_a_snapshot(
    start: Start, publish: Any, make_rows: Any, eventually: Any, last: dict[str, int], reason: str
) -> None:
    gateway = await start(gateway_memory=1024)
    await publish(make_rows(["AIG"], 50, first=100))
    await known(gateway, eventually, predictions=50)
    async with gateway.client() as client:
        await client.follow("*", resume={"epoch": await epoch_of(gateway), "seqs": last})
        reset = await client.next("reset")
        assert (reset["id"], reset["symbols"], reset["reason"]) == (1, list(last), reason)
        await publish(make_rows(["AIG", "NONE"], 2, first=150))
        got = await client.until("NONE", 151)
        if "AIG" in last:
            assert ("snapshot", 149) in [(item["type"], item["seq"]) for item in got]
        assert [item["type"] for item in got if item["symbol"] == "NONE"] == ["snapshot", "prediction"]


async def test_another_epoch_is_no_place_to_resume_from(gateway: Running, publish: Any, make_rows: Any) -> None:
    await publish(make_rows(["AIG"], 5))
    async with gateway.client("AIG") as client:
        await client.until("AIG", 5)
        await client.follow("AIG", resume={"epoch": "another", "seqs": {"AIG": 3}})
        assert (await client.next("reset"))["reason"] == "epoch"
        assert [item["seq"] for item in (await client.next("snapshot"))["predictions"]] == [5]


async def test_a_replay_begins_at_its_time_and_goes_on_live(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_memory=1024)
    old_ns = time.time_ns()
    await publish(make_rows(["AIG", "BAC"], 700), block_rows=20)
    await asyncio.sleep(1.2)  # Kafka is asked from a second earlier, and rows are judged by their own time
    from_ns = time.time_ns()
    await publish(make_rows(["AIG", "BAC"], 700, first=701), block_rows=20)
    await known(gateway, eventually, predictions=2800)
    for since_ns, first in ((from_ns, 701), (old_ns, 1)):
        async with gateway.client() as client:
            await client.follow("A*", replay_from_ns=since_ns)
            got: list[Message] = []
            while not got or got[-1]["type"] != "replay_completed":
                got.append(await client.next("snapshot", "prediction", "reset", "replay_completed"))
            assert seqs(items(got), "AIG") == list(range(first, 1401))
            assert [item["type"] for item in items(got)][:2] == ["snapshot", "prediction"]
            assert {item["symbol"] for item in items(got)} == {"AIG"}
    async with gateway.client() as client:
        await client.follow("*", replay_from_ns=time.time_ns() + 10**12)
        await client.next("replay_completed")
        await publish(make_rows(["AIG"], 2, first=1401))
        assert [(i["type"], i["seq"]) for i in await client.until("AIG", 1402)] == [
            ("prediction", 1401),
            ("prediction", 1402),
        ]


async def test_who_no_longer_wants_the_past_does_not_get_it(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 50))
    await known(gateway, eventually, predictions=100)
    epoch = await epoch_of(gateway)
    async with gateway.client() as client:
        await client.say(
            op="subscribe",
            symbols=["AIG", "BAC"],
            mode="full",
            resume={"epoch": epoch, "seqs": {"AIG": 1, "BAC": 1}},
        )
        await client.say(op="unsubscribe", id=2, symbols=["AIG"])
        await client.next("unsubscribed")
        resumed = [await client.next("prediction", "resumed") for _ in range(2)]
        if "AIG" not in resumed[-1].get("seqs", {"AIG": 0}):
            assert {item["symbol"] for item in items(resumed)} == {"BAC"}
        await publish(make_rows(["AIG", "BAC"], 2, first=51))
        assert {item["symbol"] for item in await client.until("BAC", 52)} == {"BAC"}


async def test_bars_resume_from_memory_alone(gateway: Running, publish: Any, make_rows: Any) -> None:
    rows = make_rows(["AIG"], 5000)  # 1 ms apart: the bars of seconds 1 to 3 are whole
    await publish(rows)
    async with gateway.client() as client:
        await client.follow("AIG", channel="bar.1s", replay_from_ns=0)
        bars: list[Message] = []
        while not bars or bars[-1]["seq"] < 1_700_000_004:
            message = await client.next("snapshot", "bar.1s")
            bars += message["bars"]
        assert [bar["seq"] for bar in bars] == list(range(1_700_000_001, 1_700_000_005))
        await client.follow(
            "AIG", channel="bar.1s", resume={"epoch": message["epoch"], "seqs": {"AIG": bars[1]["seq"]}}
        )
        again = await client.next("bar.1s")
        assert [(bar["prev"], bar["seq"]) for bar in again["bars"]] == [
            (1_700_000_002, 1_700_000_003),
            (1_700_000_003, 1_700_000_004),
        ]
        await client.next("resumed")
        await client.follow("AIG", channel="bar.1s", resume={"epoch": message["epoch"], "seqs": {"AIG": 5}})
        assert (await client.next("reset"))["reason"] == "gone"


async def test_a_hundred_that_come_back_at_once_miss_nothing(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 300))
    await known(gateway, eventually, predictions=300)
    epoch = await epoch_of(gateway)

    async def come_back(last: int) -> list[int]:
        async with gateway.client() as client:
            return seqs(items(await resume(client, epoch, "AIG", AIG=last)), "AIG")

    got = await asyncio.gather(*(come_back(last) for last in range(100)))
    assert got == [list(range(last + 1, 301)) for last in range(100)]
