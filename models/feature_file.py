"""Training rows from a file that ``tickloom replay --features`` wrote: the kernel has been run already."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agents import features
from agents.periods import Periods
from models.dataset import HistoryRows, never_falling
from stream.errors import ModelError, SourceError

_BATCH_ROWS = 65_536


def read_features(
    path: Path, periods: Periods, lateness_s: float, outlier_bps: float, outlier_scale: float
) -> HistoryRows:
    """Return the rows of a file of features.

    Args:
        path: of the Parquet file.
        periods: of the engine that will serve. The file must have been made with the same, like the rest.
        lateness_s: likewise.
        outlier_bps: likewise.
        outlier_scale: likewise.

    Raises:
        SourceError: the file cannot be read, or is no file of features.
        ModelError: it was made with other settings.
    """
    try:
        with path.open("rb") as file:
            data_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with pq.ParquetFile(path) as parquet:
            wanted = {
                "periods_id": f"{periods.id:016x}",
                "lateness_s": lateness_s,
                "outlier_bps": outlier_bps,
                "outlier_scale": outlier_scale,
            }
            _check_settings(path, parquet.schema_arrow.metadata or {}, wanted)
            if "has_book" not in parquet.schema_arrow.names:
                raise ModelError(f"{path} does not tell where there was no book (has_book); write it again")
            return _rows(parquet, features.names(periods), data_sha256)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"cannot read the features in {path}: {error}") from None


def _check_settings(path: Path, metadata: dict[bytes, bytes], wanted: dict[str, Any]) -> None:
    if b"tickloom" not in metadata:
        raise SourceError(f"{path} is no file of features; `tickloom replay --features` writes one")
    tells = json.loads(metadata[b"tickloom"])
    other = [
        f"{key} {tells.get(key)} instead of {value}" for key, value in wanted.items() if tells.get(key) != value
    ]
    if other:
        raise ModelError(f"{path} was made with other settings: {', '.join(other)}; write it again with these")


def _rows(parquet: Any, names: tuple[str, ...], data_sha256: str) -> HistoryRows:
    count = parquet.metadata.num_rows
    table = np.empty((count, len(names)), np.float32)
    symbol_row, event_ns, ref_price = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    has_book = np.empty(count, np.bool_)
    rows: dict[str, int] = {}
    start = 0
    for batch in parquet.iter_batches(_BATCH_ROWS):
        some = slice(start, start + batch.num_rows)
        symbols = batch.column("symbol").dictionary_encode()
        numbers = np.array([rows.setdefault(name, len(rows)) for name in symbols.dictionary.to_pylist()], np.int64)
        symbol_row[some] = numbers[symbols.indices.to_numpy()]
        event_ns[some] = batch.column("event_ns").to_numpy()
        ref_price[some] = batch.column("ref_price").to_numpy()
        has_book[some] = batch.column("has_book").to_numpy(zero_copy_only=False)
        for column, name in enumerate(names):
            table[some, column] = batch.column(name).to_numpy()
        start = some.stop
    return HistoryRows(
        features=table,
        symbol_row=symbol_row,
        event_ns=never_falling(event_ns, symbol_row),
        ref_price=ref_price,
        spread_bps=np.where(has_book, table[:, names.index("spread_bps")], np.float32(np.nan)),
        symbols=tuple(rows),
        data_sha256=data_sha256,
    )
