"""The compiled loop over ticks: it validates each tick and advances its symbol's `STATE` row.

What is decided about a tick stands in `agents/checks.py` (the policy: `agents/validate.py`), the windows and the
features in `agents/indicators.py` (the formulas: `agents/features.py`).
"""

from typing import Any, Final

import numpy as np
from numba import uint64

from agents.checks import check_tick, count_marks, makes_a_row
from agents.indicators import SPREAD, has_book, pass_over, update
from agents.sessions import judge_in_session
from agents.state import NO_STREAM, RECENT_ROWS, STATE_VERSION
from agents.symbol_table import EMPTY_SLOT, Home, check_symbol, find_slot_inlined
from agents.validate import SKIPPED, Limits
from stream.compiled import compiled, inlined
from stream.records import Reject

# No market moves a feature that far; a tick with a wrong price would, and would saturate the model's state.
_FEATURE_LIMIT: Final = 1e6

_FNV_START: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3


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
    limit_values: Any,
    home_values: Any,
    periods: Any,
    values: Any,
    out: Any,
    out_words: Any,
    out_int: Any,
    out_seq: Any,
    out_ref: Any,
    out_spread: Any,
    out_marks: Any,
    reasons: Any,
) -> tuple[int, int, bool, np.uint32]:
    """Apply ticks in order.

    Returns:
        How many were accepted, how many symbols there are, if all is finite, and the marks of all together.
    """
    # Named here and not by the caller: a named tuple costs a call 1 us more than a plain one.
    limits, home = Limits(*limit_values), Home(*home_values)
    accepted, finite, all_marks = 0, True, np.uint32(0)
    for index in range(len(ticks)):
        tick = ticks[index]
        slot = find_slot_inlined(words[index], keys, slots)
        row = slots[slot]
        if row == EMPTY_SLOT:
            row = count
            reason = _check_first(tick, words[index], states, count, limits, home)
            if not makes_a_row(reason):
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
        reason, marks = judge_in_session(tick, state, limits, periods[0].session_gap_ns)
        reasons[index] = reason
        outcomes[reason] += 1
        if reason != 0:
            pass_over(reason, tick, state)
            continue
        count_marks(marks, state)
        update(tick, state, periods[0], values)
        finite &= _round_off(values, out[accepted])
        state.recent[int(state.seq % uint64(RECENT_ROWS))] = out[accepted]
        state.seq += uint64(1)
        out_int[0, accepted], out_int[1, accepted], out_int[2, accepted] = row, rounds[row], index
        out_seq[0, accepted] = state.seq
        out_seq[1, accepted] = _hash(out_words[accepted])
        out_ref[accepted] = state.ref
        out_spread[accepted] = out[accepted, SPREAD] if has_book(state) else np.nan
        out_marks[accepted] = marks
        all_marks |= marks
        rounds[row] += 1
        accepted += 1
    return accepted, count, finite, all_marks


@compiled
def _check_first(tick: Any, words: Any, states: Any, count: int, limits: Any, home: Any) -> Any:
    """Return the verdict on a tick of a symbol without a row, as if the next row, which is zeros, were its own."""
    reason = check_symbol(words, home)
    if reason == 0 and count == len(states):
        reason = Reject.TOO_MANY_SYMBOLS.value
    if reason == 0:
        reason, _ = check_tick(tick, states[count], limits)
    return reason


@compiled
def _start(state: Any, tick: Any, periods_id: Any) -> None:
    state.version = STATE_VERSION
    state.periods_id = periods_id
    state.symbol = tick.symbol
    state.offset = -1
    state.stream_id = NO_STREAM


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
def _hash(words: Any) -> Any:
    """Return FNV-1a over four words, each of them FNV-1a over every fourth word: side by side, as a multiplication
    waits four cycles for the one before it, and a row of 80 features took 140 ns."""
    a = b = c = d = uint64(_FNV_START)
    for at in range(0, len(words), 4):
        a = (a ^ words[at]) * uint64(_FNV_PRIME)
        b = (b ^ words[at + 1]) * uint64(_FNV_PRIME)
        c = (c ^ words[at + 2]) * uint64(_FNV_PRIME)
        d = (d ^ words[at + 3]) * uint64(_FNV_PRIME)
    value = uint64(_FNV_START)
    for word in (a, b, c, d):
        value = (value ^ word) * uint64(_FNV_PRIME)
    return value
