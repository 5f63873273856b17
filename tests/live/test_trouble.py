"""What goes wrong in production: each trouble is told in plain words and counted, and nothing else stops."""

import asyncio
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from stream.records import HEADER, REJECTED, TickKind, decode_block, empty_ticks, encode_block, partition_of
from stream.topics import REJECTED_TICKS, TICKS

pytestmark = pytest.mark.timeout(420)


def nan_tick() -> Any:
    """A trade without a price, of a symbol of its own."""
    ticks = empty_ticks(1)
    ticks["symbol"], ticks["kind"], ticks["source_seq"] = b"BROKEN", TickKind.TRADE, 1
    return ticks


async def test_garbage_future_versions_bad_prices_and_sinks_that_are_away_or_full_lose_nothing(engine: Any) -> None:
    worker = await engine.start("worker", "worker")
    await engine.start_ways_out()
    source = await engine.start("source", "ingest", "simulator", "--rate", "200")
    await engine.until(lambda: engine.made() > 100, "predictions are made")

    await _bad_messages(engine, worker)
    await _dead_clickhouse(engine)
    await _full_redis(engine)

    os.kill(source.pid, signal.SIGTERM)
    await engine.until(lambda: not source.alive, "the source has stopped")
    sent = source.health["ticks"]
    await engine.until(lambda: engine.made() >= sent, "everything that was sent is predicted")
    made = engine.made()
    outcome = await engine.settled_outcome(made)
    assert outcome.clickhouse_rows == outcome.clickhouse_distinct == outcome.redis_latest_seq_sum == made
    assert outcome.clickhouse_gaps == 0
    assert set(worker.health["ticks"]) == {"accepted", "not_finite"}
    assert all(part.restarts == 0 for part in engine.parts.values())


async def _bad_messages(engine: Any, worker: Any) -> None:
    tick = nan_tick()
    future = bytearray(encode_block(tick))
    future[HEADER.fields["version"][1]] += 1
    number = int(partition_of(tick["symbol"], engine.settings.partitions)[0])
    offset = await engine.send_raw(TICKS, number, b"this is no block of ticks")
    await engine.send_raw(TICKS, number, bytes(future))
    await engine.send_raw(TICKS, number, encode_block(tick))
    await engine.until(lambda: worker.health["ticks"].get("not_finite") == 1, "the tick without a price is counted")
    assert worker.health["blocks"]["BadBlock"] == 1
    assert worker.health["blocks"]["UnknownVersion"] == 1
    assert worker.healthy

    rejected = await engine.read_topic(REJECTED_TICKS)
    raw = next(message for message in rejected if message.value == b"this is no block of ticks")
    headers = dict(raw.headers)
    assert headers["tickloom-source"] == f"{TICKS}[{number}]@{offset}".encode()
    assert b"starts with" in headers["tickloom-error"]
    reasons = [
        int(record["reason"])
        for message in rejected
        if not message.headers
        for record in decode_block(message.value, REJECTED)
    ]
    assert reasons == [1]


async def _dead_clickhouse(engine: Any) -> None:
    part, before = engine.parts["clickhouse"], engine.made()
    await asyncio.to_thread(engine.servers.clickhouse.kill)
    await engine.until(lambda: part.health.get("status") == "failing", "the exporter says that ClickHouse is away")
    assert any("ClickHouse" in problem for problem in part.health["problems"].values())
    await engine.until(lambda: engine.made() > before + 400, "the lanes do not wait for ClickHouse")
    assert engine.parts["redis"].healthy
    await asyncio.to_thread(engine.servers.clickhouse.restart)
    await engine.until(lambda: part.healthy, "the exporter has caught up")


async def _full_redis(engine: Any) -> None:
    part, before = engine.parts["redis"], engine.made()
    async with redis.asyncio.Redis.from_url(engine.settings.redis.get_secret_value()) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1")
        await engine.until(lambda: part.health.get("status") == "failing", "the exporter says that Redis is full")
        assert any("Redis" in problem for problem in part.health["problems"].values())
        await engine.until(lambda: engine.made() > before + 400, "the lanes do not wait for Redis")
        assert engine.parts["clickhouse"].healthy
        await client.config_set("maxmemory", "0")
    await engine.until(lambda: part.healthy, "the exporter has caught up")


async def test_a_model_made_for_other_features_is_refused_with_the_reason(engine: Any, tmp_path: Path) -> None:
    good = engine.settings.model.read_bytes()
    other = good.replace(b"macd_bps", b"macd_xyz")
    model = tmp_path / "model.onnx"
    model.write_bytes(other)
    manifest = engine.settings.model.with_name("model.json").read_text()
    signed = manifest.replace(hashlib.sha256(good).hexdigest(), hashlib.sha256(other).hexdigest())
    assert signed != manifest
    (tmp_path / "model.json").write_text(signed)
    part = await engine.start("worker", "worker", "--model", str(model), ready=False)
    await engine.until(lambda: not part.alive, "the worker refuses to start")
    assert part.exit_code == 4
    assert "macd_xyz" in part.last_lines()
