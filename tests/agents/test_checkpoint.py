"""A checkpoint that is not whole is recognised."""

import numpy as np
import pytest

from agents.checkpoint import MARKER, NO_BLOCK, LastBlock, Recovered, is_marker, is_newer, marker_row, newest_of
from agents.state import STATE, STATE_VERSION
from stream.errors import UnknownVersion


def states(*seen: tuple[bytes, int, int]) -> np.ndarray:
    rows = np.zeros(len(seen), STATE)
    rows["version"] = STATE_VERSION
    for row, (symbol, seq, offset) in zip(rows, seen, strict=True):
        row["symbol"], row["seq"], row["offset"] = symbol, seq, offset
    return rows


def table(rows: np.ndarray, next_offset: int = 10) -> dict[bytes, bytes]:
    return {bytes(row["symbol"]): row.tobytes() for row in rows} | dict([marker_row(2, next_offset, rows)])


def test_a_whole_checkpoint_is_whole() -> None:
    rows = states((b"A", 5, 7), (b"B", 3, 9))
    recovered = Recovered(2, table(rows))
    assert recovered.why_not_whole(10) is None
    assert recovered.why_not_whole(4) is None  # the commit may come after it
    assert sorted(recovered.rows) == sorted(row.tobytes() for row in rows)
    assert recovered.newest_offset() == 9


def test_rows_may_be_newer_than_their_marker() -> None:
    rows = table(states((b"A", 5, 7), (b"B", 3, 9)))
    rows[b"A"] = states((b"A", 6, 12))[0].tobytes()
    rows[b"C"] = states((b"C", 1, 12))[0].tobytes()
    assert Recovered(2, rows).why_not_whole(10) is None


@pytest.mark.parametrize("replaced", [None, states((b"A", 4, 6))[0].tobytes()])
def test_a_row_that_is_missing_or_old_is_seen(replaced: bytes | None) -> None:
    rows = table(states((b"A", 5, 7), (b"B", 3, 9)))
    del rows[b"A"]
    if replaced is not None:
        rows[b"A"] = replaced
    assert "the last checkpoint is of 2 symbols, 8 ticks" in str(Recovered(2, rows).why_not_whole(10))


def test_a_commit_beyond_the_last_checkpoint_is_seen() -> None:
    assert "offset 11 was committed, but the last checkpoint is of 10" in str(
        Recovered(2, table(states((b"A", 5, 7)))).why_not_whole(11)
    )
    assert "there is no checkpoint" in str(Recovered(2, {}).why_not_whole(11))
    assert Recovered(2, {}).why_not_whole(None) is None


def test_the_newest_row_counts_however_late_an_older_one_was_written() -> None:
    old, new = states((b"A", 5, 7))[0].tobytes(), states((b"A", 9, 8))[0].tobytes()
    assert newest_of([(b"A", old), (b"A", new), (b"A", old)]) == {b"A": new}
    assert newest_of([(b"A", new), (b"A", None)]) == {}
    (key, older), (_, newer) = marker_row(2, 10, states()), marker_row(2, 11, states())
    assert is_newer(newer, older)
    assert not is_newer(older, newer)
    assert is_marker(key)
    assert not is_marker(b"A")


def test_a_marker_of_another_version_is_refused() -> None:
    rows = table(states((b"A", 5, 7)))
    key = next(filter(is_marker, rows))
    other = np.frombuffer(rows[key], MARKER).copy()
    other["version"] = 9
    rows[key] = other.tobytes()
    with pytest.raises(UnknownVersion, match="marker of version 9"):
        Recovered(2, rows)


def test_a_checkpoint_knows_the_last_block_before_it() -> None:
    rows = states((b"A", 5, 7))
    last = LastBlock.of(9, b"block")
    key, value = marker_row(2, 10, rows, last)
    assert Recovered(2, {key: value}).last_block() == last
    assert last != LastBlock.of(9, b"another block")
    assert Recovered(2, {}).last_block() == NO_BLOCK == Recovered(2, table(rows)).last_block()
