"""Periods: what is right, what is refused, and that no two of them are taken for each other."""

import dataclasses
import json
from typing import Any

import pytest

from agents.periods import DEFAULT, RING, Periods
from stream.errors import SettingsError
from stream.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tick_rsi": 0}, r"tick_rsi is 0; right would be 1 to 100000"),
        ({"tick_sma": RING + 1}, r"tick_sma is 65; right would be 1 to 64"),
        ({"bar_bollinger": 1}, r"bar_bollinger is 1; right would be 2 to 64"),
        ({"bar_atr": 1.5}, r"bar_atr is 1.5; right would be 1 to 100000"),
        ({"tick_ema_fast": 26}, r"tick_ema_fast is 26 and tick_ema_slow is 26; right would be a shorter one"),
        ({"bar_ema_slow": 5}, r"bar_ema_fast is 12 and bar_ema_slow is 5"),
        ({"tick_return_long": 8}, r"tick_return_short is 8 and tick_return_long is 8"),
        ({"tick_return_short": 1}, r"tick_return_short is 1; .* 2 or more"),
        ({"windows_s": (1.0, 2.0, 3.0)}, r"right would be 4 different lengths"),
        ({"windows_s": (1.0, 10.0, 10.0, 60.0)}, r"right would be 4 different lengths"),
        ({"windows_s": (0.0, 1.0, 2.0, 3.0)}, r"of 0.01 to 604800 seconds"),
        ({"bars_s": (60.0, 1.0)}, r"bars_s is \(60.0, 1.0\); right would be 2 different lengths"),
        ({"bars_s": (1.0, float("nan"))}, r"right would be 2 different lengths"),
        ({"bars_s": (1.0000001, 60.0)}, r"whole microseconds"),
        ({"session_gap_s": -1.0}, r"session_gap_s is -1.0; right would be 0 \(off\)"),
        ({"session_gap_s": float("nan")}, r"session_gap_s is nan"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Periods(**wrong)


def test_the_settings_have_the_same_defaults() -> None:
    assert Periods.of(Settings()) == DEFAULT


def test_every_period_is_a_setting() -> None:
    variables = {"TICKLOOM_TICK_RSI": "21", "TICKLOOM_WINDOWS_S": "0.5, 2,10,30", "TICKLOOM_SESSION_GAP_S": "600"}
    periods = Periods.of(load_settings(environ=variables).settings)
    assert periods == Periods(tick_rsi=21, windows_s=(0.5, 2.0, 10.0, 30.0), session_gap_s=600.0)
    assert {field.name for field in dataclasses.fields(Periods)} <= set(Settings.model_fields)


@pytest.mark.parametrize("text", ["", "1,x,3,4", "1 2 3 4"])
def test_windows_that_are_not_numbers_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"windows_s is .* right would be seconds with commas between"):
        Periods.of(Settings(windows_s=text))


def test_each_change_makes_another_id() -> None:
    changed = [
        Periods(**{field.name: getattr(DEFAULT, field.name) + 1})
        for field in dataclasses.fields(Periods)
        if field.type is int and getattr(DEFAULT, field.name) < RING
    ]
    changed += [Periods(tick_volatility=63), Periods(tick_channel=63), Periods(tick_return_long=63)]
    changed += [
        Periods(session_gap_s=1.0),
        Periods(bars_s=(1.0, 30.0)),
        Periods(windows_s=(1.0, 10.0, 60.0, 299.0)),
    ]
    assert len({periods.id for periods in [DEFAULT, *changed]}) == len(changed) + 1
    assert len(changed) == 24


def test_the_id_of_the_default_never_changes() -> None:
    # It is in every STATE row.
    assert f"{DEFAULT.id:016x}" == "9e3315d9195ada41"


def test_periods_can_be_told_as_json() -> None:
    told = json.loads(json.dumps(DEFAULT.plain()))
    assert told["bar_rsi"] == 14
    assert told["windows_s"] == [1.0, 10.0, 60.0, 300.0]
