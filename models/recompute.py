"""A stored prediction once more: the ticks of its symbol through the lane that made it, and the models that it had.

Nothing here is a second implementation: an `agents.lane.Lane` of one symbol gets the blocks with their own offsets,
and swaps where the symbol's model changed. What it gives depends on nothing else (docs/design.md), so that a
difference by one bit means that a tick, a model, a setting or the stored record is another one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from agents.lane import Lane, LaneOutput
from agents.swaps import Swap, due_offsets
from agents.timeline import Timeline
from agents.windows import Windows
from stream.errors import TickloomError
from stream.records import Records, symbol_words

_TOGETHER_TICKS: Final = 4096


@dataclass(frozen=True)
class Run:
    """Predictions of one symbol, one after the other, by the same model."""

    model_id: int
    first_seq: int
    first_offset: int  # of the block of the first one's tick
    last_offset: int


@dataclass(frozen=True)
class Switch:
    """From a block on, a symbol is for another model."""

    offset: int
    model_id: int
    is_recorded: bool  # on the topic `models`; else known by the predictions alone


@dataclass(frozen=True)
class Block:
    """The ticks that one symbol has in a block."""

    offset: int
    ticks: Records  # TICK[N]
    positions: NDArray[np.int64]  # [N] in the whole block


@dataclass(frozen=True)
class Recomputed:
    """What came out for the wanted seq."""

    prediction: Records  # PREDICTION scalar, with the place of its tick; without the times of its stages
    features: NDArray[np.float32]  # [F]
    ticks: int  # of the symbol that it took: all up to the end of its block


class EndsBefore(TickloomError):
    """The ticks end before the prediction that is wanted."""

    def __init__(self, last_seq: int, ticks: int) -> None:
        """Note how far they go: the last seq that came of them, and how many there were."""
        super().__init__(f"the {ticks:,} ticks that there are give predictions up to seq {last_seq:,}")
        self.last_seq = last_seq


def joined(runs: Iterable[Run]) -> list[Run]:
    """Return runs with those that follow one another put together where one model made them."""
    found: list[Run] = []
    for run in runs:
        if found and found[-1].model_id == run.model_id:
            last = found.pop()
            run = Run(last.model_id, last.first_seq, last.first_offset, run.last_offset)  # noqa: PLW2901
        found.append(run)
    return found


def switches_of(symbol: bytes, swaps: Sequence[Swap], runs: Sequence[Run]) -> list[Switch]:
    """Return where a symbol's model changes after the first of its ``runs``.

    The predictions say which model made them; records say that, and of changes that no prediction shows: where a
    symbol did not tick between two swaps, it has been rebuilt all the same. A record that its predictions
    contradict was taken back, or its lane had lost the partition.

    Args:
        symbol: which.
        swaps: recorded ones of its partition, by offset.
        runs: of its stored predictions up to the one that is wanted, in their order, at least one.
    """
    recorded = _recorded(symbol, swaps, after=runs[0].first_offset)
    found: list[Switch] = []
    for number, run in enumerate(runs):
        if number:
            gap = [each for each in recorded if runs[number - 1].last_offset < each.offset <= run.first_offset]
            if not gap or gap[-1].model_id != run.model_id:
                gap = [Switch(run.first_offset, run.model_id, False)]
            found += gap
        inside = [each for each in recorded if run.first_offset < each.offset <= run.last_offset]
        while inside and inside[-1].model_id != run.model_id:
            inside.pop()
        found += inside
    return found


def recompute(
    blocks: Iterable[Block],
    seq: int,
    first_model: int,
    switches: Sequence[Switch],
    predictor_of: Callable[[int], Predictor],
    windows: Windows,
    partition: int,
) -> Recomputed:
    """Return the prediction of a symbol that its ticks give.

    Args:
        blocks: of the symbol, from its first tick on, by offset.
        seq: of the prediction.
        first_model: id of the model of its first prediction.
        switches: from `switches_of`.
        predictor_of: returns a model by its id.
        windows: empty ones with room for one symbol and the settings of the worker.
        partition: of the ticks.

    Raises:
        EndsBefore: the blocks end before it.
        TickloomError: what ``predictor_of`` raises.
        InvariantError: a feature or an answer is not finite.
    """
    lane = _lane(first_model, switches, predictor_of, windows, partition)
    ticks = last_seq = 0
    for together in _portions(blocks):
        output = lane.apply([(block.offset, block.ticks) for block in together])
        at = np.flatnonzero(output.predictions["seq"] == seq)
        if len(at):
            prediction = _placed(output, int(at[0]), together)
            upto = [block for block in together if block.offset <= prediction["source_offset"]]
            return Recomputed(prediction, _features(output, int(at[0])), ticks + _count(upto))
        ticks += _count(together)
        last_seq = int(output.predictions["seq"][-1]) if len(output.predictions) else last_seq
    raise EndsBefore(last_seq, ticks)


def _recorded(symbol: bytes, swaps: Sequence[Swap], after: int) -> list[Switch]:
    words = symbol_words(np.array([symbol], "S24"))
    found: list[Switch] = []
    for swap in swaps:
        due = int(due_offsets(words, swap)[0])
        while found and found[-1].offset >= due:  # a later swap has reached the symbol first
            found.pop()
        found.append(Switch(due, swap.model_id, True))
    return [each for each in found if each.offset > after]


def _lane(
    first_model: int,
    switches: Sequence[Switch],
    predictor_of: Callable[[int], Predictor],
    windows: Windows,
    partition: int,
) -> Lane:
    lane = Lane(partition, windows, predictor_of(first_model))
    lane.timeline = Timeline(lane.predictor, windows)
    previous = first_model
    for each in switches:
        # Over one block: the symbol's own offset is known.
        swap = Swap(partition, each.offset, 1, each.model_id, "", previous, 0, "", 0)
        lane.timeline.add(swap, predictor_of(each.model_id))
        previous = each.model_id
    return lane


def _portions(blocks: Iterable[Block]) -> Iterable[list[Block]]:
    together: list[Block] = []
    size = 0
    for block in blocks:
        together.append(block)
        size += len(block.ticks)
        if size >= _TOGETHER_TICKS:
            yield together
            together, size = [], 0
    if together:
        yield together


def _count(blocks: Iterable[Block]) -> int:
    return sum(len(block.ticks) for block in blocks)


def _placed(output: LaneOutput, at: int, blocks: list[Block]) -> Records:
    prediction: Any = output.predictions[at].copy()
    block = next(each for each in blocks if each.offset == prediction["source_offset"])
    prediction["source_index"] = block.positions[prediction["source_index"]]
    found: Records = prediction
    return found


def _features(output: LaneOutput, at: int) -> NDArray[np.float32]:
    for step in output.steps:
        if at < len(step.rows):
            row: NDArray[np.float32] = step.features[at].copy()
            return row
        at -= len(step.rows)
    raise AssertionError("there is a step for each prediction")
