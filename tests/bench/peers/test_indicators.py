"""Ten indicators of the engine's features, in plain Python."""

import json
from pathlib import Path

import pytest

from bench import agreement, markets
from bench.peers.indicators import advance, new_state
from stream.records import Records


@pytest.fixture(params=["simulated", "recorded"])
def ticks(request: pytest.FixtureRequest) -> Records:
    if request.param == "simulated":
        return markets.simulated(3, 5_000)
    directory: Path = request.getfixturevalue("shared_data")
    return markets.recorded_day(directory / "ticks" / "us_equity", "2013-10-07", 20_000)


def test_ten_indicators_agree_with_the_engine_along_the_way(ticks: Records, tmp_path: Path) -> None:
    market = agreement.Market.make(ticks, tmp_path / "market.npz")
    states = {symbol: new_state() for symbol in market.rows}
    last = {}
    for row, (symbol, *tick) in enumerate(markets.ticks_of(ticks)):
        last[symbol] = advance(states[symbol], *tick)
        if row % 500 == 499:
            found = agreement.compare(last, market)
            assert found["compared"] == 0 or found["max_relative_difference"] < agreement.TOLERANCE, found


def test_ten_indicators_still_agree_after_hundreds_of_thousands_of_ticks(shared_data: Path, tmp_path: Path) -> None:
    ticks = markets.recorded_day(shared_data / "ticks" / "us_equity", "2013-10-07", 400_000)
    market = agreement.Market.make(ticks, tmp_path / "market.npz")
    states = {symbol: new_state() for symbol in market.rows}
    last = {}
    for symbol, *tick in markets.load_ticks(str(market.path), len(ticks)):
        last[symbol] = advance(states[symbol], *tick)
    assert agreement.compare(last, market)["max_relative_difference"] < agreement.TOLERANCE


def test_the_state_goes_through_json_unchanged(ticks: Records) -> None:
    # Faust and Quix Streams keep it so.
    kept, stored = new_state(), new_state()
    for _, *tick in markets.ticks_of(ticks[:500]):
        expected = advance(kept, *tick)
        assert advance(stored, *tick) == expected
        stored = json.loads(json.dumps(stored))
