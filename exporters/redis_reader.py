"""Reads the newest predictions that the exporter keeps in Redis: a cache for whoever must answer at once."""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from redis.exceptions import RedisError

from exporters.redis_server import PREFIX, RedisServer, as_text, prediction_key
from stream.errors import SinkUnavailable

_AT_ONCE: Final = 1000  # keys of a round trip: a few milliseconds of the server's time
# What a name of a symbol may have that means something in a pattern of Redis.
_MAGIC: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\^"})


class LatestPrediction(TypedDict):
    """A hash of the exporter, as numbers."""

    symbol: str
    seq: int
    epoch: str  # within which seq counts
    event_ns: int
    published_ns: int  # subtract it from now to know how old this is
    ref_price: float
    horizon_ns: int
    p_down: float
    p_flat: float
    p_up: float
    expected_return_bps: float
    model_id: str  # 16 hexadecimal digits
    flags: int
    source_partition: int
    source_offset: int
    source_index: int


class RedisReader:
    """Reads from one Redis server. Any number of tasks may use one reader."""

    def __init__(self, url: str, prefix: str = PREFIX) -> None:
        """Make the reader; it connects when it is first used.

        Args:
            url: as the setting ``redis``.
            prefix: what all keys start with.

        Raises:
            SettingsError: not a Redis URL.
        """
        self._server, self._prefix = RedisServer(url), prefix

    async def latest(self, symbols: Sequence[str]) -> dict[str, LatestPrediction]:
        """Return the newest prediction of each of ``symbols`` that Redis has one of. Cancelling it is safe.

        Raises:
            SinkUnavailable: Redis is away or refuses us.
        """
        found: dict[str, LatestPrediction] = {}
        try:
            for start in range(0, len(symbols), _AT_ONCE):
                some = symbols[start : start + _AT_ONCE]
                pipeline = self._server.client.pipeline(transaction=False)
                for symbol in some:
                    pipeline.hgetall(prediction_key(self._prefix, symbol))
                for symbol, fields in zip(some, await pipeline.execute(), strict=True):
                    if fields:
                        found[symbol] = _as_numbers(symbol, {as_text(k): as_text(v) for k, v in fields.items()})
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error
        return found

    async def symbols(self, start: str = "") -> list[str]:
        """Return the symbols that Redis has a prediction of and that begin with ``start``, sorted.

        It looks at every key of the database (SCAN, a thousand at a time, which holds nobody up): give tickloom a
        database or a server of its own. Cancelling it is safe.

        Raises:
            SinkUnavailable: Redis is away or refuses us.
        """
        head = prediction_key(self._prefix, "")
        pattern = f"{head.translate(_MAGIC)}{start.translate(_MAGIC)}*"
        found: set[str] = set()
        try:
            async for key in self._server.client.scan_iter(match=pattern, count=_AT_ONCE):
                found.add(as_text(key).removeprefix(head))
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error
        return sorted(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()


def _as_numbers(symbol: str, fields: Mapping[str, str]) -> LatestPrediction:
    partition, offset, index = map(int, fields["source"].split(":"))
    return {
        "symbol": symbol,
        "seq": int(fields["seq"]),
        "epoch": fields["epoch"],
        "event_ns": int(fields["event_ns"]),
        "published_ns": int(fields["published_ns"]),
        "ref_price": float(fields["ref_price"]),
        "horizon_ns": int(fields["horizon_ns"]),
        "p_down": float(fields["p_down"]),
        "p_flat": float(fields["p_flat"]),
        "p_up": float(fields["p_up"]),
        "expected_return_bps": float(fields["expected_return_bps"]),
        "model_id": fields["model_id"],
        "flags": int(fields["flags"]),
        "source_partition": partition,
        "source_offset": offset,
        "source_index": index,
    }
