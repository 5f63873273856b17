"""The job of the peers is the engine's: every feature, at every tick."""

import json
from pathlib import Path

import numpy as np
import pytest

from agents.features import NAMES
from agents.windows import Windows
from bench import markets
from bench.peers.features import State, advance, new_state
from stream.records import Records

# Three symbols that tick as fast as each other can; see also the sparse market below.
SIMULATED = 6_000
RECORDED = 12_000


@pytest.fixture(params=["simulated", "recorded", "sparse"])
def ticks(request: pytest.FixtureRequest) -> Records:
    if request.param == "recorded":
        directory: Path = request.getfixturevalue("shared_data")
        # The open of the day, when the books are thin and prices jump.
        return markets.recorded_day(directory / "ticks" / "us_equity", "2013-10-07", RECORDED)
    ticks = markets.simulated(3, SIMULATED)
    if request.param == "sparse":
        # So that minutes end, and windows and intervals stay empty.
        ticks["event_ns"] = ticks["event_ns"][0] + (ticks["event_ns"] - ticks["event_ns"][0]) * 2_000
        ticks["recv_ns"] = ticks["event_ns"]
    return ticks


def states_of(ticks: Records) -> dict[str, State]:
    return {symbol.decode(): new_state() for symbol in np.unique(ticks["symbol"])}


def test_plain_python_equals_the_engine_in_every_feature_after_every_tick(ticks: Records) -> None:
    windows = Windows(markets.LATENESS_NS, markets.FUTURE_NS)
    states = states_of(ticks)
    for index, (symbol, *tick) in enumerate(markets.ticks_of(ticks)):
        step = windows.step(ticks[index : index + 1], np.array([index]))
        values = advance(states[symbol], *tick)
        assert values["ref"] == step.ref[0]
        assert values["ticks"] == step.seq[0]
        # A feature is a ratio times 1 to 1e4: below 1e-9 it is rounding noise.
        away = np.abs(values["features"] - windows.exact) / (1e-9 * np.abs(windows.exact) + 1e-9)
        worst = int(np.argmax(away))
        assert away[worst] <= 1, (
            f"{NAMES[worst]} of tick {index}: {values['features'][worst]}, {windows.exact[worst]}"
        )


def test_a_price_that_was_far_off_leaves_nothing_behind_in_running_sums() -> None:
    states = new_state(), new_state()
    prices = [20.0 + 0.01 * (number % 3) for number in range(400)]
    for number, price in enumerate(prices):
        for state, wrong in zip(states, (1.0, 1000.0), strict=True):
            seen = price * (wrong if number == 100 else 1.0)
            values = advance(state, number * 10**9, seen, 1.0, None, None, None, None, None)["features"]
            if number in (199, 399):
                state["seen"] = [values[NAMES.index(name)] for name in ("sma_32_gap_bps", "volatility_64_bps")]
    assert states[0]["seen"] == pytest.approx(states[1]["seen"], rel=1e-9)


def test_the_state_goes_through_json_unchanged(ticks: Records) -> None:
    # Faust and Quix Streams keep it so.
    kept, stored = states_of(ticks), states_of(ticks)
    for symbol, *tick in markets.ticks_of(ticks[:1_500]):
        assert advance(stored[symbol], *tick) == advance(kept[symbol], *tick)
        stored[symbol] = json.loads(json.dumps(stored[symbol], allow_nan=False))
