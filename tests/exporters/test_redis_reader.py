"""The reader of Redis, on a real Valkey that the exporter wrote to."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from exporters.batch import Batch
from exporters.redis_reader import RedisReader
from exporters.redis_sink import RedisSink
from stream.embedded.valkey import EmbeddedValkey
from stream.errors import SettingsError, SinkUnavailable


@pytest.fixture
def prefix(fresh_name: Callable[[str], str]) -> str:
    return fresh_name("tl") + ":"


@pytest.fixture
async def sink(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[RedisSink]:
    made = RedisSink(valkey.url, 3600, 1000, prefix)
    yield made
    await made.close()


@pytest.fixture
async def reader(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[RedisReader]:
    made = RedisReader(valkey.url, prefix)
    yield made
    await made.close()


async def test_it_reads_the_numbers_that_were_written(sink: RedisSink, reader: RedisReader, make_rows: Any) -> None:
    rows = make_rows([f"S{number}" for number in range(1500)], 2)
    await sink.write(Batch(rows, ((0, 0, 0),), "one"))
    found = await reader.latest(["S0", "S1499", "NONE"])
    assert set(found) == {"S0", "S1499"}
    newest = rows[-1]
    assert found["S1499"] == {
        "symbol": "S1499",
        "epoch": "one",
        "model_id": "fedcba9876543210",
        **{name: newest[name].item() for name in ("seq", "event_ns", "published_ns", "horizon_ns", "flags")},
        **{name: newest[name].item() for name in ("source_partition", "source_offset", "source_index")},
        "ref_price": 100.02,
        "p_down": 0.2,
        "p_flat": 0.3,
        "p_up": 0.5,
        "expected_return_bps": 0.25,
    }
    assert len(await reader.latest([f"S{number}" for number in range(1500)])) == 1500


async def test_it_lists_symbols_by_how_they_begin(sink: RedisSink, reader: RedisReader, make_rows: Any) -> None:
    await sink.write(Batch(make_rows(["AIG", "AIG*", "A[I]", "BAC"], 1), ((0, 0, 0),), "one"))
    assert await reader.symbols() == ["AIG", "AIG*", "A[I]", "BAC"]
    assert await reader.symbols("AIG") == ["AIG", "AIG*"]
    assert await reader.symbols("AIG*") == ["AIG*"]
    assert await reader.symbols("A[") == ["A[I]"]


async def test_trouble_is_told_in_words(valkey: EmbeddedValkey, prefix: str) -> None:
    with pytest.raises(SettingsError, match="not a Redis URL"):
        RedisReader("redis://host:port")
    away = RedisReader("redis://127.0.0.1:1/0")
    with pytest.raises(SinkUnavailable, match="cannot be reached"):
        await away.latest(["AIG"])
    with pytest.raises(SinkUnavailable, match="cannot be reached"):
        await away.symbols()
    await away.close()
    async with Redis.from_url(valkey.url) as client:
        await client.set(f"{prefix}prediction:AIG", "mine")
    reader = RedisReader(valkey.url, prefix)
    with pytest.raises(SinkUnavailable, match="WRONGTYPE"):
        await reader.latest(["AIG"])
    await reader.close()
