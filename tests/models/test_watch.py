"""One partition under watch: what it knows goes on after a restart, and nothing is scored twice."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.outcomes import Costs
from models.live_scores import SUMS, rows_of_sums, scores_of
from models.watch import FALLBACK, PREVIOUS, PartitionWatch, Service
from stream.errors import RecordError
from stream.records import PREDICTION, Records

S = 1_000_000_000
ROWS = 400
NEW, OLD = 11, 22
SERVICE = Service(NEW, 10 * S, 3, OLD, 10 * S)
TOPICS = ("served", "shadow")


def predictions(model: int, shares: tuple[float, float, float]) -> Records:
    rows = np.zeros(ROWS, PREDICTION)
    generator = np.random.default_rng(4)
    rows["symbol"] = np.array([b"AIG", b"BAC"])[np.arange(ROWS) % 2]
    rows["seq"] = 1 + np.arange(ROWS) // 2
    rows["event_ns"] = 1_700_000_000 * S + np.arange(ROWS) * S // 2
    rows["ref_price"] = 100 * np.exp(np.cumsum(generator.normal(0, 1e-4, ROWS)))
    rows["horizon_ns"], rows["model_id"], rows["source_offset"] = 10 * S, model, np.arange(ROWS)
    rows["p_down"], rows["p_flat"], rows["p_up"] = shares
    rows["spread_bps"] = 0.8
    return rows


SERVED, SHADOW = predictions(NEW, (0.9, 0.05, 0.05)), predictions(OLD, (0.4, 0.2, 0.4))


def new_watch() -> PartitionWatch:
    watch = PartitionWatch(0, Costs(fees_bps=0.1, unknown_bps=99.0), 600 * S)
    watch.know({NEW: 1.0, OLD: 1.0})
    return watch


def feed(watch: PartitionWatch, start: int, stop: int) -> None:
    offsets = np.arange(start, stop)
    watch.take(SHADOW[start:stop], offsets, is_shadow=True)
    watch.take(SERVED[start:stop], offsets, is_shadow=False)


def totals(watch: PartitionWatch) -> dict[int, Any]:
    return {model: sum(hours.values()) for model, hours in watch.hours.items()}


def test_outcomes_are_scored_by_model_and_the_worse_one_is_found_out() -> None:
    watch = new_watch()
    watch.serve(SERVICE)
    for start in range(0, ROWS, 20):
        feed(watch, start, start + 20)
    sums = totals(watch)
    assert sums.keys() == {NEW, OLD}
    assert watch.since_promotion == scores_of(sums[NEW])["outcomes"] > 300
    assert scores_of(sums[NEW])["log_loss"] > scores_of(sums[OLD])["log_loss"]
    assert watch.trials[FALLBACK].windows == watch.trials[PREVIOUS].windows > 10
    assert watch.trials[FALLBACK].e_value > 10 < watch.trials[PREVIOUS].e_value


@settings(max_examples=25)
@given(killed=st.integers(1, ROWS - 1))
def test_a_restart_scores_each_outcome_once(killed: int) -> None:
    whole, before = new_watch(), new_watch()
    for watch, stop in ((whole, ROWS), (before, killed)):
        watch.serve(SERVICE)
        feed(watch, 0, stop)
    oldest = {topic: before.oldest_offset(is_shadow=topic == "shadow") for topic in TOPICS}
    state = before.save({topic: killed if at is None else at for topic, at in oldest.items()})
    again = new_watch()
    starts = again.restore(state)
    assert again.service == SERVICE
    again.take(SHADOW[starts["shadow"] :], np.arange(starts["shadow"], ROWS), is_shadow=True)
    again.take(SERVED[starts["served"] :], np.arange(starts["served"], ROWS), is_shadow=False)
    counts = [SUMS.index(name) for name in ("outcomes", "moved", "hits", "positions", "ups", "downs")]
    for model, sums in totals(whole).items():
        assert totals(again)[model][counts].tolist() == sums[counts].tolist()
        np.testing.assert_allclose(totals(again)[model][SUMS.index("log_loss")], sums[SUMS.index("log_loss")])
    assert again.since_promotion == whole.since_promotion


def test_another_champion_is_tried_anew_and_the_same_one_is_not() -> None:
    watch = new_watch()
    watch.serve(SERVICE)
    feed(watch, 0, ROWS)
    trials = dict(watch.trials)
    watch.serve(SERVICE)
    assert watch.trials == trials
    watch.serve(Service(OLD, 10 * S, 4))
    assert set(watch.trials) == {FALLBACK}
    assert watch.trials[FALLBACK].e_value == 1.0
    assert watch.since_promotion == 0


def test_challengers_that_are_none_any_more_are_forgotten_and_what_waits_is_counted() -> None:
    watch = new_watch()
    watch.serve(SERVICE)
    feed(watch, 0, ROWS)
    waiting = watch.shadows[OLD].pending
    assert waiting > 0
    before = watch.tallies()
    watch.keep_shadows({OLD})
    assert watch.tallies() == before
    watch.keep_shadows(set())
    assert watch.shadows == {}
    assert watch.tallies() == before + Counter(abandoned=waiting)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]\n", b'{"version":99,"partition":0}\n', bytes(200)])
def test_what_is_no_state_is_refused(raw: bytes) -> None:
    with pytest.raises(RecordError, match="no state of outcomes"):
        new_watch().restore(raw)


def test_scores_are_those_of_the_formulas() -> None:
    watch = new_watch()
    outcomes = watch.take(SERVED, np.arange(ROWS), is_shadow=False)
    scores = scores_of(rows_of_sums(outcomes).sum(axis=0))
    moved = outcomes[outcomes["realised"] != 1]
    assert scores["hit_rate"] == pytest.approx((moved["realised"] == 0).mean())  # it always says down
    assert scores["majority_hit_rate"] == pytest.approx(np.bincount(moved["realised"]).max() / len(moved))
    assert scores["net_bps"] == pytest.approx(-outcomes["return_bps"].mean() - 0.9, rel=1e-5)
    assert scores["log_loss"] == pytest.approx(outcomes["log_loss"].mean(), rel=1e-6)
    assert scores["ic"] is None  # it expects the same always
