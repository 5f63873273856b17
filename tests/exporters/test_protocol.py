"""What a client may say is understood, and what it may not is answered in words that help; nothing else happens."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.protocol import (
    MAX_INBOUND_PER_S,
    MAX_NAMED_SYMBOLS,
    Auth,
    BadMessage,
    InboundRate,
    ListSubscriptions,
    Mode,
    Ping,
    Subscribe,
    Subscriptions,
    Unsubscribe,
    parse_request,
)


def parse(**message: Any) -> Any:
    return parse_request(json.dumps(message))


def refusal(raw: str | bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        parse_request(raw)
    return caught.value


def test_every_request_is_understood() -> None:
    asked = parse(op="subscribe", id=1, channel="prediction", symbols=["AIG", "*", "AIG"], mode="full")
    assert asked == Subscribe(1, ("AIG", "*"), Mode.FULL)
    assert parse(op="subscribe", symbols=["AIG"]) == Subscribe(None, ("AIG",), Mode.LATEST)
    assert parse(op="unsubscribe", id="a", symbols=["AIG"]) == Unsubscribe("a", ("AIG",))
    assert parse(op="list", id=None) == ListSubscriptions(None)
    assert parse(op="ping", id=-3) == Ping(-3)
    assert parse(op="auth", token="open") == Auth(None, "open")


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"{}", "not_text", "binary"),
        ("subscribe AIG", "not_json", "not JSON"),
        ("[1]", "bad_request", "an object"),
        ("{}", "unknown_op", '"op" is one of subscribe'),
        ('{"op":"resume"}', "unknown_op", '"resume"'),
        ('{"op":"ping","id":1.5}', "bad_request", '"id" is an integer'),
        ('{"op":"ping","id":true}', "bad_request", "true"),
        ('{"op":"ping","extra":1}', "bad_request", '"extra"'),
        ('{"op":"subscribe"}', "bad_request", "nothing"),
        ('{"op":"subscribe","symbols":[]}', "bad_request", "[]"),
        ('{"op":"subscribe","symbols":"AIG"}', "bad_request", '"AIG"'),
        ('{"op":"subscribe","symbols":[7]}', "bad_symbol", "7"),
        ('{"op":"subscribe","symbols":["A G"]}', "bad_symbol", "without spaces"),
        ('{"op":"subscribe","symbols":["AIG"],"channel":"ticks"}', "unknown_channel", '"ticks"'),
        ('{"op":"subscribe","symbols":["AIG"],"mode":"fast"}', "unknown_mode", '"full" or "latest"'),
        ('{"op":"auth","token":7}', "bad_request", '"token", a string'),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(raw: str | bytes, code: str, words: str) -> None:
    error = refusal(raw)
    assert error.code == code
    assert words in str(error)


def test_an_error_has_the_id_of_the_request() -> None:
    raw = '{"op":"subscribe","id":"x9","symbols":["A G"]}'
    reply = refusal(raw).reply()
    assert (reply["type"], reply["id"]) == ("error", "x9")


def test_a_token_gone_wrong_is_not_repeated() -> None:
    assert "hunter2" not in str(refusal('{"op":"auth","token":["hunter2"]}'))


@given(st.text() | st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_that_a_client_sends_does_more_than_get_an_error(raw: str | bytes) -> None:
    try:
        parse_request(raw)
    except BadMessage as error:
        orjson.dumps(error.reply())


def test_a_name_comes_before_the_star_whichever_was_first() -> None:
    subscriptions = Subscriptions()
    assert not subscriptions
    subscriptions.subscribe(parse(op="subscribe", symbols=["AIG"], mode="full"))
    subscriptions.subscribe(parse(op="subscribe", symbols=["*"]))
    assert subscriptions.modes_of([b"AIG", b"BAC"]) == [Mode.FULL, Mode.LATEST]
    assert subscriptions.listing() == {"*": "latest", "AIG": "full"}
    subscriptions.unsubscribe(parse(op="unsubscribe", symbols=["AIG", "never seen".replace(" ", "_")]))
    assert subscriptions.modes_of([b"AIG"]) == [Mode.LATEST]
    subscriptions.unsubscribe(parse(op="unsubscribe", symbols=["*"]))
    assert not subscriptions


def test_too_many_names_are_refused_and_change_nothing() -> None:
    subscriptions = Subscriptions()
    names = [f"S{number}" for number in range(MAX_NAMED_SYMBOLS + 1)]
    subscriptions.subscribe(parse(op="subscribe", symbols=names[:-1]))
    with pytest.raises(BadMessage, match='or all with "\\*"') as caught:
        subscriptions.subscribe(parse(op="subscribe", id=8, symbols=names[-1:]))
    assert (caught.value.code, caught.value.message_id) == ("too_many_symbols", 8)
    assert len(subscriptions.listing()) == MAX_NAMED_SYMBOLS
    assert refusal(json.dumps({"op": "subscribe", "symbols": names})).code == "too_many_symbols"


def test_messages_are_allowed_at_their_rate() -> None:
    rate = InboundRate(0.0)
    assert [rate.allows(0.0) for _ in range(MAX_INBOUND_PER_S + 1)] == [True] * MAX_INBOUND_PER_S + [False]
    assert rate.allows(1 / MAX_INBOUND_PER_S)
    assert not rate.allows(1 / MAX_INBOUND_PER_S)
    assert all(rate.allows(100 + n / MAX_INBOUND_PER_S) for n in range(200))
