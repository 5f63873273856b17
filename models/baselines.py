"""What a model has to beat: forecasters that need no neural network, fitted on the training span only.

Each is fitted for each symbol by itself, which is what makes them hard to beat where symbols differ; a symbol with
too little of a past gets the fit of all symbols together. scikit-learn is imported inside the functions.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.periods import Periods
from models.card import CLASSES
from models.dataset import HistoryRows, Labels
from models.direct import Sample, fit_regressions, limited, sample
from models.metrics import Answers
from models.splits import Split
from stream.clock import NS_PER_S

_FEWEST_FITTED_ROWS: Final = 2_000
_TREES: Final = 200  # at the most: the validation span says when it is enough
_PATIENCE: Final = 10

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


Answer = Callable[[Rows], Answers]  # float32[N, F] -> float32[N, 4]
Fit = Callable[[Sample, Sample], Answer]  # of the training and the validation span


@dataclass(frozen=True)
class Baseline:
    """A forecaster to compare with."""

    name: str
    what: str  # for the reader of the card
    names: tuple[str, ...]  # of the features that it sees
    fit: Fit


def baselines(names: tuple[str, ...], periods: Periods, horizon_ns: int) -> tuple[Baseline, ...]:
    """Return the baselines beside a model.

    Args:
        names: the features that the model sees: the regressions and the trees see the same.
        periods: of the features.
        horizon_ns: how far ahead to predict.
    """
    window_s = min(periods.windows_s, key=lambda length_s: abs(length_s - horizon_ns / NS_PER_S))
    last, average = f"roc_{window_s:g}s_bps", f"ema_{periods.tick_ema_slow}_gap_bps"
    flow = order_flow(periods, window_s)
    return (
        Baseline("majority", "how often each class came in training, always", (), frequencies),
        Baseline("last return", f"how often each class came after such a {last}", (last,), by_size),
        Baseline("EWMA", f"how often each class came after such an {average}", (average,), by_size),
        Baseline("logistic, order flow", f"logistic and ridge regression on {', '.join(flow)}", flow, regressions),
        Baseline(
            "logistic", f"logistic and ridge regression on the model's {len(names)} features", names, regressions
        ),
        Baseline("boosted trees", f"gradient-boosted trees on the model's {len(names)} features", names, trees),
    )


def order_flow(periods: Periods, window_s: float) -> tuple[str, ...]:
    """Return the names of the five features of order flow, at the touch and over a window by event time."""
    wanted = ("book_imbalance", "microprice_gap_bps", "order_flow_imbalance", "trade_flow")
    available = features.names(periods)[: features.TICK_FEATURES]
    return (
        *(next(name for name in available if name.startswith(stem)) for stem in wanted),
        f"order_flow_{window_s:g}s",
    )


def forecast(
    baseline: Baseline,
    rows: HistoryRows,
    labels: Labels,
    split: Split,
    available: tuple[str, ...],
) -> Answers:
    """Fit a baseline on the training span and return its answers to the test span, ``float32[J, 4]``.

    Args:
        baseline: which.
        rows: A rows.
        labels: of them.
        split: what to learn from, to choose by, and to answer.
        available: names of the features in a row.
    """
    places = np.array(features.indices(baseline.names, available), np.int64)
    answers = np.empty((int(split.test.sum()), 4), np.float32)
    of_test = rows.symbol_row[split.test]
    pooled: Answer | None = None
    for symbol in np.unique(of_test):
        mine = rows.symbol_row == symbol
        learn = split.train & mine
        if _enough(labels.direction[learn]) and (split.validation & mine).any():
            answer = baseline.fit(
                sample(rows, labels, learn, places), sample(rows, labels, split.validation & mine, places)
            )
        else:
            pooled = pooled or baseline.fit(
                sample(rows, labels, split.train, places), sample(rows, labels, split.validation, places)
            )
            answer = pooled
        answers[of_test == symbol] = answer(rows.features[split.test & mine][:, places])
    return answers


def frequencies(train: Sample, validation: Sample) -> Answer:
    """Answer with how often each class came, and the mean return."""
    always = np.array([*_shares(train.direction), train.return_bps.mean(dtype=np.float64)], np.float32)
    return lambda rows: np.tile(always, (len(rows), 1))


def by_size(train: Sample, validation: Sample) -> Answer:
    """Answer with what came, in training, after a value of the one feature of such a sign and size.

    Whether returns go on or turn back is thus learned. Seven groups: zero, and thirds by size below and above it.
    """
    seen = train.features[:, 0]
    sizes = np.abs(seen[seen != 0.0])
    thirds = np.quantile(sizes, [1 / 3, 2 / 3]) if len(sizes) else np.zeros(2)

    def group(values: Rows) -> Integers:
        size = 1 + np.searchsorted(thirds, np.abs(values[:, 0]), side="right")
        return 3 + np.sign(values[:, 0]).astype(np.int64) * size

    groups = group(train.features)
    everywhere = np.array([*_shares(train.direction), train.return_bps.mean(dtype=np.float64)])
    table = np.tile(everywhere, (7, 1)).astype(np.float32)
    for number in np.unique(groups):
        inside = groups == number
        table[number, :3] = _shares(train.direction[inside])
        table[number, 3] = train.return_bps[inside].mean(dtype=np.float64)
    return lambda rows: table[group(rows)]


def regressions(train: Sample, validation: Sample) -> Answer:
    """Logistic regression for the classes and ridge regression for the return, on standardised features.

    The validation span chooses how strongly the weights are held down.
    """
    if len(np.unique(train.direction)) == 1:
        return frequencies(train, validation)
    mean = train.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = train.features.std(axis=0, dtype=np.float64).astype(np.float32)
    spread[spread <= 1e-6] = 1.0

    x, seen = (limited(each.features, mean, 1.0 / spread) for each in (train, validation))
    chances, returns = fit_regressions(x, train, seen, validation)
    return lambda rows: _answers(chances, returns, limited(rows, mean, 1.0 / spread))


def trees(train: Sample, validation: Sample) -> Answer:
    """Gradient-boosted trees for the classes and for the return; the validation span says when to stop."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # The classifier refuses to be judged by a class that it has not learned.
    known = np.isin(validation.direction, train.direction)
    if len(np.unique(train.direction)) == 1 or not known.any():
        return frequencies(train, validation)
    options: Mapping[str, Any] = {
        "max_iter": _TREES,
        "learning_rate": 0.05,
        # Neighbouring rows share their labels: a leaf of few rows may be a single moment.
        "max_leaf_nodes": 8,
        "min_samples_leaf": max(20, len(train.direction) // 150),
        "max_features": 0.3,
        "l2_regularization": 10.0,
        "random_state": 0,
        "early_stopping": True,
        "n_iter_no_change": _PATIENCE,
    }
    seen = validation.features[known]
    chances = HistGradientBoostingClassifier(**options)
    chances.fit(train.features, train.direction, X_val=seen, y_val=validation.direction[known])
    returns = HistGradientBoostingRegressor(**options)
    returns.fit(train.features, train.return_bps, X_val=seen, y_val=validation.return_bps[known])

    def answer(rows: Rows) -> Answers:
        answers = np.zeros((len(rows), 4), np.float32)
        answers[:, chances.classes_] = _at_best(chances.validation_score_, chances.staged_predict_proba(rows))
        answers[:, 3] = _at_best(returns.validation_score_, returns.staged_predict(rows))
        return answers

    return answer


def _at_best(scores: Floats, stages: Iterator[Any]) -> Any:
    """Return the stage with the best score: scikit-learn keeps the trees that came after it, too."""
    best = max(1, int(np.argmax(scores)))  # the first score is that of no tree
    return next(itertools.islice(stages, best - 1, None))


def _answers(chances: Any, returns: Any, rows: Rows) -> Answers:
    answers = np.zeros((len(rows), 4), np.float32)
    if len(rows):
        answers[:, chances.classes_] = chances.predict_proba(rows)
        answers[:, 3] = returns.predict(rows)
    return answers


def _shares(direction: Integers) -> Floats:
    # One row of each class more than there were: what was never seen is unlikely, and not impossible.
    came: Floats = np.bincount(direction, minlength=len(CLASSES)).astype(np.float64) + 1.0
    return came / float(came.sum())


def _enough(direction: Integers) -> bool:
    return len(direction) >= _FEWEST_FITTED_ROWS and len(np.unique(direction)) == len(CLASSES)
