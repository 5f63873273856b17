"""Redis: the newest prediction of every symbol as a hash, every prediction in a stream, a message for each change.

    tickloom:prediction:SYMBOL   hash with readable fields; the channel of the same name gets it as JSON
    tickloom:predictions         stream; an entry is a block of PREDICTION as in Kafka
    tickloom:exporter:ID         mark by which a running exporter sees that Redis was emptied

docs/redis.md has it for readers. One Lua call writes a block with its hashes, or nothing of it, and only what is
newer than what is there, so repeating is harmless:

- the hashes always end at the newest prediction, in whatever order batches come;
- the stream gets a batch once when the same batch is tried again (nothing in it is newer then), and after a restart
  of the exporter the rows that the hashes already cover are cut off first. Two members that overlap in a rebalance,
  or a hash that expired, can still repeat a block: readers of the stream drop what they have by (symbol, seq).

After an outage what is old is conflated: of each batch only the newest row of every symbol is written, and the
stream says how many were left out. The exporter keeps the newest row of each symbol that it saw, and writes all of
them again when Redis comes back empty.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from exporters.batch import Batch
from exporters.fields import HASH_FIELDS, prediction_texts
from exporters.newest import Newest, last_of_each
from exporters.process import OnReady, run_sink
from exporters.redis_server import PREFIX, RedisServer, prediction_key
from stream.clock import NS_PER_S, Clock, wall_ns
from stream.errors import SettingsError, SinkUnavailable
from stream.records import MAX_BLOCK_RECORDS, Records, encode_block
from stream.settings import Settings

logger = logging.getLogger(__name__)

# Other clients wait while a script runs: about 20 us a symbol.
_SYMBOLS_A_CALL: Final = 1024
_REMEMBERED_ENTRIES: Final = 100
_SCRIPT: Final = (files("exporters") / "redis_if_newer.lua").read_text("utf-8")


class RedisSink:
    """Writes batches to one Redis server."""

    def __init__(
        self,
        url: str,
        ttl_s: int,
        stream_maxlen: int,
        prefix: str = PREFIX,
        stream_rows: int = 500_000,
        conflate_after_s: float = 0.0,
        clock: Clock = wall_ns,
    ) -> None:
        """Make the sink; it connects when it is first used.

        Args:
            url: as the setting ``redis``.
            ttl_s: a hash expires this long after its last prediction; 0 for never.
            stream_maxlen: how many entries the stream keeps, roughly ...
            prefix: what all keys start with.
            stream_rows: ... and how many predictions, going by how many there were in each of the last entries.
            conflate_after_s: of batches older than this only the newest of each symbol is written; 0 for none.
            clock: ns since 1970 UTC, by which batches are old.

        Raises:
            SettingsError: not a Redis URL.
        """
        self.name = "redis"
        self._server = RedisServer(url)
        self._script = self._server.client.register_script(_SCRIPT)
        self._ttl_s, self._prefix = ttl_s, prefix
        self._stream_maxlen, self._stream_rows, self._rows_an_entry = stream_maxlen, stream_rows, 1.0
        self._conflate_after_ns, self._clock = int(conflate_after_s * NS_PER_S), clock
        self._mark = f"{prefix}exporter:{uuid.uuid4().hex[:12]}"
        self._newest = Newest()
        self._epoch = ""
        self._behind = False
        self._skipped = 0

    async def write(self, batch: Batch) -> None:
        """Bring the hashes to the newest rows and append the blocks to the stream.

        Raises:
            SinkUnavailable: Redis is away, full, or refuses us; nothing or all of a call was done.
        """
        try:
            rows = batch.rows[await self._unknown(batch)] if batch.fresh else batch.rows
            kept = last_of_each(rows) if self._is_old(rows) else rows
            skipped = len(rows) - len(kept)
            for number, block in enumerate(_blocks(kept)):
                await self._write_block(batch.epoch, block, skipped if number == 0 else 0)
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error
        self._skipped += skipped
        if len(kept):
            self._newest.put(kept)
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
            if await self._server.client.exists(self._mark) == 0:
                await self._warm()
        except (RedisError, OSError) as error:
            raise SinkUnavailable(self._server.explain(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    def _is_old(self, rows: Records) -> bool:
        if len(rows) == 0 or self._conflate_after_ns == 0:
            return False
        age_ns = self._clock() - int(rows["published_ns"].max())
        if age_ns > self._conflate_after_ns and not self._behind:
            self._behind, self._skipped = True, 0
            text = (
                "%s is %.0f s behind: only the newest predictions of each batch are written until it has caught up"
            )
            logger.warning(text, self._server.where, age_ns / NS_PER_S)
        elif age_ns <= self._conflate_after_ns and self._behind:
            self._behind = False
            text = "%s has caught up; %d older predictions were left out, as its stream says"
            logger.warning(text, self._server.where, self._skipped)
        return self._behind

    async def _write_block(self, epoch: str, rows: Records, skipped: int) -> None:
        self._rows_an_entry += (len(rows) - self._rows_an_entry) / _REMEMBERED_ENTRIES
        if await self._call("write", epoch, rows, skipped) < 0:
            await self._warm()
            await self._call("write", epoch, rows, skipped)

    async def _warm(self) -> None:
        rows = self._newest.rows()
        if len(rows):
            text = "%s was emptied: writing the newest predictions of %d symbols"
            logger.warning(text, self._server.where, len(rows))
        for start in range(0, max(1, len(rows)), _SYMBOLS_A_CALL):
            await self._call("warm", self._epoch, rows[start : start + _SYMBOLS_A_CALL], 0)

    async def _call(self, mode: str, epoch: str, rows: Records, skipped: int) -> int:
        keys = [f"{self._prefix}predictions", self._mark]
        block = encode_block(rows) if mode == "write" else b""
        maxlen = min(self._stream_maxlen, int(self._stream_rows / self._rows_an_entry) + 1)
        arguments: list[Any] = [mode, epoch, self._ttl_s, maxlen, len(rows), skipped, block]
        arguments.append(" ".join(HASH_FIELDS))
        last = last_of_each(rows)
        head = prediction_key(self._prefix, "")
        keys += [head + symbol for symbol in last["symbol"].astype("U").tolist()]
        for message, values in zip(*prediction_texts(last), strict=True):
            arguments += (message, values)
        return int(await self._script(keys, arguments))

    async def _unknown(self, batch: Batch) -> NDArray[np.bool_]:
        """Which rows Redis does not have yet, judged by the hashes of the symbols that are fresh to us."""
        symbols, rows = sorted(batch.fresh), batch.rows
        pipeline = self._server.client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hmget(prediction_key(self._prefix, symbol.decode()), ["epoch", "seq", "source"])
        unknown = np.ones(len(rows), bool)
        for symbol, (epoch, seq, source) in zip(symbols, await pipeline.execute(), strict=True):
            if epoch == batch.epoch.encode() and seq is not None and source is not None:
                partition, offset, index = map(int, source.split(b":"))
                newer = rows["source_offset"] > offset
                newer |= (rows["source_offset"] == offset) & (rows["source_index"] > index)
                newer = np.where(rows["source_partition"] == partition, newer, rows["seq"] > int(seq))
                unknown &= newer | (rows["symbol"] != symbol)
        return unknown


def _blocks(rows: Records) -> Iterator[Records]:
    """Cut rows so that each piece is a block, of up to _SYMBOLS_A_CALL symbols."""
    while len(rows):
        block = rows[:MAX_BLOCK_RECORDS]
        if len(block) > _SYMBOLS_A_CALL:
            firsts = np.sort(np.unique(block["symbol"], return_index=True)[1])
            block = block[: firsts[_SYMBOLS_A_CALL]] if len(firsts) > _SYMBOLS_A_CALL else block
        yield block
        rows = rows[len(block) :]


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
    sink = RedisSink(
        settings.redis.get_secret_value(),
        settings.redis_ttl_s,
        settings.redis_stream_maxlen,
        stream_rows=settings.redis_stream_rows,
        conflate_after_s=settings.redis_conflate_after_s,
    )
    await run_sink(settings, stop, "redis", sink, max_rows=1, max_age_s=0.0, on_ready=on_ready)
