"""One answer in several forms, by the client's ``Accept``: JSON, an Arrow stream, or Parquet; gzip where wanted.

Times in JSON are text in ISO 8601 with all nine digits, as a double would round them; NaN is null. Arrow and
Parquet have them as ``timestamp[ns, UTC]``.
"""

import gzip
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from starlette.requests import Request
from starlette.responses import Response

from exporters.rest.caching import not_modified
from exporters.rest.problems import NOT_ACCEPTABLE, Problem

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
TABLE_FORMS: Final = (JSON, ARROW, PARQUET)

_COMPRESSED_FROM_BYTES: Final = 1024
_GZIP_LEVEL: Final = 1  # half the time of the default level, 10 % more bytes
# What an answer depends on besides its address.
VARY: Final = "Accept, Accept-Encoding, Authorization"


@dataclass(frozen=True)
class Body:
    """An answer as it goes over the wire."""

    data: bytes
    media_type: str
    etag: str
    gzipped: bool


@dataclass(frozen=True)
class Wanted:
    """The form that a client wants."""

    media_type: str
    gzip: bool

    def body(self, data: bytes) -> Body:
        """Return the answer's body, compressed where that was wanted and is worth it."""
        # Parquet is compressed already.
        zipped = self.gzip and self.media_type != PARQUET and len(data) >= _COMPRESSED_FROM_BYTES
        etag = hashlib.blake2b(data, digest_size=16).hexdigest()
        if zipped:
            data = gzip.compress(data, _GZIP_LEVEL, mtime=0)
        return Body(data, self.media_type, f'"{etag}{"-gzip" if zipped else ""}"', zipped)


def wanted(request: Request, forms: Sequence[str] = (JSON,)) -> Wanted:
    """Return the form that the client likes best.

    Args:
        request: with ``Accept`` and ``Accept-Encoding``.
        forms: what there is; the first is for who likes all the same.

    Raises:
        Problem: it likes none of them.
    """
    accept = _weights(request.headers.get("accept", "*/*"))
    liked = {form: _weight_of(form, accept) for form in forms}
    best = max(forms, key=lambda form: liked[form])
    if liked[best] <= 0:
        seen = request.headers.get("accept", "")[:200]
        raise Problem(NOT_ACCEPTABLE, f"Accept is {seen!r}; there is {', '.join(forms)}")
    encodings = _weights(request.headers.get("accept-encoding", ""))
    return Wanted(best, encodings.get("gzip", encodings.get("*", 0.0)) > 0)


def _weights(header: str) -> dict[str, float]:
    found = {}
    for part in header.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                weight = _number(value)
        if name:
            found[name.lower()] = weight
    return found


def _number(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def _weight_of(form: str, accept: Mapping[str, float]) -> float:
    for name in (form, f"{form.partition('/')[0]}/*", "*/*"):
        if name in accept:
            return accept[name]
    return 0.0


def respond(request: Request, body: Body, headers: Mapping[str, str]) -> Response:
    """Return the answer, or 304 where the client has it already."""
    headers = {"ETag": body.etag, "Vary": VARY, **headers}
    if body.gzipped:
        headers["Content-Encoding"] = "gzip"
    return not_modified(request, headers) or Response(body.data, headers=headers, media_type=body.media_type)


def respond_json(request: Request, value: Any, headers: Mapping[str, str]) -> Response:
    """Return a value as JSON."""
    return respond(request, wanted(request).body(dump_json(value)), headers)


def dump_json(value: Any) -> bytes:
    """Return JSON; float32 values as short as they are, NaN as null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_table(table: pa.Table, media_type: str) -> bytes:
    """Return a table as an Arrow stream or as Parquet."""
    sink = io.BytesIO()
    if media_type == PARQUET:
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table as rows that `dump_json` takes."""
    names = table.column_names
    columns = [_plain(column) for column in table.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(column: Any) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind) and column.null_count == 0:
        return list(map("{}Z".format, np.datetime_as_string(column.to_numpy(), unit=kind.unit).tolist()))
    if pa.types.is_float32(kind) and column.null_count == 0:
        return list(column.to_numpy())
    plain: list[Any] = column.to_pylist()
    if pa.types.is_nested(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind):
        return [_json_value(value) for value in plain]
    return plain


def _json_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float | bool | None) else str(value)
