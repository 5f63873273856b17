"""The whole job: all 80 features of `agents/features.py`, default periods, after each tick, in plain Python.

Written from the formulas and not from the kernel, as a good Python engineer would: running values, short lists as
rings, buckets of event time that are merged when one closes; lists and floats, no package. What the engine does
beyond that is left out, to the peers' favour: ticks are not checked, and a feature is not limited.

The state of a symbol is JSON, so that frameworks can keep it in their tables. Bars are in `feature_bars.py`.
"""

from math import log, sqrt
from typing import Any, Final

from bench.peers.feature_bars import new_bars, take_bars

WINDOWS_S: Final = (1.0, 10.0, 60.0, 300.0)
_BUCKETS: Final = 10
_FLOW_WEIGHT: Final = 2.0 / 33.0
_CAP_NS: Final = 3600 * 10**9
_LOG_CAP: Final = log(3601.0)
_NOTHING: Final = (0.0,) * 11  # a bucket: see `_windows`
# A running sum is taken anew after so many ticks, and when it has lost three digits to what it held before.
_ANEW_EVERY_TICKS: Final = 256
_LOST: Final = 1e-3

State = dict[str, Any]
Values = dict[str, Any]


def new_state() -> State:
    """Return the state of a symbol before its first tick."""
    return {
        "ticks": 0,
        "book": [0.0] * 6,  # bid, ask, their sizes, last price and side
        "times_ns": [0] * 4,  # newest, of the last trade, of the bid, of the ask
        "flows": [0.0, 0.0, 0.0, 0.0, 1.0],  # averages: order flow, depth, signed size, size, seconds between ticks
        "averages": [0.0] * 5,  # EMA 12, EMA 26, signal, gain, loss
        "refs": [],  # the last 65
        "returns": [],  # the last 64, in bps
        "sums": [0.0] * 7,  # see `_sums`
        "channel": [0.0, 0, 0.0, 0],  # high and its tick, low and its tick
        # End and length of the open bucket, windows per second, the ref that it began with, open, closed, buckets.
        "windows": [[0, round(length_s * 1e8), 1.0 / length_s, 0.0, 0.0, [], [], []] for length_s in WINDOWS_S],
        "bars": new_bars(),
    }


def advance(
    state: State,
    event_ns: int,
    price: float | None,
    size: float | None,
    side: int | None,
    bid: float | None,
    ask: float | None,
    bid_size: float | None,
    ask_size: float | None,
) -> Values:
    """Take a trade (``price`` is not None) or a quote into ``state``; return the values after it."""
    book, times_ns, flows, seen = state["book"], state["times_ns"], state["flows"], state["ticks"]
    has_traded = book[4] > 0.0
    traded = signed = flow = depth = 0.0
    if seen:
        now_ns = times_ns[0]
        gap_s = 0.0
        if event_ns > now_ns:
            gap_s = (event_ns - now_ns) * 1e-9
            now_ns = times_ns[0] = event_ns
        flows[4] += _FLOW_WEIGHT * (gap_s - flows[4])
    else:
        now_ns = times_ns[0] = event_ns
    if price is None:
        flow, depth = _take_quote(book, times_ns, flows, event_ns, bid, ask, bid_size, ask_size)
        notional = 0.0
    else:
        traded = size or 0.0
        signed = traded * _take_trade(book, flows, price, traded, side)
        notional = price * traded
        if event_ns > times_ns[1]:
            times_ns[1] = event_ns
    bid, ask = book[0], book[1]
    has_book = bid > 0.0 and ask > 0.0
    ref = 0.5 * (bid + ask) if has_book else book[4]
    refs = state["refs"]
    before = refs[-1] if seen else ref
    row = _prices(state, seen, ref, before)
    _market(row, book, times_ns, flows, ref, has_book)
    change = row[0]
    added = (ref, change * change, notional, traded, signed, flow, depth, 1.0 if price is None else 0.0)
    _windows(state["windows"], row, now_ns, before, added)
    counts = price if price is not None else None if has_traded else ref
    take_bars(state["bars"], row, now_ns, counts, not has_traded and price is not None)
    state["ticks"] = seen + 1
    return {"ticks": seen + 1, "event_ns": now_ns, "ref": ref, "features": row}


def _take_quote(
    book: list[float],
    times_ns: list[int],
    flows: list[float],
    event_ns: int,
    bid: float | None,
    ask: float | None,
    bid_size: float | None,
    ask_size: float | None,
) -> tuple[float, float]:
    """Return Cont's e_n, and the depth at the touch."""
    bid_before, ask_before, bid_size_before, ask_size_before, _, _ = book
    if bid is None:
        bid, bid_size = bid_before, bid_size_before
    elif event_ns > times_ns[2]:
        times_ns[2] = event_ns
    if ask is None:
        ask, ask_size = ask_before, ask_size_before
    elif event_ns > times_ns[3]:
        times_ns[3] = event_ns
    bid_size, ask_size = bid_size or 0.0, ask_size or 0.0
    flow, depth = 0.0, 0.5 * (bid_size + ask_size)
    if bid_before > 0.0 and ask_before > 0.0:
        if bid >= bid_before:
            flow += bid_size
        if bid <= bid_before:
            flow -= bid_size_before
        if ask <= ask_before:
            flow -= ask_size
        if ask >= ask_before:
            flow += ask_size_before
        flows[0] += _FLOW_WEIGHT * (flow - flows[0])
        flows[1] += _FLOW_WEIGHT * (depth - flows[1])
    else:
        flows[1] = depth
    book[0], book[1], book[2], book[3] = bid, ask, bid_size, ask_size
    return flow, depth


def _take_trade(book: list[float], flows: list[float], price: float, size: float, side: int | None) -> float:
    """Return the aggressor: what the venue tells, else Lee and Ready's quote test, then the tick test."""
    bid, ask, _, _, last, last_side = book
    mid = 0.5 * (bid + ask) if bid > 0.0 and ask > 0.0 else price
    if side:
        sign = 1.0 if side > 0 else -1.0
    elif price != mid:
        sign = 1.0 if price > mid else -1.0
    elif last > 0.0 and price != last:
        sign = 1.0 if price > last else -1.0
    else:
        sign = last_side
    flows[2] += _FLOW_WEIGHT * (sign * size - flows[2])
    flows[3] += _FLOW_WEIGHT * (size - flows[3])
    book[4], book[5] = price, sign
    return sign


def _prices(state: State, seen: int, ref: float, before: float) -> list[float]:
    """Return the first 11 features, and those of prices that came later, with room for the others between."""
    refs, returns = state["refs"], state["returns"]
    ema_12, ema_26, signal, gain, loss = state["averages"] if seen else (ref, ref, 0.0, 0.0, 0.0)
    change_bps = 0.0
    if ref != before:
        change_bps = log(ref / before) * 1e4
    if seen:
        move, period = ref - before, seen if seen < 14 else 14
        gain += ((move if move > 0.0 else 0.0) - gain) / period
        loss += ((-move if move < 0.0 else 0.0) - loss) / period
        ema_12 += (ref - ema_12) * (2.0 / 13.0)
        ema_26 += (ref - ema_26) * (2.0 / 27.0)
    macd = ema_12 - ema_26
    signal += (macd - signal) * 0.2
    state["averages"] = [ema_12, ema_26, signal, gain, loss]
    refs.append(ref)
    returns.append(change_bps)
    mean_32, mean_20, sigma, volatility_bps = _sums(state, seen, ref, change_bps)
    if seen >= 64:
        if seen > 64:
            del refs[0]
        del returns[0]
    is_flat = 4.0 * sigma <= ref * 1e-7
    moved = gain + loss
    return [
        change_bps,
        log(ref / refs[-9]) * 1e4 if seen >= 8 else 0.0,
        log(ref / refs[0]) * 1e4 if seen >= 64 else 0.0,
        (ref / mean_32 - 1.0) * 1e4,
        (ref / ema_12 - 1.0) * 1e4,
        100.0 * gain / moved if moved > 0.0 else 50.0,
        macd / ref * 1e4,
        (macd - signal) / ref * 1e4,
        0.5 if is_flat else (ref - mean_20 + 2.0 * sigma) / (4.0 * sigma),
        0.0 if is_flat else 4.0 * sigma / mean_20 * 1e4,
        volatility_bps,
        *(0.0,) * 7,
        signal / ref * 1e4,
        (ref / ema_26 - 1.0) * 1e4,
        _place_in_channel(state["channel"], refs, seen, ref),
        *(0.0,) * 3,
    ]


def _sums(state: State, seen: int, ref: float, change_bps: float) -> tuple[float, float, float, float]:
    """Return mean of 32 refs, mean and sigma of 20, and sigma of 64 returns; the rings hold what leaves them.

    The sums are of distances from a ref (the base), so that they keep their digits.
    """
    base, sum_32, sum_20, squares_20, peak_20, squares_64, peak_64 = state["sums"]
    refs, returns = state["refs"], state["returns"]
    new = ref - base
    sum_32 += new
    sum_20 += new
    squares_20 += new * new
    squares_64 += change_bps * change_bps
    sum_64 = 0.0
    if seen >= 20:
        old = refs[-21] - base
        sum_20 -= old
        squares_20 -= old * old
        if seen >= 32:
            sum_32 -= refs[-33] - base
    if seen >= 64:
        old = returns[0]
        squares_64 -= old * old
        oldest = refs[-65]
    else:
        oldest = refs[0]
    # One-tick returns add up to the return over the window.
    if ref != oldest:
        sum_64 = log(ref / oldest) * 1e4
    size_20 = seen + 1 if seen < 20 else 20
    size_64 = seen + 1 if seen < 64 else 64
    peak_20 = squares_20 if squares_20 > peak_20 else peak_20
    peak_64 = squares_64 if squares_64 > peak_64 else peak_64
    above_20 = squares_20 - sum_20 * sum_20 / size_20
    above_64 = squares_64 - sum_64 * sum_64 / size_64
    if not seen & (_ANEW_EVERY_TICKS - 1) or above_20 < _LOST * peak_20 or above_64 < _LOST * peak_64:
        base = ref
        last = [each - ref for each in refs[-32:]]
        sum_32, last = sum(last), last[-20:]
        sum_20, squares_20 = sum(last), sum([each * each for each in last])
        squares_64 = sum([each * each for each in returns[-64:]])
        peak_20, peak_64 = squares_20, squares_64
        above_20 = squares_20 - sum_20 * sum_20 / size_20
        above_64 = squares_64 - sum_64 * sum_64 / size_64
    state["sums"] = [base, sum_32, sum_20, squares_20, peak_20, squares_64, peak_64]
    return (
        base + sum_32 / (seen + 1 if seen < 32 else 32),
        base + sum_20 / size_20,
        sqrt(above_20 / size_20) if above_20 > 0.0 else 0.0,
        sqrt(above_64 / size_64) if above_64 > 0.0 else 0.0,
    )


def _place_in_channel(channel: list[float], refs: list[float], seen: int, ref: float) -> float:
    """The last 64 refs are searched only when the high or the low has left them."""
    high, high_at, low, low_at = channel
    if not seen or ref >= high:
        high, high_at = ref, seen
    elif high_at <= seen - 64:
        last = refs[-64:]
        high = max(last)
        high_at = seen - last[::-1].index(high)
    if not seen or ref <= low:
        low, low_at = ref, seen
    elif low_at <= seen - 64:
        last = refs[-64:]
        low = min(last)
        low_at = seen - last[::-1].index(low)
    channel[:] = high, high_at, low, low_at
    return (ref - low) / (high - low) if high > low else 0.5


def _market(
    row: list[float], book: list[float], times_ns: list[int], flows: list[float], ref: float, has_book: bool
) -> None:
    """Fill in the features of the book and the tape."""
    bid, ask, bid_size, ask_size, last, _ = book
    flow, depth, signed, size, gap_s = flows
    now_ns, trade_ns, bid_ns, ask_ns = times_ns
    if has_book:
        row[11] = (ask - bid) / ref * 1e4
        sizes = bid_size + ask_size
        if sizes > 0.0:
            row[12] = (bid_size - ask_size) / sizes
            row[13] = ((bid * ask_size + ask * bid_size) / sizes / ref - 1.0) * 1e4
        if last > 0.0:
            row[21] = (ref / last - 1.0) * 1e4
    if depth > 0.0:
        row[14] = flow / depth
    if size > 0.0:
        row[15] = signed / size
    row[16] = log(1.0 + 1.0 / (gap_s if gap_s > 1e-6 else 1e-6))
    row[17] = _log_age(now_ns, trade_ns)
    row[22] = _log_age(now_ns, bid_ns)
    row[23] = row[22] if ask_ns == bid_ns else _log_age(now_ns, ask_ns)


def _log_age(now_ns: int, then_ns: int) -> float:
    if now_ns == then_ns:
        return 0.0
    age_ns = now_ns - then_ns
    return log(1.0 + age_ns * 1e-9) if age_ns < _CAP_NS and then_ns else _LOG_CAP


def _windows(windows: list[Any], row: list[float], now_ns: int, before: float, added: tuple[float, ...]) -> None:
    """Move the windows on, add a tick to their open buckets, and append their features."""
    ref, square, notional, size, signed, flow, depth, quote = added
    for window in windows:
        if now_ns >= window[0]:
            _open_bucket(window, now_ns, ref, before)
        # Ticks, refs, squares, notional, size, signed size, flow, depth, quotes, high, low: closed, then open.
        a, b, c, d, e, f, g, h, i, high, low = window[5]
        ticks, refs, squares, notionals, sizes, signs, flows, depths, quotes, open_high, open_low = window[6]
        ticks += 1.0
        refs += ref
        squares += square
        notionals += notional
        sizes += size
        signs += signed
        flows += flow
        depths += depth
        quotes += quote
        if ref > open_high:
            open_high = ref
        elif ref < open_low:
            open_low = ref
        window[6] = [ticks, refs, squares, notionals, sizes, signs, flows, depths, quotes, open_high, open_low]
        if open_high > high:
            high = open_high
        if open_low < low:
            low = open_low
        sizes += e
        notionals += d
        depths += h
        row += (
            (ref / window[3] - 1.0) * 1e4,
            (ref * (ticks + a) / (refs + b) - 1.0) * 1e4,
            (ref * sizes / notionals - 1.0) * 1e4 if notionals > 0.0 else 0.0,
            sqrt(squares + c),
            (ref - low) / (high - low) if high > low else 0.5,
            (signs + f) / sizes if sizes > 0.0 else 0.0,
            (flows + g) * (quotes + i) / depths if depths > 0.0 else 0.0,
            log(1.0 + (ticks + a) * window[2]),
        )


def _open_bucket(window: list[Any], now_ns: int, ref: float, before: float) -> None:
    """Close the open bucket, and merge those that are still of the window."""
    end_ns, bucket_ns, _, _, open_ref, _, opened, buckets = window
    if opened:
        buckets.append([end_ns, open_ref, opened])
    window[0] = end_ns = (now_ns // bucket_ns + 1) * bucket_ns
    start_ns = end_ns - _BUCKETS * bucket_ns
    while buckets and buckets[0][0] <= start_ns:
        del buckets[0]
    window[3] = buckets[0][1] if buckets else before
    window[4] = before
    if buckets:
        columns = list(zip(*[bucket[2] for bucket in buckets], strict=True))
        window[5] = [*map(sum, columns[:9]), max(columns[9]), min(columns[10])]
    else:
        window[5] = [*_NOTHING[:9], ref, ref]
    window[6] = [*_NOTHING[:9], ref, ref]
