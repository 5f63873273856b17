from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agents.history import ANY_FUTURE_NS, write_features
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from models.dataset import history
from models.feature_file import read_features
from stream.errors import ModelError, SourceError
from stream.records import TickKind

MADE_WITH = {"lateness_s": 5.0, "outlier_bps": 500.0, "outlier_scale": 50.0}


@pytest.fixture(scope="module")
def ticks(make_ticks: Callable[..., Any]) -> Any:
    ticks = make_ticks(3000, symbols=4, seed=4)
    ticks["event_ns"][1500] -= 4_000_000_000
    ticks["bid"][70] = -1.0
    first = ticks[:9]  # trades, before there is a book
    first["kind"], first["price"], first["size"] = TickKind.TRADE, first["bid"], 1.0
    return ticks


@pytest.fixture(scope="module")
def path(ticks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "features.parquet"
    # In many row groups, each with symbols in an order of its own.
    write_features(
        np.array_split(ticks, 40), Windows(5_000_000_000, ANY_FUTURE_NS), path, MADE_WITH, lambda _: None
    )
    return path


def test_the_rows_of_a_file_are_those_of_the_ticks_to_the_bit(ticks: Any, path: Path) -> None:
    direct, read = history(ticks, 5_000_000_000), read_features(path, DEFAULT, **MADE_WITH)
    assert read.features.tobytes() == direct.features.tobytes()
    assert read.ref_price.tobytes() == direct.ref_price.tobytes()
    assert read.spread_bps.tobytes() == direct.spread_bps.tobytes()
    assert 0 < np.isnan(read.spread_bps).sum() < len(read.spread_bps)
    assert (read.event_ns == direct.event_ns).all()
    assert [read.symbols[row] for row in read.symbol_row] == [direct.symbols[row] for row in direct.symbol_row]
    assert len(read.data_sha256) == 64


@pytest.mark.parametrize("name", list(MADE_WITH))
def test_a_file_of_other_settings_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"other settings: {name} {MADE_WITH[name]} instead of 7\.0"):
        read_features(path, DEFAULT, **(MADE_WITH | {name: 7.0}))


def test_a_file_from_before_it_told_of_the_book_is_refused(path: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns("has_book"), tmp_path / "old.parquet")
    with pytest.raises(ModelError, match=r"does not tell where there was no book \(has_book\); write it again"):
        read_features(tmp_path / "old.parquet", DEFAULT, **MADE_WITH)


def test_a_file_of_other_periods_is_refused(path: Path) -> None:
    with pytest.raises(ModelError, match="other settings: periods_id"):
        read_features(path, Periods(tick_rsi=9), **MADE_WITH)


def test_what_is_no_file_of_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read the features"):
        read_features(tmp_path / "nothing.parquet", DEFAULT, **MADE_WITH)
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="cannot read the features"):
        read_features(tmp_path / "junk.parquet", DEFAULT, **MADE_WITH)
    pq.write_table(pa.table({"price": [1.0]}), tmp_path / "ticks.parquet")
    with pytest.raises(SourceError, match=r"no file of features; `tickloom replay --features`"):
        read_features(tmp_path / "ticks.parquet", DEFAULT, **MADE_WITH)
