"""The sink of predictions: what it adds to each row before it is stored, and what follows from the rows."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from clickhouse_driver import Client

from exporters.batch import Batch
from exporters.clickhouse.derived import NS_PER_S, Touched, compute
from exporters.clickhouse.distinct import distinct_symbols
from exporters.clickhouse.rows import STORED_PREDICTION
from exporters.clickhouse.sink import ClickHouseSink, insert_rows, put_aside_rows
from exporters.feed_board import Int64s
from stream.records import PREDICTION, Mark, Records, TickKind

_DAY_S: Final = 24 * 3600
_NEWEST: Final = """
SELECT toUnixTimestamp64Nano(max(newest_time))
FROM predictions
WHERE symbol = %(symbol)s AND epoch = %(epoch)s AND seq < %(seq)s
    AND event_time >= toDateTime64(%(from_s)s, 9, 'UTC') AND event_time < toDateTime64(%(to_s)s, 9, 'UTC')
"""


class TickFinder(Protocol):
    """Gives the ticks that predictions follow."""

    async def find(self, rows: Records) -> Records:
        """Return the tick of each prediction: ``TICK[N]`` for ``PREDICTION[N]``; empty where it is not known.

        Raises:
            SinkUnavailable: it cannot say now.
        """
        ...

    async def close(self) -> None:
        """Give up the connection."""
        ...


class PredictionSink(ClickHouseSink):
    """Writes predictions, each with the trade that it follows, and keeps bars and latencies of stages in step."""

    def __init__(self, url: str, ticks: TickFinder) -> None:
        """Make the sink; it connects when it is first used.

        Args:
            url: as `ClickHouseSink`.
            ticks: where the ticks of predictions are found.

        Raises:
            SettingsError: not such a URL.
        """
        super().__init__(url)
        self._ticks = ticks
        self._touched = Touched()

    async def write(self, batch: Batch) -> None:
        """Insert the rows.

        Raises:
            SinkUnavailable: the server (or Kafka) is away, full, slow, or not as it should be; some rows may be in.
            SinkRejected: the table will not take these rows.
        """
        rows = with_trades(batch.rows, await self._ticks.find(batch.rows))
        await self._server.run(lambda client: _write(client, batch, rows))
        self._touched.add(rows)

    async def settle(self) -> None:
        """Compute what follows from the rows that were written since the last time.

        Raises:
            SinkUnavailable: as `write`.
        """
        touched, self._touched = self._touched, Touched()
        if not touched.spans:
            return
        try:
            await self._server.run(lambda client: compute(client, touched))
        except BaseException:
            for symbol, span in touched.spans.items():
                self._touched.put(symbol, span)
            raise

    async def put_aside(self, batch: Batch, reason: str) -> None:
        """Keep rows that the table will not take in ``dead_letters``, with the reason.

        Raises:
            SinkUnavailable: as `write`.
            SinkRejected: not even there.
        """
        await self._server.run(lambda client: put_aside_rows(client, batch, "predictions", reason))

    async def close(self) -> None:
        """Close the connections. An insert that is still waiting for a frozen server is left to its timeout."""
        await self._ticks.close()
        await super().close()


def with_trades(rows: Records, ticks: Records) -> Records:
    """Return predictions with what is known of their ticks: ``STORED_PREDICTION[N]``."""
    stored = np.zeros(len(rows), STORED_PREDICTION)
    raw = stored.view(np.uint8).reshape(len(rows), STORED_PREDICTION.itemsize)
    raw[:, : PREDICTION.itemsize] = (
        np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), PREDICTION.itemsize)
    )
    is_trade = ticks["kind"] == TickKind.TRADE
    stored["trade_price"] = np.where(is_trade, ticks["price"], np.nan)
    stored["trade_size"] = np.where(is_trade, ticks["size"], np.nan)
    stored["tick_kind"] = ticks["kind"]
    stored["side"] = np.where(is_trade, np.clip(ticks["side"], -1, 1), 0)
    return stored


def _write(client: Client, batch: Batch, rows: Records) -> None:
    rows["newest_ns"] = newest_ns(rows, lambda row: _newest_before(client, batch.epoch, row))
    insert_rows(client, batch, rows)


class _Before(Protocol):
    def __call__(self, row: np.void) -> int: ...


def newest_ns(rows: Records, newest_before: _Before) -> Int64s:
    """Return the newest event time of each row's symbol when it came: ``int64[N]``.

    This is a row's own time, unless it is marked as out of order.

    Args:
        rows: ``PREDICTION[N]`` in order of arrival.
        newest_before: asked for the newest time of the symbol before a row, where no other row here tells.
    """
    times_ns = rows["event_ns"].copy()
    is_late = (rows["flags"] & Mark.OUT_OF_ORDER) != 0
    if not is_late.any():
        return times_ns
    _, codes = distinct_symbols(rows["symbol"])
    for code in np.unique(codes[is_late]).tolist():
        ours = np.flatnonzero(codes == code)
        if is_late[ours[0]]:
            times_ns[ours[0]] = max(newest_before(rows[ours[0]]), times_ns[ours[0]])
        times_ns[ours] = np.maximum.accumulate(times_ns[ours])
    return times_ns


def _newest_before(client: Client, epoch: str, row: np.void) -> int:
    second = int(row["event_ns"]) // NS_PER_S
    wanted = {
        "symbol": row["symbol"].decode(),
        "epoch": epoch,
        "seq": int(row["seq"]),
        "from_s": second,  # whatever is newer than the row
        "to_s": second + _DAY_S,
    }
    found: Sequence[tuple[int]] = client.execute(_NEWEST, wanted)
    return found[0][0]
