"""Answers as CSV, JSON lines and Parquet, block by block, so that memory holds one however long the answer is."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stream.errors import SinkUnavailable

_GROUP_ROWS: Final = 131_072  # of a Parquet file: the server's blocks are smaller, and files of small groups slow


def write_csv(schema: Any, batches: Iterable[Any], out: BinaryIO) -> int:
    """Write an answer as CSV with a head line; NULL is an empty field, NaN is ``nan``. Return the rows.

    Args:
        schema: ``pyarrow.Schema``.
        batches: ``pyarrow.RecordBatch`` of it.
        out: where it goes.
    """
    flat = pa.schema([(field.name, _flat_type(field.type)) for field in schema])
    rows = 0
    with pyarrow.csv.CSVWriter(out, flat) as writer:
        for batch in batches:
            columns = [_flattened(column, field.type) for column, field in zip(batch.columns, flat, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))
            rows += batch.num_rows
    return rows


def write_json(schema: Any, batches: Iterable[Any], out: BinaryIO) -> int:
    """Write an answer as one JSON object a line; NULL, NaN and infinities are ``null``. Return the rows."""
    rows = 0
    for batch in batches:
        columns = [_plain_column(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            out.write(orjson.dumps(dict(zip(schema.names, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE))
        rows += batch.num_rows
    return rows


def write_csv_file(schema: Any, batches: Iterable[Any], path: Path) -> int:
    """Write an answer to a CSV file, as `write_csv` and `write_parquet` do. Return the rows.

    Raises:
        SinkUnavailable: the file cannot be written.
    """
    with _whole(path) as part, part.open("wb") as out:
        return write_csv(schema, batches, out)


def write_parquet(schema: Any, batches: Iterable[Any], path: Path) -> int:
    """Write an answer to a Parquet file, which appears under its name only once it is whole. Return the rows.

    Raises:
        SinkUnavailable: the file cannot be written.
    """
    waiting: list[Any] = []
    rows = waiting_rows = 0
    with _whole(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for batch in batches:
            waiting.append(batch)
            waiting_rows += batch.num_rows
            if waiting_rows >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=waiting_rows)
                rows, waiting, waiting_rows = rows + waiting_rows, [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=waiting_rows)
    return rows + waiting_rows


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a name to write under; the file gets its own once it is whole."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise SinkUnavailable(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _flat_type(kind: Any) -> Any:
    if pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_null(kind):
        return pa.string()
    return pa.string() if pa.types.is_timestamp(kind) or pa.types.is_decimal(kind) else kind


def _flattened(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if pa.types.is_nested(column.type):
        values = column.to_pylist(maps_as_pydicts="strict")
        return pa.array([None if value is None else _json_text(value) for value in values], kind)
    return column.cast(kind)


def _plain_column(column: Any) -> list[Any]:
    """Return values that orjson writes: times as text with all their nanoseconds."""
    if pa.types.is_timestamp(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
    values = column.to_pylist(maps_as_pydicts="strict")
    return [_plain(value) for value in values] if pa.types.is_nested(column.type) else values


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _json_text(value: Any) -> str:
    return orjson.dumps(_plain(value)).decode()
