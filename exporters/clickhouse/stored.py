"""What ClickHouse has of one symbol, as the records that it was: predictions, ticks, outcomes."""

import itertools
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporters.clickhouse.complaints import QueryRefused
from exporters.clickhouse.session import Session
from models.recompute import Block, Run, joined
from stream.records import PREDICTION, TICK, Records, encode_symbol

_TIMES: Final = ("event", "recv", "consumed", "features", "inferred", "published")
_PLAIN: Final = (
    "seq",
    "ref_price",
    "horizon_ns",
    "model_id",
    "feature_hash",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "spread_bps",
    "flags",
    "source_index",
    "source_partition",
    "source_offset",
)
_TICK_NUMBERS: Final = ("source_seq", "price", "size", "bid", "ask", "bid_size", "ask_size", "stream_id", "side")


class InClickHouse:
    """What the tables hold."""

    name: Final = "clickhouse"

    def __init__(self, session: Session, symbol: str) -> None:
        """Look at one symbol."""
        self._session, self._symbol = session, symbol

    def prediction(self, seq: int, epoch: str | None) -> tuple[Records, str] | None:
        """Return a prediction, ``PREDICTION`` scalar, and its epoch: the newest where none is given."""
        times = ", ".join(f"toUnixTimestamp64Nano({name}_time) AS {name}_ns" for name in _TIMES)
        rows = self._session.rows(
            f"SELECT {', '.join(_PLAIN)}, {times}, epoch FROM predictions FINAL "  # noqa: S608  (names of ours)
            "WHERE symbol = {symbol:String} AND seq = {seq:UInt64} AND ({epoch:String} IN ('', epoch)) "
            "ORDER BY ingested_time DESC LIMIT 1",
            {"symbol": self._symbol, "seq": str(seq), "epoch": epoch or ""},
        )
        if not rows:
            return None
        record: Any = np.zeros(1, PREDICTION)[0]
        record["symbol"] = encode_symbol(self._symbol)
        for name in (*_PLAIN, *(f"{each}_ns" for each in _TIMES)):
            record[name] = rows[0][name]
        return record, str(rows[0]["epoch"])

    def runs(self, seq: int, epoch: str) -> list[Run]:
        """Return which models made the predictions up to ``seq``, as far as they are still there."""
        rows = self._session.rows(
            """
            SELECT model_id, seq, source_offset, before FROM
            (
                SELECT
                    model_id,
                    seq,
                    source_offset,
                    lagInFrame(model_id) OVER by_seq AS model_before,
                    lagInFrame(source_offset) OVER by_seq AS before
                FROM predictions FINAL
                WHERE symbol = {symbol:String} AND epoch = {epoch:String} AND seq <= {seq:UInt64}
                WINDOW by_seq AS (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
            )
            WHERE model_id != model_before OR seq = {seq:UInt64}
            ORDER BY seq
            """,
            {"symbol": self._symbol, "seq": str(seq), "epoch": epoch},
        )
        ends = [int(row["before"]) for row in rows[1:]] + [int(rows[-1]["source_offset"])] if rows else []
        return joined(
            Run(int(row["model_id"]), int(row["seq"]), int(row["source_offset"]), end)
            for row, end in zip(rows, ends, strict=True)
        )

    def span(self, partition: int, epoch: str) -> str:
        """Return in words which of the symbol's ticks there are."""
        try:
            (row,) = self._session.rows(
                """
                SELECT count() AS ticks, min(source_offset) AS first, min(event_time) AS since FROM ticks FINAL
                WHERE symbol = {symbol:String} AND epoch = {epoch:String} AND source_partition = {partition:Int32}
                """,
                {"symbol": self._symbol, "epoch": epoch, "partition": str(partition)},
            )
        except QueryRefused as error:
            return f"ClickHouse has no ticks ({error})"
        if not row["ticks"]:
            return "ClickHouse has no ticks of it"
        return f"ClickHouse has {row['ticks']:,} ticks from block {row['first']:,} on, {row['since']}"

    def blocks(self, partition: int, epoch: str) -> Iterator[Block]:
        """Yield the symbol's ticks as blocks, in the order in which they arrived."""
        answer = self._session.ask(
            f"SELECT {', '.join(_TICK_NUMBERS)}, toUInt16(toInt8(kind)) AS kind, "  # noqa: S608  (names of ours)
            "toUnixTimestamp64Nano(event_time) AS event_ns, toUnixTimestamp64Nano(recv_time) AS recv_ns, "
            "source_offset, source_index FROM ticks FINAL WHERE symbol = {symbol:String} "
            "AND epoch = {epoch:String} AND source_partition = {partition:Int32} "
            "ORDER BY source_offset, source_index SETTINGS max_bytes_before_external_sort = 268435456",
            {"symbol": self._symbol, "epoch": epoch, "partition": str(partition)},
        )
        names = (*_TICK_NUMBERS, "kind", "event_ns", "recv_ns")
        open_block: Block | None = None  # the last of a batch may go on in the next
        for batch in answer:
            ticks = np.zeros(batch.num_rows, TICK)
            ticks["symbol"] = encode_symbol(self._symbol)
            for name in names:
                ticks[name] = batch.column(name).to_numpy(zero_copy_only=False)
            offsets = batch.column("source_offset").to_numpy()
            positions = batch.column("source_index").to_numpy().astype(np.int64)
            for block in _cut(offsets, ticks, positions):
                if open_block is not None and open_block.offset == block.offset:
                    block = _both(open_block, block)  # noqa: PLW2901
                elif open_block is not None:
                    yield open_block
                open_block = block
        if open_block is not None:
            yield open_block

    def outcome(self, seq: int, model_id: int, epoch: str) -> dict[str, Any] | None:
        """Return what came of a prediction, or None where it is not known."""
        rows = self._session.rows(
            """
            SELECT resolved_time, later_price, return_bps, realised_class, log_loss, brier, cost_bps
            FROM v_outcomes
            WHERE symbol = {symbol:String} AND seq = {seq:UInt64} AND model = {model:String}
                AND epoch = {epoch:String} AND NOT shadow
            LIMIT 1
            """,
            {"symbol": self._symbol, "seq": str(seq), "model": f"{model_id:016x}", "epoch": epoch},
        )
        return {**rows[0], "resolved_time": str(rows[0]["resolved_time"])} if rows else None


def _cut(offsets: NDArray[np.int64], ticks: Records, positions: NDArray[np.int64]) -> Iterator[Block]:
    starts = [0, *(np.flatnonzero(np.diff(offsets)) + 1).tolist(), len(offsets)]
    for start, stop in itertools.pairwise(starts):
        yield Block(int(offsets[start]), ticks[start:stop], positions[start:stop])


def _both(one: Block, other: Block) -> Block:
    ticks = np.concatenate([one.ticks, other.ticks])
    return Block(one.offset, ticks, np.concatenate([one.positions, other.positions]))
