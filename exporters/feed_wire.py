"""The WebSocket frames of the feed: JSON text, or a header and records. Pure.

A message holds one or many predictions:

    {"type":"prediction","epoch":...,"send_ns":...,"predictions":[{"symbol":"AIG","seq":7,...},...]}

Always the same shape, however many are due at once. With 200 due, to send and read one (Python client) takes 1.9 us
in a list and 10.2 us as a message of its own, also when all of those go in one write; and a reader that handles the
list at a low rate handles it at a high one. A frame from a server is not masked: the same bytes go to every client.

A binary message is FEED_HEADER, ``count`` records of ``record_bytes`` each, and (where the flag says so) ``count``
little-endian ``uint32``, how many messages each skipped. ``numpy.frombuffer(message, record, count, 64)`` reads it.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from websockets.frames import Frame, Opcode

from exporters.feed_channels import Channel
from stream.records import Records

# About 230 KiB: clients commonly refuse messages above 1 MiB, and a page draws in between.
MAX_ITEMS: Final = 512
# Of a binary message, about 600 KiB.
MAX_RECORDS: Final = 4096

SNAPSHOT: Final = "snapshot"

FEED_HEADER: Final = np.dtype(
    [
        ("magic", "S4"),
        ("version", "<u2"),
        ("channel", "<u2"),
        ("is_snapshot", "<u2"),
        ("has_skipped", "<u2"),
        ("count", "<u4"),
        ("record_bytes", "<u4"),
        ("record_version", "<u4"),  # 0: of a gateway that did not tell, which is 1
        ("send_ns", "<i8"),
        ("epoch", "S32"),
    ]
)
FEED_MAGIC: Final = b"TLF1"
FEED_VERSION: Final = 1
# Shorter messages do not become shorter.
_WORTH_DEFLATING_BYTES: Final = 128
_RSV1: Final = 0x40  # of the first byte of a frame: this message is compressed


class Held:
    """A frame, and what it holds; shared by all clients that get it."""

    __slots__ = ("_deflated", "frame", "items", "last")

    def __init__(self, frame: bytes, items: int = 0, last: tuple[bytes, int] | None = None) -> None:
        """Hold a frame.

        Args:
            frame: a whole WebSocket frame.
            items: how many messages of a channel are in it.
            last: symbol and seq of the last of them.
        """
        self.frame, self.items, self.last = frame, items, last
        self._deflated: bytes | None = None

    def deflated(self) -> bytes:
        """Return the frame compressed on its own (permessage-deflate without context), made once for all."""
        if self._deflated is None:
            self._deflated = _deflate(self.frame)
        return self._deflated


def message_frame(message: Mapping[str, Any]) -> bytes:
    """Return the WebSocket frame of one message."""
    return _text(orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))


def items_frames(
    channel: Channel, is_snapshot: bool, items: Sequence[bytes], epoch: str | None, send_ns: int
) -> Iterator[tuple[bytes, int]]:
    """Yield frames that hold JSON objects, given without their closing braces, and how many are in each."""
    kind = b'snapshot","channel":"%b' % channel.name.encode() if is_snapshot else channel.name.encode()
    head = b'{"type":"%b","epoch":%b,"send_ns":%d,"%b":[' % (
        kind,
        orjson.dumps(epoch),
        send_ns,
        channel.plural.encode(),
    )
    most = MAX_ITEMS // channel.weight
    for start in range(0, len(items), most):
        part = items[start : start + most]
        yield _text(b"%b%b}]}" % (head, b"},".join(part))), len(part)


def records_frames(
    channel: Channel,
    is_snapshot: bool,
    rows: Records,
    skipped: NDArray[np.int64] | None,
    epoch: str | None,
    send_ns: int,
) -> Iterator[tuple[bytes, int]]:
    """Yield frames that hold records, and how many are in each."""
    most = MAX_RECORDS // channel.weight
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        header = np.zeros(1, FEED_HEADER)
        header["magic"], header["version"], header["channel"] = FEED_MAGIC, FEED_VERSION, channel.number
        header["is_snapshot"], header["has_skipped"] = is_snapshot, skipped is not None
        header["count"], header["record_bytes"] = len(part), channel.dtype.itemsize
        header["record_version"] = channel.record_version
        header["send_ns"], header["epoch"] = send_ns, b"" if epoch is None else epoch.encode()
        counts = b"" if skipped is None else skipped[start : start + most].astype("<u4").tobytes()
        data = header.tobytes() + part.tobytes() + counts
        yield Frame(Opcode.BINARY, data).serialize(mask=False), len(part)


def _text(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)


def _deflate(frame: bytes) -> bytes:
    data = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    if len(data) < _WORTH_DEFLATING_BYTES:
        return frame  # RFC 7692: whether a message is compressed is said by the message
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    short = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    plain = Frame(Opcode(frame[0] & 0x0F), short[:-4]).serialize(mask=False)
    return bytes([plain[0] | _RSV1]) + plain[1:]
