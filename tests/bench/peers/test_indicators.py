import json
from pathlib import Path

import numpy as np
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


def test_plain_python_agrees_with_the_engine_after_every_tick(ticks: Records, tmp_path: Path) -> None:
    market = agreement.Market.make(ticks, tmp_path / "market.npz")
    states = {symbol: new_state() for symbol in market.rows}
    for row, (symbol, *prices) in enumerate(markets.load_ticks(str(market.path), len(ticks))):
        for name, value in agreement.as_features(advance(states[symbol], *prices)).items():
            expected = market.expected[name][row]
            assert np.isclose(value, expected, rtol=1e-5, atol=1e-5), f"{name} at tick {row}"


def test_plain_python_still_agrees_after_hundreds_of_thousands_of_ticks(shared_data: Path, tmp_path: Path) -> None:
    ticks = markets.recorded_day(shared_data / "ticks" / "us_equity", "2013-10-07", 400_000)
    market = agreement.Market.make(ticks, tmp_path / "market.npz")
    states = {symbol: new_state() for symbol in market.rows}
    last = {}
    for symbol, *prices in markets.load_ticks(str(market.path), len(ticks)):
        last[symbol] = advance(states[symbol], *prices)
    assert agreement.compare(last, market)["max_relative_difference"] < agreement.TOLERANCE


def test_the_state_goes_through_json_unchanged(ticks: Records) -> None:
    # Faust and Quix Streams keep it so.
    kept, stored = new_state(), new_state()
    for _, *prices in markets.prices_of(ticks[:500]):
        expected = advance(kept, *prices)
        assert advance(stored, *prices) == expected
        stored = json.loads(json.dumps(stored))
