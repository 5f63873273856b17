"""What a tick must be to be used, and what becomes of one that is not.

Rejected with a reason, in this order:

| reason | case |
|---|---|
| BAD_SYMBOL | the symbol is not 1 to 24 printable ASCII characters |
| UNKNOWN_SYMBOL | the setting ``symbols`` does not name it |
| WRONG_PARTITION | its hash names another partition: its state would not be found after a rebalance |
| TOO_MANY_SYMBOLS | it is new, and the lane has no room for one more |
| BAD_SEQUENCE | ``source_seq`` cannot be: not above the last of its stream, though the time is newer than all |
| | before, or above it by 2**48. The 8th in a row that agree is a new numbering, and is used |
| FUTURE | ahead of its own ``recv_ns`` by more than ``future_s`` |
| BAD_KIND | neither trade, quote, halt nor resume |
| NOT_FINITE | a needed price or size is not finite |
| NOT_POSITIVE | a price is zero or negative |
| NEGATIVE_SIZE | a size is negative |
| OUT_OF_RANGE | a price beyond 1e-12..1e15, a size above 1e18: no market has it, and its squares overflow |
| LATE | older than the symbol's newest by more than ``lateness_s`` |
| HALTED | its symbol was halted when it happened |
| MISSING_SIDE | one side of a quote is missing (NaN) and there is no last one; the one that is there is kept |
| CROSSED | bid above ask, a missing side being the last one |
| OUTLIER | too far from the last price. The 5th in a row that agree is a new level, and is used |

Dropped and counted: a duplicate, whose ``source_seq`` is not above the last of its stream, nor its time newer.

Accepted, and marked in ``PREDICTION["flags"]``:

| mark | case |
|---|---|
| OUT_OF_ORDER | older than the symbol's newest, within ``lateness_s``: used as it comes, its time stands still |
| LOCKED | bid = ask |
| ZERO_SIZE | a trade of size 0 (some gold trades have it): it moves prices, and no volume |
| CARRIED | one side of a quote is missing: that side keeps its last price and size |
| CLOCK_SKEW | ahead of its own ``recv_ns``, within ``future_s``: a clock is wrong; used as it comes |
| LEVEL_SHIFT | the first at a new level, after outliers: windows that hold the old level hold a jump |

**Numbers.** A tick advances its symbol's ``source_seq`` where its content is sound, used or not: its copies are
duplicates then, and copies of an outlier do not confirm it. Garbage (a tick that is rejected for its symbol,
number, kind, a price, a size, or a time in the future) advances nothing, so that it cannot silence its symbol; its
copy is rejected once more, unless a sound tick has passed its number. Where garbage looks sound apart from its
number, the good ticks that follow are BAD_SEQUENCE, until 8 in a row agree: each above the one before, by less
than 2**48.

**Outliers.** The distance of a price (of a trade, or a quote's mid) from the last one that was used, as a share of
the lower of the two, must be within a band: ``outlier_bps`` or, where it is more, ``outlier_scale`` times the
symbol's mean distance from tick to tick. A distance counts for that mean as 4 times itself and 1 bp at the most,
and a jump not at all, so that no print widens its own band. The band is 1 + sqrt(hours) as wide after a silence,
but a lost decimal point never fits in. Outliers agree where each is within the band around the one before. The
first price of a symbol is believed; were it wrong, the 5th that contradicts it is.

**Halts.** HALT and RESUME ticks come from a source, or from `tickloom halt`. They hold from their ``event_ns`` on,
whenever and however often they come: a symbol remembers its newest halt and its newest resume. They are an outcome
of their own, ``control``, and touch neither windows nor numbers.

**Counts.** All are counted by outcome, and by symbol in its `STATE`: ``rejects`` by `Reject`, ``marks`` by `Mark`.
Every rejected tick goes to ``ticks.rejected`` with its reason and the place where it stood; after a crash the same
one may stand there twice, with the same place. A symbol has a `STATE` row from its first sound tick on, so that
garbage takes no room. No verdict depends on the time of day when it is given, nor on how ticks were cut into
blocks: a replay after a crash gives the same ones.

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


# Twice what 36 recorded days of stocks, futures, currencies and crypto hold: late prints of stocks, 2.3 % away.
OUTLIER_BPS: Final = 500.0
OUTLIER_SCALE: Final = 50.0


class Limits(NamedTuple):
    """How late, early or far off a tick may be."""

    lateness_ns: int
    future_ns: int
    outlier_bps: float  # the narrowest band of a price; infinite to believe any
    outlier_scale: float  # the band in multiples of the symbol's mean distance from tick to tick
