"""What a tick must be to be used, and what becomes of one that is not.

| case | policy |
|---|---|
| a needed price or size is not finite | rejected: NOT_FINITE |
| a price is zero or negative | rejected: NOT_POSITIVE |
| a size is negative | rejected: NEGATIVE_SIZE (zero is legal: some gold trades have it) |
| a price beyond 1e-12..1e15, a size above 1e18 | rejected: OUT_OF_RANGE (no market has it; its squares overflow) |
| bid above ask | rejected: CROSSED (locked, bid = ask, is legal) |
| one side of a quote is missing (NaN) | that side keeps its last price and size |
| one side is missing and there is no last one | rejected: MISSING_SIDE; the one that is there is kept |
| older than the symbol's newest by more than the lateness | rejected: LATE (less is accepted as it comes) |
| ahead of its own ``recv_ns`` by more than the allowed skew | rejected: FUTURE |
| neither trade nor quote | rejected: BAD_KIND |
| the symbol is not 1 to 24 printable ASCII characters | rejected: BAD_SYMBOL |
| a new symbol, and the lane has no room for one more | rejected: TOO_MANY_SYMBOLS |
| ``source_seq`` not above the last of the same stream | dropped and counted: a duplicate |

Rejected ticks go to ``ticks.rejected`` with the reason; all are counted by reason, and by symbol in its `STATE`.
A symbol has a `STATE` row from its first sound tick on, so that garbage takes no room. No verdict depends on the
time of day when it is given: a replay after a crash must give the same ones.

The checks are compiled; they stand in `agents/checks.py`.
"""

from typing import Final

from stream.records import Reject

# Outcomes that are not rejections, beside the numbers of `Reject`. The compiled kernel has them built in.
DUPLICATE: Final = 254  # seen before: dropped, counted
SKIPPED: Final = 255  # recovery: the state already holds it

OUTCOMES: Final = {0: "accepted", DUPLICATE: "duplicate", SKIPPED: "already_applied"} | {
    reason.value: reason.name.lower() for reason in Reject
}
