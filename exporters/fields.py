"""Prediction rows as named values that read the same in JSON, in Redis and in a log."""

from typing import Any, Final

from stream.records import Records

# In the order they are written. Numbers are numbers; identities that need all 64 bits are 16 hexadecimal digits,
# because readers with doubles would round them.
FIELDS: Final = (
    "symbol",
    "seq",
    "event_ns",
    "ref_price",
    "horizon_ns",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "model_id",
    "feature_hash",
    "flags",
    "source_partition",
    "source_offset",
    "source_index",
    "recv_ns",
    "consumed_ns",
    "features_ns",
    "inferred_ns",
    "published_ns",
)
_HEXADECIMAL: Final = ("model_id", "feature_hash")


def prediction_fields(rows: Records, names: tuple[str, ...] = FIELDS) -> list[dict[str, Any]]:
    """Return one dict for each of ``PREDICTION[N]``, with ``names`` as its keys, in order.

    float32 values stay ``np.float32``: their shortest text is shorter than that of the same number as a double.
    """
    columns = [_column(rows, name) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(rows: Records, name: str) -> list[Any]:
    column = rows[name]
    if name == "symbol":
        return column.astype("U").tolist()  # type: ignore[no-any-return]
    if name in _HEXADECIMAL:
        return [f"{value:016x}" for value in column.tolist()]
    if column.dtype.itemsize == 4 and column.dtype.kind == "f":
        return list(column)
    return column.tolist()  # type: ignore[no-any-return]
