"""Redis ends at the newest prediction whatever happens to it, and says in plain words when it cannot take any."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from exporters.batch import Batch
from exporters.redis_sink import RedisSink, run_redis
from stream.clock import NS_PER_S
from stream.embedded.valkey import EmbeddedValkey
from stream.errors import SettingsError, SinkUnavailable
from stream.records import PREDICTION, Records, decode_block
from stream.settings import Settings


def batch_of(rows: Records, fresh: frozenset[bytes] = frozenset(), epoch: str = "one") -> Batch:
    return Batch(rows, ((0, 0, 0),), epoch, fresh)


def sink_on(server: EmbeddedValkey, prefix: str, **changes: Any) -> RedisSink:
    return RedisSink(**{"url": server.url, "ttl_s": 3600, "stream_maxlen": 1000, "prefix": prefix} | changes)


async def seq_of(client: Redis, prefix: str, symbol: str) -> int:
    return int(await client.hget(f"{prefix}prediction:{symbol}", "seq") or 0)  # type: ignore[misc]


async def stream_pairs(client: Redis, prefix: str) -> list[tuple[bytes, int]]:
    pairs = []
    for _, entry in await client.xrange(f"{prefix}predictions"):
        rows = decode_block(entry[b"block"], PREDICTION)
        assert len(rows) == int(entry[b"count"])
        pairs += list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))
    return pairs


@pytest.fixture
async def client(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    connection = Redis.from_url(valkey.url)
    yield connection
    await connection.aclose()


@pytest.fixture
def prefix(fresh_name: Callable[[str], str]) -> str:
    return fresh_name("tl") + ":"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of this test alone, to be filled, frozen and killed."""
    with EmbeddedValkey(tmp_path) as server:
        yield server


async def test_a_batch_becomes_readable_hashes_with_an_expiry_a_stream_entry_and_messages(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    sink = sink_on(valkey, prefix)
    async with client.pubsub() as channel:
        await channel.subscribe(f"{prefix}prediction:AIG")
        await channel.get_message(timeout=5)
        await sink.write(batch_of(make_rows(["AIG", "BAC"], 3)))
        message = await channel.get_message(timeout=5)
    hashed = await client.hgetall(f"{prefix}prediction:AIG")  # type: ignore[misc]
    assert hashed[b"seq"] == b"3"
    assert hashed[b"ref_price"] == b"100.03"
    assert (hashed[b"p_down"], hashed[b"p_flat"], hashed[b"p_up"]) == (b"0.2", b"0.3", b"0.5")
    assert hashed[b"model_id"] == b"fedcba9876543210"
    assert hashed[b"event_ns"] == b"1700000000003000000"
    assert 3500 < await client.ttl(f"{prefix}prediction:AIG") <= 3600
    assert message is not None
    assert b'"seq":3' in message["data"]
    assert orjson.loads(message["data"])["spread_bps"] == 2.5
    assert await stream_pairs(client, prefix) == [(s, n) for n in (1, 2, 3) for s in (b"AIG", b"BAC")]
    await sink.close()


async def test_the_same_batch_again_changes_nothing(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    sink = sink_on(valkey, prefix)
    batch = batch_of(make_rows(["AIG", "BAC"], 5), frozenset([b"AIG", b"BAC"]))
    for _ in range(3):
        await sink.write(batch)
    assert len(await stream_pairs(client, prefix)) == 10
    await sink.close()


async def test_a_restarted_exporter_appends_only_what_the_stream_does_not_have(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    rows = make_rows(["AIG", "BAC"], 10)
    first = sink_on(valkey, prefix)
    await first.write(batch_of(rows[:12], frozenset([b"AIG", b"BAC"])))
    await first.close()
    second = sink_on(valkey, prefix)
    await second.write(batch_of(rows[4:], frozenset([b"AIG", b"BAC"])))
    await second.close()
    assert sorted(await stream_pairs(client, prefix)) == sorted(
        (symbol, seq) for symbol in (b"AIG", b"BAC") for seq in range(1, 11)
    )


async def test_another_epoch_and_an_engine_that_lost_its_state_replace_what_is_there(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    sink = sink_on(valkey, prefix)
    await sink.write(batch_of(make_rows(["AIG"], 1, first=900)))
    await sink.write(batch_of(make_rows(["AIG"], 1, first=5)))
    assert await seq_of(client, prefix, "AIG") == 900
    restarted = make_rows(["AIG"], 1, first=5)
    restarted["source_offset"] = 901
    await sink.write(batch_of(restarted))
    assert await seq_of(client, prefix, "AIG") == 5
    await sink.write(batch_of(make_rows(["AIG"], 1, first=2), frozenset([b"AIG"]), epoch="two"))
    assert await seq_of(client, prefix, "AIG") == 2
    await sink.close()


async def test_what_seldom_changes_is_right_after_it_did(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    rows = make_rows(["AIG"], 6)
    rows["flags"][2:], rows["model_id"][3:], rows["horizon_ns"][4:] = 8, 7, 5
    sink = sink_on(valkey, prefix)
    for place in range(6):
        await sink.write(batch_of(rows[place : place + 1], epoch="one" if place < 5 else "two"))
        hashed = await client.hgetall(f"{prefix}prediction:AIG")  # type: ignore[misc]
        fields = [hashed[name] for name in (b"seq", b"flags", b"model_id", b"horizon_ns", b"epoch")]
        row = rows[place]
        epoch = b"one" if place < 5 else b"two"
        wanted = [
            b"%d" % row["seq"],
            b"%d" % row["flags"],
            b"%016x" % row["model_id"],
            b"%d" % row["horizon_ns"],
            epoch,
        ]
        assert fields == wanted
    await sink.close()


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_newest_wins_under_shuffled_and_repeated_batches(
    valkey: EmbeddedValkey, fresh_name: Callable[[str], str], make_rows: Any, data: st.DataObject
) -> None:
    prefix = fresh_name("tl") + ":"
    symbols = [f"S{n}" for n in range(data.draw(st.integers(1, 4)))]
    rows = make_rows(symbols, data.draw(st.integers(1, 12)))
    # Maybe the engine lost its state meanwhile: seq begins again, and the ticks behind it are newer.
    again = make_rows(symbols, data.draw(st.integers(0, 3)))
    again["source_offset"] += rows["source_offset"].max()
    rows = np.concatenate([rows, again])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    pieces = [piece for piece in np.split(rows, cuts) if len(piece)]
    order = data.draw(st.lists(st.sampled_from(range(len(pieces))), max_size=8))
    order += data.draw(st.permutations(range(len(pieces))))
    now_ns = int(rows["published_ns"].max()) + data.draw(st.sampled_from([0, 10])) * NS_PER_S
    every = frozenset(rows["symbol"].tolist())
    fresh = [data.draw(st.sampled_from([every, frozenset()])) for _ in pieces]
    sink = sink_on(valkey, prefix, conflate_after_s=5.0, clock=lambda: now_ns)
    async with Redis.from_url(valkey.url) as client:
        for index in order:
            await sink.write(batch_of(pieces[index], frozenset(pieces[index]["symbol"].tolist()) & fresh[index]))
        for symbol in symbols:
            place = await client.hmget(f"{prefix}prediction:{symbol}", ["seq", "source"])  # type: ignore[misc]
            assert place == [b"%d" % rows["seq"][-1], b"0:%d:0" % rows["source_offset"][-1]]
    await sink.close()


async def test_a_backlog_is_conflated_and_the_stream_says_what_it_skipped(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(["AIG", "BAC", "SPY"], 3000)
    now_ns = int(rows["published_ns"].max()) + 5 * NS_PER_S + 1
    sink = sink_on(valkey, prefix, conflate_after_s=5.0, clock=lambda: now_ns)
    await sink.write(batch_of(rows[:6000]))
    await sink.write(batch_of(rows[6000:8997]))
    now_ns -= 1  # caught up
    await sink.write(batch_of(rows[8997:]))
    entries = [entry for _, entry in await client.xrange(f"{prefix}predictions")]
    assert [(int(entry[b"count"]), int(entry[b"skipped"])) for entry in entries] == [(3, 5997), (3, 2994), (3, 0)]
    assert sum(int(entry[b"count"]) + int(entry[b"skipped"]) for entry in entries) == len(rows)
    assert await stream_pairs(client, prefix) == [
        (s, n) for n in (2000, 2999, 3000) for s in (b"AIG", b"BAC", b"SPY")
    ]
    assert await seq_of(client, prefix, "SPY") == 3000
    assert "is 5 s behind" in caplog.records[0].getMessage()
    assert "8991 older predictions were left out" in caplog.records[-1].getMessage()
    await sink.close()


async def test_the_stream_keeps_so_many_batches_and_so_many_predictions(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    sink = sink_on(valkey, prefix, stream_maxlen=300, stream_rows=20_000)
    rows = make_rows(["AIG"], 100_000)
    for number in range(600):
        await sink.write(batch_of(rows[number : number + 1]))
    assert 300 <= await client.xlen(f"{prefix}predictions") <= 400  # Redis trims by a hundred of small entries
    for start in range(1000, 81_000, 200):
        await sink.write(batch_of(rows[start : start + 200]))
    assert 90 <= await client.xlen(f"{prefix}predictions") <= 130
    await sink.close()


async def test_a_big_batch_goes_in_pieces_that_repeat_without_harm(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    rows = np.concatenate([make_rows([f"S{number}" for number in range(3000)], 2), make_rows(["AIG"], 5000)])
    sink = sink_on(valkey, prefix)
    for _ in range(2):
        await sink.write(batch_of(rows))
    entries = [entry for _, entry in await client.xrange(f"{prefix}predictions")]
    # Whoever else asks Redis waits for at most 1,024 hashes at a time.
    assert [int(entry[b"count"]) for entry in entries] == [1024] * 5 + [880 + 3216, 1784]
    assert len(set(await stream_pairs(client, prefix))) == len(rows)
    await sink.close()


async def fill(sink: RedisSink, make_rows: Any) -> None:
    for first in range(1, 200):
        await sink.write(batch_of(make_rows([f"S{n}" for n in range(200)], 1, first=first)))


async def test_a_full_server_is_waited_for(own: EmbeddedValkey, make_rows: Any) -> None:
    sink = sink_on(own, "tl:")
    async with Redis.from_url(own.url) as client:
        await client.config_set("maxmemory", "2mb")
        with pytest.raises(SinkUnavailable, match="is full"):
            await fill(sink, make_rows)
        await client.config_set("maxmemory", "0")
        await sink.write(batch_of(make_rows(["S0"], 1, first=1000)))
        assert await seq_of(client, "tl:", "S0") == 1000
    await sink.close()


async def test_a_wrong_password_is_named_and_not_shown(own: EmbeddedValkey, make_rows: Any) -> None:
    async with Redis.from_url(own.url) as client:
        await client.config_set("requirepass", "right")
    for url in (own.url, own.url.replace("redis://", "redis://:wrong@")):
        sink = sink_on(own, "tl:", url=url)
        with pytest.raises(SinkUnavailable, match="refuses our user or password") as caught:
            await sink.write(batch_of(make_rows(["AIG"], 1)))
        assert "wrong@" not in str(caught.value)
        await sink.close()


async def test_a_frozen_server_is_given_up_soon_and_found_again(own: EmbeddedValkey, make_rows: Any) -> None:
    sink = sink_on(own, "tl:")
    await sink.write(batch_of(make_rows(["AIG"], 1)))
    os.kill(own.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SinkUnavailable, match="does not answer within 1 s"):
            await asyncio.wait_for(sink.write(batch_of(make_rows(["AIG"], 1, first=2))), 4)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    await sink.write(batch_of(make_rows(["AIG"], 1, first=2)))
    async with Redis.from_url(own.url) as client:
        assert await seq_of(client, "tl:", "AIG") == 2
        assert (await stream_pairs(client, "tl:")) == [(b"AIG", 1), (b"AIG", 2)]
    await sink.close()


async def test_a_server_that_comes_back_empty_is_warmed_up(own: EmbeddedValkey, make_rows: Any) -> None:
    sink = sink_on(own, "tl:")
    symbols = [f"S{n}" for n in range(2500)]
    await sink.write(batch_of(make_rows(symbols, 2)))
    await asyncio.to_thread(own.kill)
    with pytest.raises(SinkUnavailable, match="cannot be reached"):
        await sink.write(batch_of(make_rows(["S0"], 1, first=3)))
    for path in (own.home / "appendonlydir").iterdir():
        path.unlink()
    await asyncio.to_thread(own.start)
    await sink.write(batch_of(make_rows(["S0"], 1, first=3)))
    async with Redis.from_url(own.url) as client:
        assert await seq_of(client, "tl:", "S0") == 3
        assert {await seq_of(client, "tl:", symbol) for symbol in symbols[1:]} == {2}
        await client.flushall()
        await sink.check()
        assert await seq_of(client, "tl:", "S0") == 3
        assert await seq_of(client, "tl:", "S2499") == 2
    await sink.close()


async def test_a_key_that_holds_something_else_is_named(
    valkey: EmbeddedValkey, client: Redis, prefix: str, make_rows: Any
) -> None:
    await client.set(f"{prefix}prediction:AIG", "mine")
    sink = sink_on(valkey, prefix)
    with pytest.raises(SinkUnavailable, match="WRONGTYPE"):
        await sink.write(batch_of(make_rows(["AIG"], 1)))
    await sink.close()


async def test_the_exporter_needs_its_addresses() -> None:
    with pytest.raises(SettingsError, match="`kafka` and `redis`"):
        await run_redis(Settings(kafka="127.0.0.1:1"), asyncio.Event())
    with pytest.raises(SettingsError, match="not a Redis URL"):
        await run_redis(Settings(kafka="127.0.0.1:1", redis="redis://host:port"), asyncio.Event())
