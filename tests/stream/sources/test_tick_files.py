"""Files of ticks: what is found, how columns are read, what is refused and in which words."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stream.errors import SourceError
from stream.records import TickKind
from stream.sources.tick_files import find_files, read_symbols, read_ticks

T0 = 1_577_923_200_000_000_000  # 2020-01-02


def test_a_directory_gives_its_trades_and_quotes_and_nothing_else(write_ticks: Any, tmp_path: Path) -> None:
    write_ticks("a/trades_A_20200102.parquet", ts_ns=[T0], symbol="A", price=[1.0], size=[1])
    write_ticks("b/quotes_A_20200103.parquet", ts_ns=[T0], symbol="A", bid=[1.0], ask=[2.0])
    write_ticks("b/bars_A_20200103.parquet", ts_ns=[T0], symbol="A", close=[1.0])
    (tmp_path / "b" / "trades_A.csv").write_text("ts_ns,symbol,price,size\n")
    files = find_files([tmp_path, tmp_path / "a"])
    seen = [(file.path.name, file.kind, file.day, file.rows) for file in files]
    assert seen == [
        ("quotes_A_20200103.parquet", TickKind.QUOTE, date(2020, 1, 3), 1),
        ("trades_A_20200102.parquet", TickKind.TRADE, date(2020, 1, 2), 1),
        ("trades_A.csv", TickKind.TRADE, None, None),
    ]


def test_trades_of_a_venue_that_tells_who_was_the_maker_have_its_side(write_ticks: Any) -> None:
    path = write_ticks(
        "trades_A.parquet",
        ts_ns=[T0, T0 + 1],
        symbol="A",
        price=[1.5, 1.25],
        size=[3, 0],
        buyer_is_maker=[True, False],
        trade_id=[7, 8],
    )
    ticks = read_ticks(find_files([path])[0]).ticks
    assert ticks["side"].tolist() == [-1, 1]
    assert ticks["price"].tolist() == [1.5, 1.25]
    assert ticks["size"].tolist() == [3.0, 0.0]
    assert ticks["event_ns"].tolist() == [T0, T0 + 1]
    assert np.isnan(ticks["bid"]).all()
    assert np.isnan(ticks["ask_size"]).all()


def test_quotes_without_sizes_have_nan_sizes_and_a_venue_joins_the_symbol(write_ticks: Any) -> None:
    path = write_ticks(
        "quotes_A.parquet",
        ts_ns=[T0, T0],
        symbol=pa.array(["EURUSD", "EURUSD"], pa.large_string()),
        venue=["fxcm", "oanda"],
        bid=[1.0, None],
        ask=[2.0, 3.0],
    )
    read = read_ticks(find_files([path])[0])
    assert read.ticks["symbol"].tolist() == [b"EURUSD.fxcm", b"EURUSD.oanda"]
    assert read.names == ["EURUSD.fxcm", "EURUSD.oanda"]
    assert np.isnan(read.ticks["bid_size"]).all()
    assert np.isnan(read.ticks["bid"]).tolist() == [False, True]


def test_csv_reads_like_parquet(write_ticks: Any, tmp_path: Path) -> None:
    parquet = write_ticks(
        "trades_A.parquet", ts_ns=[T0, T0 + 5], symbol=["A", "0017"], price=[1.5, 2.0], size=[3.0, 0.0]
    )
    csv = tmp_path / "mine.csv"
    csv.write_text(f"symbol,ts_ns,comment,price,size\nA,{T0},x,1.5,3\n0017,{T0 + 5},y,2,0\n")
    one, other = (read_ticks(find_files([path])[0]).ticks for path in (parquet, csv))
    assert one.tobytes() == other.tobytes()


def test_seq_is_the_order_within_one_time_and_otherwise_the_rows_are(write_ticks: Any) -> None:
    times = [T0 + 1, T0, T0, T0]
    with_seq = write_ticks(
        "trades_A.parquet", ts_ns=times, symbol="A", price=[4.0, 3.0, 1.0, 2.0], size=[1] * 4, seq=[9, 7, 5, 6]
    )
    without = write_ticks("trades_B.parquet", ts_ns=times, symbol="B", price=[4.0, 1.0, 2.0, 3.0], size=[1] * 4)
    for path in (with_seq, without):
        assert read_ticks(find_files([path])[0]).ticks["price"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_columns_that_are_missing_are_named_with_those_that_are_there(write_ticks: Any) -> None:
    path = write_ticks("trades_A.parquet", ts_ns=[T0], symbol="A", price=[1.0], volume=[3])
    with pytest.raises(SourceError, match="has the columns ts_ns, symbol, price, volume and lacks size"):
        find_files([path])


def test_times_that_are_no_nanoseconds_are_refused(write_ticks: Any) -> None:
    path = write_ticks("trades_A.parquet", ts_ns=[T0 // 1_000_000], symbol="A", price=[1.0], size=[3])
    with pytest.raises(SourceError, match="right would be nanoseconds since 1970"):
        read_ticks(find_files([path])[0])


@pytest.mark.parametrize("symbol", ["A" * 25, "BRK B", "ÖL", ""])
def test_symbols_that_no_record_can_hold_are_refused(write_ticks: Any, symbol: str) -> None:
    path = write_ticks("trades_A.parquet", ts_ns=[T0], symbol=[symbol], price=[1.0], size=[3])
    with pytest.raises(SourceError, match="1 to 24 printable ASCII characters"):
        read_symbols(find_files([path])[0])
    with pytest.raises(SourceError, match="1 to 24 printable ASCII characters"):
        read_ticks(find_files([path])[0])


def test_rows_without_time_or_symbol_are_refused(write_ticks: Any) -> None:
    no_time = write_ticks("trades_A.parquet", ts_ns=[T0, None], symbol="A", price=[1.0, 1.0], size=[3, 3])
    with pytest.raises(SourceError, match="1 rows have no ts_ns"):
        read_ticks(find_files([no_time])[0])
    no_symbol = write_ticks("trades_B.parquet", ts_ns=[T0, T0], symbol=["A", None], price=[1.0, 1.0], size=[3, 3])
    with pytest.raises(SourceError, match="1 rows have no symbol"):
        read_ticks(find_files([no_symbol])[0])


def test_what_is_no_file_of_ticks_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file or directory"):
        find_files([tmp_path / "absent"])
    with pytest.raises(SourceError, match="has no files trades"):
        find_files([tmp_path])
    with pytest.raises(SourceError, match="no files of ticks were named"):
        find_files([])
    text = tmp_path / "trades.txt"
    text.write_text("x")
    with pytest.raises(SourceError, match="its name must end in one of"):
        find_files([text])
    damaged = tmp_path / "trades.parquet"
    damaged.write_bytes(b"PAR1 this is not Parquet")
    with pytest.raises(SourceError, match=r"trades\.parquet cannot be read"):
        find_files([damaged])
    words = tmp_path / "trades.csv"
    words.write_text(f"ts_ns,symbol,price,size\n{T0},A,high,3\n")
    with pytest.raises(SourceError, match=r"trades\.csv cannot be read"):
        read_ticks(find_files([words])[0])


def test_every_recorded_file_reads(shared_data: Path) -> None:
    files = find_files([shared_data / "ticks"])
    assert len(files) == len(list((shared_data / "ticks").rglob("*.parquet")))
    for file in files:
        assert file.day is not None
        assert file.rows is not None
        assert file.rows > 0
        if file.rows < 30_000:
            assert len(read_ticks(file).ticks) == file.rows
