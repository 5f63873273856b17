"""How records become rows of a ClickHouse table: by columns, as clickhouse-driver wants them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporters.intake import PLACED_TICK
from stream.records import MODEL_EVENT, OUTCOME, PREDICTION, REJECTED, Records, Reject, TickKind

_PREDICTION_TIMES: Final = ("event", "recv", "consumed", "features", "inferred", "published")
_OUTCOME_TIMES: Final = ("event", "from", "resolved")
_EVENT_TIMES: Final = ("at", "event")


@dataclass(frozen=True)
class Table:
    """A table of the schema (exporters/clickhouse/migrations), and the record that it holds."""

    name: str
    columns: tuple[str, ...]
    values: Callable[[Records, str], list[Any]]  # of rows and the epoch, in the order of the columns
    partitioned_by: Callable[[Records], NDArray[np.int64]] | None  # the ns whose days are the table's partitions

    @property
    def insert(self) -> str:
        """Return the statement that the columns go with."""
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES"


def _times(rows: Records, names: tuple[str, ...]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(rows[f"{name}_ns"]).view("datetime64[ns]") for name in names]


def _numbers(rows: Records, names: tuple[str, ...]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(rows[name]) for name in names]


_PREDICTION_NUMBERS: Final = (
    "seq",
    "ref_price",
    "horizon_ns",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "model_id",
    "feature_hash",
    "flags",
    "source_partition",
    "source_offset",
    "source_index",
)


def _prediction_values(rows: Records, epoch: str) -> list[Any]:
    ingested = np.full(len(rows), time.time_ns()).view("datetime64[ns]")
    numbers, times = _numbers(rows, _PREDICTION_NUMBERS), _times(rows, _PREDICTION_TIMES)
    return [rows["symbol"].astype("U"), *numbers, *times, ingested, np.full(len(rows), epoch)]


_OUTCOME_NUMBERS: Final = tuple(
    name for name in OUTCOME.names or () if not name.endswith("_ns") and name != "symbol"
)


def _outcome_values(rows: Records, epoch: str) -> list[Any]:
    numbers, times = _numbers(rows, (*_OUTCOME_NUMBERS, "horizon_ns")), _times(rows, _OUTCOME_TIMES)
    knows = np.isfinite(rows["fallback_log_loss"]).astype(np.uint8)
    return [rows["symbol"].astype("U"), *numbers, *times, knows, np.full(len(rows), epoch)]


_EVENT_NUMBERS: Final = ("model_id", "other_id", "value", "predictions")


def _event_values(rows: Records, epoch: str) -> list[Any]:
    kinds, details = rows["kind"].astype(np.int8), rows["detail"].astype("U")
    return [*_numbers(rows, _EVENT_NUMBERS), *_times(rows, _EVENT_TIMES), kinds, details, np.full(len(rows), epoch)]


_TICK_NUMBERS: Final = (
    "source_seq",
    "price",
    "size",
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "stream_id",
)
_PLACE: Final = ("source_partition", "source_offset", "source_index")
_TICK_TIMES: Final = ("event", "recv")
_TICK_COLUMNS: Final = ("symbol", *_TICK_NUMBERS, "event_time", "recv_time", "kind", "side")


def _tick_values(ticks: Records) -> list[Any]:
    known = (ticks["kind"] >= 1) & (ticks["kind"] <= max(TickKind))
    kinds, sides = np.where(known, ticks["kind"], 0).astype(np.int8), np.clip(ticks["side"], -1, 1).astype(np.int8)
    return [ticks["symbol"].astype("U"), *_numbers(ticks, _TICK_NUMBERS), *_times(ticks, _TICK_TIMES), kinds, sides]


def _placed_values(rows: Records, epoch: str) -> list[Any]:
    # Higher for what stands earlier.
    rank = ~((rows["source_offset"].astype(np.uint64) << np.uint64(12)) + rows["source_index"])
    ingested = np.full(len(rows), time.time_ns()).view("datetime64[ns]")
    return [*_tick_values(rows["tick"]), *_numbers(rows, _PLACE), ingested, rank, np.full(len(rows), epoch)]


def _rejected_values(rows: Records, epoch: str) -> list[Any]:
    known = (rows["reason"] >= 1) & (rows["reason"] <= max(Reject))
    reasons = np.where(known, rows["reason"], 0).astype(np.int8)
    ingested = np.full(len(rows), time.time_ns()).view("datetime64[ns]")
    return [*_tick_values(rows["tick"]), *_numbers(rows, _PLACE), ingested, reasons, np.full(len(rows), epoch)]


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_time" for name in names)


def _event_ns(rows: Records) -> NDArray[np.int64]:
    return rows["event_ns"]


TABLES: Final = {
    PREDICTION: Table(
        "predictions",
        ("symbol", *_PREDICTION_NUMBERS, *_named(_PREDICTION_TIMES), "ingested_time", "epoch"),
        _prediction_values,
        _event_ns,
    ),
    OUTCOME: Table(
        "outcomes",
        ("symbol", *_OUTCOME_NUMBERS, "horizon_ns", *_named(_OUTCOME_TIMES), "knows_fallback", "epoch"),
        _outcome_values,
        _event_ns,
    ),
    MODEL_EVENT: Table(
        "model_events",
        (*_EVENT_NUMBERS, *_named(_EVENT_TIMES), "kind", "detail", "epoch"),
        _event_values,
        None,
    ),
    PLACED_TICK: Table(
        "ticks",
        (*_TICK_COLUMNS, *_PLACE, "ingested_time", "rank", "epoch"),
        _placed_values,
        lambda rows: _event_ns(rows["tick"]),
    ),
    REJECTED: Table(
        "rejected",
        (*_TICK_COLUMNS, *_PLACE, "ingested_time", "reason", "epoch"),
        _rejected_values,
        None,
    ),
}
