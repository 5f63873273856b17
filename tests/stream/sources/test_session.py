"""How long a session waits before it connects again; `test_exchange` has it at work."""

from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from stream.sources.session import Patience, _retry_after_s, backoff_s


def test_the_backoff_doubles_up_to_its_cap_and_is_spread_over_its_whole_range() -> None:
    patience = Patience(backoff_s=0.5, longest_backoff_s=30.0)
    ceilings = [backoff_s(attempt, patience, lambda: 1.0) for attempt in (0, 1, 2, 5, 6, 1000)]
    assert ceilings == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0]
    assert backoff_s(3, patience, lambda: 0.0) == 0.0


def test_a_refusal_that_asks_for_a_wait_gets_it() -> None:
    def refusal(headers: dict[str, str]) -> InvalidStatus:
        return InvalidStatus(Response(429, "Too Many Requests", Headers(headers)))

    assert _retry_after_s(refusal({"Retry-After": "17"})) == 17.0
    assert _retry_after_s(refusal({"Retry-After": "99999"})) == 600.0
    assert _retry_after_s(refusal({"Retry-After": "tomorrow"})) == 0.0
    assert _retry_after_s(refusal({})) == 0.0
    assert _retry_after_s(OSError()) == 0.0
