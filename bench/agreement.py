"""Do a peer's values agree with the engine's at the same ticks? A wrong peer is nothing to compare with."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.features import NAMES
from bench.markets import after, reference_prices, save
from stream.records import Records

# Values are compared once an EMA of 26 ticks has forgotten how it began: (25/27)**500 is 1e-17.
WARM_TICKS: Final = 500
# Packages begin Wilder's averages in different ways, which is forgotten more slowly: (13/14)**250 is 1e-8.
WARM_BARS: Final = 250
# A difference counts relative to the value, or to this where the value is smaller (bps, percent, 1).
_FLOOR: Final = 0.01
TOLERANCE: Final = 1e-5


def _log_return(_: float, percent: float) -> float:
    return math.log1p(percent / 100.0) * 1e4


def _change(_: float, percent: float) -> float:
    return percent * 100.0


def _gap(price: float, average: float) -> float:
    return (price / average - 1.0) * 1e4


def _share(price: float, value: float) -> float:
    return value / price * 1e4


def _same(_: float, value: float) -> float:
    return value


def _percent_b(price: float, lower: float, upper: float) -> float:
    return 0.5 if _is_flat(price, lower, upper) else (price - lower) / (upper - lower)


def _width(price: float, lower: float, upper: float) -> float:
    return 0.0 if _is_flat(price, lower, upper) else (upper - lower) / (0.5 * (upper + lower)) * 1e4


def _is_flat(price: float, lower: float, upper: float) -> bool:
    return lower == upper or abs(upper - lower) <= price * 1e-7


def _place(price: float, low: float, high: float) -> float:
    return (price - low) / (high - low) if high > low else 0.5


Formula = tuple[Callable[..., float], tuple[str, ...]]
_BANDS: Final = ("bollinger_lower", "bollinger_upper")
# Our features, and which values of a peer make each of them, beside the price.
_OF_TICKS: Final[dict[str, Formula]] = {
    "return_1_bps": (_log_return, ("roc_1",)),
    "return_8_bps": (_log_return, ("roc_8",)),
    "return_64_bps": (_log_return, ("roc_64",)),
    "sma_32_gap_bps": (_gap, ("sma_32",)),
    "ema_12_gap_bps": (_gap, ("ema_12",)),
    "rsi_14": (_same, ("rsi_14",)),
    "macd_bps": (_share, ("macd",)),
    "macd_histogram_bps": (_share, ("macd_histogram",)),
    "bollinger_20_percent_b": (_percent_b, _BANDS),
    "bollinger_20_width_bps": (_width, _BANDS),
    "volatility_64_bps": (_same, ("volatility_64_bps",)),
    "spread_bps": (_same, ("spread_bps",)),
    "book_imbalance": (_same, ("imbalance",)),
    "macd_signal_bps": (_share, ("macd_signal",)),
    "ema_26_gap_bps": (_gap, ("ema_26",)),
    "channel_64_position": (_place, ("low_64", "high_64")),
}
_OF_BARS: Final[dict[str, Formula]] = {
    "sma_20_gap_bps": (_gap, ("sma_20",)),
    "ema_12_gap_bps": (_gap, ("ema_12",)),
    "rsi_14": (_same, ("rsi_14",)),
    "macd_12_26_bps": (_share, ("macd",)),
    "macd_12_26_9_signal_bps": (_share, ("macd_signal",)),
    "macd_12_26_9_histogram_bps": (_share, ("macd_histogram",)),
    "bollinger_20_percent_b": (_percent_b, _BANDS),
    "bollinger_20_width_bps": (_width, _BANDS),
    "atr_14_bps": (_share, ("atr_14",)),
    "roc_10_bps": (_change, ("roc_10",)),
    "channel_20_position": (_place, ("low_20", "high_20")),
    "volatility_20_bps": (_same, ("volatility_20_bps",)),
}


@dataclass(frozen=True)
class Market:
    """What all peers run on."""

    ticks: Records
    path: Path  # as `bench.markets.save` wrote it
    rows: dict[str, NDArray[np.int64]]  # the ticks of each symbol

    @classmethod
    def make(cls, ticks: Records, path: Path) -> "Market":
        """Write the file."""
        save(path, ticks, reference_prices(ticks))
        names = np.unique(ticks["symbol"])
        return cls(ticks, path, {name.decode(): np.flatnonzero(ticks["symbol"] == name) for name in names})

    def expected(self, symbol: str, count: int) -> dict[str, float]:
        """Return what the engine has after a symbol's ``count``-th tick: ``ref``, and each feature."""
        ref, features = after(self.ticks[self.rows[symbol][:count]])
        return {"ref": ref} | dict(zip(NAMES, features.tolist(), strict=True))


def as_features(values: Mapping[str, Any]) -> dict[str, float]:
    """Return a peer's values in the units of our features (see agents/features.py): those that it has."""
    found = {"ref": values["ref"]}
    if "features" in values:
        return found | dict(zip(NAMES, values["features"], strict=True))
    found |= _made(_OF_TICKS, values["ref"], values)
    for length, over in values.get("over_bars", {}).items():
        if over.get("bars", 0) >= WARM_BARS:
            made = _made(_OF_BARS, over["close"], over)
            found |= {f"bar_{length}s_{name}": value for name, value in made.items()}
    return found


def _made(formulas: Mapping[str, Formula], price: float, values: Mapping[str, float]) -> dict[str, float]:
    return {
        name: formula(price, *(values[key] for key in keys))
        for name, (formula, keys) in formulas.items()
        if all(key in values for key in keys)
    }


def compare(values: Mapping[str, Mapping[str, Any]], market: Market) -> dict[str, Any]:
    """Return the greatest difference between a peer's last values and ours at the same ticks, and where it is."""
    worst, where, compared = 0.0, "", 0
    for symbol, theirs in values.items():
        count = theirs.get("ticks", 0)
        if count < WARM_TICKS:
            continue
        expected = market.expected(symbol, count)
        for name, value in as_features(theirs).items():
            difference = abs(value - expected[name]) / max(abs(value), abs(expected[name]), _FLOOR)
            compared += 1
            if not difference <= worst:  # NaN too
                worst, where = difference if math.isfinite(difference) else math.inf, f"{symbol} {name}"
    if compared == 0:
        return {"compared": 0, "max_relative_difference": None, "where": ""}
    return {"compared": compared, "max_relative_difference": worst, "where": where}
