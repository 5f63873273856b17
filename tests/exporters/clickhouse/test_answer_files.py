"""Answers in files are whole or not there, and lose nothing that the format can hold."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from exporters.clickhouse.answer_files import write_csv, write_csv_file, write_json, write_parquet
from exporters.clickhouse.complaints import QueryCancelled
from stream.errors import SinkUnavailable

SCHEMA = pa.schema(
    [
        ("id", pa.uint64()),
        ("at", pa.timestamp("ns", "UTC")),
        ("x", pa.float64()),
        ("s", pa.string()),
        ("a", pa.list_(pa.float64())),
    ]
)
ROWS = {
    "id": [2**64 - 1, 0],
    "at": [1_700_000_000_123_456_789, None],
    "x": [float("nan"), 1 / 3],
    "s": ['say "hi", twice', None],
    "a": [[1.5, float("nan")], None],
}
BATCH = pa.RecordBatch.from_pydict(ROWS, SCHEMA)


def test_csv_has_a_head_and_quotes_what_needs_it() -> None:
    out = io.BytesIO()
    assert write_csv(SCHEMA, [BATCH, BATCH], out) == 4
    lines = out.getvalue().decode().splitlines()
    assert lines[0] == '"id","at","x","s","a"'
    assert lines[1] == '18446744073709551615,"2023-11-14 22:13:20.123456789Z",nan,"say ""hi"", twice","[1.5,null]"'
    assert lines[2] == "0,,0.3333333333333333,,"
    assert lines[3:] == lines[1:3]


def test_json_is_one_object_a_line_that_any_parser_reads() -> None:
    out = io.BytesIO()
    assert write_json(SCHEMA, [BATCH], out) == 2
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {
        "id": 2**64 - 1,
        "at": "2023-11-14 22:13:20.123456789Z",
        "x": None,
        "s": ROWS["s"][0],
        "a": [1.5, None],
    }
    assert second == {"id": 0, "at": None, "x": 1 / 3, "s": None, "a": None}


def test_parquet_has_the_same_values_and_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert write_parquet(SCHEMA, [BATCH] * 3, path) == 6
    got = pq.read_table(path)
    assert got.schema.equals(SCHEMA)
    assert str(got.to_pylist()) == str(pa.Table.from_batches([BATCH] * 3).to_pylist())
    assert pq.ParquetFile(path).metadata.num_row_groups == 1


@pytest.mark.parametrize("write", [write_parquet, write_csv_file])
def test_an_answer_that_breaks_off_leaves_no_file_and_not_the_old_one_in_pieces(tmp_path: Path, write: Any) -> None:
    def breaks_off() -> Iterator[Any]:
        yield BATCH
        raise QueryCancelled("cancelled")

    path = tmp_path / "a"
    path.write_text("the old one")
    with pytest.raises(QueryCancelled):
        write(SCHEMA, breaks_off(), path)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["the old one"]
    with pytest.raises(SinkUnavailable, match="cannot write"):
        write(SCHEMA, [BATCH], tmp_path / "no" / "such" / "folder")
