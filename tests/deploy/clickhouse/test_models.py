"""Comparisons of models equal pandas on the same pairs of outcomes; what happened to them is told in order."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from book_answers import Ask, frame, same, start_of
from book_market import MINUTE, OPEN_NS, SPAN_NS, Market, S

from agents.features import NAMES
from models.live_scores import rows_of_sums, scores_of
from stream.records import Records


def pairs_of(market: Market, symbol: str) -> pd.DataFrame:
    """Outcomes of the challenger (``_c``) and of the model in service (``_s``) on the same prediction."""
    both = [frame(rows[rows["symbol"] == symbol.encode()]) for rows in (market.shadow_outcomes, market.outcomes)]
    return both[0].merge(both[1], on="seq", suffixes=("_c", "_s"))


def hits(pairs: pd.DataFrame, which: str) -> Any:
    lead = np.sign(pairs[f"p_up_{which}"] - pairs[f"p_down_{which}"])
    return 0.5 + 0.5 * lead * (pairs["realised_s"].astype(float) - 1)


def test_two_models_are_compared_by_blocks_of_time(ask: Ask, market: Market) -> None:
    pairs = pairs_of(market, "AIG")
    moved = pairs["realised_s"] != 1
    lead = pairs["log_loss_s"].astype(float) - pairs["log_loss_c"].astype(float)
    blocks = lead.groupby(start_of(pairs["from_ns_s"], 5 * MINUTE)).mean()
    error = blocks.std() / np.sqrt(len(blocks))
    expected = {
        "predictions": len(pairs),
        "blocks": len(blocks),
        "log_loss_a": pairs["log_loss_s"].astype(float).mean(),
        "log_loss_b": pairs["log_loss_c"].astype(float).mean(),
        "brier_a": pairs["brier_s"].astype(float).mean(),
        "brier_b": pairs["brier_c"].astype(float).mean(),
        "hit_rate_a": hits(pairs, "s")[moved].mean(),
        "hit_rate_b": hits(pairs, "c")[moved].mean(),
        "difference": blocks.mean(),
        "standard_error": error,
        "t_value": blocks.mean() / error,
    }
    assert len(blocks) == 9
    found = ask("model_comparison", a=market.model, b=market.challenger, symbols="AIG")
    same(found, pd.DataFrame([expected]), rtol=1e-7)
    back = ask("model_comparison", a=market.challenger, b=market.model, symbols="AIG")
    assert back["t_value"].iloc[0] == pytest.approx(-found["t_value"].iloc[0])


def test_a_challenger_is_judged_on_the_ticks_of_the_model_in_service(ask: Ask, market: Market) -> None:
    pairs = pairs_of(market, "BAC")
    moved = pairs["realised_s"] != 1
    expected: dict[str, Any] = {
        "challenger": market.challenger,
        "served": market.model,
        "predictions": len(pairs),
        "challenger_log_loss": pairs["log_loss_c"].astype(float).mean(),
        "served_log_loss": pairs["log_loss_s"].astype(float).mean(),
        "better_share": (pairs["log_loss_c"] < pairs["log_loss_s"]).mean(),
        "challenger_hit_rate": hits(pairs, "c")[moved].mean(),
        "served_hit_rate": hits(pairs, "s")[moved].mean(),
    }
    of_symbol = market.shadow_outcomes[market.shadow_outcomes["symbol"] == b"BAC"]
    for name, rows in (("challenger_net_bps", of_symbol), ("served_net_bps", market.outcomes_of("BAC"))):
        net_bps = scores(rows)["net_bps"]
        expected[name] = np.nan if net_bps is None else net_bps
    same(ask("shadow_against_served", symbols="BAC"), pd.DataFrame([expected]), rtol=1e-6)


def scores(rows: Records) -> dict[str, Any]:
    return scores_of(rows_of_sums(rows).sum(axis=0))


def test_scores_of_a_day_are_those_of_all_its_outcomes(ask: Ask, market: Market) -> None:
    found = ask("scores_by_day", model=market.model, symbols="AIG")
    score = scores(market.outcomes_of("AIG"))
    expected = {name: score[name] for name in ("outcomes", "hit_rate", "log_loss", "brier", "positions", "net_bps")}
    expected["lead_on_fallback"] = score["fallback_log_loss"] - score["log_loss_beside_fallback"]
    same(found, pd.DataFrame([expected]), rtol=1e-5)
    assert str(found["day"].iloc[0]).startswith(("2013-10-07", str(OPEN_NS // (86_400 * S) * 86_400 * S), "15985"))


def test_the_models_that_served_are_told_with_their_span(ask: Ask, market: Market) -> None:
    rows = market.predictions
    expected = {
        "model": market.model,
        "first": rows["event_ns"].min(),
        "last": rows["event_ns"].max(),
        "predictions": len(rows),
        "symbols": 4,
        "warming_share": (rows["flags"] & 1).mean(),
        "mean_p_up": rows["p_up"].astype(float).mean(),
        "mean_p_down": rows["p_down"].astype(float).mean(),
    }
    same(ask("models_served"), pd.DataFrame([expected]), rtol=1e-7)


def test_drift_of_answers_is_psi_and_ks_on_tenths_of_the_span_before(ask: Ask, market: Market) -> None:
    rows = frame(market.predictions_of("AIG"))
    middle = OPEN_NS + SPAN_NS // 2
    before, now = rows[rows["event_ns"] < middle], rows[rows["event_ns"] >= middle]
    expected = []
    for name in ("p_down", "p_flat", "p_up", "expected_return_bps"):
        ordered = np.sort(before[name])
        edges = ordered[[int(level * len(ordered) / 10) for level in range(1, 10)]]
        shares = []
        for some in (before, now):
            counts = np.bincount(np.searchsorted(edges, some[name], "right"), minlength=10)
            shares.append(counts / len(some))
        ks = np.abs(np.cumsum(shares[0]) - np.cumsum(shares[1])).max()
        b, n = (np.maximum(share, 1e-3) for share in shares)
        psi = ((n - b) * np.log(n / b)).sum()
        expected.append((name, len(before), len(now), psi, ks, before[name].mean(), now[name].mean()))
    columns = ["answer", "base_predictions", "predictions", "psi", "ks", "mean_before", "mean_now"]
    table = pd.DataFrame(expected, columns=columns).sort_values("psi", ascending=False)
    split = pd.Timestamp(middle)
    found = ask("answer_drift", symbol="AIG", base_to=split, from_=split)
    same(found, table, rtol=1e-5, atol=1e-7)
    none = ask("answer_drift", symbol="AIG")
    assert (none["psi"] < 1e-12).all(), "a span does not drift from itself"


def test_drift_of_features_is_told_for_each_by_its_name(ask: Ask, market: Market) -> None:
    rows = market.predictions_of("AIG")
    values = pd.DataFrame(market.features[market.predictions["symbol"] == b"AIG"], columns=list(NAMES))
    middle = OPEN_NS + SPAN_NS // 2
    is_sampled, is_before = rows["seq"] % 10 == 0, rows["event_ns"] < middle
    expected = []
    for name in NAMES:
        before, now = values[name][is_sampled & is_before], values[name][is_sampled & ~is_before]
        ordered = np.sort(before)
        edges = ordered[[int(level * len(ordered) / 10) for level in range(1, 10)]]
        counts = [np.bincount(np.searchsorted(edges, some, "right"), minlength=10) for some in (before, now)]
        b, n = (np.maximum(count / count.sum(), 1e-3) for count in counts)
        ks = np.abs(np.cumsum(counts[0] / counts[0].sum()) - np.cumsum(counts[1] / counts[1].sum())).max()
        psi = ((n - b) * np.log(n / b)).sum()
        expected.append((name, len(before), len(now), psi, ks, before.mean(), now.mean()))
    columns = ["feature", "base_rows", "rows", "psi", "ks", "mean_before", "mean_now"]
    table = pd.DataFrame(expected, columns=columns).sort_values("feature")
    split = pd.Timestamp(middle)
    found = ask("feature_drift", symbol="AIG", base_to=split, from_=split)
    same(found.sort_values("feature"), table, rtol=2e-4, atol=1e-5)
    assert found["psi"].is_monotonic_decreasing
    some = ask("feature_drift", symbol="AIG", features="bar!_60s%".replace("!", "\\"), base_to=split, from_=split)
    assert set(some["feature"]) == {name for name in NAMES if name.startswith("bar_60s")}


def test_what_happened_to_models_is_told_newest_first(ask: Ask, market: Market) -> None:
    found = ask("model_log")
    assert found["detail"].tolist() == ["c", "worse", "b", "a"]
    assert found["kind"].tolist() == ["served", "tripped", "served", "served"]
    assert found["model"].tolist() == [market.model, market.challenger, market.challenger, market.model]
    np.testing.assert_array_equal(found["until_next_s"], [np.nan, np.nan, 140.0, 60.0])
