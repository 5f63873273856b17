"""Which symbols a lane takes: those that are named, that belong to it, and that can be written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, Feed

from agents.state import STATE
from agents.symbol_table import check_symbol, home_of
from agents.validate import OUTCOMES
from agents.windows import Windows
from stream.records import Reject, encode_symbol, partition_of, symbol_words

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=24)


def outcomes(windows: Windows, offset: int, *names: str) -> list[str]:
    feed = Feed(stream_id=offset + 1)
    ticks = np.concatenate([feed.trade(name, 100.0) for name in names])
    return [OUTCOMES[int(code)] for code in windows.step(ticks, np.full(len(ticks), offset)).reason]


@given(NAMES, st.integers(1, 1024))
def test_the_kernel_knows_the_partition_that_a_producer_chooses(name: str, partitions: int) -> None:
    symbol = np.array([encode_symbol(name)], "S24")
    home = int(partition_of(symbol, partitions)[0])
    words = symbol_words(symbol)[0]
    assert check_symbol(words, home_of(home, partitions, None)) == 0
    if partitions > 1:
        other = (home + 1) % partitions
        assert check_symbol(words, home_of(other, partitions, None)) == Reject.WRONG_PARTITION


@given(st.lists(NAMES, min_size=1, max_size=40), NAMES)
def test_only_the_symbols_that_are_named_may_have_a_row(names: list[str], name: str) -> None:
    home = home_of(0, 1, np.array([encode_symbol(one) for one in names], "S24"))
    for one in [*names, name]:
        known = check_symbol(symbol_words(np.array([one.encode()], "S24"))[0], home) == 0
        assert known == (one in names)


def test_a_symbol_in_the_partition_of_another_is_refused_and_takes_no_room() -> None:
    names = [f"SYM{number}" for number in range(40)]
    homes = partition_of(np.array([name.encode() for name in names], "S24"), 4)
    windows = Windows(LATENESS_NS, FUTURE_NS, 64, partition=2, partitions=4)
    expected = ["accepted" if home == 2 else "wrong_partition" for home in homes]
    assert outcomes(windows, 0, *names) == expected
    assert windows.count == expected.count("accepted")


def test_unknown_symbols_are_refused() -> None:
    windows = Windows(LATENESS_NS, FUTURE_NS, 8, symbols=np.array([b"A", b"B", b"A"], "S24"))
    assert outcomes(windows, 0, "A", "AB", "B", "b", "A") == [
        "accepted",
        "unknown_symbol",
        "accepted",
        "unknown_symbol",
        "accepted",
    ]


@pytest.mark.parametrize("options", [{"symbols": np.array([b"B"], "S24")}, {"partition": 1, "partitions": 1}])
def test_a_row_from_before_the_setting_is_kept_and_its_ticks_are_refused(options: dict[str, object]) -> None:
    before = Windows(LATENESS_NS, FUTURE_NS, 8)
    outcomes(before, 0, "A", "B")
    windows = Windows(LATENESS_NS, FUTURE_NS, 8, **options)  # type: ignore[arg-type]
    windows.load(before.states[:2])
    assert outcomes(windows, 1, "A")[0] in ("unknown_symbol", "wrong_partition")
    assert windows.row_of(b"A") is None
    assert windows.states[0].tobytes() == before.states[0].tobytes()
    if "symbols" in options:
        assert outcomes(windows, 2, "B", "A", "B") == ["accepted", "unknown_symbol", "accepted"]
        assert windows.count == 2
    assert windows.states.dtype == STATE
