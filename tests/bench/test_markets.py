import numpy as np
import pytest

from agents.windows import Windows
from bench import markets
from stream.records import Records, empty_ticks


def all_accepted(ticks: Records) -> bool:
    windows = Windows(markets.LATENESS_NS, markets.FUTURE_NS)
    return bool(np.all(windows.step(ticks, np.zeros(len(ticks), np.int64)).reason == 0))


def test_what_the_engine_refuses_is_left_out_even_where_it_refuses_more_because_of_that() -> None:
    ticks = empty_ticks(4)
    ticks["symbol"], ticks["kind"], ticks["source_seq"] = b"A", 2, (1, 2, 3, 4)
    # The first bid is refused, as there is no ask yet; with it kept, the lone ask after it would be accepted.
    ticks["bid"], ticks["ask"] = (9.0, np.nan, 12.0, 9.0), (np.nan, 10.0, 11.0, 10.0)
    kept = markets.accepted(ticks)
    assert kept["source_seq"].tolist() == [4]
    assert all_accepted(kept)


@pytest.mark.parametrize("passes", [1, 3])
def test_a_market_that_is_run_again_is_accepted_again(passes: int) -> None:
    ticks = markets.simulated(8, 2_000)
    many = markets.again(ticks, passes)
    assert len(many) == passes * len(ticks)
    assert all_accepted(many)


def test_json_ticks_tell_what_the_ticks_tell_and_nothing_else() -> None:
    ticks = empty_ticks(2)
    ticks["symbol"], ticks["kind"], ticks["event_ns"] = b"AIG", (1, 2), (5, 6)
    ticks["price"][0], ticks["size"][0] = 49.5, 100.0
    ticks["bid"][1], ticks["bid_size"][1] = 49.0, 7.0
    assert list(markets.json_ticks(ticks)) == [
        {"symbol": "AIG", "event_ns": 5, "price": 49.5, "size": 100.0},
        {"symbol": "AIG", "event_ns": 6, "bid": 49.0, "bid_size": 7.0},
    ]
