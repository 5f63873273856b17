"""The daily stock-movement benchmark on 88 US stocks: up or down on the next day, beside published figures.

Samples are those of Xu and Cohen ("Stock Movement Prediction from Tweets and Historical Prices", ACL 2018) in the
form in which Feng et al. ("Enhancing Stock Movement Prediction with Adversarial Training", IJCAI 2019) published
their results: the 11 price features of the five trading days before, 2014-01-02 to 2015-12-31, and no tweets. It
tells whether our way to train an LSTM is a good one. It is not a model that the engine can serve.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stream.errors import SourceError

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Span = tuple[str, str]  # [from, to) in dates

COLUMNS: Final = ("ts_ns", "symbol", "open", "high", "low", "close", "adj_close")
MEAN_DAYS: Final = (5, 10, 15, 20, 25, 30)
FEATURES: Final = len(COLUMNS) - 2 + len(MEAN_DAYS)
ELIGIBLE_DAYS: Final = 5  # before a sample that must have all features
_UP_PERCENT, _DOWN_PERCENT = 0.55, -0.5
_LONGEST_LAG_DAYS: Final = 30

_BEGIN: Final = "2014-01-02"
TRAIN: Final[Span] = (_BEGIN, "2015-08-01")
VALIDATION: Final[Span] = ("2015-08-01", "2015-10-01")
TEST: Final[Span] = ("2015-10-01", "2016-01-01")
# What recipes are chosen by: two months each, after training on all that was before. The test span is in none.
FOLDS: Final[tuple[Span, ...]] = (
    ("2015-02-01", "2015-04-01"),
    ("2015-04-01", "2015-06-01"),
    ("2015-06-01", "2015-08-01"),
    VALIDATION,
)


@dataclass(frozen=True)
class Days:
    """The stocks' trading days. D = days, K = stocks; NaN where a stock was not yet listed."""

    date: NDArray[np.datetime64]  # [D] midnight
    features: NDArray[np.float64]  # [D, K, FEATURES] percent
    return_percent: NDArray[np.float64]  # [D, K] of the adjusted close, on that day


@dataclass(frozen=True)
class Samples:
    """What is to be predicted. N = samples, by day, then by stock."""

    day: Integers  # [N] index into `Days`; the prediction may use the days before
    stock: Integers  # [N] likewise
    up: Booleans  # [N]


def read_days(path: Path) -> Days:
    """Read daily bars and compute the features.

    Those of a day are, in percent: open, high and low over close; the change of close and of adjusted close
    since the day before; the means of the last 5, 10, 15, 20, 25 and 30 adjusted closes over the adjusted close.

    Args:
        path: Parquet with `COLUMNS`, one row for each stock and day.

    Raises:
        SourceError: not such a file.
    """
    try:
        bars = pd.read_parquet(path, columns=list(COLUMNS))
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path}: {error}; right would be Parquet with the columns {', '.join(COLUMNS)}, a row for each stock "
            "and day"
        ) from None
    twice = bars.duplicated(["ts_ns", "symbol"])
    if twice.any():
        raise SourceError(f"{path}: {int(twice.sum())} rows of a stock and day that has one already")
    table = {name: bars.pivot(index="ts_ns", columns="symbol", values=name) for name in COLUMNS[2:]}
    close, adjusted = table["close"], table["adj_close"]
    change = adjusted / adjusted.shift(1) - 1.0
    columns = [
        *(table[name] / close - 1.0 for name in ("open", "high", "low")),
        close / close.shift(1) - 1.0,
        change,
        *(adjusted.rolling(days).mean() / adjusted - 1.0 for days in MEAN_DAYS),
    ]
    features = 100.0 * np.stack([column.to_numpy() for column in columns], axis=-1)
    begun = np.any(np.all(np.isfinite(features), axis=2), axis=1)  # not while no stock has a mean of 30 days yet
    return Days(
        date=close.index.to_numpy()[begun].astype("datetime64[ns]"),
        features=features[begun],
        return_percent=100.0 * change.to_numpy()[begun],
    )


def cut_samples(days: Days, span: Span) -> Samples:
    """Return the samples of a span.

    A stock's day counts if its adjusted close rose by 0.55 % or more (up), or fell by 0.5 % or more (down), and
    all features of the five trading days before are there.

    Raises:
        SourceError: the file does not reach over the span.
    """
    first, last = np.searchsorted(days.date, np.array(span, "datetime64[ns]"))
    if first < _LONGEST_LAG_DAYS or days.date[-1] < np.datetime64(span[1]) - np.timedelta64(4, "D"):
        raise SourceError(
            f"daily bars whose features reach from {days.date[0]:.10} to {days.date[-1]:.10}; right would be from "
            f"{_LONGEST_LAG_DAYS} trading days before {span[0]} to {span[1]}"
        )
    known = np.all(np.isfinite(days.features), axis=2)
    change = days.return_percent
    chosen: Booleans = np.logical_or(change >= _UP_PERCENT, change <= _DOWN_PERCENT)
    for lag in range(1, ELIGIBLE_DAYS + 1):
        chosen[lag:] &= known[:-lag]
    day, stock = np.nonzero(chosen[first:last])
    return Samples(day + first, stock, change[day + first, stock] > 0.0)


@dataclass(frozen=True)
class Score:
    """How good predictions of up or down are."""

    accuracy_percent: float
    mcc: float


def score(up: Booleans, predicted: Booleans) -> Score:
    """Return accuracy and Matthews' correlation coefficient, which is 0 where one answer is always given.

    Args:
        up: ``bool[N]``: what came.
        predicted: ``bool[N]``.

    Source:
        Matthews (1975), as the correlation of two binary variables.
    """
    moved = up.std() * predicted.std()
    mcc = float(((up - up.mean()) * (predicted - predicted.mean())).mean() / moved) if moved > 0.0 else 0.0
    return Score(100.0 * float((up == predicted).mean()), mcc)
