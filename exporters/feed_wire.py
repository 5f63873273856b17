"""How predictions look on the feed: JSON text, made by columns, and the WebSocket frames around it. Pure.

A message holds one or many predictions:

    {"type":"prediction","send_ns":...,"predictions":[{"symbol":"AIG","seq":7,...,"published_ns":...},...]}

Always the same shape, however many are due at once. With 200 due, to send and read one (Python client) takes 1.9 us
in a list and 10.2 us as a message of its own, also when all of those go in one write; and a reader that handles the
list at a low rate handles it at a high one. A frame from a server is not masked: the same bytes go to every client.

Numbers that end in ``_ns`` are integers above 2**53: a reader with doubles (JavaScript) sees them to 256 ns.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from websockets.frames import Frame, Opcode

from stream.records import FLAG_WARMING, Records

# About 230 KiB: clients commonly refuse messages above 1 MiB, and a page draws in between.
MAX_ITEMS: Final = 512

_ITEM: Final = (
    b'{"symbol":%b,"seq":%d,"event_ns":%d,"ref_price":%b,"horizon_ns":%d,"p_down":%b,"p_flat":%b,"p_up":%b,'
    b'"expected_return_bps":%b,"model":"%016x","warming":%b,"recv_ns":%d,"consumed_ns":%d,"features_ns":%d,'
    b'"inferred_ns":%d,"published_ns":%d'
)
_BEFORE_PRICE: Final = ("seq", "event_ns")
_STAMPS: Final = ("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")
_PROBABILITIES: Final = ("p_down", "p_flat", "p_up", "expected_return_bps")
_BOOL: Final = (b"false", b"true")


def encode_items(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``PREDICTION[N]`` as a JSON object without its closing brace, so that a field can follow.

    About 2 us each; ``orjson.dumps`` of a dict with numpy scalars takes 8.

    Args:
        rows: all numbers are finite.
        names: the symbol of each row as JSON text, quotes and all.
    """
    warming = [_BOOL[flag] for flag in (rows["flags"] & FLAG_WARMING).tolist()]
    columns = [
        names,
        *(rows[name].tolist() for name in _BEFORE_PRICE),
        _decimals(rows["ref_price"]),
        rows["horizon_ns"].tolist(),
        *(_decimals(rows[name]) for name in _PROBABILITIES),
        rows["model_id"].tolist(),
        warming,
        *(rows[name].tolist() for name in _STAMPS),
    ]
    return [_ITEM % values for values in zip(*columns, strict=True)]


def _decimals(numbers: NDArray[Any]) -> list[bytes]:
    """The shortest text that reads back to the same float32 or float64, of each."""
    return orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def encode_symbol_name(symbol: bytes) -> bytes:
    """Return a symbol as JSON text, with quotes."""
    return orjson.dumps(symbol.decode("ascii"))


def message_frame(message: dict[str, Any]) -> bytes:
    """Return the WebSocket frame of one message."""
    return _frame(orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))


def items_frames(kind: bytes, items: Sequence[bytes], send_ns: int) -> Iterator[tuple[bytes, int]]:
    """Yield frames that hold whole JSON objects, and how many are in each."""
    for start in range(0, len(items), MAX_ITEMS):
        part = items[start : start + MAX_ITEMS]
        text = b'{"type":"%b","send_ns":%d,"predictions":[%b]}' % (kind, send_ns, b",".join(part))
        yield _frame(text), len(part)


def _frame(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)
