import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.rest.cursors import cursor_of, key_of
from exporters.rest.problems import BAD_CURSOR, Problem

_KEYS = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=8)), min_size=1, max_size=3)


@settings(max_examples=30)
@given(_KEYS)
def test_a_cursor_brings_its_key_back_for_the_same_question_only(key: list[int | str]) -> None:
    question = ["predictions", 0, 5, {"symbol": "AIG"}]
    cursor = cursor_of(question, key)
    types = [type(part) for part in key]
    assert key_of(question, cursor, types) == key
    with pytest.raises(Problem) as refused:
        key_of(["predictions", 0, 6, {"symbol": "AIG"}], cursor, types)
    assert refused.value.kind is BAD_CURSOR


@given(st.text(max_size=60))
def test_a_cursor_that_was_made_up_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        key_of(["predictions"], text, [int])
    assert refused.value.kind is BAD_CURSOR


def test_a_key_of_other_types_is_refused() -> None:
    with pytest.raises(Problem):
        key_of(["ticks"], cursor_of(["ticks"], [1, "a"]), [int, int])
