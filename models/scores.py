"""What answers are worth: one function for each kind of score, each over rows, none of which knows a model.

N = rows; probabilities are ``float64[N, 3]`` of down, flat, up; an outcome is ``int64[N]``: 0 down, 1 flat, 2 up.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.card import CLASSES
from models.overlap import mean_error

_COUNT: Final = len(CLASSES)
_LEAST: Final = 1e-7  # a probability below it counts as it: float32 softmax gives true zeros
_CONFIDENCE_BINS: Final = 15
_RELIABILITY_BINS: Final = 10

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def classification(probabilities: Floats, outcome: Integers) -> dict[str, float]:
    """Return the scores of probabilities and of the likeliest class, N > 0.

    Returns:
        ``accuracy``; ``balanced_accuracy``: mean recall of the classes that came; ``mcc``: Matthews' correlation
        for three classes (Gorodkin 2004), 0 where one class was always chosen or always came; ``macro_f1``: over
        the classes that came or were chosen; ``log_loss`` in nats; ``brier``: summed over classes, 0 to 2;
        ``calibration_error``: `calibration_error`.
    """
    table = confusion(probabilities.argmax(axis=1), outcome).astype(np.float64)
    hits, came, chosen = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    total = table.sum()
    spread = np.sqrt((total**2 - (came**2).sum()) * (total**2 - (chosen**2).sum()))
    present = came + chosen > 0
    return {
        "accuracy": float(hits.sum() / total),
        "balanced_accuracy": float(np.mean(hits[came > 0] / came[came > 0])),
        "mcc": float((total * hits.sum() - (came * chosen).sum()) / spread) if spread > 0.0 else 0.0,
        "macro_f1": float(np.mean(2.0 * hits[present] / (came + chosen)[present])),
        "log_loss": float(log_losses(probabilities, outcome).mean()),
        "brier": float(((probabilities - np.eye(_COUNT)[outcome]) ** 2).sum(axis=1).mean()),
        "calibration_error": calibration_error(probabilities, outcome),
    }


def confusion(chosen: Integers, outcome: Integers) -> Integers:
    """Return how often each class was chosen (columns) where each one came (rows), ``int64[3, 3]``."""
    return np.bincount(outcome * _COUNT + chosen, minlength=_COUNT**2).reshape(_COUNT, _COUNT)


def log_losses(probabilities: Floats, outcome: Integers) -> Floats:
    """Return the loss of each row in nats, ``float64[N]``."""
    given = probabilities[np.arange(len(outcome)), outcome]
    return -np.log(np.maximum(given, _LEAST))


def calibration_error(probabilities: Floats, outcome: Integers) -> float:
    """Return how far the probability of the chosen class is from how often it comes, on average.

    Rows are put into 15 bins of equal width by that probability; bins weigh as many rows as they have.

    Source: Guo et al., On calibration of modern neural networks (2017), ECE.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == outcome
    bins = np.minimum((confidence * _CONFIDENCE_BINS).astype(np.int64), _CONFIDENCE_BINS - 1)
    gaps = np.bincount(bins, confidence - right, _CONFIDENCE_BINS)
    return float(np.abs(gaps).sum() / len(outcome))


def reliability(probabilities: Floats, outcome: Integers) -> dict[str, list[dict[str, float]]]:
    """Return for each class what was predicted and what came, in up to 10 bins with the same number of rows.

    Returns:
        for each class its bins by rising probability: ``rows``, ``predicted`` (mean), ``observed`` (share).
    """
    found = {}
    for number, name in enumerate(CLASSES):
        given, came = probabilities[:, number], outcome == number
        borders = np.unique(np.quantile(given, np.linspace(0.0, 1.0, _RELIABILITY_BINS + 1)[1:-1]))
        bins = np.searchsorted(borders, given, side="left")
        rows = np.bincount(bins, minlength=len(borders) + 1)
        predicted = np.bincount(bins, given, len(rows))
        observed = np.bincount(bins, came, len(rows))
        found[name] = [
            {"rows": float(n), "predicted": float(p / n), "observed": float(o / n)}
            for n, p, o in zip(rows, predicted, observed, strict=True)
            if n
        ]
    return found


def hits(probabilities: Floats, outcome: Integers) -> dict[str, float]:
    """Return how often the likelier of down and up was right where the price moved, and how often it did not.

    Returns:
        ``hit_rate``: where both are equally likely, half a hit; 0.5 where nothing moved; ``flat_share`` of rows.
    """
    moved = outcome != 1
    lean = np.sign(probabilities[moved, 2] - probabilities[moved, 0])
    right = 0.5 + 0.5 * lean * (outcome[moved] - 1)
    return {"hit_rate": float(right.mean()) if len(right) else 0.5, "flat_share": float(1.0 - moved.mean())}


def information(expected: Floats, realised: Floats, event_ns: Integers, horizon_ns: int) -> dict[str, float]:
    """Return how expected returns go with realised ones.

    Args:
        expected: ``float64[N]``.
        realised: ``float64[N]``.
        event_ns: ``int64[N]``, never falling.
        horizon_ns: how far ahead they look.

    Returns:
        ``ic`` (Pearson) and ``rank_ic`` (Spearman), 0 where one of them does not vary, and their t-statistics
        ``ic_t`` and ``rank_ic_t`` with `models.overlap.mean_error`, that is Newey-West over event time.
    """
    ic, ic_t = _correlation(expected, realised, event_ns, horizon_ns)
    rank_ic, rank_ic_t = _correlation(_ranks(expected), _ranks(realised), event_ns, horizon_ns)
    return {"ic": ic, "ic_t": ic_t, "rank_ic": rank_ic, "rank_ic_t": rank_ic_t}


def _ranks(values: Floats) -> Floats:
    return np.asarray(pd.Series(values).rank(), np.float64)


def _correlation(x: Floats, y: Floats, event_ns: Integers, horizon_ns: int) -> tuple[float, float]:
    spreads = x.std(), y.std()
    # Below this, rounding is all that varies.
    if any(spread <= 1e-9 * (1e-300 + np.abs(each).max()) for spread, each in zip(spreads, (x, y), strict=True)):
        return 0.0, 0.0
    x, y = (x - x.mean()) / spreads[0], (y - y.mean()) / spreads[1]
    r = float((x * y).mean())
    # What each row adds to r - truth, to first order: its mean is 0, its variance that of r.
    influence = x * y - 0.5 * r * (x * x + y * y)
    error = mean_error(influence, event_ns, horizon_ns).standard_error
    return r, r / error if error > 0.0 else 0.0
