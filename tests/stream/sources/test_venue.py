"""Numbers that tell gaps from duplicates, and values that JSON may hold."""

import math

import pytest

from stream.sources.venue import Gap, Ignored, Numbers, book_side, checked_ns, number_of, whole


def test_symbols_are_numbered_apart() -> None:
    numbers = Numbers()
    assert numbers.trade(b"A", 7, 1) is None
    assert numbers.trade(b"B", 900, 1) is None
    assert numbers.trade(b"A", 8, 1) is None
    assert numbers.trade(b"B", 902, 2) == Gap(b"B", "trade_ids", 1, "after trade 900 came 902")


def test_trades_that_were_claimed_missing_and_come_late_are_not_lost() -> None:
    numbers = Numbers()
    numbers.trade(b"A", 7, 10)
    assert numbers.claim(b"A", 9) == Gap(b"A", "trade_ids", 2, "after trade 7 came 10")
    assert isinstance(numbers.trade(b"A", 8, 11), Gap)
    assert numbers.trade(b"A", 9, 12) is None


def test_a_claim_says_nothing_about_a_symbol_without_a_trade() -> None:
    numbers = Numbers()
    assert numbers.claim(b"A", 9) is None
    assert not numbers.knows(b"A")


def test_quote_numbers_need_only_rise() -> None:
    numbers = Numbers()
    assert numbers.quote(b"A", 5) is None
    assert numbers.quote(b"A", 500) is None
    assert numbers.quote(b"A", 500) == Ignored("stale_quote", b"A")
    numbers.forget_quotes()
    assert numbers.quote(b"A", 5) is None


def test_values_that_are_no_numbers_are_refused() -> None:
    assert number_of("1.5") == number_of(1.5) == 1.5
    assert whole(0) == 0
    for value in ("", "nan", "-inf"):
        with pytest.raises(ValueError, match=r"finite|convert"):
            number_of(value)
    with pytest.raises(TypeError, match="whole number"):
        whole(1.0)
    with pytest.raises(ValueError, match="not a time"):
        checked_ns(2**63)


def test_a_side_without_a_price_has_no_size() -> None:
    assert book_side("2.5", "1") == (2.5, 1.0)
    assert all(map(math.isnan, book_side("0", "1")))
    assert all(map(math.isnan, book_side(None, None)))
    price, size = book_side(2.5, None)
    assert price == 2.5
    assert math.isnan(size)
