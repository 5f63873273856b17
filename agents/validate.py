"""What a tick must be to be used, and what becomes of one that is not.

Rejected, with the reason, in this order:

| case | policy |
|---|---|
| the symbol is not 1 to 24 printable ASCII characters | BAD_SYMBOL |
| the setting ``symbols`` does not name it | UNKNOWN_SYMBOL |
| the symbol's hash names another partition | WRONG_PARTITION: its state would not be found again after a rebalance |
| a new symbol, and the lane has no room for one more | TOO_MANY_SYMBOLS |
| ``source_seq`` cannot be: below the last of its stream, though its time is newer than all before; or above by 2**48 | BAD_SEQUENCE; the 8th in a row that agrees is a new numbering, and taken |
| ahead of its own ``recv_ns`` by more than ``future_s`` | FUTURE |
| neither trade, quote, halt nor resume | BAD_KIND |
| a needed price or size is not finite | NOT_FINITE |
| a price is zero or negative | NOT_POSITIVE |
| a size is negative | NEGATIVE_SIZE |
| a price beyond 1e-12..1e15, a size above 1e18 | OUT_OF_RANGE: no market has it, and its squares overflow |
| older than the symbol's newest by more than ``lateness_s`` | LATE |
| its symbol was halted when it happened | HALTED |
| one side of a quote is missing (NaN) and there is no last one | MISSING_SIDE; the side that is there is kept |
| bid above ask, a missing side being the last one | CROSSED |
| too far from the last price | OUTLIER; the 5th in a row that agrees is a new level, and taken |

Dropped and counted: a duplicate, a ``source_seq`` not above the last of the same stream, with a time that is not
newer either.

Accepted and marked, in ``PREDICTION["flags"]``:

| case | mark |
|---|---|
| older than the symbol's newest, within ``lateness_s`` | OUT_OF_ORDER: used as it comes, time does not go back |
| bid = ask | LOCKED |
| a trade of size 0 (some gold trades have it) | ZERO_SIZE: it moves prices and no volume |
| one side of a quote is missing | CARRIED: that side keeps its last price and size |
| ahead of its own ``recv_ns``, within ``future_s`` | CLOCK_SKEW: a clock is wrong; used as it comes |
| the first tick at a new level, after outliers | LEVEL_SHIFT: windows that hold the old level hold a jump |

**Numbers.** A tick advances its symbol's ``source_seq`` where its content is sound, used or not: its copies are then
duplicates, and copies of an outlier do not confirm it. Garbage (a tick that is rejected for its symbol, sequence,
kind, numbers or a time in the future) advances nothing, so that it cannot silence its symbol; a copy of it is rejected
once more, unless a sound tick has passed its number. Where garbage looks sound apart from its number, the good ticks
that follow are BAD_SEQUENCE until 8 in a row agree.

**Outliers.** The distance of a price (a trade's, or a quote's mid) from the last one accepted, as a share of the lower
of the two, must be within a band: ``outlier_bps`` or, where it is more, ``outlier_scale`` times the symbol's mean
distance from tick to tick. A distance counts in that mean as 4 times it at the most (and 1 bp), so that no print widens
its own band. The band is 1 + sqrt(hours) as wide after a silence, but never so wide that a lost decimal point fits in.
The first price of a symbol is believed; if it was wrong, the 5th that contradicts it is.

**Halts.** HALT and RESUME ticks come from a source, or from `tickloom halt`. They hold from their ``event_ns`` on,
whenever and however often they come; a symbol remembers its newest halt and its newest resume. They are outcomes of
their own (``control``), and touch neither windows nor numbers.

**Counts.** All are counted by outcome, and by symbol and reason in the symbol's `STATE` (``rejects`` by `Reject`,
``marks`` by bit). Every rejected tick goes to ``ticks.rejected`` with its reason and where it stood; a crash may repeat
one there, with the same place. A symbol has a `STATE` row from its first sound tick on, so that garbage takes no room.
No verdict depends on the time of day when it is given, nor on how ticks were cut into blocks: a replay after a crash
must give the same ones.

The checks are compiled; they stand in `agents/checks.py`, those of symbols in `agents/symbol_table.py`.
"""

from typing import Final, NamedTuple

from stream.records import Mark, Reject

# Outcomes that are not rejections, beside the numbers of `Reject`. The compiled kernel has them built in.
CONTROL: Final = 253  # a halt or a resume: known now, or known already
DUPLICATE: Final = 254  # seen before: dropped, counted
SKIPPED: Final = 255  # recovery: the state already holds it

OUTCOMES: Final = {0: "accepted", CONTROL: "control", DUPLICATE: "duplicate", SKIPPED: "already_applied"} | {
    reason.value: reason.name.lower() for reason in Reject
}
MARKS: Final = {mark.value: mark.name.lower() for mark in Mark}


class Limits(NamedTuple):
    """How late, early or far off a tick may be."""

    lateness_ns: int
    future_ns: int
    outlier_bps: float = 500.0  # the narrowest band of a price; infinite to believe any
    outlier_scale: float = 50.0  # the band in multiples of the symbol's mean distance from tick to tick
