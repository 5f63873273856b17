"""From the bytes of a WebSocket message to records: one ``numpy.frombuffer``. Pure."""

import functools
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from exporters.client.items import Batch
from exporters.feed_channels import CHANNELS, EVENT, Channel
from exporters.feed_wire import FEED_HEADER, FEED_MAGIC, FEED_VERSION
from stream.errors import FeedError
from stream.records import PREDICTION

# FEED_HEADER; to take it apart with numpy costs ten times as much.
_HEADER: Final = struct.Struct("<4sHHHHIIIq32s")
_BY_NUMBER: Final = {channel.number: channel for channel in CHANNELS.values()}
_SKIPPED_BYTES: Final = 4


def decode_records(message: bytes, url: str) -> Batch | None:
    """Return the records of a binary message, read-only and without a copy.

    Records that a newer gateway has made longer are read as far as we know them; what an older one does not tell of
    a prediction is NaN.

    Args:
        message: one whole message.
        url: where it comes from.

    Returns:
        None for a channel that we do not know.

    Raises:
        FeedError: it is not a message of the feed, or of a version that we do not read.
    """
    if len(message) < FEED_HEADER.itemsize:
        raise FeedError(f"a binary message has a header of {FEED_HEADER.itemsize} bytes; this has {len(message)}")
    magic, version, number, is_snapshot, has_skipped, count, record_bytes, record_version, send_ns, epoch = (
        _HEADER.unpack_from(message)
    )
    if magic != FEED_MAGIC or version != FEED_VERSION:
        raise FeedError(f"a message begins with {FEED_MAGIC!r} and version {FEED_VERSION}; not {message[:6]!r}")
    channel = _BY_NUMBER.get(number)
    if channel is None:
        return None
    size = FEED_HEADER.itemsize + count * (record_bytes + (_SKIPPED_BYTES if has_skipped else 0))
    if len(message) != size or count == 0:
        raise FeedError(f"{count} records of {record_bytes} bytes make {size} bytes; this has {len(message)}")
    records = np.frombuffer(message, _layout(channel, record_bytes), count, FEED_HEADER.itemsize)
    if record_version < channel.record_version and channel.dtype is PREDICTION:
        records = records.copy()
        records["spread_bps"] = np.nan  # an older gateway has 0 there, which would be a locked book
        records.flags.writeable = False
    skipped = None
    if has_skipped:
        skipped = np.frombuffer(message, "<u4", count, FEED_HEADER.itemsize + count * record_bytes)
    text = epoch.rstrip(b"\0").decode("ascii")
    return Batch(channel.name, records, bool(is_snapshot), skipped, text, send_ns, url)


def decode_events(message: Mapping[str, Any], url: str) -> Batch | None:
    """Return the events of a JSON message, for channels that have no binary form: ``EVENT[N]``.

    Returns:
        None for a message that is none of these.
    """
    is_snapshot = message["type"] == "snapshot"
    channel = CHANNELS.get(message["channel"] if is_snapshot else message["type"])
    if channel is None or channel.dtype is not EVENT or not message.get("events"):
        return None
    events = message["events"]
    records = np.zeros(len(events), EVENT)
    for name in ("seq", "prev", "at_ns"):
        records[name] = [event[name] for event in events]
    records["symbol"] = [event["symbol"].encode() for event in events]
    for name in ("event", "details"):
        records[name] = [orjson.dumps(event[name]) for event in events]
    skipped = None
    if "skipped" in events[0]:
        skipped = np.array([event["skipped"] for event in events], np.uint32)
    return Batch(channel.name, records, is_snapshot, skipped, message["epoch"] or "", message["send_ns"], url)


@functools.cache
def _layout(channel: Channel, record_bytes: int) -> np.dtype[np.void]:
    known = channel.dtype
    if record_bytes == known.itemsize:
        return known
    if record_bytes < known.itemsize:
        raise FeedError(
            f"the gateway's records of {channel.name} have {record_bytes} bytes, and this client reads "
            f"{known.itemsize}: the gateway is older; update it first"
        )
    fields = [(name, *known.fields[name][:2]) for name in known.names]  # type: ignore[index, union-attr]
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": record_bytes})
