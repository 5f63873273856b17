from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.rest.moments import FIRST_NS, LAST_NS, moment_ns


@given(st.integers(FIRST_NS, LAST_NS))
def test_a_moment_is_the_same_as_text_and_as_a_number(ns: int) -> None:
    assert moment_ns(str(ns)) == ns
    assert moment_ns(f"{np.datetime64(ns, 'ns')}Z") == ns


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2013-10-07", "2013-10-07T00:00:00Z"),
        ("2013-10-07 13:30:00", "2013-10-07T13:30:00Z"),
        ("2013-10-07t13:30:00.5z", "2013-10-07T13:30:00.500000000Z"),
        ("2013-10-07T09:30:00-04:00", "2013-10-07T13:30:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("1969-12-31T23:59:59.999999999Z", "-1"),
        ("0000-01-01T00:00:00Z", "1900-01-01"),
        ("9999-12-31T23:59:59Z", "2262-01-01"),
        ("9" * 30, "2262-01-01"),
    ],
)
def test_moments_are_read_as_people_and_programs_write_them(text: str, same: str) -> None:
    assert moment_ns(text) == moment_ns(same)


@pytest.mark.parametrize(
    "text",
    ["", "noon", "2013-02-30", "2013-10-07T25:00:00Z", "0000-13-01", "1.5", "2013-10-07T09:30", "٢٠١٣-١٠-٠٧"],
)
def test_what_is_no_moment_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        moment_ns(text)


@given(st.datetimes(datetime(1901, 1, 1), datetime(2261, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_moment_agrees_with_the_clock_of_python(moment: datetime) -> None:
    assert moment_ns(moment.isoformat()) == int(np.datetime64(moment.replace(tzinfo=None), "ns").astype(np.int64))
