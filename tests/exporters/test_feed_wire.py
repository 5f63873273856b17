"""A prediction on the wire is the prediction of the record, to the bit."""

import zlib
from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from exporters.feed_channels import CHANNELS
from exporters.feed_encode import encode_predictions, encode_symbol_name
from exporters.feed_wire import (
    FEED_HEADER,
    MAX_ITEMS,
    MAX_RECORDS,
    Held,
    items_frames,
    message_frame,
    records_frames,
)
from stream.records import PREDICTION, STAGES

PAYLOAD_AT = {126: 4, 127: 10}
PREDICTIONS = CHANNELS["prediction"]


def payload(frame: bytes) -> bytes:
    """The payload of an unmasked text or binary frame of RFC 6455."""
    assert frame[0] in (0x81, 0x82)
    return frame[PAYLOAD_AT.get(frame[1], 2) :]


f4 = st.floats(width=32, allow_nan=False, allow_infinity=False)
f8 = st.floats(allow_nan=False, allow_infinity=False)
u8 = st.integers(0, 2**64 - 1)
i8 = st.integers(-(2**63), 2**63 - 1)
u4 = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(u8, i8, f8, u8, f4, f4, f4 | st.just(np.nan), u4), min_size=1, max_size=5))
def test_every_value_reads_back_as_it_was(values: list[tuple[Any, ...]]) -> None:
    rows = np.zeros(len(values), PREDICTION)
    for name, column in zip(
        ("seq", "event_ns", "ref_price", "model_id", "p_up", "expected_return_bps", "spread_bps", "flags"),
        zip(*values, strict=True),
        strict=True,
    ):
        rows[name] = column
    symbol = b'A"\\<b>'
    rows["symbol"] = symbol
    texts = encode_predictions(rows, [encode_symbol_name(symbol)] * len(rows))
    for row, text in zip(rows, texts, strict=True):
        item = orjson.loads(text + b"}")
        assert item["symbol"] == symbol.decode()
        for name in ("seq", "event_ns", "ref_price", "horizon_ns", *STAGES):
            assert item[name] == row[name].item()
        for name in ("p_down", "p_flat", "p_up", "expected_return_bps"):
            assert np.float32(item[name]) == row[name]
        if np.isnan(row["spread_bps"]):
            assert item["spread_bps"] is None
        else:
            assert np.float32(item["spread_bps"]) == row["spread_bps"]
        assert int(item["model"], 16) == row["model_id"]
        assert item["warming"] is bool(row["flags"] & 1)


def test_frames_are_cut_where_they_become_long() -> None:
    frames = list(items_frames(PREDICTIONS, False, [b'{"n":%d' % n for n in range(2 * MAX_ITEMS + 1)], "e", 7))
    assert [count for _, count in frames] == [MAX_ITEMS, MAX_ITEMS, 1]
    messages = [orjson.loads(payload(frame)) for frame, _ in frames]
    assert [item["n"] for message in messages for item in message["predictions"]] == list(range(2 * MAX_ITEMS + 1))
    assert all((m["type"], m["epoch"], m["send_ns"]) == ("prediction", "e", 7) for m in messages)


def test_a_message_is_one_text_frame() -> None:
    assert orjson.loads(payload(message_frame({"type": "pong", "id": None}))) == {"type": "pong", "id": None}


def test_a_binary_message_is_opened_with_numpy_in_one_call() -> None:
    rows = np.zeros(MAX_RECORDS + 3, PREDICTION)
    rows["symbol"], rows["seq"], rows["p_up"] = b"AIG", np.arange(len(rows)) + 1, 0.5
    skipped = np.arange(len(rows))
    frames = list(records_frames(PREDICTIONS, True, rows, skipped, "epoch-of-22-characters", 7))
    assert [count for _, count in frames] == [MAX_RECORDS, 3]
    assert FEED_HEADER.itemsize == 64
    data = payload(frames[1][0])
    header = np.frombuffer(data, FEED_HEADER, 1)[0]
    assert (header["magic"], header["version"], header["channel"], header["is_snapshot"]) == (b"TLF1", 1, 1, 1)
    assert (header["count"], header["record_bytes"], header["send_ns"]) == (3, PREDICTION.itemsize, 7)
    assert (header["record_version"], header["epoch"]) == (2, b"epoch-of-22-characters")
    assert (np.frombuffer(data, PREDICTION, 3, 64) == rows[-3:]).all()
    assert np.frombuffer(data, "<u4", 3, 64 + 3 * PREDICTION.itemsize).tolist() == skipped[-3:].tolist()


def test_a_deflated_frame_inflates_to_the_same_and_a_short_one_stays_as_it_is() -> None:
    message = {"type": "prediction", "predictions": [{"symbol": "AIG"}] * 100}
    short, long = Held(message_frame({"type": "pong"})), Held(message_frame(message))
    assert short.deflated() == short.frame
    deflated = long.deflated()
    assert deflated[0] == 0x81 | 0x40  # RSV1: this message is compressed
    data = deflated[PAYLOAD_AT.get(deflated[1], 2) :]
    assert orjson.loads(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data + b"\x00\x00\xff\xff")) == message
    assert len(deflated) < len(long.frame) / 10
