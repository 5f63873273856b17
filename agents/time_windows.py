"""Compiled: windows by event time, as rings of buckets. Their rules are in `agents/features.py`.

A tick is added to the open bucket of each window. The closed buckets are merged when one closes, and at no other
time, so that a tick costs the same however many ticks a window holds; and nothing is ever subtracted from a sum,
so that no error outlives its bucket.
"""

from typing import Any, Final

import numpy as np

from agents.features import TICK_FEATURES, WINDOW_FEATURES
from agents.periods import BUCKETS, WINDOWS
from stream.compiled import compiled, inlined

_FIRST: Final = TICK_FEATURES


@compiled
def advance(state: Any, is_first: bool, ref_before: float, periods: Any) -> None:
    """Move the windows on to the symbol's newest time. ``ref_before`` is the ref that stood until now."""
    now_ns = state.event_ns
    for number in range(WINDOWS):
        window, bucket_ns = state.windows[number], periods.bucket_ns[number]
        if is_first:
            window.slot, window.kept = 0, 0
        elif now_ns < window.ring[window.slot].end_ns:
            continue
        else:
            window.slot = window.slot + 1 if window.slot + 1 < BUCKETS else 0
        bucket = window.ring[window.slot]
        _empty(bucket, ref_before)
        bucket.end_ns = (now_ns // bucket_ns + 1) * bucket_ns
        _merge(window, bucket.end_ns - BUCKETS * bucket_ns)


@compiled
def add(
    state: Any, tick: Any, is_quote: bool, ref: float, change: float, flow: float, depth: float, side: float
) -> None:
    """Add a tick to the open buckets."""
    size = 0.0 if is_quote else tick.size
    notional = 0.0 if is_quote else tick.price * size
    quotes = 1.0 if is_quote else 0.0
    for number in range(WINDOWS):
        window = state.windows[number]
        bucket = window.ring[window.slot]
        bucket.ticks += 1.0
        bucket.refs += ref
        bucket.squares += change * change
        bucket.notional += notional
        bucket.size += size
        bucket.signed_size += side * size
        bucket.flow += flow
        bucket.depth += depth
        bucket.quotes += quotes
        bucket.high = max(bucket.high, ref)
        bucket.low = min(bucket.low, ref)


@compiled
def write(state: Any, ref: float, periods: Any, values: Any) -> None:
    """Write the features of every window."""
    for number in range(WINDOWS):
        window = state.windows[number]
        closed, bucket = window.closed, window.ring[window.slot]
        at = _FIRST + number * WINDOW_FEATURES
        ticks = closed.ticks + bucket.ticks
        values[at] = (ref / closed.start_ref - 1.0) * 1e4
        values[at + 1] = (ref * ticks / (closed.refs + bucket.refs) - 1.0) * 1e4
        notional, size = closed.notional + bucket.notional, closed.size + bucket.size
        values[at + 2] = (ref * size / notional - 1.0) * 1e4 if notional > 0.0 else 0.0
        values[at + 3] = np.sqrt(closed.squares + bucket.squares)
        low = min(closed.low, bucket.low)
        height = max(closed.high, bucket.high) - low
        values[at + 4] = (ref - low) / height if height > 0.0 else 0.5
        values[at + 5] = (closed.signed_size + bucket.signed_size) / size if size > 0.0 else 0.0
        depth = closed.depth + bucket.depth
        flow = (closed.flow + bucket.flow) * (closed.quotes + bucket.quotes)
        values[at + 6] = flow / depth if depth > 0.0 else 0.0
        values[at + 7] = np.log(1.0 + ticks * periods.per_window_s[number])


@compiled
def _empty(bucket: Any, ref: float) -> None:
    bucket.ticks = 0.0
    bucket.refs = 0.0
    bucket.squares = 0.0
    bucket.notional = 0.0
    bucket.size = 0.0
    bucket.signed_size = 0.0
    bucket.flow = 0.0
    bucket.depth = 0.0
    bucket.quotes = 0.0
    bucket.high = -np.inf
    bucket.low = np.inf
    bucket.start_ref = ref


@compiled
def _merge(window: Any, start_ns: int) -> None:
    """Merge the closed buckets that ended after ``start_ns``, newest first, and forget the others."""
    closed, slot, kept = window.closed, window.slot, 0
    _empty(closed, window.ring[slot].start_ref)
    while kept < window.kept:
        slot = slot - 1 if slot > 0 else BUCKETS - 1
        bucket = window.ring[slot]
        if bucket.end_ns <= start_ns:
            break
        _merge_one(closed, bucket)
        kept += 1
    window.kept = min(kept + 1, BUCKETS - 1)


@inlined
def _merge_one(closed: Any, bucket: Any) -> None:
    closed.ticks += bucket.ticks
    closed.refs += bucket.refs
    closed.squares += bucket.squares
    closed.notional += bucket.notional
    closed.size += bucket.size
    closed.signed_size += bucket.signed_size
    closed.flow += bucket.flow
    closed.depth += bucket.depth
    closed.quotes += bucket.quotes
    closed.high = max(closed.high, bucket.high)
    closed.low = min(closed.low, bucket.low)
    closed.start_ref = bucket.start_ref
