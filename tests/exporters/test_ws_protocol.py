"""Whatever a client says is either one of the requests, or answered with what would be right."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from exporters.ws_protocol import (
    MAX_SYMBOLS,
    Auth,
    ListSubscriptions,
    Ping,
    ProtocolError,
    Subscribe,
    Unsubscribe,
    encode_error,
    frame,
    parse,
)


def said(**request: object) -> str:
    return orjson.dumps(request).decode()


def test_each_request_is_understood() -> None:
    subscribe = said(op="subscribe", id=7, channel="prediction", symbols=["AIG", "*", "AIG"])
    assert parse(subscribe) == Subscribe(7, "prediction", ("AIG", "*"), "full", 0)
    latest = said(op="subscribe", channel="prediction", symbols=["*"], mode="latest", every_ms=100)
    assert parse(latest) == Subscribe(None, "prediction", ("*",), "latest", 100)
    assert parse(said(op="subscribe", channel="status")) == Subscribe(None, "status", (), "latest", 0)
    assert parse(said(op="unsubscribe", id="a", channel="prediction")) == Unsubscribe("a", "prediction", ())
    assert parse(said(op="list", id=1)) == ListSubscriptions(1)
    assert parse(said(op="ping")) == Ping(None)
    assert parse(said(op="auth", token="t")) == Auth(None, "t")


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("{", "bad_json", "a request is a JSON object"),
        (b"{}", "bad_json", "text frames"),
        ("[]", "bad_request", "not list"),
        ("{}", "unknown_op", "subscribe"),
        (said(op=["ping"]), "unknown_op", "subscribe"),
        (said(op="ping", id=[1]), "bad_request", "id is a number"),
        (said(op="ping", id=True), "bad_request", "id is a number"),
        (said(op="subscribe", channel="prediction", symbol="AIG"), "bad_request", "symbols"),
        (said(op="subscribe", channel="trades", symbols=["AIG"]), "unknown_channel", "prediction, status"),
        (said(op="subscribe", channel="prediction"), "bad_symbol", "for all"),
        (said(op="subscribe", channel="prediction", symbols=[]), "bad_symbol", "1 to 2000"),
        (said(op="subscribe", channel="prediction", symbols=["A"] * (MAX_SYMBOLS + 1)), "bad_symbol", "1 to 2000"),
        (said(op="subscribe", channel="prediction", symbols=[1]), "bad_symbol", "a string"),
        (said(op="subscribe", channel="prediction", symbols=["A G"]), "bad_symbol", "printable ASCII"),
        (said(op="subscribe", channel="prediction", symbols=["A"], mode="fast"), "bad_mode", "full or latest"),
        (said(op="subscribe", channel="prediction", symbols=["A"], every_ms=5), "bad_mode", "mode latest"),
        (said(op="auth"), "bad_request", "token"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(message: str | bytes, code: str, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(message)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert orjson.loads(encode_error(caught.value))["code"] == code


@given(
    st.text()
    | st.binary()
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr)
)
def test_nothing_that_a_client_sends_does_more_than_be_refused(message: str | bytes) -> None:
    try:
        parse(message)
    except ProtocolError as error:
        encode_error(error)


@given(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]))
def test_our_frames_are_those_of_the_library(size: int) -> None:
    payload = b"x" * size
    assert frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
