"""Does a series of samples grow?"""

from collections.abc import Sequence

import numpy as np


def growth(at_s: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Return the mean of a series, and its growth per hour with its standard error.

    Source: ordinary least squares, any textbook: se(slope)**2 = sum(residuals**2) / (n - 2) / sum((x - mean)**2).
    """
    hours, seen = np.asarray(at_s) / 3600.0, np.asarray(values)
    away = hours - hours.mean()
    spread = float(away @ away)
    slope = float(away @ seen) / spread
    residuals = seen - seen.mean() - slope * away
    error = float(np.sqrt(residuals @ residuals / (len(seen) - 2) / spread))
    return {"mean": float(seen.mean()), "per_hour": slope, "standard_error": error}
