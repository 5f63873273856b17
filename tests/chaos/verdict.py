"""The oracle: what is everywhere, compared with an undisturbed run. Everything that differs is told in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import redis.asyncio
from clickhouse_driver import Client
from full_client import FullView
from live_engine import Engine
from live_oracle import contents, newest

from agents.lane import LaneOutput
from stream.records import FLAG_WARMING, PREDICTION, REJECTED, Records, decode_block
from stream.settings import Settings
from stream.topics import REJECTED_TICKS

# As `rows_of` gives them.
_CLICKHOUSE = """
SELECT symbol, seq, toUnixTimestamp64Nano(event_time), ref_price, horizon_ns, p_down, p_flat, p_up,
    expected_return_bps, model, warming, feature_hash_hex
FROM v_predictions
"""
_HASH = ("seq", "event_ns", "ref_price", "p_down", "p_flat", "p_up")
_TOLD = 3  # examples of a difference


def rows_of(predictions: Records) -> list[tuple[Any, ...]]:
    """Return the content of predictions as plain values; the last one is the hash of the feature row."""
    return list(
        zip(
            [symbol.decode() for symbol in predictions["symbol"].tolist()],
            *(predictions[name].tolist() for name in ("seq", "event_ns", "ref_price", "horizon_ns")),
            *(predictions[name].tolist() for name in ("p_down", "p_flat", "p_up", "expected_return_bps")),
            [f"{model:016x}" for model in predictions["model_id"].tolist()],
            ((predictions["flags"] & FLAG_WARMING) != 0).tolist(),
            [f"{feature_hash:016x}" for feature_hash in predictions["feature_hash"].tolist()],
            strict=True,
        )
    )


def is_same(what: str, found: Sequence[Any], expected: Sequence[Any]) -> list[str]:
    """Return what is missing in ``found``, what is twice, and what should not be there."""
    have, want = set(found), set(expected)
    told = {
        "missing": want - have,
        "not of the undisturbed run": have - want,
        "more than once": range(len(found) - len(have)),
    }
    return [f"{what}: {len(they)} {how}: {list(they)[:_TOLD]}" for how, they in told.items() if they]


async def judge(engine: Engine, expected: LaneOutput, feed: FullView) -> list[str]:
    """Return everything that is wrong, in words; nothing for an engine that keeps its promises."""
    rows = rows_of(expected.predictions)
    last = newest(expected.predictions)
    outcome = await engine.settled_outcome(len(rows))
    wrong = await _kafka(engine, expected)
    wrong += is_same("ClickHouse", _clickhouse(engine.settings), rows)
    if outcome.clickhouse_gaps:
        wrong.append(f"ClickHouse: {outcome}")
    wrong += await _redis(engine.settings, expected.predictions, last)
    await engine.until(lambda: feed.newest == last, "the WebSocket client has the newest of every symbol")
    return wrong + _feed(feed, rows)


async def _kafka(engine: Engine, expected: LaneOutput) -> list[str]:
    """Repetitions are allowed here, if they are the same to the bit."""
    published = await engine.predictions()
    wrong = is_same("Kafka", list(set(contents(published))), contents(expected.predictions))
    # A tick is known by its symbol and its number in the stream.
    accepted = list(zip(published["symbol"].tolist(), published["seq"].tolist(), strict=True))
    if len(set(accepted)) != len(expected.predictions):
        wrong.append(f"Kafka: {len(set(accepted))} identities for {len(expected.predictions)} accepted ticks")
    messages = await engine.read_topic(REJECTED_TICKS)
    blocks = [decode_block(message.value, REJECTED) for message in messages]
    rejected = np.concatenate([np.zeros(0, REJECTED), *blocks])
    return wrong + is_same("rejected ticks", list(set(_reasons(rejected))), _reasons(expected.rejected))


def _reasons(rejected: Records) -> list[tuple[bytes, int, int]]:
    ticks = rejected["tick"]
    names = ticks["symbol"].tolist(), ticks["source_seq"].tolist(), rejected["reason"].tolist()
    return list(zip(*names, strict=True))


def _clickhouse(settings: Settings) -> list[tuple[Any, ...]]:
    assert settings.clickhouse is not None
    client = Client.from_url(settings.clickhouse.get_secret_value())
    try:
        return [(*row[:10], bool(row[10]), row[11]) for row in client.execute(_CLICKHOUSE)]
    finally:
        client.disconnect()


async def _redis(settings: Settings, predictions: Records, last: dict[str, int]) -> list[str]:
    assert settings.redis is not None
    newest_rows = [row for row in predictions if row["seq"] == last[row["symbol"].decode()]]
    wrong = []
    async with redis.asyncio.Redis.from_url(settings.redis.get_secret_value()) as client:
        for row in newest_rows:
            kept = await client.hgetall(b"tickloom:prediction:" + row["symbol"])
            seen = {name: _number(name, kept) for name in _HASH}
            right = {name: row[name].item() for name in seen}
            if seen != right:
                wrong.append(f"Redis: {row['symbol']!r} is {seen}; right would be {right}")
        entries = await client.xrange("tickloom:predictions")
    blocks = [decode_block(fields[b"block"], PREDICTION) for _, fields in entries]
    others = set(contents(np.concatenate([np.zeros(0, PREDICTION), *blocks]))) - set(contents(predictions))
    if others:
        wrong.append(f"Redis: {len(others)} predictions in the stream are not of the undisturbed run")
    return wrong


def _number(name: str, kept: dict[bytes, bytes]) -> float:
    text = kept.get(name.encode(), b"nan").decode()
    if name in ("seq", "event_ns"):
        return int(text)
    return float(text) if name == "ref_price" else float(np.float32(text))


def _feed(feed: FullView, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    wrong = [f"WebSocket: {what}" for what in feed.broken[:_TOLD]]
    # JSON has the shortest text of a float32; the same text reads back to the same float32.
    seen = [(*c[:5], *(float(np.float32(number)) for number in c[5:9]), *c[9:]) for c in feed.seen.values()]
    others = set(seen) - {row[:-1] for row in rows}
    if others:
        wrong.append(f"WebSocket: {len(others)} are not of the undisturbed run: {list(others)[:_TOLD]}")
    return wrong
