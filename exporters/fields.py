"""Prediction rows as text for Redis: a JSON object, and the values of a hash. Made by columns, 3 us a row for both.

Numbers are numbers; identities that need all 64 bits are 16 hexadecimal digits, because readers with doubles would
round them.
"""

from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.records import Records

# `source` is PARTITION:OFFSET:INDEX of the tick. The script that writes them compares the first two, and writes the
# last three only where they change: most of what it costs the server goes by fields.
HASH_FIELDS: Final = (
    *("seq", "source", "event_ns", "ref_price", "p_down", "p_flat", "p_up", "expected_return_bps", "published_ns"),
    *("model_id", "horizon_ns", "flags"),
)
_MESSAGE: Final = (
    b'{"symbol":%b,"seq":%d,"event_ns":%d,"ref_price":%b,"horizon_ns":%d,"p_down":%b,"p_flat":%b,"p_up":%b,'
    b'"expected_return_bps":%b,"spread_bps":%b,"model_id":"%b","feature_hash":"%b","flags":%d,'
    b'"source_partition":%d,"source_offset":%d,"source_index":%d,"recv_ns":%d,"consumed_ns":%d,"features_ns":%d,"inferred_ns":%d,'
    b'"published_ns":%d}'
)
MESSAGE_FIELDS: Final = (
    *("symbol", "seq", "event_ns", "ref_price", "horizon_ns", "p_down", "p_flat", "p_up", "expected_return_bps"),
    *("spread_bps", "model_id", "feature_hash", "flags", "source_partition", "source_offset", "source_index"),
    *("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns"),
)
_VALUES: Final = b"%d %d:%d:%d %d %b %b %b %b %b %d %b %d %d"
_VALUE_FIELDS: Final = (
    *("seq", "source_partition", "source_offset", "source_index"),
    *("event_ns", "ref_price", "p_down", "p_flat", "p_up", "expected_return_bps", "published_ns"),
    *("model_id", "horizon_ns", "flags"),
)


def prediction_texts(rows: Records) -> tuple[list[bytes], list[bytes]]:
    """Return ``PREDICTION[N]`` as JSON objects, and as values of HASH_FIELDS with spaces between.

    All numbers are finite, as `exporters.intake` sees to, but ``spread_bps``: null where it is NaN.
    """
    columns = {name: _column(rows, name) for name in MESSAGE_FIELDS}
    messages = zip(*(columns[name] for name in MESSAGE_FIELDS), strict=True)
    values = zip(*(columns[name] for name in _VALUE_FIELDS), strict=True)
    return [_MESSAGE % row for row in messages], [_VALUES % row for row in values]


def decimals(numbers: NDArray[Any]) -> list[bytes]:
    """Return the shortest text that reads back to the same float32 or float64, of each; null of NaN."""
    if len(numbers) == 0:
        return []
    return orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def _column(rows: Records, name: str) -> list[Any]:
    column = rows[name]
    if name == "symbol":
        return [orjson.dumps(symbol.decode("ascii")) for symbol in column.tolist()]
    if name in ("model_id", "feature_hash"):
        return [b"%016x" % value for value in column.tolist()]
    return decimals(column) if column.dtype.kind == "f" else column.tolist()
