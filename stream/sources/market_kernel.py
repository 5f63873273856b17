"""The compiled loop that produces the ticks of the simulated market, one after another; see `market_model`.

The same calls give the same bytes, on one machine and version of numba, however they cut the stream.
"""

import math
from typing import Any, Final

import numpy as np

from stream.clock import NS_PER_S
from stream.compiled import compiled, inlined
from stream.records import TickKind
from stream.sources.market_model import (
    ASK,
    BETA_PER_S,
    BID,
    BOOK_TILT,
    COUNT,
    DRIFT,
    DRIFT_SHARE,
    EXCITED,
    EXTRA_SPREAD,
    HOLDING_S,
    LAG_S,
    LOG_ASK_SIZE,
    LOG_BID_SIZE,
    LOG_DEPTH,
    LOG_PRICE,
    LOG_SIZE,
    NEXT_REGIME,
    PER_UNIT,
    PRESSURE,
    PRESSURE_S,
    QUOTE_OFFSPRING,
    RATE,
    REGIME,
    REGIME_END_NS,
    SIGMA,
    SIGN_TILT,
    SPREAD,
    TRADE_OFFSPRING,
    TRADE_SHARE,
    VOLATILITY,
    base_rate_factors,
)

_SPREAD_CHANGES: Final = 0.2  # share of quotes at which the spread is drawn anew
_SIZE_MEMORY: Final = 0.7
_SIZE_NOISE: Final = 0.45
_TRADE_SIZE_SIGMA: Final = 1.1

# An intensity below this has died away.
_NOTHING: Final = 1e-12
_NS: Final = float(NS_PER_S)
_TRADE: Final = int(TickKind.TRADE)
_QUOTE: Final = int(TickKind.QUOTE)

_BASE: Final = base_rate_factors()
_CHAIN: Final = np.cumsum(np.array(NEXT_REGIME), axis=1)
_HOLDING: Final = np.array(HOLDING_S)
_VOLATILITY: Final = np.array(VOLATILITY)
_EXTRA_SPREAD: Final = np.array(EXTRA_SPREAD)
_TRADE_SHARE: Final = np.array(TRADE_SHARE)


@inlined
def _uniform(rng: Any) -> Any:
    """A number in (0, 1) from SplitMix64."""
    rng[0] += np.uint64(0x9E3779B97F4A7C15)
    z = rng[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 1.1102230246251565e-16


@compiled
def _normals(rng: Any) -> Any:
    """Two standard normal numbers (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(_uniform(rng)))
    angle = 2.0 * math.pi * _uniform(rng)
    return radius * math.cos(angle), radius * math.sin(angle)


@compiled
def _wait_ns(rng: Any, excited: Any, base: Any) -> Any:
    """Time to the next event: the earlier one of the Poisson part and of the excited part, if that has one."""
    wait_s = -math.log(_uniform(rng)) / base
    draw = _uniform(rng)
    survives = 1.0 + BETA_PER_S * math.log(draw) / excited if excited > _NOTHING else 0.0
    if survives > 0.0:
        wait_s = min(wait_s, -math.log(survives) / BETA_PER_S)
    return np.int64(wait_s * _NS) + 1


@compiled
def _sift_down(times: Any, symbols: Any, place: Any) -> None:
    """Restore the heap below ``place``; equal times stand in the order of the symbols."""
    size = len(times)
    time_ns, symbol = times[place], symbols[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            times[right] < times[child] or (times[right] == times[child] and symbols[right] < symbols[child])
        ):
            child = right
        if times[child] > time_ns or (times[child] == time_ns and symbols[child] > symbol):
            break
        times[place], symbols[place] = times[child], symbols[child]
        place = child
    times[place], symbols[place] = time_ns, symbol


@compiled
def draw_all(
    rng: Any, now_ns: Any, regime: Any, parameters: Any, state: Any, last_ns: Any, times: Any, symbols: Any
) -> None:
    """Draw the next event of every symbol, seen from ``now_ns``, and build the heap of them."""
    for symbol in range(len(times)):
        excited = state[symbol, EXCITED] * math.exp(-BETA_PER_S * (now_ns - last_ns[symbol]) / _NS)
        times[symbol] = now_ns + _wait_ns(rng, excited, parameters[symbol, RATE] * _BASE[regime])
        symbols[symbol] = symbol
    for place in range(len(times) // 2 - 1, -1, -1):
        _sift_down(times, symbols, place)


@compiled
def _change_regime(rng: Any, scalars: Any) -> None:
    draw = _uniform(rng)
    regime = 0
    while draw > _CHAIN[scalars[REGIME], regime]:
        regime += 1
    scalars[REGIME] = regime
    scalars[REGIME_END_NS] += np.int64(-math.log(_uniform(rng)) * _HOLDING[regime] * _NS) + 1


@compiled
def _evolve(rng: Any, state: Any, parameters: Any, seconds: Any, regime: Any) -> None:
    """Let the latent part of one symbol pass ``seconds``."""
    one, other = _normals(rng)
    keep = math.exp(-seconds / PRESSURE_S)
    state[PRESSURE] = state[PRESSURE] * keep + math.sqrt(1.0 - keep * keep) * one
    state[DRIFT] += (state[PRESSURE] - state[DRIFT]) * (1.0 - math.exp(-seconds / LAG_S))
    sigma = parameters[SIGMA] * _VOLATILITY[regime]
    state[LOG_PRICE] += sigma * (DRIFT_SHARE * state[DRIFT] * seconds + math.sqrt(seconds) * other)


@compiled
def _requote(rng: Any, state: Any, parameters: Any, regime: Any) -> None:
    """Move bid, ask and sizes of one symbol as a quote does."""
    fair = math.exp(state[LOG_PRICE]) * parameters[PER_UNIT]
    bid, ask = state[BID], state[ASK]
    spread = ask - bid
    draw_spread = _uniform(rng) < _SPREAD_CHANGES
    if draw_spread:
        extra = parameters[SPREAD] * _EXTRA_SPREAD[regime]
        spread = 1.0 + math.floor(-math.log(_uniform(rng)) * extra)
    if draw_spread or abs(fair - (bid + ask) / 2.0) > spread / 2.0 + 0.25:
        state[BID] = max(1.0, math.floor(fair - spread / 2.0 + 0.5))
        state[ASK] = state[BID] + spread
    one, other = _normals(rng)
    tilt = BOOK_TILT * state[PRESSURE]
    depth = parameters[LOG_DEPTH]
    # A level that is new knows nothing of the old one's size.
    memory = _SIZE_MEMORY if state[BID] == bid else 0.0
    state[LOG_BID_SIZE] = depth + tilt + memory * (state[LOG_BID_SIZE] - depth - tilt) + _SIZE_NOISE * one
    memory = _SIZE_MEMORY if state[ASK] == ask else 0.0
    state[LOG_ASK_SIZE] = depth - tilt + memory * (state[LOG_ASK_SIZE] - depth + tilt) + _SIZE_NOISE * other


@compiled
def _trade(rng: Any, state: Any, parameters: Any) -> Any:
    """Let one symbol trade; return side, price in ticks, and size."""
    side = 1 if _uniform(rng) < 1.0 / (1.0 + math.exp(-SIGN_TILT * state[PRESSURE])) else -1
    one, _ = _normals(rng)
    size = max(1.0, math.floor(math.exp(parameters[LOG_SIZE] + _TRADE_SIZE_SIGMA * one) + 0.5))
    level, log_size = (ASK, LOG_ASK_SIZE) if side > 0 else (BID, LOG_BID_SIZE)
    price = state[level]
    left = math.exp(state[log_size]) - size
    if left >= 1.0:
        state[log_size] = math.log(left)
    else:
        if side > 0 or state[BID] > 1.0:
            state[level] += side
        state[log_size] = parameters[LOG_DEPTH]
    return side, price, size


@compiled
def generate(
    words: Any,
    values: Any,
    end_ns: Any,
    rng: Any,
    scalars: Any,
    names: Any,
    parameters: Any,
    state: Any,
    last_ns: Any,
    times: Any,
    symbols: Any,
) -> Any:
    """Write the next ticks up to ``end_ns`` into empty `TICK` records, as many as there is room for.

    Args:
        words: ``uint64[N, 13]``, the records as words.
        values: ``float64[N, 13]``, the same memory as numbers.
        end_ns: the last time of which ticks are wanted.
        rng: ``uint64[1]``.
        scalars: ``int64[3]``.
        names: ``uint64[S, 3]``, the symbols.
        parameters: ``float64[S, PARAMETERS]``.
        state: ``float64[S, STATES]``.
        last_ns: ``int64[S]``, each symbol's last event.
        times: ``int64[S]``, heap of next events.
        symbols: ``int64[S]``, their symbols.

    Returns:
        How many ticks were written. The ticks do not depend on how calls cut the stream.
    """
    written = 0
    while written < len(words):
        if scalars[REGIME_END_NS] <= times[0]:
            if scalars[REGIME_END_NS] > end_ns:
                break
            now_ns = scalars[REGIME_END_NS]
            _change_regime(rng, scalars)
            draw_all(rng, now_ns, scalars[REGIME], parameters, state, last_ns, times, symbols)
            continue
        now_ns, symbol = times[0], symbols[0]
        if now_ns > end_ns:
            break
        regime = scalars[REGIME]
        own, fixed = state[symbol], parameters[symbol]
        seconds = (now_ns - last_ns[symbol]) / _NS
        last_ns[symbol] = now_ns
        _evolve(rng, own, fixed, seconds, regime)
        scalars[COUNT] += 1
        for word in range(3):
            words[written, word] = names[symbol, word]
        words[written, 3] = now_ns
        words[written, 4] = now_ns
        words[written, 5] = scalars[COUNT]
        kind, side, offspring = _QUOTE, 0, QUOTE_OFFSPRING
        if _uniform(rng) < _TRADE_SHARE[regime]:
            kind, offspring = _TRADE, TRADE_OFFSPRING
            side, price, size = _trade(rng, own, fixed)
            values[written, 6] = price / fixed[PER_UNIT]
            values[written, 7] = size
        else:
            _requote(rng, own, fixed, regime)
            values[written, 8] = own[BID] / fixed[PER_UNIT]
            values[written, 9] = own[ASK] / fixed[PER_UNIT]
            values[written, 10] = max(1.0, math.floor(math.exp(own[LOG_BID_SIZE]) + 0.5))
            values[written, 11] = max(1.0, math.floor(math.exp(own[LOG_ASK_SIZE]) + 0.5))
        words[written, 12] |= (np.uint64(kind) << np.uint64(32)) | (np.uint64(side & 0xFFFF) << np.uint64(48))
        own[EXCITED] = own[EXCITED] * math.exp(-BETA_PER_S * seconds) + offspring * BETA_PER_S
        times[0] = now_ns + _wait_ns(rng, own[EXCITED], fixed[RATE] * _BASE[regime])
        _sift_down(times, symbols, 0)
        written += 1
    return written
