"""The names and the order of the features: like a record, append only."""

import pytest

from agents.features import COUNT, FEATURES, NAMES, catalogue, choose, groups, indices, names
from agents.periods import Periods
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


def test_the_features_that_came_later_stand_behind_those_that_models_were_trained_on() -> None:
    assert NAMES[18:24] == (
        "macd_signal_bps",
        "ema_26_gap_bps",
        "channel_64_position",
        "mid_gap_bps",
        "bid_age_log",
        "ask_age_log",
    )
    assert NAMES[24:32] == (
        "roc_1s_bps",
        "sma_gap_1s_bps",
        "vwap_gap_1s_bps",
        "volatility_1s_bps",
        "channel_1s_position",
        "trade_flow_1s",
        "order_flow_1s",
        "tick_rate_1s_log",
    )
    assert NAMES[68:] == (
        "bar_60s_sma_20_gap_bps",
        "bar_60s_ema_12_gap_bps",
        "bar_60s_rsi_14",
        "bar_60s_macd_12_26_bps",
        "bar_60s_macd_12_26_9_signal_bps",
        "bar_60s_macd_12_26_9_histogram_bps",
        "bar_60s_bollinger_20_percent_b",
        "bar_60s_bollinger_20_width_bps",
        "bar_60s_atr_14_bps",
        "bar_60s_roc_10_bps",
        "bar_60s_channel_20_position",
        "bar_60s_volatility_20_bps",
    )


OTHER = {
    "tick_return_short": (9, {1}),
    "tick_return_long": (63, {2}),
    "tick_sma": (33, {3}),
    "tick_ema_fast": (13, {4, 6, 7, 18}),
    "tick_ema_slow": (27, {6, 7, 18, 19}),
    "tick_macd_signal": (10, {7, 18}),
    "tick_rsi": (15, {5}),
    "tick_bollinger": (21, {8, 9}),
    "tick_volatility": (63, {10}),
    "tick_channel": (63, {20}),
    "tick_flow": (33, {14, 15, 16}),
    "bar_sma": (21, {56, 68}),
    "bar_ema_fast": (13, {57, 59, 60, 61, 69, 71, 72, 73}),
    "bar_ema_slow": (27, {59, 60, 61, 71, 72, 73}),
    "bar_macd_signal": (10, {60, 61, 72, 73}),
    "bar_rsi": (15, {58, 70}),
    "bar_bollinger": (21, {62, 63, 74, 75}),
    "bar_atr": (15, {64, 76}),
    "bar_roc": (11, {65, 77}),
    "bar_channel": (21, {66, 78}),
    "bar_volatility": (21, {67, 79}),
    "windows_s": ((1.0, 10.0, 60.0, 600.0), set(range(48, 56))),
    "bars_s": ((1.0, 300.0), set(range(68, 80))),
}


@pytest.mark.parametrize("period", OTHER)
def test_a_name_carries_every_period_that_its_feature_depends_on(period: str) -> None:
    value, places = OTHER[period]
    changed = names(Periods(**{period: value}))
    assert len(changed) == COUNT
    assert len(set(changed)) == COUNT
    assert {place for place in range(COUNT) if changed[place] != NAMES[place]} == places


def test_the_same_place_is_the_same_kind_of_feature_whatever_the_periods() -> None:
    other = catalogue(Periods(tick_rsi=21, windows_s=(0.5, 2.0, 30.0, 3600.0)))
    assert [feature.unit for feature in other] == [feature.unit for feature in FEATURES]
    assert other[24].name == "roc_0.5s_bps"
    assert indices(["rsi_21"], names(Periods(tick_rsi=21))) == [5]


def test_an_unknown_feature_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"unknown features rsi_15, sma; there are: return_1_bps, .*"):
        indices(["rsi_14", "rsi_15", "sma"])


def test_every_feature_is_in_one_group() -> None:
    periods = Periods(tick_rsi=21)
    found = [name for group in groups(periods).values() for name in group]
    assert sorted(found) == sorted(names(periods))
    assert len(set(found)) == COUNT
    assert {"mid_gap_bps", "book_imbalance"} <= set(groups(periods)["book"])
    assert {"channel_64_position", "rsi_21"} <= set(groups(periods)["ticks"])


def test_patterns_choose_features_in_the_order_of_a_row() -> None:
    assert choose("spread_bps, rsi_*", NAMES) == ("rsi_14", "spread_bps")
    assert choose("roc_*,-roc_1s_*", NAMES) == ("roc_10s_bps", "roc_60s_bps", "roc_300s_bps")
    assert choose("-bar_*", NAMES) == tuple(name for name in NAMES if not name.startswith("bar_"))


@pytest.mark.parametrize(("patterns", "says"), [("rsi_99", "rsi_14"), ("rsi_*,-*", "one or more"), ("", "rsi_14")])
def test_patterns_that_choose_nothing_are_refused(patterns: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        choose(patterns, NAMES)
