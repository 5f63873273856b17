"""A sequential test of a served model against another: is it worse? It may be looked at after every outcome.

Outcomes overlap: those of one horizon share most of what happened. So time is cut into windows of 1.2 horizons, and
only predictions from the first sixth of a window count, which have all come true when the next window begins. Their
mean difference in log loss is one observation, however many predictions and symbols are in it: what happens in a
window is dependent in ways that nobody knows.

The test bets. Let d be an observation (loss of the served model minus that of the other, less a tolerance), and b
the most that the other could have lost in that window, which its probabilities tell beforehand. If the served model
is no worse, a bet of a share f pays 1 + f d / b, on average at most 1, and never less than 1 - f. The product of
the payments of all windows is the *e-value*; the mean over some shares f is one too. Whatever the dependence within
windows, and however often one looks, the e-value of a model that is no worse ever reaches 1 / alpha with a
probability of at most alpha.

What "no worse" means: in no window, given all that was known before, does it lose more on average than the other
does, plus the tolerance.

Source: Ville (1939); Shafer, "Testing by betting", JRSS A 184, 2021; Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024 (mixtures of constant bets).
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
# Of a window: predictions and loss of the served one; those of the other, and the most that it could have lost.
_SERVED, _LOSS, _OTHERS, _OTHER_LOSS, _WORST = range(5)

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
        self.left_out = 0  # windows in which the two did not predict the same ticks, and outcomes that came late
        self._log_wealth: Floats = np.zeros(len(_FRACTIONS))
        self._open: dict[int, Floats] = {}
        self._closed = -1  # windows up to here are closed

    @property
    def e_value(self) -> float:
        """How much the bets have won: 1 at the start. May be infinite."""
        with np.errstate(over="ignore"):
            return float(np.exp(self._log_wealth).mean())

    def counts(self, from_ns: Integers) -> NDArray[np.bool_]:
        """Return which predictions count, by the times that their horizons are counted from: ``bool[N]``."""
        counting: NDArray[np.bool_] = from_ns % self.window_ns < self.window_ns * COUNTED_SHARE
        return counting

    def add_served(self, from_ns: Integers, loss: Floats) -> None:
        """Add outcomes of the served model that count, ``float64[N]``, in nats."""
        self._add(from_ns, ((_SERVED, np.ones(len(loss))), (_LOSS, loss)))

    def add_other(self, from_ns: Integers, loss: Floats, worst: Floats) -> None:
        """Add outcomes of the other that count: what it lost, and the most that it could have lost."""
        self._add(from_ns, ((_OTHERS, np.ones(len(loss))), (_OTHER_LOSS, loss), (_WORST, worst)))

    def _add(self, from_ns: Integers, columns: tuple[tuple[int, Floats], ...]) -> None:
        windows, where = np.unique(from_ns // self.window_ns, return_inverse=True)
        for column, values in columns:
            sums = np.bincount(where, values, len(windows))
            for window, value in zip(windows.tolist(), sums.tolist(), strict=True):
                if window > self._closed:
                    self._open.setdefault(window, np.zeros(5))[column] += value
                elif column in (_SERVED, _OTHERS):
                    self.left_out += int(value)

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
        served, others = sums[_SERVED], sums[_OTHERS]
        if not 0.9 * others <= served <= 1.1 * others or served == 0:
            self.left_out += 1
            return
        worst = sums[_WORST] / others + TOLERANCE
        difference = sums[_LOSS] / served - sums[_OTHER_LOSS] / others - TOLERANCE
        self._log_wealth += np.log1p(_FRACTIONS * max(difference / worst, -1.0))
        self.windows += 1

    def save(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain values."""
        return {
            "window_ns": self.window_ns,
            "windows": self.windows,
            "left_out": self.left_out,
            "log_wealth": self._log_wealth.tolist(),
            "open": {str(window): sums.tolist() for window, sums in self._open.items()},
            "closed": self._closed,
        }

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "Trial":
        """Return the trial that was saved."""
        trial = cls(0)
        trial.window_ns, trial.windows, trial.left_out = saved["window_ns"], saved["windows"], saved["left_out"]
        trial._log_wealth = np.array(saved["log_wealth"])
        trial._open = {int(window): np.array(sums) for window, sums in saved["open"].items()}
        trial._closed = saved["closed"]
        return trial
