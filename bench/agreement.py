"""Do a peer's values agree with the engine's at the same ticks? A wrong peer is nothing to compare with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.markets import reference, save
from stream.records import Records

# Values are compared once an EMA of 26 ticks has forgotten how it began: (25/27)**500 is 1e-17.
WARM_TICKS: Final = 500
# A difference counts relative to the value, or to this where the value is smaller (bps, percent, 1).
_FLOOR: Final = 0.01
# Our features are float32: 6e-8 is what rounding gives.
TOLERANCE: Final = 1e-5
# Our features, and how a peer's values make each of them.
_FEATURES: Final = (
    "sma_32_gap_bps",
    "ema_12_gap_bps",
    "rsi_14",
    "macd_bps",
    "macd_histogram_bps",
    "bollinger_20_percent_b",
    "bollinger_20_width_bps",
    "volatility_64_bps",
    "spread_bps",
    "book_imbalance",
)


@dataclass(frozen=True)
class Market:
    """What all peers run on, and what the engine has after each tick of it."""

    ticks: Records
    path: Path  # as `bench.markets.save` wrote it
    expected: dict[str, NDArray[np.float64]]
    rows: dict[str, NDArray[np.int64]]  # the ticks of each symbol

    @classmethod
    def make(cls, ticks: Records, path: Path) -> "Market":
        """Compute what is expected, and write the file."""
        expected = reference(ticks, _FEATURES)
        save(path, ticks, expected["ref"])
        names = np.unique(ticks["symbol"])
        rows = {name.decode(): np.flatnonzero(ticks["symbol"] == name) for name in names}
        return cls(ticks, path, expected, rows)


def as_features(values: Mapping[str, float]) -> dict[str, float]:
    """Return a peer's values in the units of our features (see agents/features.py)."""
    ref, lower, upper = values["ref"], values["bollinger_lower"], values["bollinger_upper"]
    width = upper - lower
    is_flat = width == 0.0 or abs(width) <= ref * 1e-7
    features = {
        "ref": ref,
        "sma_32_gap_bps": (ref / values["sma_32"] - 1.0) * 1e4,
        "ema_12_gap_bps": (ref / values["ema_12"] - 1.0) * 1e4,
        "rsi_14": values["rsi_14"],
        "macd_bps": values["macd"] / ref * 1e4,
        "macd_histogram_bps": values["macd_histogram"] / ref * 1e4,
        "bollinger_20_percent_b": 0.5 if is_flat else (ref - lower) / width,
        "bollinger_20_width_bps": 0.0 if is_flat else width / (0.5 * (upper + lower)) * 1e4,
        "volatility_64_bps": values["volatility_64_bps"],
    }
    if "spread_bps" in values:
        features |= {"spread_bps": values["spread_bps"], "book_imbalance": values["imbalance"]}
    return features


def compare(values: Mapping[str, Mapping[str, Any]], market: Market) -> dict[str, Any]:
    """Return the greatest difference between a peer's last values and ours at the same ticks, and where it is."""
    worst, where, compared = 0.0, "", 0
    for symbol, theirs in values.items():
        count = theirs.get("ticks", 0)
        if count < WARM_TICKS:
            continue
        row = market.rows[symbol][count - 1]
        for name, value in as_features(theirs).items():
            ours = float(market.expected[name][row])
            difference = abs(value - ours) / max(abs(value), abs(ours), _FLOOR)
            compared += 1
            if not difference <= worst:  # NaN too
                worst, where = difference if math.isfinite(difference) else math.inf, f"{symbol} {name}"
    if compared == 0:
        return {"compared": 0, "max_relative_difference": None, "where": ""}
    return {"compared": compared, "max_relative_difference": worst, "where": where}
