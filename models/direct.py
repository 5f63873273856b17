"""The direct path: a regression inside the model, on top of which the recurrent part is learnt.

A recurrent model has ten thousand weights. Where there is little to learn from it does worse than a regression, and
where there is enough, better. So the regression is fitted first, kept as it is, and the recurrent part learns what
is left: logits = x W + h V + b, with V = 0 at the start.

scikit-learn is imported inside the functions.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.card import CLASSES
from models.dataset import HistoryRows, Labels
from models.scores import log_losses

# Of a feature, up and down: beyond, a linear model follows one wild value, or a day unlike those before.
LIMIT_SIGMAS: Final = 3.0
MOST_FITTED_ROWS: Final = 300_000  # evenly spaced; their labels overlap, so that more of them tell next to nothing
_STRENGTHS: Final = (0.3, 3.0, 30.0, 300.0)  # rows over the penalty: the larger, the freer the weights
_STEPS: Final = 300  # of the solver, at the most

Rows = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Rows with what came of them."""

    features: Rows  # [N, F]
    direction: Integers  # [N]
    return_bps: Rows  # [N]


@dataclass(frozen=True)
class Direct:
    """A regression as weights: from scaled features within `LIMIT_SIGMAS` to logits and the return in bps."""

    weights: Rows  # [F, 4]
    bias: Rows  # [4]


def sample(rows: HistoryRows, labels: Labels, where: NDArray[np.bool_], columns: Integers) -> Sample:
    """Return some rows, ``bool[A]``, with the given columns; evenly spaced ones where there are too many."""
    index = np.flatnonzero(where)
    if len(index) > MOST_FITTED_ROWS:
        index = index[np.linspace(0, len(index) - 1, MOST_FITTED_ROWS).astype(np.int64)]
    return Sample(rows.features[index[:, None], columns], labels.direction[index], labels.return_bps[index])


def limited(features: Rows, mean: Rows, inverse: Rows) -> Rows:
    """Return features in standard deviations, ``float32[N, F]``, within `LIMIT_SIGMAS`."""
    near: Rows = np.clip((features - mean) * inverse, -LIMIT_SIGMAS, LIMIT_SIGMAS)
    return near


def fit_regressions(x: Rows, train: Sample, seen: Rows, validation: Sample) -> tuple[Any, Any]:
    """Return a logistic regression of the classes and a ridge regression of the return, as scikit-learn has them.

    The validation span chooses how strongly the weights are held down.

    Args:
        x: ``float32[N, F]``: the limited features of ``train``.
        train: of two classes or more.
        seen: the limited features of ``validation``.
        validation: what chooses.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    tried: list[tuple[float, Any, Any]] = []
    for strength in _STRENGTHS:
        chances = LogisticRegression(C=strength / len(x), max_iter=_STEPS).fit(x, train.direction)
        returns = Ridge(alpha=len(x) / strength).fit(x, train.return_bps)
        probabilities = np.zeros((len(seen), len(CLASSES)))
        probabilities[:, chances.classes_] = chances.predict_proba(seen)
        tried.append((float(log_losses(probabilities, validation.direction).mean()), chances, returns))
    _, chances, returns = min(tried, key=lambda each: each[0])
    return chances, returns


def fit_direct(mean: Rows, inverse: Rows, train: Sample, validation: Sample) -> Direct:
    """Return the regression that a model begins with.

    A class that never came is about as likely as one row in all.

    Args:
        mean: ``float32[F]``, of the model's scaler.
        inverse: ``float32[F]``, likewise.
        train: what is learnt from.
        validation: what chooses the penalty.
    """
    came = np.bincount(train.direction, minlength=len(CLASSES)).astype(np.float64)
    weights = np.zeros((len(mean), len(CLASSES) + 1))
    bias = np.array([*np.log(np.maximum(came, 1.0) / came.sum()), train.return_bps.mean(dtype=np.float64)])
    if np.count_nonzero(came) > 1:
        x, seen = (limited(each.features, mean, inverse) for each in (train, validation))
        chances, returns = fit_regressions(x, train, seen, validation)
        # Of two classes scikit-learn tells only the second one's logit.
        two = len(chances.classes_) == 2
        known = chances.classes_[1:] if two else chances.classes_
        if two:
            bias[chances.classes_[0]] = 0.0
        weights[:, known], bias[known] = chances.coef_.T, chances.intercept_
        weights[:, 3], bias[3] = returns.coef_, returns.intercept_
    return Direct(weights.astype(np.float32), bias.astype(np.float32))
