"""A lane: what becomes of blocks, and that being killed changes nothing."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, Feed, cut, random_market
from recurrent import UNITS, Recurrent

from agents import kernel, symbol_table
from agents import lane as lane_module
from agents.features import NAMES
from agents.inference import MODEL_STATE_FLOATS
from agents.lane import Lane, compile_kernels
from agents.state import RECENT_ROWS, STATE, decode_state
from agents.windows import Windows
from stream.errors import InvariantError, UnknownVersion
from stream.records import (
    FLAG_WARMING,
    PREDICTION,
    PREDICTION_CONTENT_BYTES,
    TICK,
    Records,
    Reject,
    decode_block,
    encode_block,
)

Identity = tuple[bytes, int]
Blocks = list[tuple[int, Records]]


def new_lane(seed: int = 1, partition: int = 0, **options: Any) -> Lane:
    return Lane(partition, Windows(LATENESS_NS, FUTURE_NS, 64), Recurrent(seed), **options)


def take_changed(lane: Lane) -> list[tuple[bytes, bytes]]:
    return lane.take(lane.changed())


def contents(predictions: Records) -> dict[Identity, bytes]:
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    return {key: row[PREDICTION_CONTENT_BYTES].tobytes() for key, row in zip(keys, raw, strict=True)}


def states(lane: Lane) -> dict[bytes, bytes]:
    rows = lane.windows.states[: lane.windows.count]
    return {row["symbol"].item(): row.tobytes() for row in rows}


def test_each_accepted_tick_becomes_a_prediction_that_says_where_it_came_from() -> None:
    feed = Feed()
    times = itertools.count(1_000)
    lane = new_lane(partition=3, clock=lambda: next(times))
    block = np.concatenate([feed.quote("A", 99.0, 101.0), feed.trade("B", -1.0), feed.trade("B", 50.0)])
    output = lane.apply([(17, block)])
    first, second = output.predictions
    assert output.predictions.dtype == PREDICTION
    assert (first["symbol"], first["seq"], first["ref_price"]) == (b"A", 1, 100.0)
    assert (second["symbol"], second["seq"], second["ref_price"]) == (b"B", 1, 50.0)
    assert output.predictions["source_index"].tolist() == [0, 2]
    assert output.predictions["source_offset"].tolist() == [17, 17]
    assert output.predictions["source_partition"].tolist() == [3, 3]
    assert output.predictions["event_ns"].tolist() == block["event_ns"][[0, 2]].tolist()
    assert output.predictions["recv_ns"].tolist() == block["recv_ns"][[0, 2]].tolist()
    assert (output.predictions["model_id"] == lane.predictor.model_id).all()
    assert (output.predictions["horizon_ns"] == lane.predictor.horizon_ns).all()
    assert np.allclose(first["p_down"] + first["p_flat"] + first["p_up"], 1.0)
    stamps = [int(first[name]) for name in ("consumed_ns", "features_ns", "inferred_ns")]
    assert stamps == sorted(stamps)
    assert stamps[0] == 1_000
    assert first["published_ns"] == 0  # the sender's
    assert first["spread_bps"] == np.float32(200.0)
    assert np.isnan(second["spread_bps"]), "B has no quote"


def test_a_prediction_has_the_spread_of_its_features_to_the_bit_and_none_before_both_sides_are_known() -> None:
    ticks = random_market(np.random.default_rng(3), 3_000, symbols=20, bad=0.1)
    lane = new_lane()
    known = locked = 0
    for offset, block in enumerate(cut(ticks, list(range(100, 3_000, 100)))):
        output = lane.apply([(offset, block)])
        (step,) = output.steps
        feature = step.features[:, NAMES.index("spread_bps")]
        spread = output.predictions["spread_bps"]
        is_known = ~np.isnan(spread)
        assert spread[is_known].tobytes() == feature[is_known].tobytes()
        assert (feature[~is_known] == 0.0).all()
        # The age of a side that no quote has told is at its cap, and no tick here is an hour old.
        ages = step.features[:, [NAMES.index("bid_age_log"), NAMES.index("ask_age_log")]]
        assert (is_known == (ages < np.float32(np.log(3601.0))).all(axis=1)).all()
        known, locked = known + is_known.sum(), locked + (spread == 0.0).sum()
    assert 0 < locked < known < 3_000


def test_each_rejected_tick_is_kept_as_it_came_with_the_reason() -> None:
    feed = Feed()
    good, bad = feed.trade("A", 1.0), feed.trade("B", np.nan)
    block = np.concatenate([good, bad, good, feed.trade("", 1.0)])
    output = new_lane(partition=3).apply([(17, block)])
    assert len(output.predictions) == 1
    assert output.rejected["reason"].tolist() == [Reject.NOT_FINITE, Reject.BAD_SYMBOL]
    assert output.rejected["source_index"].tolist() == [1, 3]
    assert output.rejected["source_offset"].tolist() == [17, 17]
    assert output.rejected["source_partition"].tolist() == [3, 3]
    assert output.rejected["tick"][0].tobytes() == bad.tobytes()


def test_a_block_without_a_sound_tick_gives_no_prediction() -> None:
    output = new_lane().apply([(0, Feed().trade("A", np.nan))])
    assert (len(output.predictions), len(output.rejected)) == (0, 1)


def test_blocks_that_are_applied_together_keep_their_offsets_and_positions() -> None:
    ticks = random_market(np.random.default_rng(1), 300, bad=0.1)
    blocks = list(enumerate(cut(ticks, [7, 8, 100, 250]), start=40))
    together = new_lane().apply(blocks)
    singly = [new_lane()]
    outputs = [singly[0].apply([block]) for block in blocks]
    origin = ["source_offset", "source_index", "source_partition", "symbol", "seq"]
    for name in origin:
        each = np.concatenate([output.predictions[name] for output in outputs])
        assert together.predictions[name].tolist() == each.tolist()
    rejected = np.concatenate([output.rejected for output in outputs])
    assert together.rejected.tobytes() == rejected.tobytes()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 399), max_size=30), together=st.integers(1, 4))
def test_predictions_do_not_depend_on_how_ticks_are_cut_into_blocks(
    seed: int, cuts: list[int], together: int
) -> None:
    ticks = random_market(np.random.default_rng(seed), 400, symbols=5, bad=0.1)
    expected = contents(new_lane().apply([(0, ticks)]).predictions)
    blocks = list(enumerate(cut(ticks, cuts)))
    lane = new_lane()
    got: dict[Identity, bytes] = {}
    for first in range(0, len(blocks), together):
        got |= contents(lane.apply(blocks[first : first + together]).predictions)
    assert got == expected


class Table:
    """What a crash leaves: rows written by checkpoints, whole or in part, and the committed offset."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.committed = 0

    def checkpoint(self, lane: Lane, next_offset: int, share: float, rng: np.random.Generator) -> None:
        """Write a share of the dirty rows; commit only where all were written."""
        dirty = take_changed(lane)
        written = [row for row in dirty if rng.random() < share]
        self.rows |= dict(written)
        if len(written) == len(dirty):
            self.committed = next_offset


crashes = st.lists(
    st.tuples(
        st.integers(1, 12),  # blocks until the checkpoint
        st.sampled_from([1.0, 1.0, 0.5, 0.0]),  # share of the rows that were written
        st.integers(0, 6),  # blocks from there to the crash
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 399), min_size=5, max_size=40), plan=crashes)
def test_being_killed_anywhere_changes_nothing(
    seed: int, cuts: list[int], plan: list[tuple[int, float, int]]
) -> None:
    rng = np.random.default_rng(seed)
    ticks = random_market(rng, 400, symbols=5, bad=0.1)
    blocks = list(enumerate(cut(ticks, cuts)))
    undisturbed = new_lane()
    expected: dict[Identity, bytes] = {}
    for block in blocks:
        expected |= contents(undisturbed.apply([block]).predictions)

    table = Table()
    published: list[dict[Identity, bytes]] = []

    def serve(lane: Lane, until: int, at: int) -> int:
        published.extend(contents(lane.apply([block]).predictions) for block in blocks[at : max(at, until)])
        return max(at, min(until, len(blocks)))

    for before, share, after in plan:
        lane = new_lane()
        lane.restore(table.rows.values())
        at = serve(lane, table.committed + before, table.committed)
        table.checkpoint(lane, at, share, rng)
        serve(lane, at + after, at)  # sent, and forgotten in the crash
    last = new_lane()
    last.restore(table.rows.values())
    serve(last, len(blocks), table.committed)

    union: dict[Identity, bytes] = {}
    for part in published:
        for identity, content in part.items():
            assert union.setdefault(identity, content) == content, identity
    assert union == expected
    assert states(last) == states(undisturbed)


def test_blocks_that_all_rows_have_seen_give_nothing_again() -> None:
    ticks = random_market(np.random.default_rng(3), 200)
    lane = new_lane()
    lane.apply([(5, ticks)])
    before = states(lane)
    output = lane.apply([(5, ticks)])
    # Only ticks of symbols without a row are looked at again: there are none here.
    assert (len(output.predictions), len(output.rejected)) == (0, 0)
    assert states(lane) == before


def test_a_checkpoint_has_each_changed_row_once() -> None:
    feed = Feed()
    lane = new_lane()
    lane.apply([(0, np.concatenate([feed.trade("A", 1.0), feed.trade("B", 1.0), feed.trade("A", 1.01)]))])
    rows = dict(take_changed(lane))
    assert sorted(rows) == [b"A", b"B"]
    assert decode_state(rows[b"A"])["seq"][0] == 2
    assert take_changed(lane) == []
    lane.apply([(1, feed.trade("B", 1.1))])
    assert [key for key, _ in take_changed(lane)] == [b"B"]


def test_a_checkpointed_row_is_a_copy() -> None:
    feed = Feed()
    lane = new_lane()
    lane.apply([(0, feed.trade("A", 1.0))])
    [(_, raw)] = take_changed(lane)
    before = bytes(raw)
    lane.apply([(1, feed.trade("A", 2.0))])
    assert raw == before


def test_a_row_of_an_unknown_version_stops_the_recovery() -> None:
    row = np.zeros(1, STATE)
    row["version"] = 4
    with pytest.raises(UnknownVersion, match="Run the version that wrote it"):
        new_lane().restore([row.tobytes()])


def test_nothing_to_restore_is_fine() -> None:
    lane = new_lane()
    lane.restore([])
    assert len(lane.apply([(0, Feed().trade("A", 1.0))]).predictions) == 1


@pytest.mark.parametrize("count", [1, 5, RECENT_ROWS - 1, RECENT_ROWS, RECENT_ROWS + 1, 150])
def test_a_state_that_another_model_left_is_warmed_up_on_the_recent_rows(count: int) -> None:
    ticks = random_market(np.random.default_rng(4), count, symbols=1)
    ticks = ticks[ticks["kind"] == 1] if count == 1 else ticks
    old = new_lane(seed=1)
    old.apply([(0, ticks)])
    assert old.windows.count <= 1
    if old.windows.count == 0:
        pytest.skip("the only tick was one side of a quote")
    rows = dict(take_changed(old))
    new = new_lane(seed=2)
    new.restore(rows.values())
    state = new.windows.states[0]
    assert state["model_id"] == new.predictor.model_id

    # The same by hand: from nothing, over the feature rows that are kept, in their order.
    seen = int(state["seq"])
    again = Windows(LATENESS_NS, FUTURE_NS, 4)
    features = again.step(ticks, np.zeros(len(ticks), np.int64)).features.copy()[-RECENT_ROWS:]
    assert len(features) == min(seen, RECENT_ROWS)
    h, c = np.zeros((1, MODEL_STATE_FLOATS), np.float32), np.zeros((1, MODEL_STATE_FLOATS), np.float32)
    for row in features:
        Recurrent(2).run(
            row[None], np.zeros(1, np.int64), np.zeros(1, np.int64), h, c, np.zeros((1, 4), np.float32)
        )
    assert state["h"].tobytes() == h[0].tobytes()
    assert state["c"].tobytes() == c[0].tobytes()
    assert np.abs(state["h"][:UNITS]).max() > 0
    # It is part of the next checkpoint, or every restart would warm up again.
    assert [key for key, _ in take_changed(new)] == [b"SYM0"]


def test_only_states_of_another_model_are_warmed_up() -> None:
    ticks = random_market(np.random.default_rng(5), 300, symbols=2)
    lane = new_lane(seed=1)
    lane.apply([(0, ticks)])
    rows = dict(take_changed(lane))
    changed = decode_state(rows[b"SYM1"]).copy()
    changed["model_id"] = 7
    rows[b"SYM1"] = changed.tobytes()
    again = new_lane(seed=1)
    again.restore(rows.values())
    assert states(again)[b"SYM0"] == states(lane)[b"SYM0"]
    assert [key for key, _ in take_changed(again)] == [b"SYM1"]


def test_a_symbol_without_a_prediction_has_nothing_to_warm_up() -> None:
    lane = new_lane(seed=1)
    lane.apply([(0, Feed().quote("A", 99.0, np.nan))])
    again = new_lane(seed=2)
    again.restore(dict(take_changed(lane)).values())
    assert states(again) == states(lane)


def test_predictions_are_flagged_until_the_model_is_warm() -> None:
    feed = Feed()
    lane = new_lane()
    ticks = np.concatenate([feed.trade("A", 100.0 + 0.01 * number) for number in range(40)])
    flags = lane.apply([(0, ticks)]).predictions["flags"].tolist()
    assert flags == [FLAG_WARMING] * 32 + [0] * 8


class Broken(Recurrent):
    """A model that gives a value that is not finite, as `Predictor.run` must not."""

    def run(self, *arrays: Any) -> None:
        raise InvariantError("the model gave a value that is not finite")


def test_a_broken_promise_of_the_model_is_not_swallowed() -> None:
    lane = Lane(0, Windows(LATENESS_NS, FUTURE_NS, 4), Broken())
    with pytest.raises(InvariantError):
        lane.apply([(0, Feed().trade("A", 1.0))])


def test_nothing_is_compiled_at_the_first_tick() -> None:
    lane = new_lane()
    compile_kernels(lane.predictor)
    compiled: list[Any] = [
        lane_module._fill,
        kernel.apply_ticks,
        symbol_table.index_symbols,
        symbol_table.find_slot,
    ]
    before = [len(function.signatures) for function in compiled]
    feed = Feed()
    blocks = [
        decode_block(encode_block(block), TICK)
        for block in (feed.trade("A", 1.0), np.concatenate([feed.quote("A", 1.0, 2.0), feed.trade("B", -1.0)]))
    ]
    lane.apply([(0, blocks[0])])
    lane.apply([(1, blocks[1]), (2, blocks[0])])
    lane.restore([])
    again = new_lane()
    again.restore([raw for _, raw in take_changed(lane)])
    again.apply([(3, blocks[1])])
    assert again.windows.row_of(b"A") == 0  # what the metrics ask
    named = np.array([b"A"], "S24")
    Lane(0, Windows(LATENESS_NS, FUTURE_NS, 4, symbols=named, partitions=1), Recurrent()).apply([(0, blocks[0])])
    assert [len(function.signatures) for function in compiled] == before
