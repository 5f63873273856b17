"""Records as Parquet, and back."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.archive.columns import RECORDS, Block, block_bytes, is_storable, to_blocks, to_parquet, to_table
from exporters.archive.reading import join_tables
from stream.errors import ArchiveError
from stream.records import PREDICTION, Records, decode_block, encode_block
from stream.topics import PREDICTIONS, TICKS


def texts(dtype: np.dtype) -> list[tuple[int, int]]:
    """Offset and length of each text of a record."""
    found = []
    for name in dtype.names or ():
        field, start = dtype.fields[name][:2]
        if field.names is not None:
            found += [(start + inner, size) for inner, size in texts(field)]
        elif field.kind == "S":
            found.append((start, field.itemsize))
    return found


@given(data=st.data(), topic=st.sampled_from(sorted(RECORDS)))
def test_any_bytes_with_texts_of_ascii_come_back_to_the_bit(data: st.DataObject, topic: str) -> None:
    dtype = RECORDS[topic]
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    newest = 2 if topic == PREDICTIONS else 1
    raw = np.frombuffer(
        data.draw(st.randoms(use_true_random=False)).randbytes(sum(counts) * dtype.itemsize), np.uint8
    )
    raw = raw.reshape(-1, dtype.itemsize).copy()
    for start, size in texts(dtype):
        text = data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=size)).encode()
        raw[:, start : start + size] = np.frombuffer(text.ljust(size, b"\0"), np.uint8)
    rows = raw.reshape(-1).view(dtype)
    assert is_storable(rows)
    stops = np.cumsum(counts)
    blocks = [
        read_block(rows[stop - count : stop], 10 * at, 77 + at, data.draw(st.integers(1, newest)))
        for at, (stop, count) in enumerate(zip(stops, counts, strict=True))
    ]
    table, days = to_table(topic, "epoch", 3, blocks)
    assert len(days) == len(rows)
    back = list(to_blocks(topic, pq.read_table(io.BytesIO(to_parquet(table)))))
    assert [(each.offset, each.timestamp_ms) for each in back] == [(b.offset, b.timestamp_ms) for b in blocks]
    assert [block_bytes(each) for each in back] == [block_bytes(block) for block in blocks]
    assert b"".join(each.rows.tobytes() for each in back) == b"".join(block.rows.tobytes() for block in blocks)


def read_block(rows: Records, offset: int, timestamp_ms: int, version: int) -> Block:
    message = encode_block(rows, version)
    block = Block(offset, timestamp_ms, decode_block(message, rows.dtype), version)
    assert block_bytes(block) == message
    return block


def test_predictions_from_before_spreads_come_back_as_they_were_whatever_the_file_is_of() -> None:
    rows = np.zeros(3, PREDICTION)
    rows["symbol"], rows["spread_bps"] = b"AIG", (0.0, np.nan, 2.5)
    old, new = read_block(rows, 4, 1, 1), read_block(rows, 5, 1, 2)
    of_old, _ = to_table(PREDICTIONS, "epoch", 0, [old])
    of_new, _ = to_table(PREDICTIONS, "epoch", 0, [new])
    assert of_old["spread_bps"].null_count == 3
    assert of_new["spread_bps"].null_count == 0, "NaN says that there was no quote"
    # As it was written then.
    place = of_old.column_names.index("spread_bps")
    from_then = of_old.set_column(place, "reserved", pa.array(np.zeros(3, np.int32)))
    for first in (of_old, from_then):
        joined = join_tables([first, of_new]).unify_dictionaries()
        back = list(to_blocks(PREDICTIONS, pq.read_table(io.BytesIO(to_parquet(joined)))))
        assert [block_bytes(block) for block in back] == [block_bytes(old), block_bytes(new)]
    assert [block_bytes(block) for block in to_blocks(PREDICTIONS, from_then)] == [block_bytes(old)]


@pytest.mark.parametrize("symbol", [b"\xff\xfe", b"A\0B"])
def test_a_text_that_would_not_come_back_is_not_storable(symbol: bytes) -> None:
    rows = np.zeros(2, RECORDS[TICKS])
    assert is_storable(rows)
    rows.view(np.uint8).reshape(2, -1)[1, : len(symbol)] = np.frombuffer(symbol, np.uint8)
    assert not is_storable(rows)


def test_rows_that_are_missing_are_told() -> None:
    rows = np.zeros(5, RECORDS[TICKS])
    table, _ = to_table(TICKS, "epoch", 0, [Block(4, 1, rows)])
    with pytest.raises(ArchiveError, match="rows of the block 4 of ticks are missing"):
        list(to_blocks(TICKS, table.slice(1)))
    with pytest.raises(ArchiveError, match="lacks a column"):
        list(to_blocks(TICKS, table.drop_columns(["bid"])))
