"""The features of history are those of a lane, to the bit, in a file that says how they were made."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from markets import FUTURE_NS, LATENESS_NS, random_market
from recurrent import Recurrent

from agents import features
from agents.history import ANY_FUTURE_NS, roll, write_features
from agents.lane import Lane
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from stream.errors import SinkUnavailable, SourceError
from stream.records import Records
from stream.sources.replay import Replay


def write(ticks: list[Records], out: Path, periods: Periods = DEFAULT) -> dict[str, int]:
    windows = Windows(LATENESS_NS, ANY_FUTURE_NS, 64, periods=periods)
    return write_features(iter(ticks), windows, out, {"day": "2013-10-07"}, lambda done: None)


def test_a_file_of_a_recorded_day_equals_the_rows_of_lanes_to_the_bit(shared_data: Path, tmp_path: Path) -> None:
    paths = [shared_data / "ticks" / "us_equity" / f"{kind}_BAC_20131007.parquet" for kind in ("trades", "quotes")]
    ticks = np.concatenate(list(Replay(paths).days()))
    assert len(ticks) > 300_000
    outcomes = write([ticks], tmp_path / "day.parquet")
    table = pq.read_table(tmp_path / "day.parquet")
    assert table.num_rows == outcomes["accepted"]
    assert sum(outcomes.values()) == len(ticks)

    # As a worker has them: received when they happen, cut where the day was cut.
    ticks["recv_ns"] = ticks["event_ns"]
    lane = Lane(0, Windows(LATENESS_NS, FUTURE_NS, 64), Recurrent(1))
    sizes = np.random.default_rng(1).integers(1, 1200, 2000).cumsum()
    parts = np.split(ticks, sizes[sizes < len(ticks)])
    predictions = np.concatenate([lane.apply([(offset, part)]).predictions for offset, part in enumerate(parts)])
    for name in ("feature_hash", "seq", "event_ns", "ref_price"):
        assert table[name].to_numpy().tobytes() == predictions[name].tobytes(), name
    assert table["symbol"].unique().to_pylist() == ["BAC"]
    kept = lane.windows.states["recent"][0][np.arange(len(predictions) - 64, len(predictions)) % 64]
    rows = np.column_stack([table[name].to_numpy()[-64:] for name in features.NAMES])
    assert rows.tobytes() == kept.tobytes()


def test_a_file_says_what_made_it(tmp_path: Path) -> None:
    out = tmp_path / "features.parquet"
    periods = Periods(tick_rsi=21)
    ticks = random_market(np.random.default_rng(1), 500, symbols=3, bad=0.1)
    outcomes = write([ticks[:100], ticks[100:]], out, periods)
    assert sum(outcomes.values()) == 500
    table = pq.read_table(out)
    told = json.loads(table.schema.metadata[b"tickloom"])
    assert told["version"]
    assert told["periods"]["tick_rsi"] == 21
    assert told["periods_id"] == f"{periods.id:016x}"
    assert told["day"] == "2013-10-07"
    first = ["symbol", "seq", "event_ns", "ref_price", "feature_hash", "has_book"]
    assert table.column_names == [*first, *features.names(periods)]
    assert table.schema.field("rsi_21").type == pa.float32()
    assert table.num_rows == outcomes["accepted"]
    for symbol in table["symbol"].unique().to_pylist():
        seq = table.filter(pc.equal(table["symbol"], symbol))["seq"].to_numpy()
        assert seq.tolist() == list(range(1, len(seq) + 1))


def test_a_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[Records]:
        yield random_market(np.random.default_rng(1), 100)
        assert list(tmp_path.iterdir()) != []  # written aside
        raise SourceError("the disk is gone")

    windows = Windows(LATENESS_NS, ANY_FUTURE_NS, 64)
    with pytest.raises(SourceError):
        write_features(breaks_off(), windows, tmp_path / "out.parquet", {}, lambda done: None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match=r"cannot write .*out\.parquet"):
        write([], tmp_path / "missing" / "out.parquet")


def test_chunks_of_any_size_give_the_same_rows() -> None:
    ticks = random_market(np.random.default_rng(2), 70_000, symbols=5)
    whole, pieces = (
        [step.features.tobytes() for _, step in roll(given, Windows(LATENESS_NS, ANY_FUTURE_NS, 64))]
        for given in (ticks, iter(np.array_split(ticks, 11)))
    )
    assert len(whole) == 2
    assert b"".join(whole) == b"".join(pieces)


def test_only_ticks_make_history() -> None:
    with pytest.raises(TypeError, match="history is made of TICK records"):
        list(roll(np.zeros(3, [("price", "f8")]), Windows(0, 0, 1)))
