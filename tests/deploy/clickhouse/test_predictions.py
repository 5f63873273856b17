"""What is said of predictions equals numpy and pandas on the engine's own records of what followed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from book_answers import BPS, Ask, frame, same, start_of
from book_market import MINUTE, Market, S

from agents.features import NAMES
from models.live_scores import rows_of_sums, scores_of

CLASSES = np.array(["down", "flat", "up"])
SYMBOL = "AIG"


@pytest.fixture
def outcomes(market: Market) -> pd.DataFrame:
    """The outcomes of AIG with the likelier direction, the class that happened, and profit of a position."""
    table = frame(market.outcomes_of(SYMBOL))
    probabilities = ["p_down", "p_flat", "p_up"]
    table[probabilities] = table[probabilities].astype(np.float32)
    table["side"] = np.sign(table["p_up"] - table["p_down"]).astype(float)
    table["class"] = CLASSES[table["realised"]]
    is_likeliest = table[["p_down", "p_up"]].max(axis=1) > table["p_flat"]
    table["is_position"] = is_likeliest & (table["p_down"] != table["p_up"])
    table["gross"] = table["side"] * table["return_bps"].astype(float)
    return table


def prices_at(market: Market, symbol: str, times_ns: Any) -> Any:
    """The last reference price at or before some times; NaN where it is not known yet what it is."""
    rows = frame(market.predictions_of(symbol)).sort_values(["event_ns", "seq"])
    events, prices = rows["event_ns"].to_numpy(), rows["ref_price"].to_numpy()
    found = prices[np.searchsorted(events, times_ns, "right") - 1]
    return np.where(times_ns < events[-1], found, np.nan)


def test_the_latest_prediction_of_each_symbol_is_its_last(ask: Ask, market: Market) -> None:
    last = frame(market.predictions_of("BTCUSDT.usdm")).sort_values(["event_ns", "seq"]).iloc[-1]
    found = ask("latest_predictions")
    assert found["symbol"].tolist() == ["BTCUSDT.usdm"], "the others ticked years before"
    row = found.iloc[0]
    assert row["event_time"] == last["event_ns"]
    assert row["model"] == market.model
    for name in ("ref_price", "p_down", "p_flat", "p_up", "expected_return_bps"):
        assert row[name] == last[name]
    assert row["horizon_s"] == last["horizon_ns"] / S
    whole = ask("latest_predictions", minutes=10_000_000, symbols="%I%")
    assert set(whole["symbol"]) == {"AIG"}
    assert whole["event_time"].iloc[0] == market.predictions_of("AIG")["event_ns"].max()


@pytest.mark.parametrize("seconds", [0.25, 10])
def test_what_followed_is_the_last_price_at_that_moment(ask: Ask, market: Market, seconds: float) -> None:
    rows = frame(market.predictions_of(SYMBOL))
    rows["later"] = prices_at(market, SYMBOL, rows["event_ns"].to_numpy() + int(seconds * S))
    rows = rows[rows["later"].notna()].sort_values("seq", ascending=False).head(1_000)
    expected = rows[["seq", "p_up", "ref_price"]].assign(
        later_price=rows["later"], return_bps=(rows["later"] / rows["ref_price"] - 1) * BPS
    )
    found = ask("what_followed", symbol=SYMBOL, seconds=seconds, limit=1_000)
    same(found, expected, atol=1e-7)
    moved = found[(found["return_bps"] != 0) & (found["p_up"] != found["p_down"])]
    agrees = (moved["return_bps"] > 0) == (moved["p_up"] > moved["p_down"])
    assert moved["agrees"].tolist() == agrees.astype(float).tolist()
    assert found["agrees"].isna().sum() == len(found) - len(moved)


def test_at_the_models_horizon_it_is_what_the_engine_says_too(ask: Ask, outcomes: pd.DataFrame) -> None:
    found = ask("what_followed", symbol=SYMBOL, limit=1_000_000).set_index("seq")
    in_order = outcomes[outcomes["from_ns"] == outcomes["event_ns"]].set_index("seq")
    both = in_order.index.intersection(found.index)
    assert len(both) > 30_000
    np.testing.assert_array_equal(found.loc[both, "later_price"], in_order.loc[both, "later_price"])


def test_a_markout_is_the_mean_move_in_the_predicted_direction(ask: Ask, market: Market) -> None:
    rows = frame(market.predictions_of(SYMBOL))
    rows = rows[rows["seq"] % 7 == 0]
    side = np.sign(rows["p_up"] - rows["p_down"]).to_numpy().astype(float)
    is_position = ((rows[["p_down", "p_up"]].max(axis=1) > rows["p_flat"]) & (side != 0)).to_numpy()
    expected = []
    for horizon_s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600):
        later = prices_at(market, SYMBOL, rows["event_ns"].to_numpy() + int(horizon_s * S))
        known = ~np.isnan(later)
        markout = (side * (later / rows["ref_price"].to_numpy() - 1) * BPS)[known]
        taken = markout[is_position[known]]
        mean_taken = taken.mean() if len(taken) else np.nan
        hits = (markout > 0).sum() / (markout != 0).sum()
        expected.append((horizon_s, len(markout), markout.mean(), len(taken), mean_taken, hits))
    columns = ["horizon_s", "predictions", "markout_bps", "positions", "position_markout_bps", "hit_share"]
    same(ask("markout", symbol=SYMBOL, every=7), pd.DataFrame(expected, columns=columns))


def test_information_coefficients_are_pearsons_and_spearmans(
    ask: Ask, market: Market, outcomes: pd.DataFrame
) -> None:
    expected = []
    for hour, some in outcomes.groupby(start_of(outcomes["event_ns"], 60 * MINUTE)):
        said, happened = some["expected_return_bps"].astype(float), some["return_bps"].astype(float)
        ranks = said.rank().corr(happened.rank())
        expected.append((market.model, hour, len(some), said.corr(happened), ranks))
    columns = ["model", "hour", "outcomes", "ic", "rank_ic"]
    found = ask("rank_ic_by_hour", symbol=SYMBOL, model=market.model)
    same(found, pd.DataFrame(expected, columns=columns), rtol=1e-6)


def test_deciles_of_expected_returns_are_those_of_sorted_outcomes(
    ask: Ask, market: Market, outcomes: pd.DataFrame
) -> None:
    said = outcomes["expected_return_bps"].to_numpy()
    ordered = np.sort(said)
    edges = ordered[[int(level * len(ordered) / 10) for level in range(1, 10)]]
    decile = np.searchsorted(edges, said, "right") + 1
    by = outcomes.astype({"expected_return_bps": float, "return_bps": float}).groupby(decile)
    expected = pd.DataFrame(
        {
            "outcomes": by.size(),
            "expected_bps": by["expected_return_bps"].mean(),
            "realised_bps": by["return_bps"].mean(),
            "up_share": by["class"].apply(lambda some: (some == "up").mean()),
            "down_share": by["class"].apply(lambda some: (some == "down").mean()),
        }
    )
    found = ask("quantile_returns", symbol=SYMBOL, model=market.model)
    same(found, expected.reset_index(names="decile"))


def binned(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Each outcome three times, once a class: what was said, its tenth, and whether it happened."""
    parts = []
    for name in CLASSES:
        said = outcomes[f"p_{name}"].to_numpy()
        tenth = np.minimum(np.floor(said * 10 + np.float64(1e-6)), 9)
        happened = (outcomes["class"] == name).astype(float)
        parts.append(pd.DataFrame({"class": name, "bin": tenth, "said": said.astype(float), "happened": happened}))
    return pd.concat(parts)


def test_the_calibration_table_counts_what_happened_in_each_tenth(
    ask: Ask, market: Market, outcomes: pd.DataFrame
) -> None:
    by = binned(outcomes).groupby(["class", "bin"])
    expected = by.agg(
        outcomes=("said", "size"), mean_p=("said", "mean"), happened=("happened", "mean")
    ).reset_index()
    expected["p_from"] = expected.pop("bin") / 10
    n, share, z = expected["outcomes"], expected["happened"], 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    expected["low"], expected["high"] = centre - half, centre + half
    names = ["class", "p_from", "outcomes", "mean_p", "happened", "low", "high"]
    same(ask("calibration", symbol=SYMBOL, model=market.model), expected[names], rtol=1e-7)


def test_reliability_and_resolution_are_murphys(ask: Ask, market: Market, outcomes: pd.DataFrame) -> None:
    expected = []
    for name, some in binned(outcomes).groupby("class"):
        base, n = some["happened"].mean(), len(some)
        by = some.groupby("bin")
        sizes, said, happened = by.size(), by["said"].mean(), by["happened"].mean()
        brier = ((some["said"] - some["happened"]) ** 2).mean()
        reliability = (sizes * (said - happened) ** 2).sum() / n
        resolution = (sizes * (happened - base) ** 2).sum() / n
        uncertainty = base * (1 - base)
        error = (sizes * (said - happened).abs()).sum() / n
        expected.append(
            (name, n, base, brier, reliability, resolution, uncertainty, error, 1 - brier / uncertainty)
        )
    columns = ["class", "outcomes", "base_rate", "brier", "reliability", "resolution", "uncertainty"]
    table = pd.DataFrame(expected, columns=[*columns, "calibration_error", "skill"])
    found = ask("reliability", symbol=SYMBOL, model=market.model)
    same(found, table, rtol=1e-6, atol=1e-9)
    parts = found["reliability"] - found["resolution"] + found["uncertainty"]
    np.testing.assert_allclose(parts, found["brier"], atol=2e-3)


def test_confusion_is_counted_by_the_range_of_the_minute_before(
    ask: Ask, market: Market, outcomes: pd.DataFrame
) -> None:
    rows = frame(market.predictions_of(SYMBOL))
    prices = rows.groupby(start_of(np.maximum.accumulate(rows["event_ns"].to_numpy()), MINUTE))["ref_price"]
    height = (prices.max() - prices.min()) / prices.first()
    ordered = np.sort(height)
    # Of two in the middle the lower one.
    low, high = (ordered[int(np.ceil(len(ordered) * level)) - 1] for level in (0.3333, 0.6667))
    regime = pd.Series(
        np.select([height <= low, height <= high], ["quiet", "usual"], "wild"), height.index + MINUTE
    )
    probabilities = outcomes[["p_down", "p_flat", "p_up"]].to_numpy()
    said = np.where(
        probabilities[:, 1] >= probabilities[:, [0, 2]].max(axis=1),
        "flat",
        np.where(probabilities[:, 2] > probabilities[:, 0], "up", "down"),
    )
    table = pd.DataFrame(
        {
            "regime": regime.reindex(start_of(outcomes["event_ns"], MINUTE)).to_numpy(),
            "said": said,
            "happened": outcomes["class"].to_numpy(),
        }
    ).dropna()
    expected = table.groupby(["regime", "said", "happened"]).size().rename("outcomes").reset_index()
    expected["share"] = expected["outcomes"] / expected.groupby(["regime", "said"])["outcomes"].transform("sum")
    found = ask("confusion_by_regime", symbol=SYMBOL, model=market.model)
    assert set(found["regime"]) == {"quiet", "usual", "wild"}
    same(found, expected)


def test_the_hit_rate_is_the_engines_and_stands_beside_those_of_rules(
    ask: Ask, market: Market, outcomes: pd.DataFrame
) -> None:
    found = ask("hit_rate", symbol=SYMBOL, model=market.model).set_index("who")
    scores = scores_of(rows_of_sums(market.outcomes_of(SYMBOL)).sum(axis=0))
    for who, name in (("model", "hit_rate"), ("fallback", "fallback_hit_rate"), ("majority", "majority_hit_rate")):
        assert found.loc[who, "hit_rate"] == pytest.approx(scores[name]), who
    assert found.loc["model", "moves"] == scores["moved"]
    assert found.loc["model", "log_loss"] == pytest.approx(scores["log_loss_beside_fallback"])
    assert found.loc["fallback", "log_loss"] == pytest.approx(scores["fallback_log_loss"])
    # Momentum: the newest outcome that was resolved before this prediction was made.
    known = outcomes.sort_values(["resolved_ns", "seq"])
    at = np.searchsorted(known["resolved_ns"], outcomes["event_ns"], "left")
    last = np.concatenate([[np.nan], np.sign(known["return_bps"])])[at]
    went = outcomes["realised"].to_numpy() - 1.0
    judged = (went != 0) & ~np.isnan(last)
    assert found.loc["momentum", "moves"] == judged.sum()
    hits = 0.5 + 0.5 * last[judged] * went[judged]
    assert found.loc["momentum", "hit_rate"] == pytest.approx(hits.mean())


def test_profit_and_drawdown_are_those_of_a_running_sum(ask: Ask, market: Market, outcomes: pd.DataFrame) -> None:
    taken = outcomes[outcomes["is_position"]]
    by = taken.groupby(start_of(taken["event_ns"], 5 * MINUTE))
    costs_bps = {"cost_bps": by["cost_bps"].agg(lambda costs: costs.astype(float).sum())}
    expected = pd.DataFrame({"positions": by.size(), "gross_bps": by["gross"].sum(), **costs_bps})
    assert taken["cost_bps"].nunique() > 10, "the spreads that there were"
    expected["net_bps"] = expected["gross_bps"] - expected["cost_bps"]
    expected["cumulative_bps"] = expected["net_bps"].cumsum()
    expected["drawdown_bps"] = expected["cumulative_bps"].cummax().clip(lower=0) - expected["cumulative_bps"]
    found = ask("profit", symbol=SYMBOL, model=market.model, minutes=5)
    same(found, expected.reset_index(names="time"), rtol=1e-7, atol=1e-6)
    scores = scores_of(rows_of_sums(market.outcomes_of(SYMBOL)).sum(axis=0))
    assert found["net_bps"].sum() / found["positions"].sum() == pytest.approx(scores["net_bps"])


def test_profit_by_confidence_counts_the_sure_ones_only(ask: Ask, market: Market, outcomes: pd.DataFrame) -> None:
    taken = outcomes[outcomes["is_position"]]
    sureness = taken[["p_down", "p_up"]].max(axis=1).astype(float)
    expected = []
    for level in (0.34, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        some = taken["gross"][sureness >= level]
        if len(some):
            net = some - taken["cost_bps"][sureness >= level].astype(float)
            expected.append((level, len(some), (some > 0).mean(), some.mean(), net.mean(), net.sum()))
    columns = ["at_least", "positions", "hit_share", "gross_bps", "net_bps", "total_net_bps"]
    found = ask("profit_by_confidence", symbol=SYMBOL, model=market.model)
    same(found, pd.DataFrame(expected, columns=columns), rtol=1e-7, atol=1e-6)


def test_why_a_prediction_was_made_is_told_with_its_features_model_and_source(ask: Ask, market: Market) -> None:
    rows = market.predictions["symbol"] == SYMBOL.encode()
    place = 20_000
    prediction, features = market.predictions[rows][place], market.features[rows][place]
    tick = market.ticks_of(SYMBOL)[place]
    outcome = market.outcomes_of(SYMBOL)[market.outcomes_of(SYMBOL)["seq"] == prediction["seq"]][0]
    found = ask("why_this_prediction", symbol=SYMBOL, seq=prediction["seq"])
    told = {part: dict(zip(some["name"], some["value"], strict=True)) for part, some in found.groupby("part")}
    for name in ("p_down", "p_flat", "p_up", "expected_return_bps", "spread_bps"):
        assert np.float32(told["prediction"][name]) == prediction[name]
    assert told["prediction"]["feature_hash"] == f"{prediction['feature_hash']:016x}"
    assert told["model"]["model"] == market.model
    assert {"partition": "0", "epoch": "one"}.items() <= told["source"].items()
    assert int(told["source"]["offset"]) == prediction["source_offset"]
    assert int(told["source"]["index"]) == prediction["source_index"]
    assert int(told["source"]["source_seq"]) == tick["source_seq"]
    for name in ("price", "size", "bid", "ask", "bid_size", "ask_size"):
        np.testing.assert_equal(float(told["tick"][name]), tick[name])
    assert float(told["outcome"]["later_price"]) == outcome["later_price"]
    assert told["outcome"]["realised"] == CLASSES[outcome["realised"]]
    assert list(told["feature"]) == list(NAMES), "in the order of a row"
    np.testing.assert_array_equal(np.array(list(told["feature"].values()), np.float32), features)
    meanings = found[found["part"] == "feature"].set_index("name")["meaning"]
    assert meanings["spread_bps"] == "bps: (ask - bid) / mid x 1e4; 0 before the first quote"


def test_what_was_said_at_the_end_of_a_bar_is_its_last_prediction(ask: Ask, market: Market) -> None:
    rows = frame(market.predictions_of(SYMBOL)).sort_values("seq")
    by = rows.groupby(start_of(rows["event_ns"], MINUTE))
    expected = by[["p_down", "p_flat", "p_up", "expected_return_bps"]].last()
    expected["predictions"] = by.size()
    same(ask("predictions_by_bar", symbol=SYMBOL), expected.reset_index(names="time"), rtol=1e-6)


def test_the_surest_call_of_a_bar_stands_with_what_became_of_it(ask: Ask, outcomes: pd.DataFrame) -> None:
    calls = outcomes[outcomes["is_position"]].copy()
    calls["said"] = np.where(calls["side"] > 0, "up", "down")
    calls["sureness"] = calls[["p_down", "p_up"]].max(axis=1)
    calls["became"] = np.select(
        [calls["class"] == "flat", calls["class"] == calls["said"]], ["flat", "hit"], "miss"
    )
    calls["time"] = start_of(calls["event_ns"], MINUTE)
    by = calls.groupby("time")
    expected = pd.DataFrame({"probability": by["sureness"].max(), "calls": by.size()})
    expected["hits"] = (calls["became"] == "hit").groupby(calls["time"]).sum()
    found = ask("calls_by_bar", symbol=SYMBOL)
    same(found, expected.reset_index(), rtol=1e-6)
    # Of several that are as sure any one may stand there; what is said of it is true.
    own = calls.set_index("seq").loc[found["seq"]]
    assert own["sureness"].tolist() == pytest.approx(found["probability"].tolist())
    assert own["said"].tolist() == found["side"].tolist()
    assert own["became"].tolist() == found["outcome"].tolist()
    assert own["return_bps"].tolist() == found["return_bps"].tolist()
