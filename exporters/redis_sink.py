"""Redis: the newest prediction of every symbol as a hash, every prediction in a stream, a message for each change.

    tickloom:prediction:SYMBOL   hash with readable fields; the channel of the same name gets it as JSON
    tickloom:predictions         stream; an entry is a block of PREDICTION as in Kafka (`block`), and its `count`
    tickloom:exporter:ID         mark by which a running exporter sees that Redis was emptied

One Lua call writes a batch, or nothing of it, and only what is newer than what is there, so repeating is harmless:

- the hashes always end at the newest prediction, in whatever order batches come;
- the stream gets a batch once when the same batch is tried again (nothing in it is newer then), and after a restart
  of the exporter the rows that the hashes already cover are cut off first. Two members that overlap in a rebalance,
  or a hash that expired, can still repeat a block: readers of the stream drop what they have by (symbol, seq).

The exporter keeps the newest row of each symbol that it saw, and writes them all again when Redis comes back empty.
"""

import asyncio
import logging
import uuid
from importlib.resources import files
from typing import Any, Final

import numpy as np
import orjson
from redis.exceptions import RedisError

from exporters.batch import Batch
from exporters.fields import prediction_fields
from exporters.newest import Newest, last_of_each
from exporters.process import OnReady, run_sink
from exporters.redis_server import PREFIX, RedisServer, prediction_key
from stream.errors import SettingsError, SinkUnavailable
from stream.records import MAX_BLOCK_RECORDS, Records, encode_block
from stream.settings import Settings

logger = logging.getLogger(__name__)

HASH_FIELDS: Final = (
    # The script compares the first three.
    "seq",
    "source_offset",
    "source_index",
    "event_ns",
    "ref_price",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "model_id",
    "horizon_ns",
    "flags",
    "published_ns",
    "source_partition",
)
_SYMBOLS_A_CALL: Final = 1000  # other clients wait while a script runs: about 10 ms for this many
_SCRIPT: Final = (files("exporters") / "redis_if_newer.lua").read_text("utf-8")


class RedisSink:
    """Writes batches to one Redis server."""

    def __init__(self, url: str, ttl_s: int, stream_maxlen: int, prefix: str = PREFIX) -> None:
        """Make the sink; it connects when it is first used.

        Args:
            url: ``redis://[:PASSWORD@]HOST:PORT/DB`` or ``rediss://``.
            ttl_s: a hash expires this long after its last prediction; 0 for never.
            stream_maxlen: how many entries (batches) the stream keeps, roughly.
            prefix: what all keys start with.

        Raises:
            SettingsError: not such a URL.
        """
        self.name = "redis"
        self._server = RedisServer(url)
        self._redis = self._server.client
        self._script = self._redis.register_script(_SCRIPT)
        self._ttl_s, self._stream_maxlen, self._prefix = ttl_s, stream_maxlen, prefix
        self._mark = f"{prefix}exporter:{uuid.uuid4().hex[:12]}"
        self._newest = Newest()
        self._epoch = ""

    async def write(self, batch: Batch) -> None:
        """Bring the hashes to the newest rows and append the blocks to the stream.

        Raises:
            SinkUnavailable: Redis is away, full, or refuses us; nothing or all of a call was done.
        """
        try:
            rows = batch.rows[await self._unknown(batch)] if batch.fresh else batch.rows
            if len(rows) == 0:
                return
            if await self._call("write", batch.epoch, rows, self._frames(rows)) < 0:
                await self._warm()
                await self._call("write", batch.epoch, rows, self._frames(rows))
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error
        self._newest.put(rows)
        self._epoch = batch.epoch

    async def settle(self) -> None:
        """Nothing follows from what was written."""

    async def put_aside(self, batch: Batch, reason: str) -> None:
        """There is no place for it: Kafka has the rows, and the log says which."""

    async def check(self) -> None:
        """Ask whether Redis is there and still has what we wrote; warm it up when it does not.

        Raises:
            SinkUnavailable: it is away or refuses us.
        """
        try:
            if await self._redis.exists(self._mark) == 0:
                await self._warm()
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _warm(self) -> None:
        rows = self._newest.rows()
        if len(rows):
            logger.warning(
                "%s was emptied: writing the newest predictions of %d symbols", self._server.where, len(rows)
            )
        for start in range(0, max(1, len(rows)), _SYMBOLS_A_CALL):
            await self._call("warm", self._epoch, rows[start : start + _SYMBOLS_A_CALL], [])

    async def _call(self, mode: str, epoch: str, rows: Records, frames: list[Any]) -> int:
        keys = [f"{self._prefix}predictions", self._mark]
        arguments: list[Any] = [mode, epoch, self._ttl_s, self._stream_maxlen, len(frames) // 2, *frames]
        arguments.append(" ".join(HASH_FIELDS))
        for fields in prediction_fields(last_of_each(rows)):
            keys.append(prediction_key(self._prefix, fields["symbol"]))
            arguments.append(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
            arguments.append(" ".join([str(fields[name]) for name in HASH_FIELDS]))
        return int(await self._script(keys, arguments))

    def _frames(self, rows: Records) -> list[Any]:
        frames: list[Any] = []
        for start in range(0, len(rows), MAX_BLOCK_RECORDS):
            block = rows[start : start + MAX_BLOCK_RECORDS]
            frames += [len(block), encode_block(block)]
        return frames

    async def _unknown(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows Redis does not have yet, judged by the hashes of the symbols that are fresh to us."""
        symbols = sorted(batch.fresh)
        pipeline = self._redis.pipeline(transaction=False)
        for symbol in symbols:
            key = prediction_key(self._prefix, symbol.decode())
            pipeline.hmget(key, ["seq", "source_offset", "source_index", "epoch"])
        unknown = np.ones(len(batch.rows), bool)
        for symbol, (seq, offset, index, epoch) in zip(symbols, await pipeline.execute(), strict=True):
            if None not in (seq, offset, index) and epoch == batch.epoch.encode():
                rows = batch.rows
                newer = (rows["seq"] > int(seq)) | (rows["source_offset"] > int(offset))
                newer |= (rows["source_offset"] == int(offset)) & (rows["source_index"] > int(index))
                unknown &= newer | (rows["symbol"] != symbol)
        return unknown


async def run_redis(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
    """Export predictions to Redis until ``stop`` is set; then drain and commit.

    Args:
        settings: ``kafka`` and ``redis`` must be set.
        stop: ends it.
        on_ready: told the URL of ``/metrics`` and ``/health``.

    Raises:
        SettingsError: an address is not set.
    """
    if settings.kafka is None or settings.redis is None:
        raise SettingsError("the Redis exporter needs the settings `kafka` and `redis`")
    sink = RedisSink(settings.redis.get_secret_value(), settings.redis_ttl_s, settings.redis_stream_maxlen)
    await run_sink(settings, stop, "redis", sink, max_rows=1, max_age_s=0.0, on_ready=on_ready)
