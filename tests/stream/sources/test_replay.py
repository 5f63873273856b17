"""Recorded days as one stream: the order, the numbers, and what does not exist."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stream.errors import SourceError
from stream.records import TickKind
from stream.sources.replay import Replay

T0 = 1_577_923_200_000_000_000  # 2020-01-02
DAY_NS = 86_400_000_000_000


def test_ties_are_quotes_first_then_paths_then_the_order_in_the_file(write_ticks: Any, tmp_path: Path) -> None:
    write_ticks("trades_A_20200102.parquet", ts_ns=[T0, T0], symbol="A", price=[1.0, 2.0], size=[1, 1])
    write_ticks("trades_B_20200102.parquet", ts_ns=[T0 - 1, T0], symbol="B", price=[3.0, 4.0], size=[1, 1])
    write_ticks("quotes_B_20200102.parquet", ts_ns=[T0, T0], symbol="B", bid=[5.0, 6.0], ask=[9.0, 9.0])
    write_ticks("quotes_A_20200102.parquet", ts_ns=[T0], symbol="A", bid=[7.0], ask=[9.0])
    (ticks,) = Replay([tmp_path]).days()
    values = np.where(ticks["kind"] == TickKind.TRADE, ticks["price"], ticks["bid"])
    assert values.tolist() == [3.0, 7.0, 5.0, 6.0, 1.0, 2.0, 4.0]
    assert ticks["source_seq"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_days_follow_one_another_with_running_numbers(write_ticks: Any, tmp_path: Path) -> None:
    write_ticks("trades_A_20200103.parquet", ts_ns=[T0 + DAY_NS], symbol="A", price=[2.0], size=[1])
    write_ticks("trades_A_20200102.parquet", ts_ns=[T0, T0 + 1], symbol="A", price=[1.0, 1.5], size=[1, 1])
    (tmp_path / "trades_later.csv").write_text(f"ts_ns,symbol,price,size\n{T0 + 2 * DAY_NS},A,3,1\n")
    replay = Replay([tmp_path])
    assert [ticks["price"].tolist() for ticks in replay.days()] == [[1.0, 1.5], [2.0], [3.0]]
    assert [ticks["source_seq"].tolist() for ticks in replay.days()] == [[1, 2], [3], [4]]
    assert [ticks["source_seq"].tolist() for ticks in replay.days(3)] == [[3], [4]]
    assert replay.total is None
    assert {int(value) for ticks in replay.days() for value in ticks["stream_id"]} == {replay.stream_id}


def test_a_day_is_taken_from_names_and_where_there_is_no_date_from_times(write_ticks: Any, tmp_path: Path) -> None:
    # The trading day of the name counts, though its last tick is after midnight UTC.
    write_ticks("trades_A_20200102.parquet", ts_ns=[T0, T0 + DAY_NS], symbol="A", price=[1.0, 2.0], size=[1, 1])
    write_ticks("trades_A_20200103.parquet", ts_ns=[T0 + DAY_NS], symbol="A", price=[3.0], size=[1])
    write_ticks("trades_B.parquet", ts_ns=[T0 + 1, T0 + DAY_NS], symbol="B", price=[4.0, 5.0], size=[1, 1])
    (ticks,) = Replay([tmp_path], date(2020, 1, 2)).days()
    assert ticks["price"].tolist() == [1.0, 4.0, 2.0]


def test_symbols_can_be_chosen(write_ticks: Any, tmp_path: Path) -> None:
    write_ticks(
        "trades_AB_20200102.parquet",
        ts_ns=[T0, T0 + 1, T0 + 2],
        symbol=["A", "B", "A"],
        price=[1.0] * 3,
        size=[1] * 3,
    )
    (ticks,) = Replay([tmp_path], symbols=["A"]).days()
    assert ticks["symbol"].tolist() == [b"A", b"A"]
    assert ticks["source_seq"].tolist() == [1, 2]
    with pytest.raises(SourceError, match="no ticks of C; there are A, B"):
        Replay([tmp_path], symbols=["A", "C"])


def test_a_day_that_is_not_there_is_answered_with_those_that_are(write_ticks: Any, tmp_path: Path) -> None:
    path = write_ticks("trades_A_20200102.parquet", ts_ns=[T0], symbol="A", price=[1.0], size=[1])
    with pytest.raises(SourceError, match="no ticks of 2020-01-05; there are 2020-01-02"):
        Replay([path], date(2020, 1, 5))
    undated = write_ticks("trades_B.parquet", ts_ns=[T0], symbol="B", price=[1.0], size=[1])
    with pytest.raises(SourceError, match="no ticks of 2020-01-05; there are 2020-01-02"):
        list(Replay([undated], date(2020, 1, 5)).days())


def test_the_stream_id_names_what_is_replayed(write_ticks: Any, tmp_path: Path) -> None:
    one = write_ticks("trades_A_20200102.parquet", ts_ns=[T0], symbol="A", price=[1.0], size=[1])
    other = write_ticks("trades_B_20200102.parquet", ts_ns=[T0], symbol="B", price=[1.0], size=[1])
    ids = [
        Replay([one]).stream_id,
        Replay([other]).stream_id,
        Replay([one, other]).stream_id,
        Replay([one], date(2020, 1, 2)).stream_id,
        Replay([one], symbols=["A"]).stream_id,
        Replay([one], run="again").stream_id,
    ]
    assert len(set(ids)) == len(ids)
    assert Replay([other, one]).stream_id == Replay([tmp_path]).stream_id == Replay([one, other]).stream_id


def test_the_equity_day_is_complete_and_in_order(shared_data: Path) -> None:
    replay = Replay([shared_data / "ticks" / "us_equity"], date(2013, 10, 7))
    (ticks,) = replay.days()
    assert len(ticks) == replay.total == 1_152_741
    assert np.all(np.diff(ticks["event_ns"]) >= 0)
    assert np.array_equal(ticks["source_seq"], np.arange(1, len(ticks) + 1))
    names, counts = np.unique(ticks["symbol"], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        b"AIG": 523_115 + 25_351,
        b"BAC": 238_093 + 88_172,
        b"SPY": 27_409 + 250_601,
    }
    trades = ticks[ticks["kind"] == TickKind.TRADE]
    assert np.mean(trades["side"] == 0) < 1e-4
    path = shared_data / "ticks" / "us_equity" / "quotes_BAC_20131007.parquet"
    source = pq.read_table(path).to_pydict()
    quotes = ticks[(ticks["kind"] == TickKind.QUOTE) & (ticks["symbol"] == b"BAC")]
    for name in ("bid", "ask", "bid_size", "ask_size"):
        assert quotes[name].tolist() == source[name]
    assert quotes["event_ns"].tolist() == source["ts_ns"]


def test_fx_venues_are_different_symbols_without_sizes(shared_data: Path) -> None:
    (ticks,) = Replay([shared_data / "ticks" / "fx"], date(2014, 5, 1)).days()
    assert set(ticks["symbol"].tolist()) == {b"EURUSD.fxcm", b"EURUSD.oanda", b"XAUUSD.oanda"}
    assert np.isnan(ticks["bid_size"]).all()
    assert np.isfinite(ticks["bid"]).all()
