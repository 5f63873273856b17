from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lane import Lane
from agents.outcomes import Costs, OutcomeJoin
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from models.dataset import history, label
from models.judged import judged_rows
from models.live_scores import SUMS, rows_of_sums
from models.profit import Market, earnings, trade
from models.splits import split_at
from stream.records import TickKind
from stream.sources.replay import Replay

S = 1_000_000_000
FEE_BPS, UNKNOWN_BPS = 0.3, 7.0
NEVER = np.nan  # where every spread is known


class Guesses:
    """A model of which up to a few bps may be expected, by chance."""

    model_id, horizon_ns, warmup_ticks = 7, 10 * S, 0

    def __init__(self) -> None:
        self._drawn = np.random.default_rng(11)

    def run(self, feature_rows: Any, rows: Any, rounds: Any, h: Any, c: Any, out: Any) -> None:
        out[:, 3] = self._drawn.normal(0.0, 4.0, len(out))
        out[:, 2] = np.where(out[:, 3] > 0.0, 0.6, 0.1)
        out[:, 0], out[:, 1] = 0.7 - out[:, 2], 0.3


def market(
    event_s: Any, return_bps: Any, spread_bps: Any, symbol_row: Any = None, horizon_s: float = 10.0
) -> Market:
    event_ns = (np.asarray(event_s, float) * S).astype(np.int64)
    spread = np.broadcast_to(np.asarray(spread_bps, float), event_ns.shape)
    return Market(
        symbol_row=np.zeros(len(event_ns), np.int64) if symbol_row is None else np.asarray(symbol_row),
        event_ns=event_ns,
        end_ns=event_ns + int(horizon_s * S),
        return_bps=np.asarray(return_bps, float),
        spread_bps=spread,
        exit_spread_bps=spread + 1.0,
    )


def test_a_trade_is_paid_for_with_half_of_each_spread_and_both_fees() -> None:
    found = trade(np.array([9.0]), market([0], [5.0], 2.0), 0.5, NEVER)
    assert found.gross_bps.tolist() == [5.0]
    assert found.net_bps.tolist() == [5.0 - 1.0 - 1.5 - 1.0]


def test_somebody_who_expects_a_fall_sells() -> None:
    assert trade(np.array([-9.0]), market([0], [5.0], 2.0), 0.0, NEVER).gross_bps.tolist() == [-5.0]


def test_what_does_not_pay_for_its_costs_is_left_alone() -> None:
    expected = np.array([2.9, 3.1, -2.9, -3.1])
    found = trade(expected, market([0, 20, 40, 60], [1.0] * 4, 2.0), 0.5, NEVER)
    assert found.row.tolist() == [1, 3]


def test_a_row_without_a_spread_is_not_traded() -> None:
    assert trade(np.array([9.0, 9.0]), market([0, 20], [1.0, 1.0], [0.0, 2.0]), 0.0, NEVER).row.tolist() == [1]


def test_a_trade_that_ends_without_a_book_costs_what_is_said() -> None:
    times = market([0, 20, 40], [5.0] * 3, [2.0, 2.0, np.nan])
    times.exit_spread_bps[:] = [np.nan, 0.0, 2.0]
    found = trade(np.full(3, 9.0), times, 0.5, unknown_bps=3.5)
    assert found.row.tolist() == [0, 1]
    assert found.net_bps.tolist() == [5.0 - 3.5, 5.0 - 1.0 - 1.0]


def test_a_symbol_has_one_position_at_a_time_and_symbols_do_not_wait_for_each_other() -> None:
    times = market([0, 1, 5, 9.9, 10, 12, 25], [1.0] * 7, 1.0, symbol_row=[0, 1, 0, 0, 0, 1, 0])
    assert trade(np.full(7, 9.0), times, 0.0, NEVER).row.tolist() == [0, 1, 4, 5, 6]


def test_what_was_earned_is_summed_over_the_rows_asked_for() -> None:
    times = market([0, 20, 40, 60], [4.0, -1.0, 2.0, 8.0], 1.0)
    found = trade(np.full(4, 9.0), times, 0.0, NEVER)
    some = earnings(found, times, np.array([True, True, True, False]), 10 * S)
    assert some["trades"] == 3.0
    assert some["gross_bps"] == 5.0
    assert some["net_bps"] == pytest.approx(5.0 - 3 * 1.5)
    assert some["net_bps_per_trade"] == pytest.approx(some["net_bps"] / 3)
    assert some["turnover_per_hour"] == pytest.approx(6 / (3 / 3600))


def test_nobody_who_never_trades_earns_anything() -> None:
    times = market([0, 20], [4.0, -1.0], 1.0)
    found = earnings(trade(np.zeros(2), times, 0.0, NEVER), times, np.ones(2, bool), 10 * S)
    assert set(found.values()) == {0.0}


@given(st.integers(0, 1_000_000), st.integers(1, 200), st.integers(1, 3))
def test_no_two_trades_of_a_symbol_overlap_and_no_chance_is_missed(seed: int, rows: int, symbols: int) -> None:
    generator = np.random.default_rng(seed)
    event_s = np.cumsum(generator.choice([0.0, 0.5, 3.0, 30.0], rows))
    times = market(event_s, generator.normal(size=rows), 1.0, generator.integers(0, symbols, rows))
    expected = generator.normal(0.0, 1.5, rows)
    taken = set(trade(expected, times, 0.0, NEVER).row.tolist())
    free_ns = dict.fromkeys(range(symbols), -1)
    for row in range(rows):
        symbol = int(times.symbol_row[row])
        chance = abs(expected[row]) > 1.0 and times.event_ns[row] >= free_ns[symbol]
        assert (row in taken) == chance
        if chance:
            free_ns[symbol] = int(times.end_ns[row])


@pytest.mark.parametrize("periods", [DEFAULT, Periods(session_gap_s=6.0)])
def test_live_outcomes_of_a_recorded_day_earn_what_a_backtest_of_the_same_predictions_does(
    shared_data: Path, periods: Periods
) -> None:
    ticks = next(iter(Replay([shared_data / "ticks" / "us_equity"], None).days()))[:150_000]
    ticks["recv_ns"] = ticks["event_ns"]
    has_gaps = periods is not DEFAULT
    if has_gaps:  # sessions that begin with trades, before the horizons of the one before have ended
        into_ns = ticks["event_ns"] % (60 * S)
        ticks = ticks[(into_ns > 7 * S) & ((into_ns > 12 * S) | (ticks["kind"] == TickKind.TRADE))]
    lane = Lane(0, Windows(5 * S, 5 * S, periods=periods), Guesses())
    starts = range(0, len(ticks), 4096)
    predictions = np.concatenate(
        [lane.apply([(start, ticks[start : start + 4096])]).predictions for start in starts]
    )
    join = OutcomeJoin(0, Costs(fees_bps=2 * FEE_BPS, unknown_bps=UNKNOWN_BPS))
    join.know({Guesses.model_id: 1.0})
    live = {(row["symbol"], row["seq"]): row for row in join.take(predictions, np.arange(len(predictions)))}

    rows = history(ticks, 5 * S, periods)
    assert len(rows.event_ns) == len(predictions)
    assert predictions["spread_bps"].tobytes() == rows.spread_bps.tobytes()
    labels = label(rows, Guesses.horizon_ns, 1.0, np.inf)
    at_ns = [int(rows.event_ns[place]) for place in (0, 1_000, 2_000, len(predictions) - 1)]
    judged = judged_rows(rows, labels, [split_at(rows, labels, *at_ns)], periods)
    expected_bps = predictions["expected_return_bps"][judged.index].astype(float)
    trades = trade(expected_bps, judged.market, FEE_BPS, UNKNOWN_BPS)

    traded = predictions[judged.index[trades.row]]
    outcomes = np.array([live[row["symbol"], row["seq"]] for row in traded])
    sums = rows_of_sums(outcomes)
    positions, gross_bps, cost_bps = (sums[:, SUMS.index(name)] for name in ("positions", "gross_bps", "cost_bps"))
    assert len(trades.row) == positions.sum() > 500
    assert ((cost_bps == UNKNOWN_BPS).sum() > 10) == has_gaps
    np.testing.assert_allclose(gross_bps, trades.gross_bps, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gross_bps - cost_bps, trades.net_bps, rtol=1e-6, atol=1e-5)
    assert trades.net_bps.sum() < trades.gross_bps.sum() - 500
    assert (gross_bps - cost_bps).sum() == pytest.approx(trades.net_bps.sum(), rel=1e-6)
