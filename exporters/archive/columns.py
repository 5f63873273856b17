"""Records as columns of Parquet, and back to the same bytes.

Columns have the names of the record's fields and their types; times stay integers in ns (``event_ns``), because
Spark refuses Parquet's ns timestamps; ``event_time`` is ``event_ns`` in us, for people. More columns say where a
row was: ``epoch`` (the Kafka cluster), ``kafka_partition``, ``kafka_offset`` and ``kafka_index`` (which record of
which message), ``kafka_ms`` (when Kafka was given it).

Predictions in a block of a version without spreads have no ``spread_bps``: it is null, or the file is from then and
has no such column. NaN says that there was no quote.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exporters.feature_intake import FEATURES_RECORD
from stream.errors import ArchiveError
from stream.records import (
    MODEL_EVENT,
    OUTCOME,
    PREDICTION,
    PREDICTION_WITHOUT_SPREAD,
    REJECTED,
    TICK,
    Records,
    encode_block,
    join_records,
)
from stream.topics import FEATURES, MODEL_EVENTS, OUTCOMES, PREDICTIONS, REJECTED_TICKS, TICKS

RECORDS: Final[dict[str, np.dtype[np.void]]] = {
    TICKS: TICK,
    REJECTED_TICKS: REJECTED,
    PREDICTIONS: PREDICTION,
    FEATURES: FEATURES_RECORD,
    OUTCOMES: OUTCOME,
    MODEL_EVENTS: MODEL_EVENT,
}
TOPICS: Final = tuple(RECORDS)

_ROW_GROUP_ROWS: Final = 131_072
_NOT_ASCII: Final = 128
_SPREAD: Final = "spread_bps"
_NS_PER_DAY: Final = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True)
class Block:
    """A Kafka message that was a block, and what is archived of it."""

    offset: int
    timestamp_ms: int
    rows: Records
    version: int | None = None  # of a block that is read; None is the newest


def is_storable(rows: Records) -> bool:
    """Return whether every text of the rows is ASCII: others (a symbol that is no symbol) would not come back."""
    for path in _fields(rows.dtype):
        values: Any = rows
        for name in path:
            values = values[name]
        if values.dtype.kind == "S":
            raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(rows), -1)
            if (raw >= _NOT_ASCII).any() or ((raw[:, :-1] == 0) & (raw[:, 1:] != 0)).any():
                return False
    return True


def to_table(topic: str, epoch: str, partition: int, blocks: Iterable[Block]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the rows of blocks as a table, in order, and the day of each by event time: ``int64[N]``."""
    blocks = list(blocks)
    rows = join_records([block.rows for block in blocks])
    counts = [len(block.rows) for block in blocks]
    columns: dict[str, Any] = dict(_columns(rows))
    is_old = [topic == PREDICTIONS and block.version == PREDICTION_WITHOUT_SPREAD for block in blocks]
    if any(is_old):
        columns[_SPREAD] = pa.array(rows[_SPREAD], mask=np.repeat(is_old, counts))
    event_ns = columns["event_ns"].to_numpy()
    columns["event_time"] = pa.array(event_ns // 1000, pa.timestamp("us", tz="UTC"))
    columns["epoch"] = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), pa.array([epoch]))
    columns["kafka_partition"] = pa.array(np.full(len(rows), partition, np.int32))
    columns["kafka_offset"] = pa.array(np.repeat([block.offset for block in blocks], counts))
    columns["kafka_index"] = pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts]))
    columns["kafka_ms"] = pa.array(np.repeat([block.timestamp_ms for block in blocks], counts))
    table = pa.table(columns).replace_schema_metadata({"tickloom.topic": topic})
    return table, event_ns // _NS_PER_DAY


def to_parquet(table: pa.Table) -> bytes:
    """Return the table as a Parquet file that Spark, DuckDB and pandas read without options."""
    whole = [
        name
        for name in table.schema.names
        if pa.types.is_signed_integer(table.schema.field(name).type) and name != "side"
    ]
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=[name for name in table.schema.names if name not in whole],  # type: ignore[arg-type]
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue()


def to_blocks(topic: str, table: pa.Table) -> Iterator[Block]:
    """Yield the blocks of a table's rows, in order of offset: the same bytes as they had in Kafka.

    Raises:
        ArchiveError: a column is missing, or rows of a block are.
    """
    if topic == PREDICTIONS and _SPREAD not in table.column_names:
        table = table.append_column(_SPREAD, pa.nulls(table.num_rows, pa.float32()))
    try:
        table = table.sort_by([("kafka_offset", "ascending"), ("kafka_index", "ascending")])
        offsets, indices, times_ms = (
            table[name].to_numpy() for name in ("kafka_offset", "kafka_index", "kafka_ms")
        )
        rows = _rows(table, RECORDS[topic])
    except KeyError as error:
        raise ArchiveError(
            f"a file of {topic} lacks a column: {error.args[0]}; it has {table.column_names}"
        ) from None
    if not len(rows):
        return
    is_old = table[_SPREAD].is_null().to_numpy() if topic == PREDICTIONS else np.zeros(len(rows), np.bool_)
    starts = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        if not np.array_equal(indices[start:stop], np.arange(stop - start)):
            raise ArchiveError(f"rows of the block {offsets[start]} of {topic} are missing")
        version = PREDICTION_WITHOUT_SPREAD if is_old[start] else None
        yield Block(int(offsets[start]), int(times_ms[start]), rows[start:stop], version)


def block_bytes(block: Block) -> bytes:
    """Return the message as it was in Kafka."""
    return encode_block(block.rows, block.version)


def _fields(dtype: np.dtype[np.void], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in dtype.names or ():
        if dtype[name].names is None:
            yield (*prefix, name)
        else:
            yield from _fields(dtype[name], (*prefix, name))


def _columns(rows: Records) -> Iterator[tuple[str, Any]]:
    for path in _fields(rows.dtype):
        values: Any = rows
        for name in path:
            values = values[name]
        values = np.ascontiguousarray(values)
        if values.dtype.kind == "S":
            yield path[-1], pa.array(values).cast(pa.string()).dictionary_encode()
        elif values.ndim > 1:
            yield path[-1], pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        else:
            yield path[-1], pa.array(values)


def _rows(table: pa.Table, dtype: np.dtype[np.void]) -> Records:
    rows = np.zeros(table.num_rows, dtype)
    for path in _fields(dtype):
        target: Any = rows
        for name in path[:-1]:
            target = target[name]
        column = table[path[-1]]
        if pa.types.is_fixed_size_list(column.type):
            target[path[-1]] = column.combine_chunks().flatten().to_numpy().reshape(len(rows), -1)  # type: ignore[attr-defined]
        elif pa.types.is_dictionary(column.type):
            target[path[-1]] = column.cast(pa.string()).to_numpy()
        else:
            target[path[-1]] = column.to_numpy()
    return rows
