"""Whether one forecaster is better than another, or was only lucky."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.overlap import mean_error


@dataclass(frozen=True)
class Comparison:
    """The outcome of a Diebold-Mariano test. Negative: the first forecaster lost less."""

    mean_difference: float  # of the losses, first minus second
    statistic: float
    p_value: float  # two-sided: the chance of such a statistic where both are equally good
    freedom: float
    bandwidth_s: float


def diebold_mariano(
    first: NDArray[np.float64], second: NDArray[np.float64], event_ns: NDArray[np.int64], horizon_ns: int
) -> Comparison:
    """Test the hypothesis that two forecasters lose the same on average.

    The variance of the mean difference allows for overlapping labels, see `models.overlap.mean_error`; its
    bandwidth is four horizons or more. The statistic is corrected for small samples as Harvey, Leybourne and
    Newbold do, with the bandwidth in the place of the horizon (which asks for more), and compared with Student's t.

    Args:
        first: ``float64[N]``: losses of the first forecaster, N > 1.
        second: ``float64[N]``: those of the second, on the same rows.
        event_ns: ``int64[N]``, never falling.
        horizon_ns: how far ahead the forecasts look.

    Source: Diebold and Mariano (1995); Harvey, Leybourne and Newbold (1997).
    """
    from scipy.special import stdtr

    error = mean_error(first - second, event_ns, horizon_ns)
    count = len(first)
    rows = error.bandwidth_share * count
    correction = (count + 1.0 - 2.0 * rows + rows * (rows - 1.0) / count) / count
    statistic = error.t * math.sqrt(max(0.0, correction))
    return Comparison(
        mean_difference=error.mean,
        statistic=statistic,
        p_value=float(2.0 * stdtr(error.freedom, -abs(statistic))),
        freedom=error.freedom,
        bandwidth_s=error.bandwidth_s,
    )
