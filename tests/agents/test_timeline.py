"""Swaps in a lane: which model predicts which tick, and that neither cuts nor crashes change it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, cut, random_market
from recurrent import Recurrent

from agents.inference import MODEL_STATE_FLOATS
from agents.lane import Lane
from agents.shadow import Shadow
from agents.state import RECENT_ROWS
from agents.swaps import Swap, due_offsets, spread_of
from agents.windows import Windows
from stream.errors import InvariantError
from stream.records import (
    FLAG_WARMING,
    PREDICTION,
    PREDICTION_CONTENT_BYTES,
    Records,
    decode_block,
    encode_block,
    symbol_words,
)

Identity = tuple[bytes, int]
Blocks = list[tuple[int, Records]]
MODELS = [Recurrent(seed) for seed in range(4)]
SYMBOLS = 3


@dataclass(frozen=True)
class Plan:
    """Swaps of one partition: (offset, spread, number of the model), by offset."""

    swaps: tuple[tuple[int, int, int], ...]

    def records(self) -> list[tuple[Swap, Recurrent]]:
        made = []
        for offset, spread, number in self.swaps:
            model = MODELS[number]
            made.append((Swap(0, offset, spread, model.model_id, f"m/{number:06d}-{0:016x}", 0, 1, "w", 1), model))
        return made


def new_lane(plan: Plan, skip: int = 0) -> Lane:
    """Return a lane that goes on where the first ``skip`` swaps are done."""
    made = plan.records()
    serving = made[skip - 1][1] if skip else MODELS[0]
    lane = Lane(0, Windows(LATENESS_NS, FUTURE_NS, 64), serving)
    for swap, model in made[skip:]:
        lane.timeline.add(swap, model)
    return lane


def contents(predictions: Records) -> dict[Identity, bytes]:
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    return {key: row[PREDICTION_CONTENT_BYTES].tobytes() for key, row in zip(keys, raw, strict=True)}


def states(lane: Lane) -> dict[bytes, bytes]:
    rows = lane.windows.states[: lane.windows.count]
    return {row["symbol"].item(): row.tobytes() for row in rows}


def blocks_of(seed: int, cuts: Iterable[int]) -> Blocks:
    # Many more ticks of a symbol than rows of features are kept, or a rebuilt state would be what was there before.
    ticks = random_market(np.random.default_rng(seed), 3 * 400, symbols=SYMBOLS, bad=0.05)
    parts = cut(ticks, [3 * place for place in cuts])
    # Like those of Kafka: read-only.
    return [(offset, decode_block(encode_block(part), part.dtype)) for offset, part in enumerate(parts)]


def served(lane: Lane, blocks: Blocks, together: int = 1) -> dict[Identity, bytes]:
    got: dict[Identity, bytes] = {}
    for start in range(0, len(blocks), together):
        got |= contents(lane.apply(blocks[start : start + together]).predictions)
    return got


plans = st.lists(
    st.tuples(st.integers(0, 45), st.integers(1, 12), st.integers(0, 3)), max_size=4, unique_by=lambda each: each[0]
).map(lambda swaps: Plan(tuple(sorted(swaps))))
many_cuts = st.lists(st.integers(1, 399), min_size=5, max_size=45)


def in_plain_words(plan: Plan, blocks: Blocks) -> dict[Identity, tuple[int, bytes, bool]]:
    """Return model id, answer and whether it is warming, of each prediction: tick by tick, symbol by symbol."""
    windows = Windows(LATENESS_NS, FUTURE_NS, 64)
    rows: dict[bytes, list[Any]] = {}  # features so far
    held: dict[bytes, list[Any]] = {}  # number of the model, h, c, steps
    last_block: dict[bytes, int] = {}
    dues: dict[bytes, list[tuple[int, Recurrent]]] = {}
    answers: dict[Identity, tuple[int, bytes, bool]] = {}

    def step(symbol: bytes, feature_row: Any) -> Any:
        model, h, c, _ = held[symbol]
        out, zero = np.zeros((1, 4), np.float32), np.zeros(1, np.int64)
        model.run(feature_row[None], zero, zero, h, c, out)
        held[symbol][3] += 1
        return out[0]

    def use(symbol: bytes, model: Recurrent) -> None:
        held[symbol] = [model, *np.zeros((2, 1, MODEL_STATE_FLOATS), np.float32), 0]
        for feature_row in rows[symbol][-RECENT_ROWS:]:
            step(symbol, feature_row)

    for offset, ticks in blocks:
        done = windows.step(ticks, np.full(len(ticks), offset, np.int64))
        names = ticks["symbol"][done.index].tolist()
        for symbol, seq, feature_row in zip(names, done.seq.tolist(), done.features.copy(), strict=True):
            if symbol not in dues:
                words = symbol_words(np.array([symbol], "S24"))
                dues[symbol] = [(int(due_offsets(words, swap)[0]), model) for swap, model in plan.records()]
            # The model of every block so far, for this symbol: whenever it changes, it starts from the kept rows.
            wanted = MODELS[0]
            changed = symbol not in held
            for at in range(offset + 1):
                due = [model for first, model in dues[symbol] if first <= at]
                if due and due[-1] is not wanted:
                    wanted = due[-1]
                    changed |= at > last_block.get(symbol, -1)
            if changed:
                rows.setdefault(symbol, [])
                use(symbol, wanted)
            last_block[symbol] = offset
            answer = step(symbol, feature_row)
            rows[symbol].append(feature_row)
            model, steps = held[symbol][0], held[symbol][3]
            answers[symbol, seq] = model.model_id, answer.tobytes(), steps <= model.warmup_ticks
    return answers


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), cuts=many_cuts, plan=plans)
def test_each_tick_is_predicted_by_the_model_that_its_symbol_is_due_for(
    seed: int, cuts: list[int], plan: Plan
) -> None:
    blocks = blocks_of(seed, cuts)
    expected = in_plain_words(plan, blocks)
    lane = new_lane(plan)
    for block in blocks:
        predictions = lane.apply([block]).predictions
        for each in predictions:
            model_id, answer, is_warming = expected.pop((each["symbol"], int(each["seq"])))
            assert each["model_id"] == model_id
            names = ("p_down", "p_flat", "p_up", "expected_return_bps")
            assert np.array([each[name] for name in names], np.float32).tobytes() == answer
            assert bool(each["flags"] & FLAG_WARMING) == is_warming
    assert expected == {}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cuts=many_cuts, plan=plans, together=st.integers(2, 50))
def test_a_swap_gives_the_same_bytes_however_blocks_are_put_together(
    seed: int, cuts: list[int], plan: Plan, together: int
) -> None:
    blocks = blocks_of(seed, cuts)
    singly, jointly = new_lane(plan), new_lane(plan)
    assert served(singly, blocks) == served(jointly, blocks, together)
    assert states(singly) == states(jointly)


crashes = st.lists(
    st.tuples(
        st.integers(1, 12),  # blocks until the checkpoint
        st.sampled_from([1.0, 1.0, 0.5, 0.0]),  # share of the rows that were written
        st.integers(0, 6),  # blocks from there to the crash
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), cuts=many_cuts, plan=plans, crashed=crashes, together=st.integers(1, 4))
def test_being_killed_anywhere_around_a_swap_changes_nothing(
    seed: int, cuts: list[int], plan: Plan, crashed: list[tuple[int, float, int]], together: int
) -> None:
    rng = np.random.default_rng(seed)
    blocks = blocks_of(seed, cuts)
    undisturbed = new_lane(plan)
    expected = served(undisturbed, blocks)
    rows: dict[bytes, bytes] = {}
    committed = 0
    got: dict[Identity, bytes] = {}

    def serve(lane: Lane, start: int, stop: int) -> None:
        for identity, content in served(lane, blocks[start:stop], together).items():
            assert got.setdefault(identity, content) == content, identity

    def restarted() -> Lane:
        # As the worker does it: only models are loaded that some block from here on may need.
        ends = [offset + spread for offset, spread, _ in plan.swaps]
        skip = max((number for number, end in enumerate(ends, 1) if end <= committed), default=0)
        lane = new_lane(plan, skip)
        lane.restore(rows.values())
        return lane

    for before, share, after in crashed:
        lane = restarted()
        serve(lane, committed, committed + before)
        dirty = lane.take(lane.changed())
        written = [row for row in dirty if rng.random() < share]
        rows |= dict(written)
        at = min(committed + before, len(blocks))
        if len(written) == len(dirty):
            committed = at
        serve(lane, at, at + after)
    last = restarted()
    serve(last, committed, len(blocks))
    assert got == expected
    assert states(last) == states(undisturbed)


@pytest.mark.parametrize("swaps", [((10, 1, 1), (15, 1, 2)), ((10, 30, 1), (12, 1, 2)), ((10, 30, 1), (12, 9, 0))])
def test_rows_that_are_ahead_of_swaps_stay_as_they_are(swaps: tuple[tuple[int, int, int], ...]) -> None:
    blocks = blocks_of(11, range(9, 400, 9))
    plan = Plan(swaps)
    undisturbed, ahead = new_lane(plan), new_lane(plan)
    expected = served(undisturbed, blocks)
    served(ahead, blocks[:22])
    rows = dict(ahead.take(ahead.changed()))
    again = new_lane(plan)
    again.restore(rows.values())
    # The commit was lost: the lane goes on before the first swap.
    got = served(again, blocks[5:])
    assert got == {key: expected[key] for key in got}
    assert states(again) == states(undisturbed)


def test_a_model_that_lost_a_symbol_before_it_was_due_does_not_touch_it() -> None:
    blocks = blocks_of(12, range(9, 400, 9))
    words = symbol_words(np.array([b"SYM0"], "S24"))
    # SYM0 switches at 12 to the second model, and would have later to the first; it is silent around then.
    first = next(
        swap
        for spread in range(20, 200)
        if 16 <= due_offsets(words, swap := Swap(0, 10, spread, 1, "m", 0, 0, "w", 0))[0] <= 26
    )
    plan = Plan(((10, first.spread_blocks, 1), (12, 1, 2)))
    blocks[14:31] = [(offset, ticks[ticks["symbol"] != b"SYM0"]) for offset, ticks in blocks[14:31]]
    undisturbed, before = new_lane(plan), new_lane(plan)
    expected = served(undisturbed, blocks)
    served(before, blocks[:27])
    again = new_lane(plan)
    again.restore(dict(before.take(before.changed())).values())
    got = served(again, blocks[27:])
    assert got == {key: expected[key] for key in got}
    assert states(again) == states(undisturbed)


def test_symbols_switch_one_by_one_over_the_blocks_of_a_swap() -> None:
    blocks = blocks_of(3, range(5, 400, 5))
    lane = new_lane(Plan(((20, 30, 1),)))
    seen: dict[bytes, list[int]] = {}
    for block in blocks:
        for each in lane.apply([block]).predictions:
            seen.setdefault(each["symbol"], []).append(int(each["model_id"]))
    switches = {tuple(dict.fromkeys(models)) for models in seen.values()}
    assert switches == {(MODELS[0].model_id, MODELS[1].model_id)}
    assert lane.predictor is MODELS[1]
    assert lane.timeline.is_quiet(10**9)


def test_the_symbols_of_a_lane_are_spread_evenly() -> None:
    names = np.array([f"SYM{number}" for number in range(4000)], "S24")
    swap = Swap(0, 100, 200, 1, "m", 0, 0, "w", 0)
    blocks = np.bincount(due_offsets(symbol_words(names), swap) - 100, minlength=200)
    assert blocks.sum() == 4000
    assert len(blocks) == 200
    assert blocks.max() < 45
    assert spread_of(4000, urgent=False) == 2000
    assert spread_of(4000, urgent=True) == 250
    assert spread_of(0, urgent=True) == 1


def test_a_state_that_has_seen_few_steps_of_its_model_is_warming_again() -> None:
    blocks = blocks_of(5, range(4, 400, 4))
    lane = new_lane(Plan(((60, 1, 1),)))
    lane.apply(blocks[:60])
    assert (lane.windows.states["model_steps"] == lane.windows.states["seq"]).all()
    lane.apply(blocks[60:61])
    rows = lane.windows.states[: lane.windows.count]
    ticked = np.isin(rows["symbol"], blocks[60][1]["symbol"])
    kept = np.minimum(rows["seq"][~ticked], RECENT_ROWS)
    assert rows["model_steps"][~ticked].tolist() == kept.tolist()


def test_swaps_come_in_the_order_of_their_offsets() -> None:
    lane = new_lane(Plan(((5, 3, 1),)))
    [(swap, model)] = Plan(((5, 1, 2),)).records()
    with pytest.raises(InvariantError, match="does not come after"):
        lane.timeline.add(swap, model)
    assert lane.timeline.next_offset == 6
    assert lane.timeline.newest is MODELS[1]


def test_a_challenger_predicts_the_same_ticks_and_is_marked_until_it_is_warm() -> None:
    blocks = blocks_of(7, range(10, 400, 10))
    lane, alone = new_lane(Plan(())), Lane(0, Windows(LATENESS_NS, FUTURE_NS, 64), MODELS[2])
    lane.shadows[MODELS[2].model_id] = Shadow(MODELS[2], 64)
    for start in range(0, len(blocks), 3):
        output = lane.apply(blocks[start : start + 3])
        before = output.predictions.tobytes()
        shadowed, failed = lane.shadow(output)
        assert output.predictions.tobytes() == before
        assert failed == {}
        # From the first tick on it is what a lane with this model would have served.
        assert contents(shadowed) == contents(alone.apply(blocks[start : start + 3]).predictions)


def test_a_challenger_that_joins_later_starts_from_nothing_and_says_so() -> None:
    blocks = blocks_of(8, range(10, 400, 10))
    lane = new_lane(Plan(((25, 4, 1),)))
    lane.apply(blocks[:20])
    lane.shadows[MODELS[2].model_id] = Shadow(MODELS[2], 64)
    steps: dict[bytes, int] = {}
    for block in blocks[20:]:
        shadowed, _ = lane.shadow(lane.apply([block]))
        for each in shadowed:
            steps[each["symbol"]] = steps.get(each["symbol"], 0) + 1
            assert bool(each["flags"] & FLAG_WARMING) == (steps[each["symbol"]] <= Recurrent.warmup_ticks)
            assert each["model_id"] == MODELS[2].model_id


class Broken(Recurrent):
    """A model that fails."""

    def run(self, *_: Any) -> None:
        raise InvariantError("not finite")


def test_a_challenger_that_fails_is_dropped_and_the_others_go_on() -> None:
    lane = new_lane(Plan(()))
    broken = Broken(9)
    lane.shadows = {broken.model_id: Shadow(broken, 64), MODELS[1].model_id: Shadow(MODELS[1], 64)}
    [(_, first), (_, second)] = blocks_of(1, [200])
    output = lane.apply([(0, first)])
    shadowed, failed = lane.shadow(output)
    assert set(shadowed["model_id"].tolist()) == {MODELS[1].model_id}
    assert list(failed) == [broken.model_id]
    shadowed, failed = lane.shadow(lane.apply([(1, second)]))
    assert len(shadowed) > 0
    assert failed == {}
