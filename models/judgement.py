"""From answers to a model card: every score of every forecaster, and where a model does not beat what is simpler.

Answers come from anywhere (`models.evaluate` makes those of a walk-forward); here they are only judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.diebold_mariano import diebold_mariano
from models.judged import Judged, Slice
from models.metrics import Answers
from models.profit import earnings, trade
from models.scores import classification, hits, information, log_losses, reliability

CARD_SCHEMA_VERSION: Final = 1
CONVINCING: Final = 0.01  # a smaller p-value is believed
_CURVE_POINTS: Final = 200
_FEWEST_ROWS: Final = 50  # of a slice: below, its scores tell nothing

Floats = NDArray[np.float64]
Scores = dict[str, float]


@dataclass(frozen=True)
class Forecaster:
    """Somebody's answers to the judged rows."""

    name: str
    what: str  # for the reader of the card
    baseline: bool
    answers: Sequence[Answers]  # float32[J, 4] for each seed


def judge(
    judged: Judged,
    forecasters: Sequence[Forecaster],
    about: Mapping[str, Any],
    fee_bps: float,
    unknown_cost_bps: float,
) -> dict[str, Any]:
    """Return the card: plain values, for JSON.

    Its layout is versioned by ``schema_version`` and described in docs/models.md.

    Args:
        judged: J rows.
        forecasters: models and baselines; each model is compared with all others.
        about: what was judged, for the reader: goes into the card as it is.
        fee_bps: of each order, for `models.profit`.
        unknown_cost_bps: of a trade whose spread at the end is not known, likewise.
    """
    slices = [each for each in judged.slices() if each.group == "all" or each.rows.sum() >= _FEWEST_ROWS]
    entries = [_entry(judged, each, slices, (fee_bps, unknown_cost_bps)) for each in forecasters]
    losses = [_losses(judged, each) for each in forecasters]
    comparisons = [
        _compare(judged, part, (one, losses[first]), (other, losses[second]), entries)
        for part in slices
        if part.group in {"all", "symbol"}
        for first, one in enumerate(forecasters)
        if not one.baseline
        for second, other in enumerate(forecasters)
        if first != second
    ]
    return {
        "schema_version": CARD_SCHEMA_VERSION,
        **about,
        "horizon_s": judged.horizon_ns / 1e9,
        "fee_bps": fee_bps,
        "unknown_cost_bps": unknown_cost_bps,
        "regime_feature": judged.regime_feature,
        "slices": [_describe(judged, each) for each in slices],
        "forecasters": entries,
        "comparisons": comparisons,
        "verdicts": [*_verdicts(comparisons), *_profit_verdicts(entries)],
    }


def _describe(judged: Judged, part: Slice) -> dict[str, Any]:
    came = np.bincount(judged.direction[part.rows], minlength=3)
    event_ns = judged.market.event_ns[part.rows]
    return {
        "group": part.group,
        "key": part.key,
        "rows": int(came.sum()),
        "horizons": len(np.unique(event_ns // judged.horizon_ns)),
        "from_ns": int(event_ns[0]),
        "to_ns": int(event_ns[-1]),
        "down_flat_up": (came / came.sum()).tolist(),
        "median_spread_bps": float(np.median(np.nan_to_num(judged.market.spread_bps[part.rows]))),
    }


def _entry(
    judged: Judged, who: Forecaster, slices: Sequence[Slice], costs_bps: tuple[float, float]
) -> dict[str, Any]:
    by_seed, curves = [], []
    for answers in who.answers:
        trades = trade(answers[:, 3].astype(np.float64), judged.market, *costs_bps)
        by_seed.append(
            [
                _score(judged, answers, part) | earnings(trades, judged.market, part.rows, judged.horizon_ns)
                for part in slices
            ]
        )
        earned = np.bincount(trades.row, trades.net_bps, len(judged.index)).cumsum()
        curves.append(earned[_curve_rows(len(earned))])
    everything = np.concatenate(list(who.answers))[:, :3].astype(np.float64)
    return {
        "name": who.name,
        "what": who.what,
        "baseline": who.baseline,
        "seeds": len(who.answers),
        "scores": [
            {"group": part.group, "key": part.key, **_spread([seed[number] for seed in by_seed])}
            for number, part in enumerate(slices)
        ],
        "reliability": reliability(everything, np.tile(judged.direction, len(who.answers))),
        "cumulative_net_bps": np.mean(curves, axis=0).tolist(),
        "cumulative_at_ns": judged.market.event_ns[_curve_rows(len(judged.index))].tolist(),
    }


def _curve_rows(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, _CURVE_POINTS)).astype(np.int64)


def _score(judged: Judged, answers: Answers, part: Slice) -> Scores:
    wide = answers[part.rows].astype(np.float64)
    outcome = judged.direction[part.rows]
    return {
        **classification(wide[:, :3], outcome),
        **hits(wide[:, :3], outcome),
        **information(
            wide[:, 3],
            judged.market.return_bps[part.rows],
            judged.market.event_ns[part.rows],
            judged.horizon_ns,
        ),
    }


def _spread(by_seed: Sequence[Scores]) -> dict[str, Any]:
    """Return each score's mean over the seeds, its standard deviation where there are several, and each seed's."""
    values = {name: [each[name] for each in by_seed] for name in by_seed[0]}
    several = len(by_seed) > 1
    return {
        "mean": {name: float(np.mean(each)) for name, each in values.items()},
        "deviation": {name: float(np.std(each, ddof=1)) if several else 0.0 for name, each in values.items()},
        "by_seed": values,
    }


def _losses(judged: Judged, who: Forecaster) -> Floats:
    """Return the log loss of each row, the mean over the seeds: what one may expect of one more seed."""
    total: Floats = np.zeros(len(judged.index))
    for answers in who.answers:
        total += log_losses(answers[:, :3].astype(np.float64), judged.direction)
    return total / len(who.answers)


def _compare(
    judged: Judged,
    part: Slice,
    one: tuple[Forecaster, Floats],
    other: tuple[Forecaster, Floats],
    entries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Compare a model with another forecaster on a slice; ``verdict`` is better, worse or undecided."""
    (model, model_losses), (against, losses) = one, other
    found = diebold_mariano(
        model_losses[part.rows], losses[part.rows], judged.market.event_ns[part.rows], judged.horizon_ns
    )
    sure = found.p_value < CONVINCING
    verdict = ("better" if found.mean_difference < 0.0 else "worse") if sure else "undecided"
    return {
        "model": model.name,
        "against": against.name,
        "group": part.group,
        "key": part.key,
        "verdict": verdict,
        **asdict(found),
        "mcc": _mean(entries, model.name, part, "mcc"),
        "mcc_against": _mean(entries, against.name, part, "mcc"),
    }


def _mean(entries: Sequence[Mapping[str, Any]], name: str, part: Slice, score: str) -> float:
    entry = next(each for each in entries if each["name"] == name)
    scores = next(each for each in entry["scores"] if (each["group"], each["key"]) == (part.group, part.key))
    return float(scores["mean"][score])


def _verdicts(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return sentences on what a model does not win, in log loss or in MCC, slice by slice."""
    found = []
    for model, key in dict.fromkeys((each["model"], each["key"]) for each in comparisons):
        mine = [each for each in comparisons if (each["model"], each["key"]) == (model, key)]
        where = model if key == "all" else f"{model} on {key}"
        for said, lost in (
            (f"{where} is worse than", [_loss_words(each) for each in mine if each["verdict"] == "worse"]),
            (
                f"{where} cannot be told from",
                [_loss_words(each) for each in mine if each["verdict"] == "undecided"],
            ),
            (
                f"{where} has better probabilities, but chooses no better, than",
                [
                    f"{each['against']} (MCC {each['mcc']:.4f} against {each['mcc_against']:.4f})"
                    for each in mine
                    if each["verdict"] == "better" and each["mcc"] <= each["mcc_against"]
                ],
            ),
        ):
            if lost:
                found.append({"model": model, "words": f"{said} {_and(lost)}."})
    return found


def _loss_words(each: Mapping[str, Any]) -> str:
    lead = "less" if each["mean_difference"] < 0.0 else "more"
    p = "p < 0.0001" if each["p_value"] < 1e-4 else f"p = {each['p_value']:.4f}"
    return f"{each['against']} (log loss {abs(each['mean_difference']):.4f} {lead}, {p})"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _trade_words(means: Mapping[str, float]) -> str:
    return f"{means['net_bps_per_trade']:.2f} bps a trade, {means['trades']:,.0f} trades, t = {means['net_t']:.1f}"


def _profit_verdicts(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for entry in (each for each in entries if not each["baseline"]):
        means = entry["scores"][0]["mean"]
        name, earned = entry["name"], _trade_words(means)
        if means["trades"] == 0.0:
            words = f"{name} never expects a move that is larger than what a trade costs."
        elif means["net_bps"] <= 0.0:
            words = f"Trading on {name} loses money after costs: {earned}."
        elif means["net_t"] < 2.0:
            words = f"Trading on {name} earned {earned}, which may be luck."
        else:
            continue
        found.append({"model": name, "words": words})
    return found
