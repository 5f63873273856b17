"""The client beside real gateways on a real broker: what it gives, and what it tells."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from feed_driver import Running, Start, known
from pydantic import SecretStr

from exporters.client import (
    Batch,
    Connected,
    Disconnected,
    Feed,
    FeedRefused,
    Gap,
    Item,
    MessagesLost,
    Position,
    ReplayCompleted,
    Reset,
    Resumed,
)
from stream.embedded.kafka import EmbeddedKafka
from stream.records import REJECTED, Reject, encode_block
from stream.topics import REJECTED_TICKS


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


async def until(feed: Feed, done: Callable[[list[Item]], bool], within_s: float = 20.0) -> list[Item]:
    """Read until what came is enough."""
    items: list[Item] = []
    async with asyncio.timeout(within_s):
        while not done(items):
            items.append(await anext(feed))
    return items


def seqs(items: list[Item], symbol: str) -> list[int]:
    return [
        seq
        for item in items
        if isinstance(item, Batch)
        for seq in item.records["seq"][item.records["symbol"] == symbol.encode()].tolist()
    ]


def has(items: list[Item], kind: type[object]) -> bool:
    return any(isinstance(item, kind) for item in items)


def reaches(symbol: str, seq: int) -> Callable[[list[Item]], bool]:
    return lambda items: seqs(items[-1:], symbol)[-1:] == [seq]


async def test_everything_comes_once_and_in_order(gateway: Running, publish: Any, make_rows: Any) -> None:
    await publish(make_rows(["AIG", "BAC"], 5))
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG", "BAC"], 400, first=6), block_rows=7)
        items = await until(feed, reaches("AIG", 405))
        assert isinstance(items[0], Connected)
        first = seqs(items, "AIG")[0]
        assert seqs(items, "AIG") == list(range(first, 406))
        row = next(item for item in reversed(items) if isinstance(item, Batch)).rows()[-1]
        assert (row["symbol"], row["p_up"], row["model"]) in (
            ("AIG", 0.5, "fedcba9876543210"),
            ("BAC", 0.5, "fedcba9876543210"),
        )


async def test_what_was_missed_while_the_gateway_was_away_comes_when_it_is_back(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start()
    await publish(make_rows(["AIG", "BAC"], 10))
    await known(gateway, eventually, predictions=20)
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("AIG", "B*", mode="full")
        items = await until(feed, lambda items: bool(seqs(items, "AIG") and seqs(items, "BAC")))
        await gateway.stop()
        await publish(make_rows(["AIG", "BAC"], 50, first=11), block_rows=9)
        again = await start(gateway_port=int(gateway.where.feed.split(":")[2].split("/")[0]))
        await publish(make_rows(["AIG", "BAC"], 5, first=61))
        items += await until(
            feed, lambda more: seqs(more, "AIG")[-1:] == seqs(more, "BAC")[-1:] == [65] and has(more, Resumed)
        )
        assert seqs(items, "AIG") == seqs(items, "BAC") == list(range(10, 66))
        kinds = [type(item) for item in items if not isinstance(item, Batch)]
        assert kinds == [Connected, Disconnected, Connected, Resumed]
        assert again.where.feed == gateway.where.feed


async def test_a_gateway_that_stops_is_left_for_another_of_the_same_port_without_a_gap(
    start: Start, publish: Any, make_rows: Any
) -> None:
    one = await start(gateway_shared_port=True)
    port = int(one.where.feed.split(":")[2].split("/")[0])
    other = await start(gateway_shared_port=True, gateway_port=port)
    async with Feed(one.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG"], 5))
        items = await until(feed, reaches("AIG", 5))
        chosen = one if (await one.health())["clients"] else other  # the kernel chooses
        going = asyncio.create_task(chosen.stop())
        for seq in range(6, 106):
            await publish(make_rows(["AIG"], 1, first=seq))
        items += await until(feed, reaches("AIG", 105))
        await going
        await publish(make_rows(["AIG"], 1, first=106))
        items += await until(feed, reaches("AIG", 106))
        assert seqs(items, "AIG") == list(range(1, 107))
        # It went over before the first was closed: nobody had to be told. A gateway that is behind the one that
        # left has nothing to resume; what it brings that came already is left out.
        kinds = [type(item) for item in items if not isinstance(item, Batch)]
        assert kinds in ([Connected, Connected, Resumed], [Connected, Connected])


async def test_of_two_gateways_each_message_comes_once_and_one_may_go(
    start: Start, publish: Any, make_rows: Any
) -> None:
    one, other = await start(), await start()
    async with Feed(one.where.feed, other.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG", "BAC"], 300), block_rows=3)
        items = await until(feed, reaches("AIG", 300))
        await one.stop()
        await publish(make_rows(["AIG", "BAC"], 300, first=301), block_rows=3)
        items += await until(feed, reaches("AIG", 600))
        assert seqs(items, "AIG") == list(range(1, 601))
        assert feed.stats.duplicates > 0
        assert {item.url for item in items if isinstance(item, Batch)} <= {one.where.feed, other.where.feed}


async def test_a_reader_that_takes_its_time_costs_bounded_memory_and_still_gets_everything(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_queue=2000)
    async with Feed(gateway.where.feed, queue_records=500) as feed:
        await feed.subscribe("*", mode="full")
        for first in range(1, 40_001, 4000):
            await publish(make_rows(["AIG"], 4000, first=first), block_rows=250)
        await known(gateway, eventually, slow_closes=1)
        items = await until(feed, reaches("AIG", 40_000))
        assert seqs(items, "AIG") == list(range(1, 40_001))
        assert sum(feed.stats.closes.values()) >= 1  # 4008, where its close was read before it was cut off
        assert Reset not in {type(item) for item in items}


async def test_a_replay_begins_at_its_time_and_a_position_is_gone_on_from(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 500), block_rows=20)
    await known(gateway, eventually, predictions=1000)
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("AIG", mode="full", replay_from_ns=0)
        items = await until(feed, lambda items: has(items, ReplayCompleted))
        assert seqs(items, "AIG") == list(range(1, 501))
        position = feed.position()
    assert position is not None
    assert position.seqs == {"AIG": 500}
    await publish(make_rows(["AIG", "BAC"], 20, first=501))
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full", resume=position)
        items = await until(feed, reaches("AIG", 520))
        assert seqs(items, "AIG") == list(range(501, 521))
        assert not any(has(items, kind) for kind in (Reset, Gap))
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full", resume=Position("another", {"AIG": 500}))
        items = await until(feed, reaches("AIG", 520))
        assert Reset("prediction", ("AIG",), "epoch") in items


async def test_more_symbols_than_a_request_can_name_are_resumed_by_time(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start()
    symbols = [f"S{number}" for number in range(2500)]
    await publish(make_rows(symbols, 2))
    await known(gateway, eventually, predictions=5000)
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        items = await until(feed, lambda items: sum(len(i) for i in items if isinstance(i, Batch)) == 2500)
        await gateway.stop()
        await publish(make_rows(symbols, 2, first=3))
        await start(gateway_port=int(gateway.where.feed.split(":")[2].split("/")[0]))
        items += await until(feed, lambda items: has(items, Resumed))
        batches = [item for item in items if isinstance(item, Batch)]
        assert sum(map(len, batches)) == 7500
        assert seqs(items, "S0") == seqs(items, "S2499") == [2, 3, 4]
        assert not any(has(items, kind) for kind in (Reset, Gap))


async def test_modes_change_while_it_runs_and_what_is_let_go_does_not_come(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("AIG", "BAC", mode="full")
        await publish(make_rows(["AIG", "BAC"], 3))
        await until(feed, reaches("AIG", 3))
        feed.unsubscribe("BAC")
        await feed.subscribe("AIG", mode="latest")
        await publish(make_rows(["BAC", "AIG"], 500, first=4))
        items = await until(feed, reaches("AIG", 503))
        assert seqs(items, "BAC") == []
        latest = [item for item in items if isinstance(item, Batch) and item.skipped is not None]
        assert sum(len(item) + int(item.skipped.sum()) for item in latest) >= 500
        await feed.subscribe("AIG", mode="full")
        await publish(make_rows(["AIG"], 50, first=504))
        items = await until(feed, reaches("AIG", 553))
        assert seqs(items, "AIG") == list(range(503, 554))


async def test_events_come_as_records_and_as_rows(gateway: Running, kafka: EmbeddedKafka) -> None:
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", channel="status", mode="full")
        rejected = np.zeros(3, REJECTED)
        rejected["tick"]["symbol"], rejected["reason"] = b"AIG", Reject.LATE
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        await producer.send_and_wait(REJECTED_TICKS, encode_block(rejected), partition=0)
        await producer.stop()
        items = await until(feed, lambda items: has(items, Batch))
        rows = next(item for item in items if isinstance(item, Batch)).rows()
        assert (rows[0]["symbol"], rows[0]["event"], rows[0]["details"]["ticks"]) == ("AIG", "rejected", 3)


async def test_who_is_refused_is_told_why(start: Start) -> None:
    gateway = await start(feed_token=SecretStr("open-sesame"))
    for token, why in (("sesame", "4401"), (None, "unauthorised")):
        async with Feed(gateway.where.feed, token=token) as feed:
            with pytest.raises(FeedRefused, match=why):
                await asyncio.wait_for(feed.subscribe("*"), 20)
            with pytest.raises(FeedRefused, match=why):
                await until(feed, lambda _: False)
    async with Feed(gateway.where.feed, token="open-sesame") as feed:
        with pytest.raises(FeedRefused, match="bad_symbol"):
            await feed.subscribe("two words")
        with pytest.raises(FeedRefused, match="bad_request"):
            await feed.subscribe("*", mode="latest", replay_from_ns=1)
        await asyncio.wait_for(feed.subscribe("*"), 20)
    async with Feed(gateway.where.feed.replace("/feed", "/elsewhere"), token="open-sesame") as feed:
        with pytest.raises(FeedRefused, match="404"):
            await asyncio.wait_for(feed.subscribe("*"), 20)


async def test_a_token_is_renewed_before_it_ends(start: Start, publish: Any, make_rows: Any) -> None:
    key = "k" * 40
    gateway = await start(feed_jwt_key=SecretStr(key))
    given = 0

    async def token() -> str:
        nonlocal given
        given += 1
        claims = {"aud": "tickloom", "exp": time.time() + 2, "channels": ["prediction"], "symbols": ["AIG"]}
        return jwt.encode(claims, key, "HS256")

    async with Feed(gateway.where.feed, token=token) as feed:
        await feed.subscribe("AIG", mode="full")
        with pytest.raises(FeedRefused, match="forbidden"):
            await feed.subscribe("BAC")
        await asyncio.sleep(3)
        await publish(make_rows(["AIG"], 3))
        items = await until(feed, reaches("AIG", 3))
        assert seqs(items, "AIG") == [1, 2, 3]
        assert (given >= 3, feed.stats.closes) == (True, {})


async def test_a_callback_is_called_with_every_item(gateway: Running, publish: Any, make_rows: Any) -> None:
    got: list[Item] = []
    async with Feed(gateway.where.feed) as feed:

        async def take(item: Item) -> None:
            got.append(item)
            if reaches("AIG", 9)(got):
                done.set()

        done = asyncio.Event()
        running = asyncio.create_task(feed.run(take))
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG"], 9))
        await asyncio.wait_for(done.wait(), 20)
    await asyncio.wait_for(running, 5)
    assert seqs(got, "AIG") == list(range(1, 10))


async def test_a_gap_of_the_engine_stops_who_reads_only_batches(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG"], 3))
        await publish(make_rows(["AIG"], 3, first=10))
        got: list[int] = []

        async def read() -> None:
            async for batch in feed.batches():
                got.extend(batch.records["seq"].tolist())

        with pytest.raises(MessagesLost) as lost:
            await read()
        assert (got, lost.value.item) == ([1, 2, 3], Gap("prediction", "AIG", 3, 10))
        async for batch in feed.batches():
            got += batch.records["seq"].tolist()
            if got[-1] == 12:
                break
        assert got == [1, 2, 3, 10, 11, 12]


async def test_the_example_of_the_documentation_runs_as_it_stands(
    gateway: Running, publish: Any, make_rows: Any
) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "feed.md").read_text("utf-8")
    (example,) = [part.partition("```")[0] for part in page.split("```python\n")[1:] if "exporters.client" in part]
    assert len([line for line in example.splitlines() if line]) <= 10
    example = example.replace("ws://127.0.0.1:8765/feed", gateway.where.feed)
    process = await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", example, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    try:
        await publish(make_rows(["AIG"], 3))
        line = await asyncio.wait_for(process.stdout.readline(), 20)
    finally:
        process.kill()
        _, errors = await process.communicate()
    assert (line.split()[0], errors) == (b"AIG", b"")


def test_it_is_there_at_once_without_the_engine() -> None:
    heavy = (
        "aiokafka",
        "faust",
        "numba",
        "onnxruntime",
        "aiohttp",
        "prometheus_client",
        "pandas",
        "clickhouse_driver",
    )
    ours = ("exporters.gateway", "exporters.feed_session", "exporters.feed_client", "exporters.feed_tail")
    script = f"import exporters.client, sys\nprint(*(name for name in {heavy + ours!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


async def test_a_terminal_can_listen(start: Start, publish: Any, make_rows: Any, eventually: Any) -> None:
    gateway = await start(feed_token=SecretStr("open-sesame"))
    await publish(make_rows(["AIG", "BAC"], 20))
    await known(gateway, eventually, predictions=40)
    argv = ["-m", "stream", "listen", "A*", "--feed", gateway.where.feed, "--json", "--from", "1h", "--count", "15"]

    async def run(token: str) -> tuple[int | None, bytes, bytes]:
        environment = os.environ | {"TICKLOOM_FEED_TOKEN": token}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, stdout=PIPE, stderr=PIPE, env=environment
        )
        out, errors = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode, out, errors

    code, out, errors = await run("open-sesame,other")
    rows = [orjson.loads(line) for line in out.splitlines()]
    assert (code, errors) == (0, b"")
    assert [(row["symbol"], row["seq"]) for row in rows] == [("AIG", seq) for seq in range(1, 16)]
    code, out, errors = await run("wrong")
    assert (code, out) == (1, b"")
    assert b"tickloom: ws://" in errors
    assert b"4401" in errors


async def test_a_listener_that_is_interrupted_ends_quietly(gateway: Running, publish: Any, make_rows: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stream", "listen", "*", "--feed", gateway.where.feed), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    await publish(make_rows(["AIG"], 3))
    assert b"AIG" in await asyncio.wait_for(process.stdout.readline(), 20)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, errors) == (0, b"")
