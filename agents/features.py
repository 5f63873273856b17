"""The features of a tick: their names, order, units and formulas. `agents/windows.py` computes them.

A model names the features that it wants; position i of a feature row is ``FEATURES[i]``. Like a record, the
list is append only: an index never changes its meaning.

The *reference price* of a symbol is its mid price once both sides of the book were seen, the last trade price
before that. *Tick* below means an accepted trade or quote of the symbol, one step of every window. While a window
fills, it is as long as there are ticks; an EMA starts at its first value, those of flows at 0, that of the seconds
between ticks at 1. Each feature is limited to +-1e6, which no market reaches and a wrong price would.
"""

from dataclasses import dataclass
from typing import Final

from stream.errors import SettingsError


@dataclass(frozen=True)
class Feature:
    """One feature: what it is called, its unit, and how it is computed."""

    name: str
    unit: str
    formula: str


FEATURES: Final = (
    Feature("return_1_bps", "bps", "log(ref / ref 1 tick ago) x 1e4"),
    Feature("return_8_bps", "bps", "log(ref / ref 8 ticks ago) x 1e4"),
    Feature("return_64_bps", "bps", "log(ref / ref 64 ticks ago) x 1e4"),
    Feature("sma_32_gap_bps", "bps", "(ref / mean of the last 32 refs - 1) x 1e4"),
    Feature("ema_12_gap_bps", "bps", "(ref / EMA(12) of ref - 1) x 1e4"),
    Feature("rsi_14", "0..100", "Wilder's RSI over 14 ticks; 50 while nothing moved"),
    Feature("macd_bps", "bps", "(EMA(12) - EMA(26)) / ref x 1e4"),
    Feature("macd_histogram_bps", "bps", "(MACD - EMA(9) of MACD) / ref x 1e4, MACD = EMA(12) - EMA(26)"),
    Feature("bollinger_20_percent_b", "1", "(ref - lower) / (upper - lower), bands at 2 sigma; 0.5 while flat"),
    Feature("bollinger_20_width_bps", "bps", "(upper - lower) / mean of the last 20 refs x 1e4"),
    Feature("volatility_64_bps", "bps", "standard deviation of the last 64 one-tick log returns x 1e4"),
    Feature("spread_bps", "bps", "(ask - bid) / mid x 1e4; 0 before the first quote"),
    Feature("book_imbalance", "-1..1", "(bid size - ask size) / (bid size + ask size)"),
    Feature("microprice_gap_bps", "bps", "((bid x ask size + ask x bid size) / (sizes) / mid - 1) x 1e4"),
    Feature("order_flow_imbalance", "1", "EMA(32) of Cont's e_n / EMA(32) of the depth at the touch"),
    Feature("trade_flow", "-1..1", "EMA(32) of signed trade size / EMA(32) of trade size"),
    Feature("tick_rate_log", "log(1/s)", "log(1 + 1 / EMA(32) of the seconds between ticks)"),
    Feature("since_trade_log", "log(s)", "log(1 + seconds since the last trade); capped at 3,600 s"),
)

NAMES: Final = tuple(feature.name for feature in FEATURES)
COUNT: Final = len(FEATURES)


def indices(names: list[str] | tuple[str, ...]) -> list[int]:
    """Return the positions of features in a row.

    Raises:
        SettingsError: there is no feature of such a name.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise SettingsError(f"unknown features {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    return [NAMES.index(name) for name in names]
