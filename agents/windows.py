"""The rolling windows of every symbol of one lane: pure computation, no I/O, no clock, no framework.

`Windows.step` runs one compiled loop over blocks of ticks, in order of arrival, that validates each tick,
updates the symbol's `STATE` row and writes its feature row. The same code serves live, replay and training, and
its results do not depend on how the ticks were cut into blocks.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

from agents import features
from agents.state import RECENT_ROWS, RING, STATE, STATE_VERSION
from agents.validate import SKIPPED, check_tick
from stream.clock import NS_PER_S
from stream.errors import InvariantError
from stream.records import SYMBOL_BYTES, TICK, Records, Reject, symbol_words

_WORDS: Final = SYMBOL_BYTES // 8
_TICK_WORDS: Final = TICK.itemsize // 8
_EMPTY: Final = -1
_MASK: Final = RING - 1
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_EMA_12: Final = 2.0 / 13.0
_EMA_26: Final = 2.0 / 27.0
_EMA_9: Final = 2.0 / 10.0
_EMA_32: Final = 2.0 / 33.0
_MAX_SINCE_TRADE_S: Final = 3600.0


@dataclass(frozen=True)
class Step:
    """What one call of `Windows.step` did. A = accepted ticks, N = its ticks.

    The arrays are views that the next call overwrites.
    """

    features: NDArray[np.float32]  # [A, features.COUNT]
    rows: NDArray[np.int64]  # [A] row of the symbol
    rounds: NDArray[np.int64]  # [A] accepted ticks of the same symbol before this one, in this call
    index: NDArray[np.int64]  # [A] position of the tick in the call
    seq: NDArray[np.uint64]  # [A]
    ref: NDArray[np.float64]  # [A] reference price
    feature_hash: NDArray[np.uint64]  # [A] FNV-1a over the row's 32-bit words
    reason: NDArray[np.uint8]  # [N] 0 accepted, a Reject, or DUPLICATE or SKIPPED of agents/validate.py


class Windows:
    """The `STATE` rows of one lane."""

    def __init__(
        self,
        lateness_ns: int,
        future_ns: int,
        max_symbols: int = 16_384,
        outcomes: NDArray[np.int64] | None = None,
    ) -> None:
        """Make room for ``max_symbols``; memory (about 8 KiB each) is only used once a symbol ticks.

        Args:
            lateness_ns: a tick this much older than the symbol's newest is rejected as late.
            future_ns: a tick this much ahead of ``now_ns`` is rejected.
            max_symbols: symbols beyond this are rejected, so that garbage cannot fill the memory.
            outcomes: ``int64[256]``, ticks by outcome (see agents/validate.py), counted up in place.
        """
        self.lateness_ns = lateness_ns
        self.future_ns = future_ns
        self.states: Records = np.zeros(max_symbols, STATE)
        self.count = 0
        # Rows that changed since the last checkpoint.
        self.dirty: NDArray[np.bool_] = np.zeros(max_symbols, np.bool_)
        self.outcomes = np.zeros(256, np.int64) if outcomes is None else outcomes
        self._keys = np.zeros((max_symbols, _WORDS), np.uint64)
        self._slots = np.full(1 << (2 * max_symbols - 1).bit_length(), _EMPTY, np.int32)
        self._touched = np.zeros(max_symbols, np.int64)  # serial of the last call that touched the row
        self._round = np.zeros(max_symbols, np.int64)
        self._serial = 0
        self._reserve(64)

    def load(self, rows: Records) -> None:
        """Take ``STATE[S]`` rows over, as a recovery does, into empty windows.

        Raises:
            InvariantError: there are rows already, a symbol stands twice, or there are more than ``max_symbols``.
        """
        if self.count or len(rows) > len(self.states) or len(np.unique(rows["symbol"])) != len(rows):
            raise InvariantError(f"{len(rows)} state rows do not fit into {self.count} of {len(self.states)}")
        self.states[: len(rows)] = rows
        self._keys[: len(rows)] = symbol_words(rows["symbol"])
        self.count = len(rows)
        _index(self._keys, self._slots, self.count)

    def step(self, ticks: Records, offsets: NDArray[np.int64], now_ns: int) -> Step:
        """Apply the ticks of one or more blocks.

        Args:
            ticks: ``TICK[N]`` in order of arrival.
            offsets: ``int64[N]``, the offset of each tick's block in the partition, ascending; a symbol whose
                state has seen a block skips its ticks.
            now_ns: the time of arrival, to refuse ticks from the future.

        Raises:
            InvariantError: a feature is not finite, which no accepted tick may bring about.
        """
        size = len(ticks)
        if size > len(self._ticks):
            self._reserve(size)
        # A private copy: aligned and writable, whatever buffer the block came from, so that one compiled
        # version serves all. It costs 10 ns a tick.
        self._ticks[:size] = ticks
        self._serial += 1
        accepted, self.count, finite = _step(
            self._ticks[:size],
            self._tick_words[:size],
            self.states,
            self._keys,
            self._slots,
            self._touched,
            self._round,
            self.dirty,
            self.outcomes,
            self.count,
            self._serial,
            offsets,
            now_ns + self.future_ns,
            self.lateness_ns,
            self._features,
            self._feature_words,
            self._out_int,
            self._out_seq,
            self._out_ref,
            self._reason,
        )
        if not finite:
            bad = int(np.argmin(np.isfinite(self._features[:accepted]).all(axis=1)))
            raise InvariantError(f"a feature is not finite after {self._ticks[self._out_int[2, bad]]!r}")
        return Step(
            features=self._features[:accepted],
            rows=self._out_int[0, :accepted],
            rounds=self._out_int[1, :accepted],
            index=self._out_int[2, :accepted],
            seq=self._out_seq[0, :accepted],
            feature_hash=self._out_seq[1, :accepted],
            ref=self._out_ref[:accepted],
            reason=self._reason[:size],
        )

    def row_of(self, symbol: bytes) -> int | None:
        """Return the row of a symbol, or None where it has not ticked."""
        found = np.flatnonzero(self.states["symbol"][: self.count] == symbol)
        return int(found[0]) if len(found) else None

    def _reserve(self, size: int) -> None:
        self._ticks = np.zeros(size, TICK)
        self._tick_words = self._ticks.view(np.uint64).reshape(size, _TICK_WORDS)
        self._features = np.zeros((size, features.COUNT), np.float32)
        self._feature_words = self._features.view(np.uint32)
        self._out_int = np.zeros((3, size), np.int64)
        self._out_seq = np.zeros((2, size), np.uint64)
        self._out_ref = np.zeros(size, np.float64)
        self._reason = np.zeros(size, np.uint8)


@njit(cache=True, inline="always")
def _hash(words: Any) -> Any:
    value = words[0] ^ (words[1] * uint64(0x9E3779B97F4A7C15)) ^ (words[2] * uint64(0xC2B2AE3D27D4EB4F))
    value = (value ^ (value >> uint64(32))) * uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> uint64(32))


@njit(cache=True)
def _index(keys: Any, slots: Any, count: int) -> None:
    mask = uint64(len(slots) - 1)
    for row in range(count):
        slot = _hash(keys[row]) & mask
        while slots[slot] != _EMPTY:
            slot = (slot + uint64(1)) & mask
        slots[slot] = row


@njit(cache=True, inline="always")
def _find(words: Any, keys: Any, slots: Any, count: int) -> Any:
    """Return the row of a symbol; where it is new: ``count``, or -1 if there is no room."""
    mask = uint64(len(slots) - 1)
    slot = _hash(words) & mask
    while True:
        row = slots[slot]
        if row == _EMPTY:
            if count == len(keys):
                return -1
            slots[slot] = count
            keys[count, 0], keys[count, 1], keys[count, 2] = words[0], words[1], words[2]
            return count
        if keys[row, 0] == words[0] and keys[row, 1] == words[1] and keys[row, 2] == words[2]:
            return row
        slot = (slot + uint64(1)) & mask


@njit(cache=True, nogil=True, error_model="numpy")
def _step(
    ticks: Any,
    words: Any,
    states: Any,
    keys: Any,
    slots: Any,
    touched: Any,
    rounds: Any,
    dirty: Any,
    outcomes: Any,
    count: int,
    serial: int,
    offsets: Any,
    newest_ns: int,
    lateness_ns: int,
    out: Any,
    out_words: Any,
    out_int: Any,
    out_seq: Any,
    out_ref: Any,
    reasons: Any,
) -> tuple[int, int, bool]:
    accepted = 0
    finite = True
    for index in range(len(ticks)):
        tick = ticks[index]
        if words[index, 0] == 0:
            reasons[index] = Reject.BAD_SYMBOL.value
            outcomes[Reject.BAD_SYMBOL.value] += 1
            continue
        row = _find(words[index], keys, slots, count)
        if row < 0:
            reasons[index] = Reject.TOO_MANY_SYMBOLS.value
            outcomes[Reject.TOO_MANY_SYMBOLS.value] += 1
            continue
        state = states[row]
        if row == count:
            count += 1
            state.version = STATE_VERSION
            state.symbol = tick.symbol
            state.offset = -1
        fresh = touched[row] != serial
        if fresh or state.offset != offsets[index]:  # the symbol's first tick of this block
            if state.offset >= offsets[index]:  # recovery: this row has seen the block
                reasons[index] = SKIPPED
                outcomes[SKIPPED] += 1
                continue
            state.offset = offsets[index]
            touched[row] = serial
            dirty[row] = True
            if fresh:
                rounds[row] = 0
        reason = check_tick(tick, state, newest_ns, lateness_ns)
        reasons[index] = reason
        outcomes[reason] += 1
        if reason != 0:
            continue
        _update(tick, state, out[accepted])
        finite &= np.isfinite(out[accepted].sum())
        state.seq += uint64(1)
        state.recent[int((state.seq - uint64(1)) % uint64(RECENT_ROWS))] = out[accepted]
        out_int[0, accepted] = row
        out_int[1, accepted] = rounds[row]
        out_int[2, accepted] = index
        out_seq[0, accepted] = state.seq
        out_seq[1, accepted] = _fnv1a(out_words[accepted])
        out_ref[accepted] = state.ref
        rounds[row] += 1
        accepted += 1
    return accepted, count, finite


@njit(cache=True, inline="always")
def _fnv1a(words: Any) -> Any:
    value = uint64(_FNV_OFFSET)
    for word in words:
        value = (value ^ uint64(word)) * uint64(_FNV_PRIME)
    return value


@njit(cache=True, error_model="numpy")
def _update(tick: Any, state: Any, out: Any) -> None:
    """Advance every window of one symbol by one accepted tick and write its feature row."""
    if state.seq == 0:
        state.gap_s = 1.0
    else:
        gap_s = max(tick.event_ns - state.event_ns, 0) / NS_PER_S
        state.gap_s += _EMA_32 * (gap_s - state.gap_s)
    state.event_ns = max(state.event_ns, tick.event_ns)
    if tick.kind == 2:
        _take_quote(tick, state)
    else:
        _take_trade(tick, state)
    has_book = state.bid > 0.0 and state.ask > 0.0
    ref = 0.5 * (state.bid + state.ask) if has_book else state.last_price
    _roll(state, ref)
    _price_features(state, ref, out)
    _market_features(state, has_book, out)


@njit(cache=True, error_model="numpy")
def _take_quote(tick: Any, state: Any) -> None:
    # A missing side keeps its last value; check_tick saw to it that there is one.
    bid = tick.bid if np.isfinite(tick.bid) else state.bid
    ask = tick.ask if np.isfinite(tick.ask) else state.ask
    bid_size = tick.bid_size if np.isfinite(tick.bid_size) else 0.0
    ask_size = tick.ask_size if np.isfinite(tick.ask_size) else 0.0
    if state.bid > 0.0:
        flow = 0.0
        if bid >= state.bid:
            flow += bid_size
        if bid <= state.bid:
            flow -= state.bid_size
        if ask <= state.ask:
            flow -= ask_size
        if ask >= state.ask:
            flow += state.ask_size
        state.flow += _EMA_32 * (flow - state.flow)
        state.depth += _EMA_32 * (0.5 * (bid_size + ask_size) - state.depth)
    else:
        state.depth = 0.5 * (bid_size + ask_size)
    state.bid, state.ask, state.bid_size, state.ask_size = bid, ask, bid_size, ask_size


@njit(cache=True, error_model="numpy")
def _take_trade(tick: Any, state: Any) -> None:
    # The aggressor where the venue tells it; else the quote test, then the tick test.
    # Source: Lee, Ready, "Inferring trade direction from intraday data", J. Finance 46(2), 1991.
    mid = 0.5 * (state.bid + state.ask)
    if tick.side != 0:
        side = float(tick.side)
    elif mid > 0.0 and tick.price != mid:
        side = 1.0 if tick.price > mid else -1.0
    elif state.last_price > 0.0 and tick.price != state.last_price:
        side = 1.0 if tick.price > state.last_price else -1.0
    else:
        side = state.last_side
    state.signed_size += _EMA_32 * (side * tick.size - state.signed_size)
    state.size += _EMA_32 * (tick.size - state.size)
    state.last_side = side
    state.last_price = tick.price
    state.trade_ns = max(state.trade_ns, tick.event_ns)


@njit(cache=True, error_model="numpy")
def _roll(state: Any, ref: float) -> None:
    """Advance the count windows by ``ref``. Before the call ``state.seq`` refs were seen."""
    seen = int(state.seq)
    slot = seen & _MASK
    refs, returns = state.refs, state.returns
    if seen == 0:
        state.origin = ref
        state.ema_12 = ref
        state.ema_26 = ref
        change = 0.0
    else:
        change = np.log(ref / state.ref)
        _roll_wilder(state, ref - state.ref, seen)
    value = ref - state.origin
    state.sum_20 += value
    state.sum_sq_20 += value * value
    state.sum_32 += value
    state.sum_return += change
    state.sum_sq_return += change * change
    if seen >= 20:
        old = refs[(seen - 20) & _MASK] - state.origin
        state.sum_20 -= old
        state.sum_sq_20 -= old * old
    if seen >= 32:
        state.sum_32 -= refs[(seen - 32) & _MASK] - state.origin
    if seen >= RING:
        state.sum_return -= returns[slot]
        state.sum_sq_return -= returns[slot] * returns[slot]
    state.ema_12 += _EMA_12 * (ref - state.ema_12)
    state.ema_26 += _EMA_26 * (ref - state.ema_26)
    macd = state.ema_12 - state.ema_26
    state.macd_signal += (1.0 if seen == 0 else _EMA_9) * (macd - state.macd_signal)


@njit(cache=True, inline="always")
def _roll_wilder(state: Any, move: float, seen: int) -> None:
    # The first 14 moves are averaged, later ones smoothed. Source: Wilder, "New Concepts in Technical Trading
    # Systems", 1978.
    period = min(seen, 14)
    state.gain += (max(move, 0.0) - state.gain) / period
    state.loss += (max(-move, 0.0) - state.loss) / period


@njit(cache=True, error_model="numpy")
def _price_features(state: Any, ref: float, out: Any) -> None:
    seen = int(state.seq)
    slot = seen & _MASK
    refs, returns = state.refs, state.returns
    change = 0.0 if seen == 0 else np.log(ref / state.ref)
    out[0] = change * 1e4
    out[1] = 0.0 if seen < 8 else np.log(ref / refs[(seen - 8) & _MASK]) * 1e4
    out[2] = 0.0 if seen < RING else np.log(ref / refs[slot]) * 1e4
    out[3] = (ref / (state.origin + state.sum_32 / min(seen + 1, 32)) - 1.0) * 1e4
    out[4] = (ref / state.ema_12 - 1.0) * 1e4
    moved = state.gain + state.loss
    out[5] = 100.0 * state.gain / moved if moved > 0.0 else 50.0
    macd = state.ema_12 - state.ema_26
    out[6] = macd / ref * 1e4
    out[7] = (macd - state.macd_signal) / ref * 1e4
    length = min(seen + 1, 20)
    mean = state.sum_20 / length
    sigma = np.sqrt(max(state.sum_sq_20 / length - mean * mean, 0.0))
    # Below a thousandth of a bp the band is rounding noise, not a band.
    flat = 4.0 * sigma <= ref * 1e-7
    out[8] = 0.5 if flat else (ref - state.origin - mean + 2.0 * sigma) / (4.0 * sigma)
    out[9] = 0.0 if flat else 4.0 * sigma / (state.origin + mean) * 1e4
    length = min(seen + 1, RING)
    mean = state.sum_return / length
    out[10] = np.sqrt(max(state.sum_sq_return / length - mean * mean, 0.0)) * 1e4
    refs[slot] = ref
    returns[slot] = change
    state.ref = ref
    if slot == _MASK:
        _rebase(state, ref)


@njit(cache=True, error_model="numpy")
def _rebase(state: Any, ref: float) -> None:
    """Rebuild the running sums from the rings, which are full and end at the last slot, about ``ref``."""
    state.origin = ref
    state.sum_20, state.sum_sq_20, state.sum_32 = 0.0, 0.0, 0.0
    state.sum_return, state.sum_sq_return = 0.0, 0.0
    for slot in range(RING):
        value = state.refs[slot] - ref
        if slot >= RING - 20:
            state.sum_20 += value
            state.sum_sq_20 += value * value
        if slot >= RING - 32:
            state.sum_32 += value
        state.sum_return += state.returns[slot]
        state.sum_sq_return += state.returns[slot] * state.returns[slot]


@njit(cache=True, error_model="numpy")
def _market_features(state: Any, has_book: bool, out: Any) -> None:
    out[11], out[12], out[13] = 0.0, 0.0, 0.0
    if has_book:
        mid = 0.5 * (state.bid + state.ask)
        depth = state.bid_size + state.ask_size
        out[11] = (state.ask - state.bid) / mid * 1e4
        if depth > 0.0:
            micro = (state.bid * state.ask_size + state.ask * state.bid_size) / depth
            out[12] = (state.bid_size - state.ask_size) / depth
            out[13] = (micro / mid - 1.0) * 1e4
    out[14] = state.flow / state.depth if state.depth > 0.0 else 0.0
    out[15] = state.signed_size / state.size if state.size > 0.0 else 0.0
    out[16] = np.log(1.0 + 1.0 / max(state.gap_s, 1e-6))
    since_s = _MAX_SINCE_TRADE_S
    if state.trade_ns > 0:
        since_s = min(max(state.event_ns - state.trade_ns, 0) / NS_PER_S, _MAX_SINCE_TRADE_S)
    out[17] = np.log(1.0 + since_s)
