from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents import features
from agents.periods import DEFAULT
from models.dataset import HistoryRows, Labels, history, label
from models.judged import REGIMES, Judged, judged_rows
from models.splits import Split, split_at
from stream.errors import ModelError

HORIZON_NS = 5_000_000_000
SPREAD = features.NAMES.index("spread_bps")
VOLATILITY = features.NAMES.index("volatility_60s_bps")
Recording = tuple[HistoryRows, Labels, tuple[Split, ...]]


@pytest.fixture(scope="module")
def recording(make_ticks: Callable[..., Any]) -> Recording:
    rows = history(make_ticks(12_000, symbols=2, seed=4), HORIZON_NS)
    labels = label(rows, HORIZON_NS, 1.0, 3.0)
    at = [int(rows.event_ns[place]) for place in (0, 6000, 7000, 9000, 11_000)]
    return rows, labels, (split_at(rows, labels, *at[:4]), split_at(rows, labels, at[0], *at[2:]))


@pytest.fixture(scope="module")
def judged(recording: Recording) -> Judged:
    rows, labels, folds = recording
    return judged_rows(rows, labels, folds, DEFAULT)


def test_the_judged_rows_are_the_test_rows_of_all_folds_in_order_of_time(
    recording: Recording, judged: Judged
) -> None:
    _, labels, folds = recording
    assert set(judged.index.tolist()) == set(np.flatnonzero(folds[0].test | folds[1].test).tolist())
    assert (np.diff(judged.market.event_ns) >= 0).all()
    assert (folds[0].test[judged.index] == (judged.fold == 0)).all()
    assert (judged.direction == labels.direction[judged.index]).all()
    assert judged.horizon_ns == HORIZON_NS


def test_what_trading_would_have_met_is_found_row_by_row(recording: Recording, judged: Judged) -> None:
    rows, labels, _ = recording
    market = judged.market
    for place in np.random.default_rng(0).integers(0, len(judged.index), 200):
        row = judged.index[place]
        mine = np.flatnonzero(rows.symbol_row == rows.symbol_row[row])
        end = mine[rows.event_ns[mine] <= rows.event_ns[row] + HORIZON_NS][-1]
        assert market.end_ns[place] == rows.event_ns[row] + HORIZON_NS
        change_bps = (rows.ref_price[end] / rows.ref_price[row] - 1.0) * 1e4
        assert market.return_bps[place] == pytest.approx(change_bps)
        # The label's return is the same, but for what was cut off.
        assert labels.return_bps[row] == pytest.approx(np.clip(change_bps, -3.0, 3.0), abs=1e-4)
        assert market.spread_bps[place] == rows.features[row, SPREAD]
        assert market.exit_spread_bps[place] == rows.features[end, SPREAD]
    assert np.abs(market.return_bps).max() > 3.0


def test_regimes_are_thirds_of_what_training_saw_of_the_symbol(recording: Recording, judged: Judged) -> None:
    rows, _, folds = recording
    for symbol in (0, 1):
        past = rows.features[folds[1].train & (rows.symbol_row == symbol), VOLATILITY]
        low, high = np.quantile(past, [1 / 3, 2 / 3])
        mine = (judged.fold == 1) & (judged.market.symbol_row == symbol)
        volatility = rows.features[judged.index[mine], VOLATILITY]
        assert (judged.regime[mine] == (volatility > low).astype(int) + (volatility > high)).all()
    assert judged.regime_feature == "volatility_60s_bps"


def test_slices_of_a_group_are_all_rows_and_each_once(judged: Judged) -> None:
    groups: dict[str, Any] = {}
    for each in judged.slices():
        groups[each.group] = groups.get(each.group, 0) + each.rows.astype(int)
    assert {"all", "symbol", "fold", "regime"} <= set(groups)
    assert all((times == 1).all() for times in groups.values())
    keys = {(each.group, each.key) for each in judged.slices()}
    assert {("symbol", "SYM0"), ("fold", "2"), ("regime", REGIMES[2])} <= keys


def test_hours_are_those_of_utc(judged: Judged) -> None:
    hours = {each.key: each.rows for each in judged.slices() if each.group == "hour"}
    for key, rows in hours.items():
        times = judged.market.event_ns[rows].astype("datetime64[ns]")
        assert set(times.astype("datetime64[h]").astype(int) % 24) == {int(key)}


def test_a_row_is_judged_once(recording: Recording) -> None:
    rows, labels, folds = recording
    with pytest.raises(ModelError, match="each in one fold only"):
        judged_rows(rows, labels, (folds[0], folds[0]), DEFAULT)
    with pytest.raises(ModelError, match="0 rows to judge by"):
        judged_rows(rows, labels, (), DEFAULT)
