"""What is logged of a storm; `test_exchange` has the counters at work."""

import pytest

from stream.sources.tally import SparseLog


def test_a_storm_of_one_kind_of_warning_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    log = SparseLog(lambda: now_s)
    for _ in range(1000):
        log.tell(("kind",), "seen")
    log.tell(("another",), "seen too")
    now_s = 11.0
    log.tell(("kind",), "seen")
    assert [record.getMessage() for record in caplog.records] == [
        "seen",
        "seen too",
        "seen (999 more of this kind were not logged)",
    ]
