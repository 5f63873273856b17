"""What is new is kept once, whatever comes again; gaps and restarts are counted."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.sequence import Sequencer
from stream.records import PREDICTION, Records


def rows_of(pairs: Sequence[tuple[bytes, int]], first_offset: int | None = None) -> Records:
    """PREDICTION rows of (symbol, seq); the tick's offset is the seq unless a first offset is given."""
    rows = np.zeros(len(pairs), PREDICTION)
    for row, (symbol, seq) in zip(rows, pairs, strict=True):
        row["symbol"], row["seq"], row["source_offset"] = symbol, seq, seq
    if first_offset is not None:
        rows["source_offset"] = np.arange(first_offset, first_offset + len(pairs))
    return rows


def seqs(rows: Records) -> list[tuple[bytes, int]]:
    return list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))


def test_new_rows_pass_untouched_and_in_order() -> None:
    sequencer = Sequencer()
    rows = rows_of([(b"B", 1), (b"A", 1), (b"B", 2), (b"A", 2), (b"A", 3)])
    accepted = sequencer.accept(0, rows)
    assert accepted.rows is rows
    assert accepted.fresh == {b"A", b"B"}
    assert (accepted.duplicates, accepted.missing, accepted.restarts) == (0, 0, 0)
    assert sequencer.symbols == 2


def test_what_comes_again_is_dropped_within_and_across_calls() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 1), (b"A", 2)]))
    accepted = sequencer.accept(0, rows_of([(b"A", 2), (b"A", 3), (b"A", 1), (b"A", 2), (b"A", 3), (b"A", 4)]))
    assert seqs(accepted.rows) == [(b"A", 3), (b"A", 4)]
    assert accepted.duplicates == 4
    assert accepted.missing == 0


def test_a_gap_is_counted_and_what_follows_is_kept() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 7)]))
    accepted = sequencer.accept(0, rows_of([(b"A", 11), (b"A", 12), (b"A", 14)]))
    assert seqs(accepted.rows) == [(b"A", 11), (b"A", 12), (b"A", 14)]
    assert accepted.missing == 4


def test_a_symbol_that_is_met_in_the_middle_has_no_gap() -> None:
    assert Sequencer().accept(0, rows_of([(b"A", 500), (b"A", 501)])).missing == 0


def test_an_engine_that_lost_its_state_is_heard_and_counted() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 998), (b"A", 999)]))
    restarted = rows_of([(b"A", 1), (b"A", 2), (b"A", 2), (b"A", 3)])
    restarted["source_offset"] = [1000, 1001, 1001, 1002]
    accepted = sequencer.accept(0, restarted)
    assert seqs(accepted.rows) == [(b"A", 1), (b"A", 2), (b"A", 3)]
    assert (accepted.restarts, accepted.duplicates, accepted.missing) == (1, 1, 0)
    follows = sequencer.accept(0, rows_of([(b"A", 4)], first_offset=1003))
    assert (len(follows.rows), follows.restarts) == (1, 0)


def test_partitions_do_not_know_of_each_other_and_can_be_forgotten() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 5)]))
    assert sequencer.accept(1, rows_of([(b"A", 5)])).duplicates == 0
    sequencer.forget(0)
    again = sequencer.accept(0, rows_of([(b"A", 5)]))
    assert (again.duplicates, again.fresh) == (0, {b"A"})


def test_nothing_in_gives_nothing_out() -> None:
    accepted = Sequencer().accept(0, rows_of([]))
    assert len(accepted.rows) == 0
    assert accepted.duplicates == 0


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    data=st.data(),
)
def test_a_stream_that_is_cut_and_repeated_anywhere_comes_out_once(lengths: list[int], data: st.DataObject) -> None:
    """Crashes rewind to anywhere; blocks are cut anywhere; each (symbol, seq) comes out once, in order."""
    whole = [(b"S%d" % number, seq) for number, length in enumerate(lengths) for seq in range(1, length + 1)]
    whole.sort(key=lambda pair: pair[1])
    tape: list[tuple[bytes, int]] = []
    at = 0
    for _ in range(data.draw(st.integers(0, 4))):
        crash = data.draw(st.integers(at, len(whole)))
        tape += whole[at:crash]
        at = data.draw(st.integers(0, crash))
    tape += whole[at:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tape)), max_size=6)))
    sequencer, out, duplicates = Sequencer(), [], 0
    for start, stop in zip([0, *cuts], [*cuts, len(tape)], strict=True):
        accepted = sequencer.accept(0, rows_of(tape[start:stop]))
        assert (accepted.missing, accepted.restarts) == (0, 0)
        out += seqs(accepted.rows)
        duplicates += accepted.duplicates
    assert out == whole
    assert duplicates == len(tape) - len(whole)


def test_what_follows_without_a_gap_is_taken_and_remembered() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 7), (b"B", 3)]))
    followed = sequencer.follow(0, rows_of([(b"A", 8), (b"B", 4), (b"A", 9)], first_offset=10))
    assert followed is not None
    assert seqs(followed.rows) == [(b"A", 8), (b"B", 4), (b"A", 9)]
    assert sequencer.accept(0, rows_of([(b"A", 9), (b"A", 10)], first_offset=12)).duplicates == 1


def test_what_came_before_is_left_out_of_what_follows() -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 7), (b"A", 8), (b"B", 3)]))
    followed = sequencer.follow(0, rows_of([(b"A", 7), (b"A", 8), (b"A", 9)]))
    assert followed is not None
    assert (seqs(followed.rows), followed.duplicates) == ([(b"A", 9)], 2)
    again = sequencer.follow(0, rows_of([(b"A", 7), (b"A", 8), (b"A", 9)]))
    assert again is not None
    assert (len(again.rows), again.duplicates) == (0, 3)


@pytest.mark.parametrize(
    "rows",
    [
        rows_of([(b"A", 8), (b"A", 10)]),
        rows_of([(b"A", 9)]),
        rows_of([(b"A", 8), (b"B", 5)]),
        rows_of([(b"A", 8), (b"C", 1)]),
        rows_of([(b"A", 1)], first_offset=900),
    ],
    ids=["a gap within", "a gap before", "a gap of another symbol", "a symbol not met before", "numbered anew"],
)
def test_what_is_ahead_of_what_came_changes_nothing(rows: Records) -> None:
    sequencer = Sequencer()
    sequencer.accept(0, rows_of([(b"A", 7), (b"B", 3)]))
    assert sequencer.follow(0, rows) is None
    assert sequencer.follow(1, rows_of([(b"A", 8)])) is None  # nothing is known of that partition
    accepted = sequencer.accept(0, rows_of([(b"A", 8), (b"B", 4)]))
    assert (len(accepted.rows), accepted.missing, accepted.duplicates) == (2, 0, 0)
