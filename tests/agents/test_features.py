"""The names and the order of the features: like a record, append only."""

import pytest

from agents.features import COUNT, FEATURES, NAMES, indices
from stream.errors import SettingsError


def test_a_feature_never_changes_its_place() -> None:
    assert NAMES[:18] == (
        "return_1_bps",
        "return_8_bps",
        "return_64_bps",
        "sma_32_gap_bps",
        "ema_12_gap_bps",
        "rsi_14",
        "macd_bps",
        "macd_histogram_bps",
        "bollinger_20_percent_b",
        "bollinger_20_width_bps",
        "volatility_64_bps",
        "spread_bps",
        "book_imbalance",
        "microprice_gap_bps",
        "order_flow_imbalance",
        "trade_flow",
        "tick_rate_log",
        "since_trade_log",
    )


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_formula() -> None:
    assert len(set(NAMES)) == COUNT == len(FEATURES)
    assert all(feature.unit and feature.formula for feature in FEATURES)
    # An even count keeps a feature row a whole number of 64-bit words in STATE.
    assert COUNT % 2 == 0


def test_features_are_found_by_name_in_the_order_asked_for() -> None:
    assert indices(["trade_flow", "return_1_bps"]) == [15, 0]
    assert indices(list(NAMES)) == list(range(COUNT))


def test_an_unknown_feature_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"unknown features rsi_15, sma; there are: return_1_bps, .*"):
        indices(["rsi_14", "rsi_15", "sma"])
