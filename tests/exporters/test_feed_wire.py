"""A prediction on the wire is the prediction of the record, to the bit."""

from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from exporters.feed_wire import MAX_ITEMS, encode_items, encode_symbol_name, items_frames, message_frame
from stream.records import PREDICTION, STAGES

PAYLOAD_AT = {126: 4, 127: 10}


def payload(frame: bytes) -> bytes:
    """The payload of an unmasked text frame of RFC 6455."""
    assert frame[0] == 0x81
    return frame[PAYLOAD_AT.get(frame[1], 2) :]


f4 = st.floats(width=32, allow_nan=False, allow_infinity=False)
f8 = st.floats(allow_nan=False, allow_infinity=False)
u8 = st.integers(0, 2**64 - 1)
i8 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(u8, i8, f8, u8, f4, f4, st.integers(0, 2**32 - 1)), min_size=1, max_size=5))
def test_every_value_reads_back_as_it_was(values: list[tuple[Any, ...]]) -> None:
    rows = np.zeros(len(values), PREDICTION)
    for name, column in zip(
        ("seq", "event_ns", "ref_price", "model_id", "p_up", "expected_return_bps", "flags"),
        zip(*values, strict=True),
        strict=True,
    ):
        rows[name] = column
    symbol = b'A"\\<b>'
    rows["symbol"] = symbol
    texts = encode_items(rows, [encode_symbol_name(symbol)] * len(rows))
    for row, text in zip(rows, texts, strict=True):
        item = orjson.loads(text + b"}")
        assert item["symbol"] == symbol.decode()
        for name in ("seq", "event_ns", "ref_price", "horizon_ns", *STAGES):
            assert item[name] == row[name].item()
        for name in ("p_down", "p_flat", "p_up", "expected_return_bps"):
            assert np.float32(item[name]) == row[name]
        assert int(item["model"], 16) == row["model_id"]
        assert item["warming"] is bool(row["flags"] & 1)


def test_frames_are_cut_where_they_become_long() -> None:
    frames = list(items_frames(b"prediction", [b'{"n":%d}' % n for n in range(2 * MAX_ITEMS + 1)], 7))
    assert [count for _, count in frames] == [MAX_ITEMS, MAX_ITEMS, 1]
    messages = [orjson.loads(payload(frame)) for frame, _ in frames]
    assert [item["n"] for message in messages for item in message["predictions"]] == list(range(2 * MAX_ITEMS + 1))
    assert all((message["type"], message["send_ns"]) == ("prediction", 7) for message in messages)


def test_a_message_is_one_text_frame() -> None:
    assert orjson.loads(payload(message_frame({"type": "pong", "id": None}))) == {"type": "pong", "id": None}
