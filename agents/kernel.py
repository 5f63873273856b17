"""The compiled loop over ticks: it validates each tick and advances its symbol's `STATE` row.

What is decided about a tick stands in `agents/checks.py` (the policy: `agents/validate.py`), the windows and the
features in `agents/indicators.py` (the formulas: `agents/features.py`).
"""

from typing import Any, Final

import numpy as np
from numba import uint64

from agents.checks import check_new_symbol, check_tick
from agents.indicators import pass_over, update
from agents.sessions import judge_in_session
from agents.state import RECENT_ROWS, STATE_VERSION
from agents.validate import SKIPPED
from stream.compiled import compiled, inlined
from stream.records import Reject

EMPTY_SLOT: Final = -1
# No market moves a feature that far; a tick with a wrong price would, and would saturate the model's state.
_FEATURE_LIMIT: Final = 1e6


@compiled
def apply_ticks(
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
    lateness_ns: int,
    future_ns: int,
    periods: Any,
    values: Any,
    out: Any,
    out_words: Any,
    out_int: Any,
    out_seq: Any,
    out_ref: Any,
    reasons: Any,
) -> tuple[int, int, bool]:
    """Apply ticks in order; return how many were accepted, how many symbols there are, and if all is finite."""
    accepted, finite = 0, True
    for index in range(len(ticks)):
        tick = ticks[index]
        slot = _find_slot(words[index], keys, slots)
        row = slots[slot]
        is_new = row == EMPTY_SLOT
        if is_new:
            row = count
            reason = check_new_symbol(words[index], count, len(keys))
            if reason == 0:
                reason = check_tick(tick, states[row], lateness_ns, future_ns)
            if reason != 0 and reason != Reject.MISSING_SIDE.value:
                reasons[index] = reason
                outcomes[reason] += 1
                continue
            count += 1
            slots[slot] = row
            keys[row, 0], keys[row, 1], keys[row, 2] = words[index, 0], words[index, 1], words[index, 2]
            _start(states[row], tick, periods[0].id)
        state = states[row]
        is_first = touched[row] != serial
        if is_first or state.offset != offsets[index]:  # the symbol's first tick of this block
            if state.offset >= offsets[index]:  # recovery: this row has seen the block
                reasons[index] = SKIPPED
                outcomes[SKIPPED] += 1
                continue
            state.offset = offsets[index]
            touched[row], dirty[row] = serial, True
            if is_first:
                rounds[row] = 0
        if not is_new:
            reason = judge_in_session(tick, state, lateness_ns, future_ns, periods[0].session_gap_ns)
        reasons[index] = reason
        outcomes[reason] += 1
        if reason != 0:
            pass_over(reason, tick, state)
            continue
        update(tick, state, periods[0], values)
        finite &= _round_off(values, out[accepted])
        state.recent[int(state.seq % uint64(RECENT_ROWS))] = out[accepted]
        state.seq += uint64(1)
        out_int[0, accepted], out_int[1, accepted], out_int[2, accepted] = row, rounds[row], index
        out_seq[0, accepted] = state.seq
        out_seq[1, accepted] = _fnv1a(out_words[accepted])
        out_ref[accepted] = state.ref
        rounds[row] += 1
        accepted += 1
    return accepted, count, finite


@compiled
def index_symbols(keys: Any, slots: Any, count: int) -> None:
    """Fill the hash table of empty ``slots`` with the first ``count`` keys."""
    for row in range(count):
        slots[_find_slot(keys[row], keys, slots)] = row


@inlined
def _find_slot(words: Any, keys: Any, slots: Any) -> Any:
    """Return the slot that holds the row of a symbol, or where it belongs if it is new."""
    mask = uint64(len(slots) - 1)
    value = words[0] ^ (words[1] * uint64(0x9E3779B97F4A7C15)) ^ (words[2] * uint64(0xC2B2AE3D27D4EB4F))
    value = (value ^ (value >> uint64(32))) * uint64(0xD6E8FEB86659FD93)
    slot = (value ^ (value >> uint64(32))) & mask
    while True:
        row = slots[slot]
        if row == EMPTY_SLOT:
            return slot
        if keys[row, 0] == words[0] and keys[row, 1] == words[1] and keys[row, 2] == words[2]:
            return slot
        slot = (slot + uint64(1)) & mask


@compiled
def _start(state: Any, tick: Any, periods_id: Any) -> None:
    state.version = STATE_VERSION
    state.periods_id = periods_id
    state.symbol = tick.symbol
    state.offset = -1
    state.stream_id = tick.stream_id
    state.source_seq = tick.source_seq


@inlined
def _round_off(values: Any, out: Any) -> Any:
    """Write the features as float32, limited; return whether they are finite. A NaN stays, to be seen."""
    wild = False
    for feature in range(len(out)):
        wild |= not abs(values[feature]) <= _FEATURE_LIMIT
        out[feature] = values[feature]
    finite = True
    if wild:
        for feature in range(len(out)):
            finite &= not np.isnan(values[feature])
            if abs(values[feature]) > _FEATURE_LIMIT:
                out[feature] = np.copysign(_FEATURE_LIMIT, values[feature])
    return finite


@inlined
def _fnv1a(words: Any) -> Any:
    value = uint64(0xCBF29CE484222325)
    for word in words:
        value = (value ^ uint64(word)) * uint64(0x100000001B3)
    return value
