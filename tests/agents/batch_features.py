"""The features of a whole stream at once, in float64, with pandas and whole-array numpy.

Written from the formulas in `agents/features.py` and their sources, not from the kernel: no loop over ticks, no
ring, no state. Row i uses ticks 0..i only. Windows by event time and bars are in `batch_windows.py`.
"""

import numpy as np
import pandas as pd
from batch_windows import bar_features, rsi, window_features
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from agents import features
from agents.periods import DEFAULT, Periods
from stream.records import Records, TickKind

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LIMIT = 1e6


def batch_features(ticks: Records, accepted: NDArray[np.bool_] | None = None, periods: Periods = DEFAULT) -> Floats:
    """Return ``float64[N, features.COUNT]`` for the N accepted ticks of one symbol.

    Others may stand between them: quotes of a first side, which only wait for the other one.
    """
    if accepted is None:
        accepted = np.ones(len(ticks), np.bool_)
    book = {name: values[accepted] for name, values in _book(ticks).items()}
    ages = {name: values[accepted] for name, values in _side_times(ticks).items()}
    ticks = ticks[accepted]
    is_quote = ticks["kind"] == TickKind.QUOTE
    mid = (book["bid"] + book["ask"]) / 2
    last_price = _forward(np.where(is_quote, np.nan, ticks["price"]))
    ref = np.where(np.isnan(mid), last_price, mid)
    flow, depth = _order_flow(ticks, book, is_quote)
    side = _sides(ticks, mid, is_quote)
    columns = [
        *_price_features(ref, periods),
        *_book_features(book, mid),
        _order_flow_average(flow, depth, is_quote, periods.tick_flow),
        _trade_flow_average(ticks, side, is_quote, periods.tick_flow),
        *_time_features(ticks, is_quote, periods.tick_flow),
        *_later_features(ref, mid, last_price, ticks, ages, periods),
        *window_features(ticks, ref, flow, depth, side, is_quote, periods),
        *bar_features(ticks, ref, is_quote, periods),
    ]
    assert len(columns) == features.COUNT
    return np.clip(np.column_stack(columns), -_LIMIT, _LIMIT)


def _price_features(ref: Floats, p: Periods) -> list[Floats]:
    returns_bps = _returns_bps(ref, 1)
    ema, macd = _ema(ref, p.tick_ema_fast), _ema(ref, p.tick_ema_fast) - _ema(ref, p.tick_ema_slow)
    mean, sigma = _rolling(ref, p.tick_bollinger)
    flat = 4 * sigma <= 1e-7 * ref
    width = np.where(flat, 1.0, 4 * sigma)
    return [
        returns_bps,
        _returns_bps(ref, p.tick_return_short),
        _returns_bps(ref, p.tick_return_long),
        (ref / _rolling(ref, p.tick_sma)[0] - 1) * 1e4,
        (ref / ema - 1) * 1e4,
        rsi(ref, p.tick_rsi),
        macd / ref * 1e4,
        (macd - _ema(macd, p.tick_macd_signal)) / ref * 1e4,
        np.where(flat, 0.5, (ref - (mean - 2 * sigma)) / width),
        np.where(flat, 0.0, width / mean * 1e4),
        _rolling(returns_bps, p.tick_volatility)[1],
    ]


def _later_features(
    ref: Floats, mid: Floats, last_price: Floats, ticks: Records, ages: dict[str, Integers], p: Periods
) -> list[Floats]:
    macd = _ema(ref, p.tick_ema_fast) - _ema(ref, p.tick_ema_slow)
    rolling = pd.Series(ref).rolling(p.tick_channel, min_periods=1)
    newest_ns = np.maximum.accumulate(ticks["event_ns"])
    return [
        _ema(macd, p.tick_macd_signal) / ref * 1e4,
        (ref / _ema(ref, p.tick_ema_slow) - 1) * 1e4,
        place(ref, rolling.min().to_numpy(), rolling.max().to_numpy()),
        np.nan_to_num((mid / last_price - 1) * 1e4),
        *(np.log(1 + np.clip((newest_ns - told_ns) / 1e9, 0.0, 3600.0)) for told_ns in ages.values()),
    ]


def place(price: Floats, low: Floats, high: Floats) -> Floats:
    """Return where a price stands in a channel, 0 to 1; 0.5 where the channel has no height."""
    return np.divide(price - low, high - low, out=np.full(len(price), 0.5), where=high > low)


def _side_times(ticks: Records) -> dict[str, Integers]:
    """Return when each side was last told; an hour ago before it was."""
    told = {side: (ticks["kind"] == TickKind.QUOTE) & ~np.isnan(ticks[side]) for side in ("bid", "ask")}
    never = np.iinfo(np.int64).min
    newest = {side: np.maximum.accumulate(np.where(at, ticks["event_ns"], never)) for side, at in told.items()}
    return {
        side: np.where(times == never, ticks["event_ns"] - 3600 * 10**9, times) for side, times in newest.items()
    }


def _forward(values: Floats) -> Floats:
    return pd.Series(values).ffill().to_numpy()


def _ema(values: Floats, span: int) -> Floats:
    return pd.Series(values).ewm(alpha=2 / (span + 1), adjust=False).mean().to_numpy()


def _returns_bps(ref: Floats, ticks: int) -> Floats:
    out = np.zeros(len(ref))
    out[ticks:] = np.log(ref[ticks:] / ref[:-ticks]) * 1e4
    return out


def _rolling(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Return mean and population standard deviation of the last ``window`` values (fewer at the start)."""
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    windows = sliding_window_view(padded, window)
    return np.nanmean(windows, axis=1), np.nanstd(windows, axis=1)


def _book(ticks: Records) -> dict[str, Floats]:
    """Return the book after each tick; NaN before there is one."""
    is_quote = ticks["kind"] == TickKind.QUOTE
    book = {}
    for side in ("bid", "ask"):
        told = is_quote & ~np.isnan(ticks[side])
        book[side] = _forward(np.where(told, ticks[side], np.nan))
        book[f"{side}_size"] = _forward(np.where(told, np.nan_to_num(ticks[f"{side}_size"]), np.nan))
    return book


def _book_features(book: dict[str, Floats], mid: Floats) -> list[Floats]:
    bid_size, ask_size = book["bid_size"], book["ask_size"]
    depth = bid_size + ask_size
    with np.errstate(invalid="ignore", divide="ignore"):
        micro = (book["bid"] * ask_size + book["ask"] * bid_size) / depth
        return [
            np.nan_to_num((book["ask"] - book["bid"]) / mid * 1e4),
            np.where(depth > 0, (bid_size - ask_size) / depth, 0.0),
            np.where(depth > 0, (micro / mid - 1) * 1e4, 0.0),
        ]


def _order_flow(ticks: Records, book: dict[str, Floats], is_quote: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return e_n and the depth at the touch of each tick, 0 for trades.

    Cont, Kukanov, Stoikov (2014), equation 4: e_n from the best prices and sizes of successive quotes.
    """
    at = np.flatnonzero(is_quote)
    flow, depth = np.zeros(len(ticks)), np.zeros(len(ticks))
    bid, bid_size, ask, ask_size = (book[name][at] for name in ("bid", "bid_size", "ask", "ask_size"))
    flow[at[1:]] = (
        (bid[1:] >= bid[:-1]) * bid_size[1:]
        - (bid[1:] <= bid[:-1]) * bid_size[:-1]
        - (ask[1:] <= ask[:-1]) * ask_size[1:]
        + (ask[1:] >= ask[:-1]) * ask_size[:-1]
    )
    depth[at] = (bid_size + ask_size) / 2
    return flow, depth


def _order_flow_average(flow: Floats, depth: Floats, is_quote: NDArray[np.bool_], span: int) -> Floats:
    if not is_quote.any():
        return np.zeros(len(flow))
    average, deep = _ema(flow[is_quote], span), _ema(depth[is_quote], span)
    out = np.full(len(flow), np.nan)
    out[is_quote] = np.divide(average, deep, out=np.zeros(len(deep)), where=deep > 0)
    return np.nan_to_num(_forward(out))


def _sides(ticks: Records, mid: Floats, is_quote: NDArray[np.bool_]) -> Floats:
    """Return the aggressor of each trade, 0 for quotes: Lee and Ready (1991) where the venue does not tell."""
    at = np.flatnonzero(~is_quote)
    out = np.zeros(len(ticks))
    if len(at) == 0:
        return out
    price = ticks["price"][at]
    quote_test = np.nan_to_num(np.sign(price - mid[at]))  # a trade does not move the book: mid is the one before it
    tick_test = np.concatenate([[0.0], np.sign(np.diff(price))])
    side = np.sign(ticks["side"][at]).astype(np.float64)
    side = np.where(side != 0, side, np.where(quote_test != 0, quote_test, tick_test))
    out[at] = np.nan_to_num(_forward(np.where(side != 0, side, np.nan)))
    return out


def _trade_flow_average(ticks: Records, side: Floats, is_quote: NDArray[np.bool_], span: int) -> Floats:
    at = np.flatnonzero(~is_quote)
    if len(at) == 0:
        return np.zeros(len(ticks))
    size = ticks["size"][at]
    # Both averages start at 0, before the first trade.
    signed = _ema(np.concatenate([[0.0], side[at] * size]), span)[1:]
    plain = _ema(np.concatenate([[0.0], size]), span)[1:]
    out = np.full(len(ticks), np.nan)
    out[at] = np.divide(signed, plain, out=np.zeros(len(at)), where=plain > 0)
    return np.nan_to_num(_forward(out))


def _time_features(ticks: Records, is_quote: NDArray[np.bool_], span: int) -> list[Floats]:
    event_ns = ticks["event_ns"]
    newest_ns = np.maximum.accumulate(event_ns)
    gaps_s = np.ones(len(ticks))
    gaps_s[1:] = np.maximum(event_ns[1:] - newest_ns[:-1], 0) / 1e9
    trade_ns = np.maximum.accumulate(np.where(is_quote, 0, event_ns))
    since_s = np.where(trade_ns > 0, np.minimum((newest_ns - trade_ns) / 1e9, 3600.0), 3600.0)
    return [np.log(1 + 1 / np.maximum(_ema(gaps_s, span), 1e-6)), np.log(1 + since_s)]
