"""The features of a tick: their names, order, units and formulas. `agents/kernel.py` computes them.

A model names the features that it wants; position i of a feature row is ``catalogue(periods)[i]``. Like a record,
the list is append only: a place never changes its meaning. How many there are does not depend on the periods; the
names do, so that a model that was trained on ``rsi_14`` is refused where the period is 21.

**Reference price** (*ref*): the mid price once both sides of the book were seen, the last trade price before
that. *Tick* means an accepted trade or quote of the symbol. Each feature is limited to +-1e6, which no market
reaches and a wrong price would. A time is the symbol's newest event time: a tick that comes late (within the
lateness) counts there.

**By count of ticks.** While a window fills, it is as long as there are ticks. An EMA starts at its first value,
those of flows at 0, that of the seconds between ticks at 1.

**By event time** (``_10s``). A window is cut into 10 buckets whose borders are multiples of its tenth since 1970;
it is the open bucket and the 9 before it, so 0.9 to 1 times its length, and never older. Windows move on when the
symbol ticks. A window in which a feature has nothing to tell (no trade, no quote) gives 0, and 0.5 for a place in
a channel.

**Over bars** (``bar_60s_``). Open, high, low and close of trades, in intervals that begin at multiples of the
length since 1970. A symbol that has never traded makes bars of its mid; its first trade starts the open bar anew.
An interval without a price makes no bar, as with vendors. Bars close by event time, at the first tick of any kind
after their end. Indicators look at closed bars only and stand still until the next one closes: nothing repaints.
While they fill they are as long as there are bars: an average (SMA, EMA, Wilder's) is the mean of its values
until there are ``period`` of them, which is also how the classic ones start; the signal line starts with the slow
average full. Before the first bar closes: 0, and 50 for an RSI, 0.5 for %b and for a place in a channel.

**Sessions.** Where ``session_gap_s`` is set and a symbol was silent for longer, the next good tick finds the
symbol as if it were new, book and averages included; only its numbers (seq) go on.

A price itself is no feature, for no model should learn one by heart: it is in the prediction as ``ref_price``.
"""

import fnmatch
from dataclasses import dataclass
from typing import Final

from agents.periods import DEFAULT, Periods
from stream.errors import SettingsError

_LATER_OF_PRICES: Final = 3  # of those that were added later, the first ones are of prices, the rest of markets


@dataclass(frozen=True)
class Feature:
    """One feature: what it is called, its unit, and how it is computed."""

    name: str
    unit: str
    formula: str


def catalogue(periods: Periods) -> tuple[Feature, ...]:
    """Return the features of a row in their order."""
    windows = [feature for length_s in periods.windows_s for feature in _of_window(f"{length_s:g}s")]
    bars = [feature for length_s in periods.bars_s for feature in _of_bars(f"bar_{length_s:g}s", periods)]
    return (*_of_prices(periods), *_of_markets(periods), *_added_later(periods), *windows, *bars)


def names(periods: Periods) -> tuple[str, ...]:
    """Return the names of the features in their order."""
    return tuple(feature.name for feature in catalogue(periods))


def indices(wanted: list[str] | tuple[str, ...], available: tuple[str, ...] | None = None) -> list[int]:
    """Return the positions of features in a row.

    Args:
        wanted: their names.
        available: the names in a row, `NAMES` when not given.

    Raises:
        SettingsError: there is no feature of such a name.
    """
    available = NAMES if available is None else available
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise SettingsError(f"unknown features {', '.join(unknown)}; there are: {', '.join(available)}")
    return [available.index(name) for name in wanted]


def groups(periods: Periods) -> dict[str, tuple[str, ...]]:
    """Return the names of the features by what they are made of; each feature is in one group."""
    later = _added_later(periods)
    parts = {
        "ticks": (*_of_prices(periods), *later[:_LATER_OF_PRICES]),
        "book": (*_of_markets(periods), *later[_LATER_OF_PRICES:]),
        "windows": tuple(feature for length_s in periods.windows_s for feature in _of_window(f"{length_s:g}s")),
        "bars": tuple(
            feature for length_s in periods.bars_s for feature in _of_bars(f"bar_{length_s:g}s", periods)
        ),
    }
    return {group: tuple(feature.name for feature in part) for group, part in parts.items()}


def choose(patterns: str, available: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that patterns choose, in the order of a row.

    Args:
        patterns: names with commas between, in which ``*`` stands for anything; one with ``-`` before it leaves out
            what it matches. Where the first one leaves out, it does so from all.
        available: the names in a row.

    Raises:
        SettingsError: a pattern matches nothing, or nothing is left.
    """
    parts = [part.strip() for part in patterns.split(",")]
    chosen = set(available) if parts[0].startswith("-") else set()
    for part in parts:
        matched = set(fnmatch.filter(available, part.removeprefix("-")))
        if not matched:
            raise SettingsError(f"no feature is called {part!r}; there are: {', '.join(available)}")
        chosen = chosen - matched if part.startswith("-") else chosen | matched
    if not chosen:
        raise SettingsError(f"{patterns!r} leaves no feature; right would be one or more")
    return tuple(name for name in available if name in chosen)


def _of_prices(p: Periods) -> tuple[Feature, ...]:
    short, long = p.tick_return_short, p.tick_return_long
    fast, slow, signal = p.tick_ema_fast, p.tick_ema_slow, p.tick_macd_signal
    sma, rsi, bands, volatility = p.tick_sma, p.tick_rsi, p.tick_bollinger, p.tick_volatility
    macd = _carrying("macd", (fast, slow), (12, 26))
    full_macd = _carrying("macd", (fast, slow, signal), (12, 26, 9))
    return (
        Feature("return_1_bps", "bps", "log(ref / ref 1 tick ago) x 1e4"),
        Feature(f"return_{short}_bps", "bps", f"log(ref / ref {short} ticks ago) x 1e4; 0 while there is none"),
        Feature(f"return_{long}_bps", "bps", f"log(ref / ref {long} ticks ago) x 1e4; 0 while there is none"),
        Feature(f"sma_{sma}_gap_bps", "bps", f"(ref / mean of the last {sma} refs - 1) x 1e4"),
        Feature(f"ema_{fast}_gap_bps", "bps", f"(ref / EMA({fast}) of ref - 1) x 1e4"),
        Feature(f"rsi_{rsi}", "0..100", f"Wilder's RSI over {rsi} ticks; 50 while nothing moved"),
        Feature(f"{macd}_bps", "bps", f"(EMA({fast}) - EMA({slow})) / ref x 1e4"),
        Feature(
            f"{full_macd}_histogram_bps",
            "bps",
            f"(MACD - EMA({signal}) of MACD) / ref x 1e4, MACD = EMA({fast}) - EMA({slow})",
        ),
        Feature(
            f"bollinger_{bands}_percent_b", "1", "(ref - lower) / (upper - lower), bands at 2 sigma; 0.5 while flat"
        ),
        Feature(f"bollinger_{bands}_width_bps", "bps", f"(upper - lower) / mean of the last {bands} refs x 1e4"),
        Feature(
            f"volatility_{volatility}_bps",
            "bps",
            f"standard deviation of the last {volatility} one-tick log returns x 1e4",
        ),
    )


def _of_markets(p: Periods) -> tuple[Feature, ...]:
    n = p.tick_flow
    return (
        Feature("spread_bps", "bps", "(ask - bid) / mid x 1e4; 0 before the first quote"),
        Feature("book_imbalance", "-1..1", "(bid size - ask size) / (bid size + ask size)"),
        Feature("microprice_gap_bps", "bps", "((bid x ask size + ask x bid size) / (sizes) / mid - 1) x 1e4"),
        Feature(
            _carrying("order_flow_imbalance", (n,), (32,)),
            "1",
            f"EMA({n}) of Cont's e_n / EMA({n}) of the depth at the touch",
        ),
        Feature(
            _carrying("trade_flow", (n,), (32,)), "-1..1", f"EMA({n}) of signed trade size / EMA({n}) of trade size"
        ),
        Feature(
            _carrying("tick_rate_log", (n,), (32,)),
            "log(1/s)",
            f"log(1 + 1 / EMA({n}) of the seconds between ticks)",
        ),
        Feature("since_trade_log", "log(s)", "log(1 + seconds since the last trade); capped at 3,600 s"),
    )


def _added_later(p: Periods) -> tuple[Feature, ...]:
    fast, slow, signal, channel = p.tick_ema_fast, p.tick_ema_slow, p.tick_macd_signal, p.tick_channel
    full_macd = _carrying("macd", (fast, slow, signal), (12, 26, 9))
    return (
        Feature(f"{full_macd}_signal_bps", "bps", f"EMA({signal}) of MACD / ref x 1e4, from 0"),
        Feature(f"ema_{slow}_gap_bps", "bps", f"(ref / EMA({slow}) of ref - 1) x 1e4"),
        Feature(
            f"channel_{channel}_position",
            "0..1",
            f"(ref - low) / (high - low) of the last {channel} refs; 0.5 while flat",
        ),
        Feature("mid_gap_bps", "bps", "(mid / last trade price - 1) x 1e4; 0 before both"),
        Feature("bid_age_log", "log(s)", "log(1 + seconds since a quote told the bid); capped at 3,600 s"),
        Feature("ask_age_log", "log(s)", "log(1 + seconds since a quote told the ask); capped at 3,600 s"),
    )


def _of_window(w: str) -> tuple[Feature, ...]:
    return (
        Feature(
            f"roc_{w}_bps", "bps", f"(ref / ref when the window of {w} began - 1) x 1e4; the first ref if none"
        ),
        Feature(f"sma_gap_{w}_bps", "bps", f"(ref / mean of the refs of ticks in {w} - 1) x 1e4"),
        Feature(f"vwap_gap_{w}_bps", "bps", f"(ref / VWAP of trades in {w} - 1) x 1e4"),
        Feature(
            f"volatility_{w}_bps", "bps", f"square root of the sum of squared one-tick log returns in {w}, x 1e4"
        ),
        Feature(f"channel_{w}_position", "0..1", f"(ref - low) / (high - low) of the refs in {w}; 0.5 while flat"),
        Feature(f"trade_flow_{w}", "-1..1", f"signed trade size / trade size in {w}"),
        Feature(f"order_flow_{w}", "1", f"sum of Cont's e_n / mean depth at the touch of quotes in {w}"),
        Feature(f"tick_rate_{w}_log", "log(1/s)", f"log(1 + ticks in {w} / its length)"),
    )


def _of_bars(b: str, p: Periods) -> tuple[Feature, ...]:
    fast, slow, signal = p.bar_ema_fast, p.bar_ema_slow, p.bar_macd_signal
    macd, full_macd = f"{b}_macd_{fast}_{slow}", f"{b}_macd_{fast}_{slow}_{signal}"
    bands, channel, n = p.bar_bollinger, p.bar_channel, p.bar_volatility
    return (
        Feature(f"{b}_sma_{p.bar_sma}_gap_bps", "bps", f"(close / mean of {p.bar_sma} closes - 1) x 1e4"),
        Feature(f"{b}_ema_{fast}_gap_bps", "bps", f"(close / EMA({fast}) of closes - 1) x 1e4"),
        Feature(f"{b}_rsi_{p.bar_rsi}", "0..100", f"Wilder's RSI over {p.bar_rsi} closes; 50 while nothing moved"),
        Feature(f"{macd}_bps", "bps", f"(EMA({fast}) - EMA({slow}) of closes) / close x 1e4"),
        Feature(f"{full_macd}_signal_bps", "bps", f"EMA({signal}) of MACD / close x 1e4; 0 before it starts"),
        Feature(f"{full_macd}_histogram_bps", "bps", "(MACD - signal) / close x 1e4; 0 before the signal starts"),
        Feature(
            f"{b}_bollinger_{bands}_percent_b",
            "1",
            f"(close - lower) / (upper - lower), bands at 2 sigma of {bands} closes; 0.5 while flat",
        ),
        Feature(f"{b}_bollinger_{bands}_width_bps", "bps", f"(upper - lower) / mean of {bands} closes x 1e4"),
        Feature(f"{b}_atr_{p.bar_atr}_bps", "bps", f"Wilder's ATR over {p.bar_atr} bars / close x 1e4"),
        Feature(f"{b}_roc_{p.bar_roc}_bps", "bps", f"(close / close {p.bar_roc} bars ago - 1) x 1e4; 0 if none"),
        Feature(
            f"{b}_channel_{channel}_position",
            "0..1",
            f"(close - lowest low) / (highest high - lowest low) of {channel} bars; 0.5 while flat",
        ),
        Feature(
            f"{b}_volatility_{n}_bps", "bps", f"standard deviation of the last {n} log returns of closes x 1e4"
        ),
    )


def _carrying(name: str, periods: tuple[int, ...], usual: tuple[int, ...]) -> str:
    # Models were trained on the short names before periods could be set.
    return name if periods == usual else "_".join([name, *map(str, periods)])


FEATURES: Final = catalogue(DEFAULT)
NAMES: Final = tuple(feature.name for feature in FEATURES)
COUNT: Final = len(FEATURES)
TICK_FEATURES: Final = len(_of_prices(DEFAULT)) + len(_of_markets(DEFAULT)) + len(_added_later(DEFAULT))
WINDOW_FEATURES: Final = len(_of_window(""))
BAR_FEATURES: Final = len(_of_bars("", DEFAULT))
