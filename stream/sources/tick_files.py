"""Files of ticks: which there are, and one file as an array of `TICK`.

A file is Parquet (``.parquet``) or CSV with a header (``.csv``, ``.csv.gz``) and holds trades or quotes; its
columns tell which:

| | must have | may have |
|---|---|---|
| trades | ts_ns, symbol, price, size | buyer_is_maker, venue, seq |
| quotes | ts_ns, symbol, bid, ask | bid_size, ask_size, venue, seq |

``ts_ns`` is in nanoseconds since 1970 UTC. ``seq`` orders rows of the same time; without it the order of the rows
does. With a ``venue`` the symbol becomes ``SYMBOL.venue``, since two venues of one symbol are two markets. Other
columns are not read. In a directory, files are taken whose names begin with ``trades`` or ``quotes``; a date at the
end of a name (``trades_AIG_20131007.parquet``) makes the file that trading day's.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream.errors import RecordError, SourceError
from stream.records import TICK, Records, TickKind, empty_ticks, encode_symbol

_SUFFIXES: Final = (".parquet", ".csv", ".csv.gz")
_DATE_AT_END: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})$")
_MUST_HAVE: Final = {
    TickKind.TRADE: ("ts_ns", "symbol", "price", "size"),
    TickKind.QUOTE: ("ts_ns", "symbol", "bid", "ask"),
}
_MAY_HAVE: Final = ("bid_size", "ask_size", "buyer_is_maker", "venue", "seq")
# 1973 to 2099. Seconds, milliseconds or microseconds given as nanoseconds fall before it.
_PLAUSIBLE_NS: Final = (100_000_000_000_000_000, 4_100_000_000_000_000_000)
_UNREADABLE: Final = (pa.ArrowInvalid, pa.ArrowNotImplementedError, RecordError, OSError, ValueError)


@dataclass(frozen=True)
class TickFile:
    """A file of ticks, opened as far as its header."""

    path: Path
    kind: TickKind
    day: date | None  # as its name says
    rows: int | None  # None for CSV: it would have to be read
    columns: tuple[str, ...]  # those of ours that it has


def find_files(paths: Iterable[Path]) -> list[TickFile]:
    """Return the files of ticks at or below ``paths``, quotes before trades, by path.

    Raises:
        SourceError: a path does not exist, holds no ticks, or is not a file of ticks.
    """
    found: dict[Path, TickFile] = {}
    for path in paths:
        for each in _files_at(path):
            found.setdefault(each.resolve(), _open(each))
    if not found:
        raise SourceError("no files of ticks were named; name Parquet or CSV files, or directories of them")
    return sorted(found.values(), key=lambda file: (-file.kind, file.path))


def _files_at(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise SourceError(f"there is no file or directory {path}")
    below = sorted(each for each in path.rglob("*") if each.name.startswith(("trades", "quotes")))
    files = [each for each in below if each.name.endswith(_SUFFIXES) and each.is_file()]
    if not files:
        raise SourceError(f"{path} has no files trades*.parquet, quotes*.parquet, trades*.csv or quotes*.csv")
    yield from files


def _open(path: Path) -> TickFile:
    try:
        if path.name.endswith(".parquet"):
            parquet = pq.ParquetFile(path)
            names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
            parquet.close()
        elif path.name.endswith(_SUFFIXES):
            with pyarrow.csv.open_csv(path) as reader:
                names, rows = reader.schema.names, None
        else:
            raise SourceError(f"{path} is not a file of ticks: its name must end in one of {', '.join(_SUFFIXES)}")
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    kind = TickKind.TRADE if "price" in names else TickKind.QUOTE
    missing = [name for name in _MUST_HAVE[kind] if name not in names]
    if missing:
        raise SourceError(
            f"{path} has the columns {', '.join(names)} and lacks {', '.join(missing)}; trades need "
            f"{', '.join(_MUST_HAVE[TickKind.TRADE])}, quotes need {', '.join(_MUST_HAVE[TickKind.QUOTE])}"
        )
    wanted = (*_MUST_HAVE[kind], *_MAY_HAVE)
    return TickFile(path, kind, _day_of(path), rows, tuple(name for name in wanted if name in names))


def _day_of(path: Path) -> date | None:
    stem = path.name.split(".")[0]
    match = _DATE_AT_END.search(stem)
    try:
        return None if match is None else date(*map(int, match.groups()))
    except ValueError:  # eight digits that are no date
        return None


@dataclass(frozen=True)
class FileTicks:
    """The ticks of one file, by time and original order."""

    ticks: Records  # without recv_ns, source_seq, stream_id; a trade has a side where the venue told
    names: list[str]
    codes: NDArray[np.int64]  # of each tick: the position of its symbol in `names`


def read_ticks(file: TickFile) -> FileTicks:
    """Read one of `find_files`.

    Raises:
        SourceError: the file is damaged, or a column is not what it must be.
    """
    try:
        table = _read_table(file, file.columns)
        names, codes = _symbols(table)
        columns = {name: _numbers(table, name) for name in file.columns if name not in ("symbol", "venue")}
    except _UNREADABLE as error:
        raise SourceError(f"{file.path} cannot be read: {error}") from None
    ts_ns = columns["ts_ns"]
    _check_times(file, ts_ns)
    ticks = empty_ticks(len(ts_ns))
    ticks["symbol"] = np.take(np.array([encode_symbol(name) for name in names], TICK["symbol"]), codes)
    ticks["event_ns"] = ts_ns
    ticks["kind"] = file.kind
    for name in ("price", "size", "bid", "ask", "bid_size", "ask_size"):
        if name in columns:
            ticks[name] = columns[name]
    if file.kind == TickKind.TRADE and "buyer_is_maker" in columns:
        ticks["side"] = np.where(columns["buyer_is_maker"] != 0, -1, 1)
    order = _original_order(ts_ns, columns.get("seq"))
    if order is not None:
        ticks, codes = np.take(ticks, order), codes[order]
    return FileTicks(ticks, names, codes)


def read_symbols(file: TickFile) -> list[str]:
    """Return the different symbols of one of `find_files`, as ticks have them.

    Raises:
        SourceError: the file is damaged, or something is not a symbol.
    """
    try:
        return _symbols(_read_table(file, [name for name in file.columns if name in ("symbol", "venue")]))[0]
    except _UNREADABLE as error:
        raise SourceError(f"{file.path} cannot be read: {error}") from None


def _read_table(file: TickFile, columns: Sequence[str]) -> Any:
    if file.rows is not None:
        return pq.read_table(file.path, columns=list(columns))
    text = {"symbol": pa.string(), "venue": pa.string()}  # a symbol of digits is a symbol
    options = pyarrow.csv.ConvertOptions(include_columns=list(columns), column_types=text)
    return pyarrow.csv.read_csv(file.path, convert_options=options)


def _symbols(table: Any) -> tuple[list[str], NDArray[np.int64]]:
    """Return the different symbols, and for each row the position of its own among them."""
    symbol = table["symbol"].cast(pa.string())
    if "venue" in table.column_names:
        symbol = pc.binary_join_element_wise(symbol, table["venue"].cast(pa.string()), ".")
    if symbol.null_count:
        raise ValueError(f"{symbol.null_count} rows have no symbol")
    encoded = symbol.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    for name in names:
        encode_symbol(name)
    return names, encoded.indices.to_numpy().astype(np.int64)


def _numbers(table: Any, name: str) -> NDArray[Any]:
    column = table[name]
    whole = name in ("ts_ns", "seq")
    if whole and column.null_count:
        raise ValueError(f"{column.null_count} rows have no {name}")
    kind = pa.int64() if whole else pa.bool_() if name == "buyer_is_maker" else pa.float64()
    values: NDArray[Any] = column.cast(kind).to_numpy()
    return values


def _check_times(file: TickFile, ts_ns: NDArray[np.int64]) -> None:
    if len(ts_ns) and not (_PLAUSIBLE_NS[0] <= ts_ns.min() and ts_ns.max() <= _PLAUSIBLE_NS[1]):
        raise SourceError(
            f"{file.path} has ts_ns from {ts_ns.min()} to {ts_ns.max()}; right would be nanoseconds since "
            "1970 UTC, such as 1381132800000000000"
        )


def _original_order(ts_ns: NDArray[np.int64], seq: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return the order by time and ``seq``, or None where the rows have it already."""
    if seq is None:
        return None if np.all(np.diff(ts_ns) >= 0) else np.argsort(ts_ns, kind="stable")
    in_order = (np.diff(ts_ns) > 0) | ((np.diff(ts_ns) == 0) & (np.diff(seq) >= 0))
    return None if np.all(in_order) else np.lexsort((seq, ts_ns))
