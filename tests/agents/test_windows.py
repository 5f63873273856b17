"""The rows of a lane: the same bytes however a stream is cut, and tables that fit together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, Feed, cut, random_market

from agents.periods import Periods
from agents.state import decode_state, encode_state
from agents.validate import SKIPPED
from agents.windows import Step, Windows
from stream.errors import InvariantError, SettingsError
from stream.records import TICK, Records, Reject, decode_block, encode_block


def windows(max_symbols: int = 64) -> Windows:
    return Windows(LATENESS_NS, FUTURE_NS, max_symbols)


def step(target: Windows, ticks: Records, offset: int) -> Step:
    return target.step(ticks, np.full(len(ticks), offset, np.int64))


def outcome(target: Windows, blocks: list[Records], together: int = 1) -> dict[str, bytes]:
    """Feed blocks, ``together`` of them in each call; return all that must not depend on the cuts, as bytes."""
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("features", "seq", "ref", "feature_hash", "reason", "rows")
    }
    for first in range(0, len(blocks), together):
        group = blocks[first : first + together]
        offsets = np.repeat(np.arange(first, first + len(group)), [len(block) for block in group])
        done = target.step(np.concatenate(group), offsets)
        for name, values in parts.items():
            values.append(getattr(done, name).copy())
    states = target.states[: target.count].copy()
    states["offset"] = 0  # of the last block: the one field that tells of blocks
    whole = {name: np.concatenate(values).tobytes() for name, values in parts.items()}
    return whole | {"states": states.tobytes(), "outcomes": target.outcomes.tobytes()}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 7, 100, 512]),
    symbols=st.integers(1, 20),
    cuts=st.lists(st.integers(1, 511), max_size=40),
    together=st.integers(1, 5),
)
def test_how_a_stream_is_cut_does_not_change_a_byte(
    seed: int, count: int, symbols: int, cuts: list[int], together: int
) -> None:
    ticks = random_market(np.random.default_rng(seed), count, symbols, bad=0.1)
    whole = outcome(windows(), [ticks])
    assert outcome(windows(), cut(ticks, cuts)) == whole
    assert outcome(windows(), cut(ticks, cuts), together) == whole


@pytest.mark.parametrize("size", [1, 7, 512])
def test_blocks_of_one_size_change_no_byte(size: int) -> None:
    ticks = random_market(np.random.default_rng(42), 2048, symbols=5, bad=0.05)
    assert outcome(windows(), cut(ticks, list(range(size, 2048, size)))) == outcome(windows(), [ticks])


def test_where_a_block_comes_from_changes_no_byte() -> None:
    ticks = random_market(np.random.default_rng(43), 600, symbols=5)
    read_only = decode_block(encode_block(ticks), TICK)
    strided = np.zeros(1200, TICK)
    strided[::2] = ticks
    assert outcome(windows(), [read_only]) == outcome(windows(), [strided[::2]]) == outcome(windows(), [ticks])


def test_symbols_do_not_touch_each_other() -> None:
    ticks = random_market(np.random.default_rng(44), 1000, symbols=4, bad=0.1)
    together = windows()
    step(together, ticks, 0)
    for symbol in np.unique(together.states["symbol"][: together.count]):
        alone = windows()
        step(alone, ticks[ticks["symbol"] == symbol], 0)
        row = together.row_of(symbol)
        assert row is not None
        assert alone.states[0].tobytes() == together.states[row].tobytes()


def test_rows_rounds_and_positions_say_which_tick_became_what() -> None:
    feed = Feed()
    ticks = np.concatenate(
        [
            feed.trade("A", 1.0),
            feed.trade("B", 2.0),
            feed.trade("A", np.nan),
            feed.trade("A", 1.01),
            feed.trade("B", 2.01),
            feed.trade("A", 1.02),
        ]
    )
    target = windows()
    step(target, feed.trade("B", 1.99, source_seq=0, stream_id=9), 0)
    done = step(target, ticks, 1)
    assert done.reason.tolist() == [0, 0, Reject.NOT_FINITE, 0, 0, 0]
    assert done.index.tolist() == [0, 1, 3, 4, 5]
    assert done.rows.tolist() == [1, 0, 1, 0, 1]
    assert done.rounds.tolist() == [0, 0, 1, 1, 2]
    assert done.seq.tolist() == [1, 2, 2, 3, 3]
    assert done.ref.tolist() == [1.0, 2.0, 1.01, 2.01, 1.02]
    done = step(target, feed.trade("A", 1.03), 2)
    assert (done.rounds.tolist(), done.seq.tolist()) == ([0], [4])


def fnv1a(words: list[int]) -> int:
    value = 0xCBF29CE484222325
    for word in words:
        value = (value ^ word) * 0x100000001B3 % 2**64
    return value


def row_hash(row: np.ndarray) -> int:
    words = row.view(np.uint64).tolist()
    return fnv1a([fnv1a(words[strand::4]) for strand in range(4)])


def test_the_hash_of_a_feature_row_is_fnv_1a_in_four_strands() -> None:
    done = step(windows(), random_market(np.random.default_rng(45), 50), 0)
    assert done.feature_hash.tolist() == [row_hash(row) for row in done.features]
    # Golden: it is stored with each prediction, and compared years later.
    first = step(windows(), Feed().quote("X", 99.0, 101.0), 0)
    assert hex(int(first.feature_hash[0])) == "0x934f8fded7326ea9"


def test_a_block_that_a_row_has_seen_is_skipped_and_others_are_not() -> None:
    feed = Feed()
    target = windows()
    step(target, feed.trade("A", 1.0), 5)
    before = target.states[0].tobytes()
    both = np.concatenate([feed.trade("A", 1.01), feed.trade("B", 2.0)])
    done = step(target, both, 5)
    assert done.reason.tolist() == [SKIPPED, 0]
    assert target.states[0].tobytes() == before
    assert step(target, feed.trade("A", 1.02), 6).reason.tolist() == [0]


def test_blocks_of_one_call_are_skipped_each_by_its_own_offset() -> None:
    feed = Feed()
    target = windows()
    step(target, feed.trade("A", 1.0), 5)
    ticks = np.concatenate(
        [feed.trade("A", 1.01), feed.trade("B", 2.0), feed.trade("A", 1.02), feed.trade("A", 1.03)]
    )
    done = target.step(ticks, np.array([5, 5, 6, 7]))
    assert done.reason.tolist() == [SKIPPED, 0, 0, 0]
    assert done.rounds.tolist() == [0, 0, 1]
    assert target.states["offset"][: target.count].tolist() == [7, 5]


def test_only_rows_that_changed_are_dirty() -> None:
    feed = Feed()
    target = windows()
    step(target, np.concatenate([feed.trade("A", 1.0), feed.trade("B", 2.0)]), 0)
    assert np.flatnonzero(target.dirty).tolist() == [0, 1]
    target.dirty[:] = False
    step(target, feed.trade("A", np.nan), 1)  # counted in the row, and its offset moved on
    assert np.flatnonzero(target.dirty).tolist() == [0]
    target.dirty[:] = False
    step(target, feed.trade("A", 1.1), 1)  # skipped
    assert not target.dirty.any()


def test_loaded_rows_go_on_where_they_were() -> None:
    ticks = random_market(np.random.default_rng(46), 800, symbols=9, bad=0.05)
    whole, first, second = windows(), windows(), windows()
    step(whole, ticks[:500], 0)
    expected = step(whole, ticks[500:], 1)
    step(first, ticks[:500], 0)
    # In another order than before: a table has none.
    second.load(first.states[: first.count][::-1])
    done = step(second, ticks[500:], 1)
    assert done.features.tobytes() == expected.features.tobytes()
    assert done.seq.tobytes() == expected.seq.tobytes()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), at=st.integers(1, 599), gap_s=st.sampled_from([0.0, 0.2]))
def test_a_recovery_from_bytes_anywhere_ends_in_the_same_bytes(seed: int, at: int, gap_s: float) -> None:
    ticks = random_market(np.random.default_rng(seed), 600, symbols=2, bad=0.05)
    periods = Periods(session_gap_s=gap_s, windows_s=(0.1, 1.0, 10.0, 60.0), bars_s=(0.3, 2.0))
    whole, first, second = (Windows(LATENESS_NS, FUTURE_NS, 16, periods=periods) for _ in range(3))
    for target in (whole, first):
        step(target, ticks[:at], 0)
    kept = [decode_state(encode_state(row)) for row in first.states[: first.count]]
    second.load(np.concatenate([first.states[:0], *kept]))
    expected = step(whole, ticks[at:], 1)
    done = step(second, ticks[at:], 1)
    assert done.features.tobytes() == expected.features.tobytes()
    assert second.states[: second.count].tobytes() == whole.states[: whole.count].tobytes()


def test_rows_of_other_periods_are_not_loaded() -> None:
    source = Windows(LATENESS_NS, FUTURE_NS, 16, periods=Periods(bar_rsi=21))
    step(source, random_market(np.random.default_rng(48), 200, symbols=3), 0)
    target = windows()
    with pytest.raises(SettingsError, match=r"state of SYM\d and of 2 other symbols was made with other periods"):
        target.load(source.states[: source.count])
    assert target.count == 0


def test_rows_that_do_not_fit_are_not_loaded() -> None:
    source = windows()
    step(source, random_market(np.random.default_rng(47), 200, symbols=9), 0)
    rows = source.states[: source.count]
    for target, bad in (
        (windows(max_symbols=8), rows),
        (windows(), np.concatenate([rows, rows[:1]])),
        (source, rows),
    ):
        with pytest.raises(InvariantError, match="state rows do not fit"):
            target.load(bad)


def test_a_row_is_found_by_its_symbol() -> None:
    target = windows()
    assert target.row_of(b"A") is None
    feed = Feed()
    step(target, np.concatenate([feed.trade("A", 1.0), feed.trade("AB", 2.0)]), 0)
    assert [target.row_of(symbol) for symbol in (b"A", b"AB", b"ABC", b"")] == [0, 1, None, None]


@pytest.mark.parametrize("room", [1, 2, 3, 64, 1000])
def test_every_row_can_be_used(room: int) -> None:
    feed = Feed()
    target = windows(max_symbols=room)
    ticks = np.concatenate([feed.trade(f"SYMBOL-NUMBER-{number}", 1.0) for number in range(room + 1)])
    done = step(target, ticks, 0)
    assert done.reason.tolist() == [0] * room + [Reject.TOO_MANY_SYMBOLS]
    assert target.count == room
    again = windows(max_symbols=room)
    again.load(target.states[:room])
    for number in range(room):
        assert again.row_of(f"SYMBOL-NUMBER-{number}".encode()) == number
        assert step(again, feed.trade(f"SYMBOL-NUMBER-{number}", 1.0), 1).rows.tolist() == [number]


def test_no_ticks_are_no_work() -> None:
    done = windows().step(np.zeros(0, TICK), np.zeros(0, np.int64))
    assert len(done.features) == len(done.reason) == 0


def test_outcomes_are_counted_where_the_worker_wants_them() -> None:
    shared = np.zeros(256, np.int64)
    feed = Feed()
    for target in (Windows(0, FUTURE_NS, 2, shared), Windows(0, FUTURE_NS, 2, shared)):
        step(target, np.concatenate([feed.trade("A", 1.0), feed.trade("A", -1.0), feed.trade("", 1.0)]), 0)
    assert shared[[0, Reject.NOT_POSITIVE, Reject.BAD_SYMBOL]].tolist() == [2, 2, 2]
    assert shared.sum() == 6
