"""What a demo achieved, read back from each way out by a plain client of that sink."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from clickhouse_driver import Client

from stream.settings import Settings

_TIMEOUT_S = 10
# What the part that tells what came of predictions says of the model in service.
_MODEL = ("model", "hit_rate", "fallback_hit_rate", "majority_hit_rate", "settled", "rollbacks")


@dataclass(frozen=True)
class Outcome:
    """How many predictions each way out holds."""

    redis_symbols: int
    redis_latest_seq_sum: int  # with a gap-free seq from 1: the number of predictions that it stands for
    clickhouse_rows: int
    clickhouse_distinct: int
    clickhouse_gaps: int

    def as_dict(self) -> dict[str, int]:
        """Return plain numbers."""
        return dict(vars(self))


async def read_outcome(settings: Settings) -> Outcome:
    """Ask Redis and ClickHouse what they hold.

    Raises:
        OSError, redis.RedisError, clickhouse_driver.errors.Error: a sink does not answer.
    """
    symbols, total = await _redis(settings)
    rows, distinct, gaps = await asyncio.to_thread(_clickhouse, settings)
    return Outcome(symbols, total, rows, distinct, gaps)


async def _redis(settings: Settings) -> tuple[int, int]:
    assert settings.redis is not None  # noqa: S101  (the demo has filled it in)
    client = redis.asyncio.Redis.from_url(settings.redis.get_secret_value(), socket_timeout=_TIMEOUT_S)
    async with client:
        keys = [key async for key in client.scan_iter("tickloom:prediction:*", count=1000)]
        seqs = [int(await client.hget(key, "seq") or 0) for key in keys]
    return len(keys), sum(seqs)


def _clickhouse(settings: Settings) -> tuple[int, int, int]:
    assert settings.clickhouse is not None  # noqa: S101
    client = Client.from_url(settings.clickhouse.get_secret_value())
    try:
        # A gap shows as fewer distinct seqs than the highest one of its symbol.
        [(rows, distinct, gaps)] = client.execute(
            "SELECT sum(n), sum(d), sum(top - d) FROM (SELECT count() AS n, uniqExact(seq) AS d, max(seq) AS top "
            "FROM v_predictions GROUP BY symbol)"
        )
    finally:
        client.disconnect()
    return int(rows), int(distinct), int(gaps)


def without_password(url: str) -> str:
    """Return a URL for showing."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"


def summary(
    seconds: float, source: str, healths: dict[str, dict[str, Any]], outcome: Outcome | None, **more: Any
) -> dict[str, Any]:
    """Return the one JSON object that `tickloom demo --json` prints."""
    workers = [health for name, health in healths.items() if name.startswith("worker")]
    ticks: dict[str, int] = {}
    for health in workers:
        for name, count in health.get("ticks", {}).items():
            ticks[name] = ticks.get(name, 0) + count
    return {
        "seconds": round(seconds, 1),
        "source": source,
        "ticks_sent": healths.get("source", {}).get("ticks", 0),
        "ticks": ticks,
        "predictions": sum(health.get("predictions", 0) for health in workers),
        **({} if outcome is None else outcome.as_dict()),
        "model": {name: healths.get("outcomes", {}).get(name) for name in _MODEL},
        "stages_us": healths.get("gateway", {}).get("stages_us", {}),
        **more,
    }
