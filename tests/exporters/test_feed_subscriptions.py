"""How a symbol is followed when several of what a client asked for fit it."""

from typing import Any

import pytest

from exporters.feed_requests import Subscribe, Unsubscribe
from exporters.feed_subscriptions import Subscriptions
from exporters.protocol import MAX_NAMED_SYMBOLS, MAX_PREFIXES, BadMessage, Mode


def follow(*symbols: str, mode: Mode = Mode.LATEST, **more: Any) -> Subscribe:
    return Subscribe(8, symbols, mode, **more)


def modes(subscriptions: Subscriptions, *symbols: bytes) -> list[Mode]:
    return [choice.mode for choice in subscriptions.choices_of(symbols)]


def test_a_name_comes_before_a_prefix_and_the_longer_prefix_first_whichever_was_asked_for_first() -> None:
    subscriptions = Subscriptions()
    assert not subscriptions
    subscriptions.subscribe(follow("AIG", mode=Mode.FULL))
    subscriptions.subscribe(follow("*"))
    subscriptions.subscribe(follow("B*", mode=Mode.FULL))
    subscriptions.subscribe(follow("BTC*", mode=Mode.THROTTLE, throttle_ms=250))
    found = modes(subscriptions, b"AIG", b"AIGX", b"BAC", b"BTCUSD")
    assert found == [Mode.FULL, Mode.LATEST, Mode.FULL, Mode.THROTTLE]
    assert subscriptions.choice_of(b"BTCUSD").interval_ns == 250_000_000
    assert subscriptions.listing() == {
        "BTC*": {"mode": "throttle", "throttle_ms": 250},
        "B*": {"mode": "full", "throttle_ms": None},
        "*": {"mode": "latest", "throttle_ms": None},
        "AIG": {"mode": "full", "throttle_ms": None},
    }
    subscriptions.unsubscribe(Unsubscribe(9, ("AIG", "never_seen", "BTC*")))
    assert modes(subscriptions, b"AIG", b"BTCUSD") == [Mode.LATEST, Mode.FULL]
    subscriptions.unsubscribe(Unsubscribe(9, ("*", "B*")))
    assert not subscriptions


def test_too_many_names_or_prefixes_are_refused_and_change_nothing() -> None:
    subscriptions = Subscriptions()
    subscriptions.subscribe(follow(*[f"S{number}" for number in range(MAX_NAMED_SYMBOLS)]))
    subscriptions.subscribe(follow(*[f"P{number}*" for number in range(MAX_PREFIXES)]))
    with pytest.raises(BadMessage, match='or all with "\\*"') as caught:
        subscriptions.subscribe(follow("one-more"))
    assert (caught.value.code, caught.value.message_id) == ("too_many_symbols", 8)
    with pytest.raises(BadMessage, match="33 prefixes; a client follows up to 32"):
        subscriptions.subscribe(follow("one-more*"))
    assert len(subscriptions.listing()) == MAX_NAMED_SYMBOLS + MAX_PREFIXES
