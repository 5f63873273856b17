"""A sequential test of a served model against another: is it worse? It may be looked at after every outcome.

Outcomes overlap: those of one horizon share most of what happened. So time is cut into windows of 1.2 horizons, and
only predictions from the first sixth of a window count, which have all come true when the next window begins. Their
mean difference in log loss is one observation, however many predictions and symbols are in it: what happens in a
window is dependent in ways that nobody knows.

The test bets. Let d be an observation (loss of the served model minus that of the other, less a tolerance), and b
the most that the served one can win by, which both models' probabilities tell beforehand. If the served model is no
worse, a bet of a share f pays 1 + f d / b, on average at most 1, and never less than 1 - f. The product of the
payments of all windows is an *e-value*, and so is a mean of such: over some shares f, and over the windows at which
the betting starts, so that a model which was good for long and then is not is found as well (the start at window k
has the weight 1 / (k (k + 1))). Whatever the dependence within windows, and however often one looks, the e-value of
a model that is no worse ever reaches 1 / alpha with a probability of at most alpha.

What "no worse" means: in no window, given all that was known before, does it lose more on average than the other
does, plus the tolerance.

Source: Ville (1939); Shafer, "Testing by betting", JRSS A 184, 2021; Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024 (mixtures of constant bets); Shin, Ramdas and Rinaldo,
"E-detectors", New England Journal of Statistics in Data Science 2, 2024 (mixtures over starts).
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# A model that is as good but for this much, in nats, is not worth a rollback.
TOLERANCE: Final = 0.005
WINDOW_HORIZONS: Final = 1.2
COUNTED_SHARE: Final = 1 / 6  # of a window
_FRACTIONS: Final = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
# Windows that wait for the rest of their outcomes, at the most: symbols that tick seldom tell late.
_MOST_OPEN: Final = 16
# Of a window: how many predictions, the sum of d, and that of the least that it could have been.
_COUNT, _DIFFERENCE, _LEAST = range(3)
_MOST_EVIDENCE: Final = 1e300

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Trial:
    """One served model against one other, in one partition."""

    def __init__(self, horizon_ns: int) -> None:
        """Begin.

        Args:
            horizon_ns: the longer of the two models'.
        """
        self.window_ns = int(WINDOW_HORIZONS * horizon_ns)
        self.windows = 0  # that are closed and counted
        self.left_out = 0  # outcomes that came after their window was closed
        self._bets: Floats = np.zeros(len(_FRACTIONS))  # what those that started have won, weights and all
        self._unstarted = 1.0  # weight of those that will start later
        self._open: dict[int, Floats] = {}
        self._closed = -1  # windows up to here are closed

    @property
    def e_value(self) -> float:
        """How much the bets have won: 1 at the start."""
        return float(self._bets.mean()) + self._unstarted

    def counts(self, from_ns: Integers) -> NDArray[np.bool_]:
        """Return which predictions count, by the times that their horizons are counted from: ``bool[N]``."""
        counting: NDArray[np.bool_] = from_ns % self.window_ns < self.window_ns * COUNTED_SHARE
        return counting

    def add(self, from_ns: Integers, difference: Floats, least: Floats) -> None:
        """Add predictions that count, of both models for the same ticks.

        Args:
            from_ns: ``int64[N]``, when their horizons began.
            difference: ``float64[N]``, log loss of the served one minus that of the other, in nats.
            least: ``float64[N]``, the least that the difference could have been, whatever had come of it.
        """
        windows, where = np.unique(from_ns // self.window_ns, return_inverse=True)
        sums = [np.bincount(where, values, len(windows)) for values in (np.ones(len(where)), difference, least)]
        for window, row in zip(windows.tolist(), np.stack(sums, axis=1), strict=True):
            if window > self._closed:
                self._open[window] = self._open.get(window, np.zeros(3)) + row
            else:
                self.left_out += int(row[_COUNT])

    def close(self, clock_ns: int) -> None:
        """Take the windows into account that have nothing to wait for.

        Args:
            clock_ns: both models' predictions up to here have been seen.
        """
        # A window's outcomes are due when the next one begins; they are told by ticks that come after.
        done = int(clock_ns - self.window_ns * COUNTED_SHARE) // self.window_ns - 1
        for window in sorted(self._open):
            if window <= done or len(self._open) > _MOST_OPEN:
                self._count(self._open.pop(window))
                self._closed = max(self._closed, window)

    def _count(self, sums: Floats) -> None:
        self.windows += 1
        weight = 1.0 / (self.windows * (self.windows + 1))
        self._unstarted -= weight
        most = TOLERANCE - sums[_LEAST] / sums[_COUNT]
        paid = max((sums[_DIFFERENCE] / sums[_COUNT] - TOLERANCE) / most, -1.0)
        self._bets = np.minimum((self._bets + weight) * (1.0 + _FRACTIONS * paid), _MOST_EVIDENCE)

    def save(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain values."""
        return {
            "window_ns": self.window_ns,
            "windows": self.windows,
            "left_out": self.left_out,
            "bets": self._bets.tolist(),
            "unstarted": self._unstarted,
            "open": {str(window): sums.tolist() for window, sums in self._open.items()},
            "closed": self._closed,
        }

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "Trial":
        """Return the trial that was saved."""
        trial = cls(0)
        trial.window_ns, trial.windows, trial.left_out = saved["window_ns"], saved["windows"], saved["left_out"]
        trial._bets, trial._unstarted = np.array(saved["bets"]), saved["unstarted"]
        trial._open = {int(window): np.array(sums) for window, sums in saved["open"].items()}
        trial._closed = saved["closed"]
        return trial
