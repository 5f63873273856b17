"""Binary messages are read as they were made, by clients older and newer than the gateway, or refused in words."""

import numpy as np
import pytest

from exporters.client.frames import decode_events, decode_records
from exporters.feed_channels import CHANNELS
from exporters.feed_wire import FEED_HEADER, records_frames
from stream.errors import FeedError
from stream.records import PREDICTION, Records


def rows(count: int = 3, dtype: "np.dtype[np.void]" = PREDICTION) -> Records:
    made = np.zeros(count, dtype)
    made["symbol"], made["seq"] = b"AIG", np.arange(1, count + 1)
    return made


def message(made: Records, skipped: list[int] | None = None) -> bytes:
    counts = None if skipped is None else np.array(skipped, np.int64)
    ((frame, _),) = records_frames(CHANNELS["prediction"], True, made, counts, "epoch", 7)
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def test_records_are_a_view_on_the_message() -> None:
    batch = decode_records(message(rows(), [0, 5, 2]), "ws://here")
    assert batch is not None
    assert (batch.channel, batch.is_snapshot, batch.epoch, batch.send_ns) == ("prediction", True, "epoch", 7)
    assert batch.records.tobytes() == rows().tobytes()
    assert not batch.records.flags.owndata
    assert not batch.records.flags.writeable
    assert batch.skipped is not None
    assert batch.skipped.tolist() == [0, 5, 2]
    assert [row["skipped"] for row in batch.rows()] == [0, 5, 2]


def test_records_that_a_newer_gateway_has_made_longer_are_read_as_far_as_they_are_known() -> None:
    longer = np.dtype([*PREDICTION.descr, ("new", "<f8")])
    raw = bytearray(message(rows()))
    header = np.frombuffer(raw, FEED_HEADER, 1)
    header["record_bytes"] = longer.itemsize
    made = np.zeros(3, longer)
    for name in PREDICTION.names or ():
        made[name] = rows()[name]
    batch = decode_records(bytes(raw[: FEED_HEADER.itemsize]) + made.tobytes(), "ws://here")
    assert batch is not None
    assert batch.records["seq"].tolist() == [1, 2, 3]
    assert [row["symbol"] for row in batch.rows()] == ["AIG"] * 3


def test_an_older_gateway_tells_no_spread_and_none_is_not_a_locked_book() -> None:
    made = rows()
    made["spread_bps"] = (0.0, 2.5, np.nan)
    batch = decode_records(message(made), "ws://here")
    assert batch is not None
    assert [row["spread_bps"] for row in batch.rows()] == [0.0, 2.5, None]
    raw = bytearray(message(rows(), [0, 5, 2]))  # what is the spread now was 0 then, in record and header
    np.frombuffer(raw, FEED_HEADER, 1)["record_version"] = 0
    batch = decode_records(bytes(raw), "ws://here")
    assert batch is not None
    assert [row["spread_bps"] for row in batch.rows()] == [None] * 3
    assert [row["skipped"] for row in batch.rows()] == [0, 5, 2]
    assert batch.records["seq"].tolist() == [1, 2, 3]
    assert not batch.records.flags.writeable


def test_a_channel_that_is_not_known_is_left_alone() -> None:
    raw = bytearray(message(rows()))
    np.frombuffer(raw, FEED_HEADER, 1)["channel"] = 999
    assert decode_records(bytes(raw), "ws://here") is None
    assert decode_events({"type": "news", "items": []}, "ws://here") is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("magic", b"NOPE", "begins with b'TLF1'"),
        ("version", 2, "version 1"),
        ("record_bytes", 8, "3 records of 8 bytes"),
        ("count", 4, "4 records of"),
        ("count", 0, "0 records of"),
    ],
)
def test_a_message_that_does_not_add_up_is_refused(field: str, value: object, words: str) -> None:
    raw = bytearray(message(rows()))
    np.frombuffer(raw, FEED_HEADER, 1)[field] = value
    with pytest.raises(FeedError, match=words):
        decode_records(bytes(raw), "ws://here")


def test_a_gateway_that_is_older_is_refused_in_words() -> None:
    raw = bytearray(message(rows())[: FEED_HEADER.itemsize])
    np.frombuffer(raw, FEED_HEADER, 1)["record_bytes"] = 8
    with pytest.raises(FeedError, match="the gateway is older; update it first"):
        decode_records(bytes(raw) + b"\0" * 24, "ws://here")
    with pytest.raises(FeedError, match="this has 10"):
        decode_records(b"x" * 10, "ws://here")
