"""What a tick must be to be used, and what becomes of one that is not.

| case | policy |
|---|---|
| a needed price or size is not finite | rejected: NOT_FINITE |
| a price is zero or negative | rejected: NOT_POSITIVE |
| a size is negative | rejected: NEGATIVE_SIZE (zero is legal: some gold trades have it) |
| bid above ask | rejected: CROSSED (locked, bid = ask, is legal) |
| one side of a quote is missing (NaN) | the last value of that side is kept; MISSING_SIDE where there is none |
| older than the symbol's newest by more than the lateness | rejected: LATE (less is accepted as it comes) |
| ahead of our clock by more than the allowed skew | rejected: FUTURE |
| neither trade nor quote | rejected: BAD_KIND |
| no symbol, or more symbols than a lane has room for | rejected: BAD_SYMBOL, TOO_MANY_SYMBOLS |
| ``source_seq`` not above the last of the same stream | dropped and counted: a duplicate |

Rejected ticks go to ``ticks.rejected`` with the reason; all are counted by reason, and by symbol in its `STATE`.
"""

from typing import Any, Final

import numpy as np
from numba import njit, uint64

from stream.records import Reject

# Outcomes that are not rejections, beside the numbers of `Reject`.
DUPLICATE: Final = 254  # seen before: dropped, counted
SKIPPED: Final = 255  # recovery: the state already holds it

OUTCOMES: Final = {0: "accepted", DUPLICATE: "duplicate", SKIPPED: "already_applied"} | {
    reason.value: reason.name.lower() for reason in Reject
}


@njit(cache=True, error_model="numpy")
def check_tick(tick: Any, state: Any, newest_ns: int, lateness_ns: int) -> Any:
    """Return 0 where the tick is to be used, else a `Reject` or `DUPLICATE`; count it in the symbol's state.

    Compiled: ``tick`` is a record of ``TICK``, ``state`` one of ``STATE``.
    """
    if tick.stream_id == state.stream_id and tick.source_seq <= state.source_seq:
        state.duplicates += uint64(1)
        return DUPLICATE
    state.stream_id = tick.stream_id
    state.source_seq = tick.source_seq
    if tick.kind == 1:
        reason = _check_trade(tick)
    elif tick.kind == 2:
        reason = _check_quote(tick, state)
    else:
        reason = Reject.BAD_KIND.value
    if reason == 0 and tick.event_ns > newest_ns:
        reason = Reject.FUTURE.value
    if reason == 0 and tick.event_ns < state.event_ns - lateness_ns:
        reason = Reject.LATE.value
    if reason != 0:
        state.rejected += uint64(1)
    return reason


@njit(cache=True, error_model="numpy")
def _check_trade(tick: Any) -> Any:
    if not (np.isfinite(tick.price) and np.isfinite(tick.size)):
        return Reject.NOT_FINITE.value
    if tick.price <= 0.0:
        return Reject.NOT_POSITIVE.value
    if tick.size < 0.0:
        return Reject.NEGATIVE_SIZE.value
    return 0


@njit(cache=True, error_model="numpy")
def _check_quote(tick: Any, state: Any) -> Any:
    if np.isinf(tick.bid) or np.isinf(tick.ask) or np.isinf(tick.bid_size) or np.isinf(tick.ask_size):
        return Reject.NOT_FINITE.value
    bid = state.bid if np.isnan(tick.bid) else tick.bid
    ask = state.ask if np.isnan(tick.ask) else tick.ask
    if np.isnan(tick.bid) and np.isnan(tick.ask):
        return Reject.NOT_FINITE.value
    if (np.isnan(tick.bid) and state.bid == 0.0) or (np.isnan(tick.ask) and state.ask == 0.0):
        return Reject.MISSING_SIDE.value
    if bid <= 0.0 or ask <= 0.0:
        return Reject.NOT_POSITIVE.value
    if tick.bid_size < 0.0 or tick.ask_size < 0.0:
        return Reject.NEGATIVE_SIZE.value
    if bid > ask:
        return Reject.CROSSED.value
    return 0
