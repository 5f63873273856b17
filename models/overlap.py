"""How sure the mean of overlapping observations is.

Labels that look ten seconds ahead share most of their future with their neighbours: a hundred thousand rows may
hold a few hundred independent outcomes, and an error that is computed as if rows were independent is ten times too
small. Rows are also not evenly spaced, so that overlap is a matter of event time and not of a number of rows.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.clock import NS_PER_S

_FEWEST_HORIZONS: Final = 4  # of a bandwidth: overlap alone needs more than one, as a triangle damps what it sees

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class MeanError:
    """The mean of N values and how far it may be off."""

    mean: float
    standard_error: float
    freedom: float  # degrees of freedom of (mean - truth) / standard_error
    bandwidth_s: float
    bandwidth_share: float  # of the time in which there are values

    @property
    def t(self) -> float:
        """The mean in standard errors; 0 where nothing varies."""
        return self.mean / self.standard_error if self.standard_error > 0.0 else 0.0


def mean_error(values: Floats, event_ns: Integers, horizon_ns: int) -> MeanError:
    """Return the mean of values that depend on one another when they are near in time.

    The variance is the Newey-West estimate with time in the place of rows: two values weigh in with
    ``1 - distance / bandwidth``, which is never negative in sum. With n the number of horizons in which there are
    values, the bandwidth is ``max(4, 1.3 sqrt(n))`` horizons, and the degrees of freedom 1.5 n / bandwidth.

    Args:
        values: ``float64[N]``, N > 0.
        event_ns: ``int64[N]``, never falling.
        horizon_ns: how far ahead an observation looks.

    Source: Newey and West (1987); bandwidth and degrees of freedom: Lazarus, Lewis, Stock and Watson, HAR
    inference: recommendations for practice (2018). Cost: a few passes, whatever the bandwidth.
    """
    count = len(values)
    mean = float(values.mean())
    horizons = len(np.unique(event_ns // horizon_ns))
    bandwidth = max(_FEWEST_HORIZONS, math.ceil(1.3 * math.sqrt(horizons)))
    off = values - mean
    time = (event_ns - event_ns[0]) / (float(bandwidth) * horizon_ns)
    first = np.searchsorted(time, time - 1.0, side="right")
    sums = np.concatenate([[0.0], np.cumsum(off)])
    moments = np.concatenate([[0.0], np.cumsum(off * time)])
    until = np.arange(1, count + 1)
    before = (1.0 - time) * (sums[until] - sums[first]) + (moments[until] - moments[first])
    # Each pair is seen once from its later end, and each value once from itself.
    total = max(0.0, float(2.0 * (off * before).sum() - (off * off).sum()))
    return MeanError(
        mean=mean,
        standard_error=math.sqrt(total) / count,
        freedom=max(1.0, 1.5 * horizons / bandwidth),
        bandwidth_s=bandwidth * horizon_ns / NS_PER_S,
        bandwidth_share=min(1.0, bandwidth / horizons),
    )
