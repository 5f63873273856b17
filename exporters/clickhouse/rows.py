"""How records become rows of a ClickHouse table: by columns, in the bytes that the server wants."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from clickhouse_driver import Client
from numpy.typing import NDArray

from exporters.clickhouse.native import Column, numbers, one_text, symbols, texts, times
from exporters.intake import PLACED_TICK
from stream.records import MODEL_EVENT, OUTCOME, PREDICTION, REJECTED, Records, Reject, TickKind

# A prediction, and what the table knows of the tick that it follows.
STORED_PREDICTION: Final = np.dtype(
    [
        *PREDICTION.descr,
        ("newest_ns", "<i8"),  # newest event time of the symbol then: the bar that it counts in
        ("trade_price", "<f8"),  # NaN where the tick is no trade
        ("trade_size", "<f8"),
        ("tick_kind", "i1"),  # TickKind; 0 where the tick is not in Kafka any more
        ("side", "i1"),
    ]
)

_TYPES: Final = {
    "<f4": "Float32",
    "<f8": "Float64",
    "<u8": "UInt64",
    "<i8": "Int64",
    "<u4": "UInt32",
    "<i4": "Int32",
    "<u2": "UInt16",
    "|i1": "Int8",
    "|u1": "UInt8",
}


@dataclass(frozen=True)
class Table:
    """A table of the schema (exporters/clickhouse/migrations), and the record that it holds."""

    name: str
    columns: Callable[[Records, str, int], list[Column]]  # of rows, the epoch and its number
    partitioned_by: Callable[[Records], NDArray[np.int64]] | None  # the ns whose days are the table's partitions
    is_ranked: bool = False  # wants the number of the epoch


def epoch_number(client: Client, epoch: str) -> int:
    """Return the number of an epoch: the first that the database met is 1, each later one is higher.

    Two exporters that meet a new one at the same time may note two numbers: the lower one counts.
    """
    known = "SELECT min(number) FROM epochs WHERE epoch = %(epoch)s"
    [(number,)] = client.execute(known, {"epoch": epoch})
    if number == 0:
        note = "INSERT INTO epochs (epoch, number) SELECT %(epoch)s, (SELECT max(number) + 1 FROM epochs)"
        client.execute(note, {"epoch": epoch})
        [(number,)] = client.execute(known, {"epoch": epoch})
    return int(number)


def _as_they_are(rows: Records, names: tuple[str, ...]) -> list[Column]:
    return [numbers(name, _TYPES[rows.dtype[name].str], rows[name]) for name in names]


def _times(rows: Records, names: tuple[str, ...]) -> list[Column]:
    return [times(f"{name}_time", rows[f"{name}_ns"]) for name in names]


def _ingested(rows: Records) -> Column:
    return times("ingested_time", np.full(len(rows), time.time_ns()))


_PREDICTION_TIMES: Final = ("event", "recv", "consumed", "features", "inferred", "published", "newest")
_PREDICTION_NUMBERS: Final = tuple(
    name
    for name in STORED_PREDICTION.names or ()
    if name not in ("symbol", *(f"{time}_ns" for time in _PREDICTION_TIMES))
)


def _predictions(rows: Records, epoch: str, _: int) -> list[Column]:
    values, when = _as_they_are(rows, _PREDICTION_NUMBERS), _times(rows, _PREDICTION_TIMES)
    return [symbols("symbol", rows["symbol"]), *values, *when, _ingested(rows), one_text("epoch", epoch, len(rows))]


_OUTCOME_NUMBERS: Final = tuple(
    name for name in OUTCOME.names or () if not name.endswith("_ns") and name != "symbol"
)


def _outcomes(rows: Records, epoch: str, _: int) -> list[Column]:
    values, when = (
        _as_they_are(rows, (*_OUTCOME_NUMBERS, "horizon_ns")),
        _times(rows, ("event", "from", "resolved")),
    )
    knows = numbers("knows_fallback", "UInt8", np.isfinite(rows["fallback_log_loss"]))
    return [symbols("symbol", rows["symbol"]), *values, *when, knows, one_text("epoch", epoch, len(rows))]


def _events(rows: Records, epoch: str, _: int) -> list[Column]:
    kinds = numbers("kind", "Int8", rows["kind"].astype(np.int8))
    values = _as_they_are(rows, ("model_id", "other_id", "value", "predictions"))
    details = texts("detail", rows["detail"].tolist())
    return [*values, *_times(rows, ("at", "event")), kinds, details, one_text("epoch", epoch, len(rows))]


_TICK_NUMBERS: Final = ("source_seq", "price", "size", "bid", "ask", "bid_size", "ask_size", "stream_id")
_PLACE: Final = ("source_partition", "source_offset", "source_index")


def _tick(ticks: Records) -> list[Column]:
    kinds = numbers("kind", "Int8", _known(ticks["kind"], max(TickKind)))
    sides = numbers("side", "Int8", np.clip(ticks["side"], -1, 1).astype(np.int8))
    values = _as_they_are(ticks, _TICK_NUMBERS)
    return [symbols("symbol", ticks["symbol"]), *values, *_times(ticks, ("event", "recv")), kinds, sides]


def _known(values: NDArray[Any], highest: int) -> NDArray[np.int8]:
    return np.where((values >= 1) & (values <= highest), values, 0).astype(np.int8)


_EPOCH_BITS: Final = np.uint64(56)
_INDEX_BITS: Final = np.uint64(12)  # a block has 4,096 ticks at the most


def _ticks(rows: Records, epoch: str, number: int) -> list[Column]:
    # Of copies the highest rank stays: that of the newest epoch, and there the one that stands first.
    place = (rows["source_offset"].astype(np.uint64) << _INDEX_BITS) + rows["source_index"]
    rank = (np.uint64(number + 1) << _EPOCH_BITS) - np.uint64(1) - place
    ranks, epochs = numbers("rank", "UInt64", rank), one_text("epoch", epoch, len(rows))
    return [*_tick(rows["tick"]), *_as_they_are(rows, _PLACE), _ingested(rows), ranks, epochs]


def _rejected(rows: Records, epoch: str, _: int) -> list[Column]:
    reasons = numbers("reason", "Int8", _known(rows["reason"], max(Reject)))
    epochs = one_text("epoch", epoch, len(rows))
    return [*_tick(rows["tick"]), *_as_they_are(rows, _PLACE), _ingested(rows), reasons, epochs]


def feature_table(names: Sequence[str]) -> Table:
    """Return the table of feature rows, as that of rows whose values are called so."""

    def columns(rows: Records, epoch: str, _: int) -> list[Column]:
        plain = _as_they_are(rows, ("seq", "ref_price", "feature_hash", "names_id", *_PLACE))
        values = zip(names, rows["values"].T, strict=False)  # a row of fewer features was widened
        named = [numbers(name, "Float32", column) for name, column in values]
        when = [*_times(rows, ("event", "published")), _ingested(rows)]
        return [symbols("symbol", rows["symbol"]), *plain, *when, one_text("epoch", epoch, len(rows)), *named]

    return Table("features", columns, _event_ns)


def _event_ns(rows: Records) -> NDArray[np.int64]:
    return rows["event_ns"]


def _tick_event_ns(rows: Records) -> NDArray[np.int64]:
    return rows["tick"]["event_ns"]


TABLES: Final = {
    STORED_PREDICTION: Table("predictions", _predictions, _event_ns),
    PLACED_TICK: Table("ticks", _ticks, _tick_event_ns, is_ranked=True),
    REJECTED: Table("rejected", _rejected, None),
    OUTCOME: Table("outcomes", _outcomes, _event_ns),
    MODEL_EVENT: Table("model_events", _events, None),
}
