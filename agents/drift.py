"""How far features and answers have left what a model was trained on: PSI and KS, on bins of the training span.

Training keeps, of each feature, the edges of its ten equally full bins (`reference`). Live values are counted into
the same bins (`Drift`), and those below and above all of them, into one on each side.

- PSI, the population stability index: sum of (share - share of training) * ln(share / share of training). By custom
  below 0.1 is no drift, above 0.25 is much.
- KS, Kolmogorov and Smirnov's distance: the largest difference of the two distribution functions at the edges.

Both are about a single feature's distribution, not about whether the model is worse for it: `models/trial.py` is.

Source: Siddiqi, "Credit Risk Scorecards", 2006 (PSI and its limits); Kolmogorov 1933, Smirnov 1948.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 10
# Where the metadata of a model has its references, in ``training``, and the names of the answers' columns.
FEATURES_KEY: Final = "feature_bins"
ANSWERS_KEY: Final = "answer_bins"
ANSWERS: Final = ("p_down", "p_flat", "p_up", "expected_return_bps")
# Rows that a distribution is estimated from, at the most: neighbours tell the same, more of them tell no more.
MOST_ROWS: Final = 200_000
# Old values fade once there are so many: with 64 of a lane each second, after some minutes.
_WINDOW_ROWS: Final = 20_000
FEWEST_ROWS: Final = 500  # below this a share is a guess, and PSI mostly noise
_LEAST_SHARE: Final = 1e-3  # an empty bin would make PSI infinite; this one counts 0.7 for a tenth

Floats = NDArray[np.float32]


def reference(values: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return what the metadata of a model says of what it was trained on: edges and shares, as plain values.

    Args:
        values: ``float32[N, F]``, all finite, N >= 1: features of the training span, or answers to them.
        names: of the F columns.
    """
    some = np.asarray(values[:: -(-len(values) // MOST_ROWS)], np.float32)
    out: dict[str, Any] = {}
    for name, column in zip(names, some.T, strict=True):
        # An edge belongs to the bin below it. Beyond the lowest and the highest value there is a bin for what never
        # came in training.
        cuts = np.quantile(column, np.arange(1, BINS) / BINS, method="inverted_cdf")
        below = np.nextafter(column.min(), np.float32(-np.inf))
        edges = np.unique(np.array([below, *cuts, column.max()], np.float32))
        shares = np.bincount(np.searchsorted(edges, column), minlength=len(edges) + 1) / len(column)
        out[name] = {"edges": [float(edge) for edge in edges], "shares": [round(float(x), 6) for x in shares]}
    return out


class Drift:
    """Counts of live values in the bins of a reference."""

    def __init__(self, expected: Mapping[str, Any], available: Sequence[str]) -> None:
        """Make empty counts.

        Args:
            expected: as `reference` made it; columns that are not available are left out.
            available: the names of the columns that `add` is given.
        """
        self.names = tuple(name for name in expected if name in available)
        self.rows = 0.0
        self._columns = [available.index(name) for name in self.names]
        self._edges = [np.array(expected[name]["edges"], np.float32) for name in self.names]
        self._expected = [np.array(expected[name]["shares"], np.float64) for name in self.names]
        self._counts = [np.zeros(len(shares)) for shares in self._expected]

    def add(self, values: Floats) -> None:
        """Count ``float32[N, len(available)]``: some 5 us for each feature, and 20 ns for each value."""
        if self.rows > _WINDOW_ROWS:
            self.rows /= 2
            self._counts = [counts / 2 for counts in self._counts]
        self.rows += len(values)
        for place, (column, edges) in enumerate(zip(self._columns, self._edges, strict=True)):
            bins = np.searchsorted(edges, values[:, column])
            self._counts[place] = self._counts[place] + np.bincount(bins, minlength=len(edges) + 1)

    def psi(self) -> dict[str, float]:
        """Return the PSI of each column; nothing while there are too few rows."""
        return dict(zip(self.names, map(_psi, self._shares(), self._expected), strict=False))

    def ks(self) -> dict[str, float]:
        """Return the KS distance of each column, 0 to 1; nothing while there are too few rows."""
        return dict(zip(self.names, map(_ks, self._shares(), self._expected), strict=False))

    def _shares(self) -> list[NDArray[np.float64]]:
        return [] if self.rows < FEWEST_ROWS else [counts / counts.sum() for counts in self._counts]


def _psi(shares: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    seen, trained = np.maximum(shares, _LEAST_SHARE), np.maximum(expected, _LEAST_SHARE)
    return float(((seen - trained) * np.log(seen / trained)).sum())


def _ks(shares: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.abs(np.cumsum(shares) - np.cumsum(expected)).max())
