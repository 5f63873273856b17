"""The features of a whole stream at once, in float64, with pandas and whole-array numpy.

Written from the formulas in `agents/features.py` and their sources, not from the kernel: no loop over ticks, no
ring, no state. Row i uses ticks 0..i only.
"""

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from agents import features
from stream.records import Records, TickKind

Floats = NDArray[np.float64]

_LIMIT = 1e6


def batch_features(ticks: Records, accepted: NDArray[np.bool_] | None = None) -> Floats:
    """Return ``float64[N, features.COUNT]`` for the N accepted ticks of one symbol.

    Others may stand between them: quotes of a first side, which only wait for the other one.
    """
    if accepted is None:
        accepted = np.ones(len(ticks), np.bool_)
    book = {name: values[accepted] for name, values in _book(ticks).items()}
    ticks = ticks[accepted]
    is_quote = ticks["kind"] == TickKind.QUOTE
    mid = (book["bid"] + book["ask"]) / 2
    last_price = _forward(np.where(is_quote, np.nan, ticks["price"]))
    ref = np.where(np.isnan(mid), last_price, mid)
    returns_bps = _returns_bps(ref, 1)
    ema_12, ema_26 = _ema(ref, 12), _ema(ref, 26)
    macd = ema_12 - ema_26
    mean_20, sigma_20 = _rolling(ref, 20)
    flat = 4 * sigma_20 <= 1e-7 * ref
    width = np.where(flat, 1.0, 4 * sigma_20)
    columns = {
        "return_1_bps": returns_bps,
        "return_8_bps": _returns_bps(ref, 8),
        "return_64_bps": _returns_bps(ref, 64),
        "sma_32_gap_bps": (ref / _rolling(ref, 32)[0] - 1) * 1e4,
        "ema_12_gap_bps": (ref / ema_12 - 1) * 1e4,
        "rsi_14": _rsi(ref, 14),
        "macd_bps": macd / ref * 1e4,
        "macd_histogram_bps": (macd - _ema(macd, 9)) / ref * 1e4,
        "bollinger_20_percent_b": np.where(flat, 0.5, (ref - (mean_20 - 2 * sigma_20)) / width),
        "bollinger_20_width_bps": np.where(flat, 0.0, width / mean_20 * 1e4),
        "volatility_64_bps": _rolling(returns_bps, 64)[1],
        **_book_features(book, mid),
        "order_flow_imbalance": _order_flow(ticks, book, is_quote),
        "trade_flow": _trade_flow(ticks, mid, is_quote),
        **_time_features(ticks, is_quote),
    }
    assert tuple(columns) == features.NAMES
    return np.clip(np.column_stack(list(columns.values())), -_LIMIT, _LIMIT)


def _forward(values: Floats) -> Floats:
    return pd.Series(values).ffill().to_numpy()


def _ema(values: Floats, span: int) -> Floats:
    return pd.Series(values).ewm(span=span, adjust=False).mean().to_numpy()


def _returns_bps(ref: Floats, ticks: int) -> Floats:
    out = np.zeros(len(ref))
    out[ticks:] = np.log(ref[ticks:] / ref[:-ticks]) * 1e4
    return out


def _rolling(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Return mean and population standard deviation of the last ``window`` values (fewer at the start)."""
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    windows = sliding_window_view(padded, window)
    return np.nanmean(windows, axis=1), np.nanstd(windows, axis=1)


def _rsi(ref: Floats, period: int) -> Floats:
    moves = np.diff(ref)
    averages = []
    for part in (np.maximum(moves, 0), np.maximum(-moves, 0)):
        simple = np.cumsum(part[:period]) / np.arange(1, min(len(part), period) + 1)
        # Wilder's smoothing is an EMA of weight 1/period that starts at the simple average.
        smoothed = pd.Series(np.concatenate([simple[period - 1 :], part[period:]])).ewm(
            alpha=1 / period, adjust=False
        )
        averages.append(np.concatenate([[0.0], simple[: period - 1], smoothed.mean().to_numpy()]))
    gain, loss = averages
    with np.errstate(invalid="ignore"):
        return np.where(gain + loss > 0, 100 * gain / (gain + loss), 50.0)


def _book(ticks: Records) -> dict[str, Floats]:
    """Return the book after each tick; NaN before there is one."""
    is_quote = ticks["kind"] == TickKind.QUOTE
    book = {}
    for side in ("bid", "ask"):
        told = is_quote & ~np.isnan(ticks[side])
        book[side] = _forward(np.where(told, ticks[side], np.nan))
        book[f"{side}_size"] = _forward(np.where(told, np.nan_to_num(ticks[f"{side}_size"]), np.nan))
    return book


def _book_features(book: dict[str, Floats], mid: Floats) -> dict[str, Floats]:
    bid_size, ask_size = book["bid_size"], book["ask_size"]
    depth = bid_size + ask_size
    with np.errstate(invalid="ignore", divide="ignore"):
        micro = (book["bid"] * ask_size + book["ask"] * bid_size) / depth
        return {
            "spread_bps": np.nan_to_num((book["ask"] - book["bid"]) / mid * 1e4),
            "book_imbalance": np.where(depth > 0, (bid_size - ask_size) / depth, 0.0),
            "microprice_gap_bps": np.where(depth > 0, (micro / mid - 1) * 1e4, 0.0),
        }


def _order_flow(ticks: Records, book: dict[str, Floats], is_quote: NDArray[np.bool_]) -> Floats:
    """Cont, Kukanov, Stoikov (2014), equation 4: e_n from the best prices and sizes of successive quotes."""
    at = np.flatnonzero(is_quote)
    out = np.zeros(len(ticks))
    if len(at) == 0:
        return out
    bid, bid_size, ask, ask_size = (book[name][at] for name in ("bid", "bid_size", "ask", "ask_size"))
    events = np.zeros(len(at))
    events[1:] = (
        (bid[1:] >= bid[:-1]) * bid_size[1:]
        - (bid[1:] <= bid[:-1]) * bid_size[:-1]
        - (ask[1:] <= ask[:-1]) * ask_size[1:]
        + (ask[1:] >= ask[:-1]) * ask_size[:-1]
    )
    flow, depth = _ema(events, 32), _ema((bid_size + ask_size) / 2, 32)
    per_quote = np.full(len(ticks), np.nan)
    per_quote[at] = np.divide(flow, depth, out=np.zeros(len(at)), where=depth > 0)
    return np.nan_to_num(_forward(per_quote))


def _trade_flow(ticks: Records, mid: Floats, is_quote: NDArray[np.bool_]) -> Floats:
    """Lee and Ready (1991) where the venue does not tell the side."""
    at = np.flatnonzero(~is_quote)
    out = np.full(len(ticks), np.nan)
    if len(at) == 0:
        return np.zeros(len(ticks))
    price, size = ticks["price"][at], ticks["size"][at]
    quote_test = np.nan_to_num(np.sign(price - mid[at]))  # a trade does not move the book: mid is the one before it
    tick_test = np.concatenate([[0.0], np.sign(np.diff(price))])
    side = np.sign(ticks["side"][at]).astype(np.float64)
    side = np.where(side != 0, side, np.where(quote_test != 0, quote_test, tick_test))
    side = np.nan_to_num(_forward(np.where(side != 0, side, np.nan)))
    # Both averages start at 0, before the first trade.
    signed = _ema(np.concatenate([[0.0], side * size]), 32)[1:]
    plain = _ema(np.concatenate([[0.0], size]), 32)[1:]
    out[at] = np.divide(signed, plain, out=np.zeros(len(at)), where=plain > 0)
    return np.nan_to_num(_forward(out))


def _time_features(ticks: Records, is_quote: NDArray[np.bool_]) -> dict[str, Floats]:
    event_ns = ticks["event_ns"]
    newest_ns = np.maximum.accumulate(event_ns)
    gaps_s = np.ones(len(ticks))
    gaps_s[1:] = np.maximum(event_ns[1:] - newest_ns[:-1], 0) / 1e9
    trade_ns = np.maximum.accumulate(np.where(is_quote, 0, event_ns))
    since_s = np.where(trade_ns > 0, np.minimum((newest_ns - trade_ns) / 1e9, 3600.0), 3600.0)
    return {
        "tick_rate_log": np.log(1 + 1 / np.maximum(_ema(gaps_s, 32), 1e-6)),
        "since_trade_log": np.log(1 + since_s),
    }
