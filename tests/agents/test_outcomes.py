"""What came of predictions: the labels of training to the bit, whatever the blocks and wherever it was killed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.outcomes import Costs, OutcomeJoin
from models.dataset import HistoryRows, history, label
from stream.records import OUTCOME_SHADOW, OUTCOME_WARMING, PREDICTION, Records
from stream.sources.replay import Replay

S = 1_000_000_000
MODEL, OTHER = 0xFEDC_BA98_7654_3210, 7
DEAD_BAND_BPS = 1.0
COSTS = Costs(fees_bps=0.25, unknown_bps=0.5)


def predictions(
    events_ns: Any, prices: Any, symbols: Any = 0, horizon_ns: int = 10 * S, model: Any = MODEL, seed: int = 1
) -> Records:
    """Return PREDICTION rows of some ticks; probabilities are drawn, and differ."""
    events_ns = np.asarray(events_ns, np.int64)
    rows = np.zeros(len(events_ns), PREDICTION)
    symbols = np.broadcast_to(symbols, len(rows))
    rows["symbol"] = [f"SYM{symbol}".encode() for symbol in symbols]
    for symbol in np.unique(symbols):
        where = symbols == symbol
        rows["seq"][where] = 1 + np.arange(where.sum())
    rows["event_ns"], rows["ref_price"], rows["horizon_ns"], rows["model_id"] = events_ns, prices, horizon_ns, model
    rows["source_offset"] = np.arange(len(rows))
    drawn = np.random.default_rng(seed).dirichlet((1.0, 2.0, 1.0), len(rows))
    rows["p_down"], rows["p_flat"], rows["p_up"] = drawn.T
    rows["spread_bps"] = np.random.default_rng(seed).choice([np.nan, 0.0, 1.5, 2.25, 40.0], len(rows))
    return rows


def new_join(shadow: bool = False, room: int = 1 << 20) -> OutcomeJoin:
    join = OutcomeJoin(0, COSTS, shadow, room)
    join.know({MODEL: DEAD_BAND_BPS, OTHER: 2.0})
    return join


def outcomes_of(rows: Records, cuts: Any = (), join: OutcomeJoin | None = None) -> Records:
    join = new_join() if join is None else join
    found = [join.take(part, np.arange(len(part))) for part in np.split(rows, list(cuts)) if len(part)]
    return np.concatenate(found)


def by_key(outcomes: Records) -> dict[tuple[bytes, int, int], Any]:
    return {(row["symbol"], int(row["seq"]), int(row["model_id"])): row for row in outcomes}


@pytest.fixture(scope="module")
def real_rows(shared_data: Path) -> HistoryRows:
    replay = Replay([shared_data / "ticks" / "us_equity"], None)
    first = next(iter(replay.days()))[:120_000]
    return history(first, 5 * S)


def of_history(rows: HistoryRows, horizon_ns: int) -> Records:
    return predictions(rows.event_ns, rows.ref_price, rows.symbol_row, horizon_ns)


@pytest.mark.parametrize("horizon_s", [1, 10, 60])
def test_an_outcome_of_a_real_tick_is_the_label_of_training_to_the_bit(
    real_rows: HistoryRows, horizon_s: int
) -> None:
    rows = of_history(real_rows, horizon_s * S)
    outcomes = outcomes_of(rows, cuts=(1, 7, 5_000, 60_000))
    labels = label(real_rows, horizon_s * S, DEAD_BAND_BPS, np.inf)
    found = by_key(outcomes)
    assert len(found) == len(outcomes) > 50_000
    keys = list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))
    place = np.array([(*key, MODEL) in found for key in keys])
    # What the recording's last tick tells exactly at a horizon is all that a stream does not know yet.
    last_ns = {symbol: rows["event_ns"][rows["symbol"] == symbol].max() for symbol in set(rows["symbol"].tolist())}
    at_the_end = rows["event_ns"] + horizon_s * S == np.array([last_ns[key[0]] for key in keys])
    np.testing.assert_array_equal(place, labels.known & ~at_the_end)
    got = [found[(*key, MODEL)] for key, known in zip(keys, place, strict=True) if known]
    np.testing.assert_array_equal([row["return_bps"] for row in got], labels.return_bps[place])
    np.testing.assert_array_equal([row["realised"] for row in got], labels.direction[place])


def test_a_real_outcome_is_scored_as_its_formulas_say(real_rows: HistoryRows) -> None:
    outcomes = outcomes_of(of_history(real_rows, 10 * S))
    given = np.stack([outcomes["p_down"], outcomes["p_flat"], outcomes["p_up"]], 1).astype(np.float64)
    happened = np.eye(3)[outcomes["realised"]]
    np.testing.assert_allclose(outcomes["brier"], ((given - happened) ** 2).sum(1), rtol=1e-6)
    loss = -np.log(np.maximum((given * happened).sum(1), 1e-7))
    np.testing.assert_allclose(outcomes["log_loss"], loss, rtol=1e-6, atol=1e-7)
    assert (outcomes["resolved_ns"] > outcomes["from_ns"] + outcomes["horizon_ns"]).all()


def test_a_position_costs_half_of_the_spread_at_each_end_and_fees(real_rows: HistoryRows) -> None:
    rows = of_history(real_rows, 10 * S)
    found = by_key(outcomes_of(rows, cuts=(1, 7, 5_000, 60_000)))
    expected = {}
    for symbol in set(rows["symbol"].tolist()):
        mine = rows[rows["symbol"] == symbol]
        ends = np.searchsorted(np.maximum.accumulate(mine["event_ns"]), mine["event_ns"] + 10 * S, "right") - 1
        cost_bps = 0.5 * (mine["spread_bps"].astype(float) + mine["spread_bps"][ends]) + COSTS.fees_bps
        known_bps = np.where(np.isnan(cost_bps), COSTS.unknown_bps, cost_bps)
        expected |= {(symbol, int(row["seq"]), MODEL): cost for row, cost in zip(mine, known_bps, strict=True)}
    costs_bps = np.array([(row["cost_bps"], expected[key]) for key, row in found.items()])
    np.testing.assert_allclose(costs_bps[:, 0], costs_bps[:, 1], rtol=1e-6)
    assert len(set(costs_bps[:, 1].tolist())) > 5


def test_the_fallback_knows_more_than_chance_and_nothing_of_the_future(real_rows: HistoryRows) -> None:
    rows = of_history(real_rows, 10 * S)
    outcomes = outcomes_of(rows)
    late = outcomes[outcomes["from_ns"] > np.quantile(outcomes["from_ns"], 0.3)]
    assert late["fallback_log_loss"].mean() < 0.98 * np.log(3)
    # With another future, the same is said up to there.
    cut = len(rows) // 2
    other = rows.copy()
    other["ref_price"][cut:] *= 1.0 + 1e-3 * np.arange(len(rows) - cut) % 0.1
    names = ["fallback_down", "fallback_flat", "fallback_up"]
    before = rows["event_ns"][cut] - 10 * S
    first, second = (by_key(found[found["from_ns"] < before]) for found in (outcomes, outcomes_of(other)))
    assert first.keys() == second.keys()
    assert all(first[key][names] == second[key][names] for key in first)


steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-2, 9), st.integers(-3, 3), st.booleans()), min_size=1, max_size=120
)


def drawn_rows(drawn: list[tuple[int, int, int, bool]]) -> Records:
    symbols = np.array([step[0] for step in drawn])
    events_ns = 1_000 * S + np.cumsum([step[1] for step in drawn]) * S
    prices = 100.0 + np.cumsum([step[2] for step in drawn]) / 100
    return predictions(events_ns, prices, symbols, model=np.where([step[3] for step in drawn], MODEL, OTHER))


def told(outcomes: Records) -> dict[Any, bytes]:
    return {key: row.tobytes() for key, row in by_key(outcomes).items()}


@given(drawn=steps, data=st.data())
def test_outcomes_do_not_depend_on_how_predictions_were_cut_into_blocks(drawn: Any, data: st.DataObject) -> None:
    rows = drawn_rows(drawn)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)))))
    assert outcomes_of(rows, cuts).tobytes() == outcomes_of(rows).tobytes()


@given(drawn=steps, data=st.data())
def test_a_restart_anywhere_gives_each_outcome_once_and_the_same(drawn: Any, data: st.DataObject) -> None:
    rows = drawn_rows(drawn)
    offsets = np.arange(len(rows))
    whole = new_join().take(rows, offsets)
    killed = data.draw(st.integers(0, len(rows)))
    join = new_join()
    before = join.take(rows[:killed], offsets[:killed])
    oldest = join.oldest_offset()
    again = new_join()
    again.restore(join.save())
    start = killed if oldest is None else oldest
    after = again.take(rows[start:], offsets[start:])
    assert len(before) + len(after) == len(whole)
    parts = np.concatenate([before, after])
    # The fallback says nothing on those that were seen before the restart: it would know their future.
    silent = np.isnan(parts["fallback_up"])
    assert (
        silent
        == np.isin(np.arange(len(parts)), np.arange(len(before), len(parts))) & was_seen(parts, rows[:killed])
    ).all()
    for name in ("fallback_down", "fallback_flat", "fallback_up", "fallback_log_loss"):
        parts[name] = whole[name] = 0
    assert told(parts) == told(whole)


def was_seen(outcomes: Records, rows: Records) -> Any:
    keys = {(row["symbol"], int(row["seq"]), int(row["model_id"])) for row in rows}
    return np.array([key in keys for key in by_key(outcomes)], bool)


def test_a_prediction_that_came_before_is_not_told_again() -> None:
    rows = predictions(np.arange(30) * S, 100.0)
    join = new_join()
    first = join.take(rows, np.arange(30))
    assert len(join.take(rows, np.arange(30))) == 0
    assert len(first) == 19
    assert join.tallies()["duplicates"] == 30


def test_an_engine_that_numbers_anew_leaves_what_waited_untold() -> None:
    rows = predictions(np.arange(30) * S, 100.0)
    again = rows.copy()
    again["source_offset"] += 1_000
    join = new_join()
    outcomes = outcomes_of(np.concatenate([rows, again]), join=join)
    assert len(outcomes) == 38
    assert join.tallies()["abandoned"] == 11


def test_what_finds_no_room_is_counted_and_the_rest_is_told() -> None:
    rows = predictions(np.arange(100) * S // 5, 100.0)
    join = new_join(room=20)
    outcomes = outcomes_of(rows, join=join)
    tallies = join.tallies()
    assert tallies["overflowed"] > 0
    assert tallies["overflowed"] + tallies["pended"] == 100
    assert tallies["settled"] == len(outcomes) == tallies["pended"] - join.pending
    assert join.pending <= 20


def test_predictions_of_a_model_that_nobody_knows_are_counted() -> None:
    rows = predictions(np.arange(30) * S, 100.0, model=99)
    join = new_join()
    assert len(outcomes_of(rows, join=join)) == 0
    assert join.tallies()["unknown_model"] == 30


def test_silent_symbols_are_given_up_and_counted() -> None:
    join = new_join()
    join.take(predictions([0, S], 100.0), np.arange(2))
    assert join.give_up(before_ns=10 * S) == 0
    assert join.give_up(before_ns=12 * S) == 2
    assert join.oldest_offset() is None
    assert join.tallies()["abandoned"] == 2


def test_models_of_different_horizons_are_settled_side_by_side() -> None:
    rows = predictions(np.arange(100) * S, 100.0 + np.arange(100))
    rows["model_id"][50:], rows["horizon_ns"][50:] = OTHER, 2 * S
    outcomes = outcomes_of(rows)
    assert len(outcomes) == 50 + 47
    np.testing.assert_array_equal(outcomes["later_price"] - outcomes["ref_price"], outcomes["horizon_ns"] // S)


def test_shadow_and_warming_predictions_are_marked() -> None:
    rows = predictions(np.arange(30) * S, 100.0)
    rows["flags"][:3] = 1
    outcomes = outcomes_of(rows, join=new_join(shadow=True))
    assert (outcomes["flags"] & OUTCOME_SHADOW).all()
    assert ((outcomes["flags"] & OUTCOME_WARMING) > 0).sum() == 3
