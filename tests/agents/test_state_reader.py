"""What a state row says to people. That it is found in the changelog, `test_lanes.py` shows."""

import numpy as np
from markets import FUTURE_NS, LATENESS_NS, Feed

from agents.state_reader import describe_state
from agents.windows import Windows
from stream.records import Records, TickKind


def described(*ticks: Records) -> dict[str, object]:
    windows = Windows(LATENESS_NS, FUTURE_NS, 4)
    windows.step(np.concatenate(ticks), np.zeros(len(ticks), np.int64))
    return describe_state(windows.states[:1])


def test_a_state_tells_what_was_refused_and_what_was_marked() -> None:
    feed = Feed()
    told = described(
        feed.quote("X", 100.0, 100.0), feed.trade("X", np.nan), feed.trade("X", 1000.0), feed.trade("X", 1.0)
    )
    assert told["rejects"] == {"not_finite": 1, "outlier": 2}
    assert told["marks"] == {"locked": 1}
    assert (told["rejected"], told["halted"]) == (3, False)


def test_a_state_tells_whether_its_symbol_is_halted() -> None:
    feed = Feed()
    halt = feed.trade("X", np.nan, kind=TickKind.HALT)
    assert described(halt)["halted"] is True
    assert described(halt, feed.trade("X", np.nan, kind=TickKind.RESUME))["halted"] is False
    assert described(feed.trade("X", 1.0))["halted"] is False
