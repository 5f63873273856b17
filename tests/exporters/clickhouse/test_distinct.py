"""Symbols are found again from the different ones, in the order in which these came first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporters.clickhouse.distinct import distinct_symbols

symbols = st.lists(st.binary(max_size=24).map(lambda name: name.rstrip(b"\0")), min_size=1, max_size=200)


@given(symbols)
def test_symbols_come_back(names: list[bytes]) -> None:
    values = np.array(names, "S24")
    firsts, codes = distinct_symbols(values)
    assert values[firsts][codes].tolist() == names
    assert values[firsts].tolist() == list(dict.fromkeys(names))


def test_more_symbols_than_there_was_room_for_come_back() -> None:
    values = np.array([f"S{number % 5000}" for number in range(20_000)], "S24")
    firsts, codes = distinct_symbols(values)
    assert len(firsts) == 5000
    assert (values[firsts][codes] == values).all()
