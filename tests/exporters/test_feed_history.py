"""The history holds the newest rows, knows from where on a symbol can be resumed, and says so truly."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporters.feed_board import Board
from exporters.feed_channels import CHANNELS
from exporters.feed_history import History, Segment
from stream.records import PREDICTION, Records

CHANNEL = CHANNELS["prediction"]
ROOM = 16


def rows_of(symbols: list[bytes], last: dict[bytes, int]) -> Records:
    rows = np.zeros(len(symbols), PREDICTION)
    for row, symbol in zip(rows, symbols, strict=True):
        last[symbol] = last.get(symbol, 0) + 1
        row["symbol"], row["seq"], row["published_ns"] = symbol, last[symbol], sum(last.values())
    return rows


@given(
    st.lists(st.lists(st.sampled_from([b"A", b"B", b"C"]), min_size=1, max_size=40), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_after_what_it_holds_from_everything_is_there(batches: list[list[bytes]], looks: list[bool]) -> None:
    board, history = Board(CHANNEL), History(CHANNEL, ROOM)
    history.begin({0: 0})
    last: dict[bytes, int] = {}
    sent: list[tuple[bytes, int]] = []
    for offset, symbols in enumerate(batches):
        rows = rows_of(symbols, last)
        history.append(rows, board.put(rows), [Segment(len(rows), 0, offset + 1)])
        sent += list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))
        if not looks[offset]:
            continue  # what came is not stored before somebody looks
        held = sent[-ROOM:]
        assert history.head - history.start == len(held)
        # All blocks from the first offset on are held as a whole.
        assert sum(len(batch) for batch in batches[history.first_offset(0) : offset + 1]) <= len(held)
        assert history.next_offset(0) == offset + 1
        for symbol, newest in last.items():
            slot = board.find(symbol)
            assert slot is not None
            held_from = history.held_from(slot)
            assert [seq for name, seq in held if name == symbol] == list(range(held_from + 1, newest + 1))
            after = np.full(len(board), 1 << 62)
            after[slot] = held_from
            got, position = [], history.start
            while position < history.head:
                chosen, position = history.take(position, after, 0, limit=3)
                assert len(chosen) <= 3
                got += history.rows(chosen)["seq"].tolist()
                if len(chosen):
                    rows = history.rows(chosen)
                    assert history.items(chosen, rows, board) == board.items(rows)
            assert got == list(range(held_from + 1, newest + 1))
