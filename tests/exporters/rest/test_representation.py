import gzip

import numpy as np
import orjson
import pyarrow as pa
import pytest
from starlette.requests import Request

from exporters.rest.problems import NOT_ACCEPTABLE, Problem
from exporters.rest.representation import ARROW, JSON, PARQUET, TABLE_FORMS, Wanted, dump_json, rows_of, wanted


def asking(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw})


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", JSON),
        ("", JSON),
        (ARROW, ARROW),
        (f"{PARQUET};q=0.9, {JSON};q=0.1", PARQUET),
        (f"{JSON};q=0, */*", ARROW),
        ("application/*;q=0.5, text/html", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
    ],
)
def test_the_client_gets_the_form_that_it_likes_best(accept: str, form: str) -> None:
    request = asking(accept=accept) if accept else asking()
    assert wanted(request, TABLE_FORMS).media_type == form


@pytest.mark.parametrize("accept", ["text/csv", f"{JSON};q=0", "application/json;q=no"])
def test_a_form_that_there_is_not_is_refused_with_those_that_there_are(accept: str) -> None:
    with pytest.raises(Problem) as refused:
        wanted(asking(accept=accept))
    assert refused.value.kind is NOT_ACCEPTABLE
    assert JSON in refused.value.detail


def test_what_is_compressed_is_the_same_and_has_a_tag_of_its_own() -> None:
    data = b"tick " * 1000
    plain, zipped = Wanted(JSON, gzip=False).body(data), Wanted(JSON, gzip=True).body(data)
    assert gzip.decompress(zipped.data) == plain.data == data
    assert len(zipped.data) < len(data) / 10
    assert plain.etag != zipped.etag
    assert not Wanted(JSON, gzip=True).body(b"short").gzipped
    assert not Wanted(PARQUET, gzip=True).body(data).gzipped


def test_rows_keep_nanoseconds_and_short_floats_and_have_null_for_what_is_not_there() -> None:
    table = pa.table(
        {
            "time": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
            "p": pa.array(np.array([0.1], np.float32)),
            "nothing": pa.array([float("nan")]),
            "missing": pa.array([None], pa.float64()),
            "list": pa.array([[1.5, None]]),
            "bytes": pa.array([b"\xff"]),
        }
    )
    [row] = orjson.loads(dump_json(rows_of(table)))
    assert row == {
        "time": "2023-11-14T22:13:20.123456789Z",
        "p": 0.1,
        "nothing": None,
        "missing": None,
        "list": [1.5, None],
        "bytes": "\ufffd",
    }
