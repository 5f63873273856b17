from typing import Any

import pytest

from agents.features import COUNT, NAMES
from bench import agreement, markets
from bench.peers import features
from bench.peers.indicators import advance, new_state

TICKS = 3_000
OTHERS = ("volatility_64_bps", "spread_bps", "imbalance")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> agreement.Market:
    path = tmp_path_factory.mktemp("market") / "market.npz"
    return agreement.Market.make(markets.simulated(3, TICKS), path)


@pytest.fixture
def values(market: agreement.Market) -> dict[str, dict[str, Any]]:
    """What a right peer answers."""
    states: dict[str, Any] = {}
    last = {}
    for symbol, *tick in markets.load_ticks(str(market.path), TICKS):
        last[symbol] = advance(states.setdefault(symbol, new_state()), *tick)
    return last


def test_a_right_peer_agrees_in_every_value(market: agreement.Market, values: dict[str, dict[str, Any]]) -> None:
    found = agreement.compare(values, market)
    assert found["compared"] == 3 * 12
    assert found["max_relative_difference"] < agreement.TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "ref",
        "sma_32",
        "ema_12",
        "ema_26",
        "rsi_14",
        "macd",
        "macd_histogram",
        "bollinger_lower",
        "bollinger_upper",
        *OTHERS,
    ],
)
@pytest.mark.parametrize("wrong", [1.0001, float("nan")])
def test_a_peer_that_is_wrong_in_one_value_of_one_symbol_does_not(
    market: agreement.Market, values: dict[str, dict[str, Any]], name: str, wrong: float
) -> None:
    symbol = sorted(values)[1]
    values[symbol][name] = values[symbol][name] * wrong + 1e-5
    found = agreement.compare(values, market)
    assert not found["max_relative_difference"] < agreement.TOLERANCE
    assert found["where"].startswith(symbol)


def test_values_of_a_symbol_that_has_hardly_ticked_are_not_judged(
    market: agreement.Market, values: dict[str, dict[str, Any]]
) -> None:
    for each in values.values():
        each["ticks"] = agreement.WARM_TICKS - 1
    assert agreement.compare(values, market) == {"compared": 0, "max_relative_difference": None, "where": ""}


def test_every_feature_of_a_peer_that_has_them_all_is_compared(market: agreement.Market) -> None:
    states: dict[str, Any] = {}
    last = {}
    for symbol, *tick in markets.load_ticks(str(market.path), TICKS):
        last[symbol] = features.advance(states.setdefault(symbol, features.new_state()), *tick)
    found = agreement.compare(last, market)
    assert found["compared"] == 3 * (COUNT + 1)
    assert found["max_relative_difference"] < 1e-9
    last[sorted(last)[2]]["features"][NAMES.index("order_flow_10s")] += 1.0
    assert agreement.compare(last, market)["where"].endswith("order_flow_10s")
