"""What a client may say is understood, and what it may not is answered in words that help; nothing else happens."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.feed_requests import (
    Auth,
    ListSubscriptions,
    Ping,
    Resume,
    Subscribe,
    Unsubscribe,
    parse_request,
)
from exporters.protocol import MAX_NAMED_SYMBOLS, BadMessage, Mode


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
    slow = parse(op="subscribe", symbols=["BTC*"], channel="tick", mode="throttle", throttle_ms=250)
    assert slow == Subscribe(None, ("BTC*",), Mode.THROTTLE, "tick", throttle_ms=250)
    again = parse(op="subscribe", symbols=["AI*"], mode="full", resume={"epoch": "e", "seqs": {"AIG": 7}})
    assert again == Subscribe(None, ("AI*",), Mode.FULL, resume=Resume("e", {"AIG": 7}))
    assert parse(op="subscribe", symbols=["*"], mode="full", replay_from_ns=5).replay_from_ns == 5
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
        ('{"op":"subscribe","symbols":["AIG"],"channel":["tick"]}', "unknown_channel", '["tick"]'),
        ('{"op":"subscribe","symbols":["AIG"],"mode":"fast"}', "unknown_mode", '"throttle" or "latest"'),
        ('{"op":"subscribe","symbols":["AIG"],"mode":"throttle"}', "bad_request", "from 10 to 60000, not nothing"),
        ('{"op":"subscribe","symbols":["A"],"mode":"throttle","throttle_ms":5}', "bad_request", "not 5"),
        ('{"op":"subscribe","symbols":["A"],"throttle_ms":50}', "bad_request", 'for "mode":"throttle"'),
        ('{"op":"subscribe","symbols":["A"],"replay_from_ns":1}', "bad_request", 'are for "mode":"full"'),
        ('{"op":"subscribe","symbols":["A"],"mode":"full","replay_from_ns":-1}', "bad_request", "not -1"),
        ('{"op":"subscribe","symbols":["A"],"mode":"full","resume":{"epoch":"e"}}', "bad_request", '"seqs"'),
        (
            '{"op":"subscribe","symbols":["A"],"mode":"full","resume":{"epoch":"e","seqs":{"B":1}}}',
            "bad_request",
            'what "symbols" names; not "B"',
        ),
        (
            '{"op":"subscribe","symbols":["*"],"mode":"full","resume":{"epoch":"e","seqs":{"B":1.5}}}',
            "bad_request",
            "an integer from 0 on, not 1.5",
        ),
        (
            '{"op":"subscribe","symbols":["*"],"mode":"full","resume":{"epoch":"e","seqs":{"B*":1}}}',
            "bad_symbol",
            'not of "B*"',
        ),
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


def test_more_symbols_than_anybody_needs_by_name_are_refused() -> None:
    names = [f"S{number}" for number in range(MAX_NAMED_SYMBOLS + 1)]
    assert refusal(json.dumps({"op": "subscribe", "symbols": names})).code == "too_many_symbols"
    again = {"epoch": "e", "seqs": dict.fromkeys(names, 1)}
    asked = {"op": "subscribe", "symbols": ["*"], "mode": "full", "resume": again}
    assert refusal(json.dumps(asked)).code == "too_many_symbols"


FIELDS = [
    "op",
    "id",
    "channel",
    "symbols",
    "mode",
    "throttle_ms",
    "resume",
    "replay_from_ns",
    "token",
    "epoch",
    "seqs",
]
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9)


@given(
    st.sampled_from(["subscribe", "unsubscribe", "list", "ping", "auth"]),
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            VALUES | st.sampled_from(["AIG", "*", "full", "tick"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
            max_leaves=6,
        ),
    ),
)
def test_no_request_that_could_be_made_up_does_more_than_be_answered(op: str, made_up: dict[str, Any]) -> None:
    try:
        parse_request(json.dumps({"op": op, "symbols": ["AIG"], **made_up}))
    except BadMessage as error:
        orjson.dumps(error.reply())
