"""A lane: one partition of ticks, its windows and its model state. Blocks in, blocks out; no framework, no I/O.

The lane is deterministic: with the same ticks at the same offsets it gives the same prediction content, however
the ticks were cut into blocks and whichever process ran it. `agents/lanes.py` connects it to Kafka.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from agents.shadow import Shadow
from agents.state import RECENT_ROWS, decode_state, encode_state
from agents.timeline import Blocks, Timeline
from agents.validate import CONTROL
from agents.windows import Step, Windows
from stream.clock import Clock, wall_ns
from stream.compiled import compiled
from stream.errors import InvariantError
from stream.records import (
    FLAG_WARMING,
    PREDICTION,
    REJECTED,
    TICK,
    Records,
    TickKind,
    decode_block,
    empty_ticks,
    encode_block,
    join_records,
)

_NOTHING: Final = np.zeros(0, REJECTED)


class LaneOutput(NamedTuple):
    """What blocks of ticks became."""

    predictions: Records  # PREDICTION[A], one for each accepted tick, in order
    rejected: Records  # REJECTED[R]
    has_marks: bool  # whether any accepted tick was odd: `stream.records.Mark`
    stamps_ns: tuple[int, int, int]  # our clock when the last ticks were consumed, had features, had predictions
    steps: tuple[Step, ...]  # what the predictions were made of, in order; the last one is of views, as `Step` says


class _Source(NamedTuple):
    """The ticks of some blocks, N in all, and where each came from."""

    ticks: Records  # TICK[N]
    offsets: NDArray[np.int64]  # [N] of its block
    positions: NDArray[np.uint32]  # [N] in its block


class Lane:
    """The state of one partition."""

    def __init__(self, partition: int, windows: Windows, predictor: Predictor, clock: Clock = wall_ns) -> None:
        """Make an empty lane; `restore` gives it what an earlier owner of the partition left."""
        self.partition = partition
        self.windows = windows
        self.timeline = Timeline(predictor, windows)
        self.shadows: dict[int, Shadow] = {}  # by model id
        self.clock = clock

    @property
    def predictor(self) -> Predictor:
        """The model that serves, but for symbols that a swap has reached."""
        return self.timeline.serving

    def restore(self, values: Iterable[bytes], rewrite: Iterable[bytes] = ()) -> None:
        """Take over the rows of the table, and warm the model up where they were left by another one.

        Args:
            values: ``STATE`` rows as bytes.
            rewrite: symbols that count as changed.

        Raises:
            UnknownVersion: a row of a version that this tickloom does not read.
        """
        rows = [decode_state(value) for value in values]
        if rows:
            self.windows.load(join_records(rows))
            self.windows.dirty[np.flatnonzero(np.isin(self.windows.states["symbol"], list(rewrite)))] = True
            self._warm_up()

    def groups(self, blocks: Blocks) -> Iterator[Blocks]:
        """Cut blocks into what `apply` does in one go: all of them, or one by one while symbols switch models."""
        return self.timeline.groups(blocks)

    def apply(self, blocks: Blocks) -> LaneOutput:
        """Apply blocks of ticks; ticks that a symbol's state has already seen are skipped.

        Args:
            blocks: (offset in the partition, ``TICK[N]``) in ascending order of offset, at least one.

        Raises:
            InvariantError: a feature or a model output is not finite.
        """
        groups = list(self.groups(blocks))
        if len(groups) == 1:
            return self._apply(groups[0])
        outputs = []
        for group in groups:
            output = self._apply(group)
            steps = tuple(step.only(np.arange(len(step.rows))) for step in output.steps)
            outputs.append(output._replace(steps=steps))
        return LaneOutput(
            np.concatenate([output.predictions for output in outputs]),
            np.concatenate([output.rejected for output in outputs]),
            any(output.has_marks for output in outputs),
            outputs[-1].stamps_ns,
            tuple(step for output in outputs for step in output.steps),
        )

    def shadow(self, output: LaneOutput) -> tuple[Records, dict[int, InvariantError]]:
        """Let the challengers predict what the champion has just predicted.

        Args:
            output: of the last call of `apply`.

        Returns:
            ``PREDICTION[C * A]`` of C challengers, and why those failed that did, by model id: they are dropped.
        """
        predictions, failed = [output.predictions[:0]], {}
        for model_id, shadow in list(self.shadows.items()):
            try:
                predictions.append(shadow.predict(output.predictions, output.steps, self.clock))
            except InvariantError as error:
                failed[model_id] = error
                del self.shadows[model_id]
        return np.concatenate(predictions), failed

    def _apply(self, blocks: Blocks) -> LaneOutput:
        offset = blocks[-1][0]
        is_quiet = self.timeline.is_quiet(offset)
        if not is_quiet:  # then it is one block, or all swaps are done before the first
            for row, predictor in self.timeline.take_due(blocks[0][0]):
                self._rebuild(row, predictor)
            is_quiet = self.timeline.is_quiet(offset)
        consumed_ns = self.clock()
        ticks = join_records([block for _, block in blocks])
        source = _Source(ticks, *_places(blocks))
        step = self.windows.step(ticks, source.offsets)
        features_ns = self.clock()
        predictions = self._predict(source, step, self.predictor) if is_quiet else self._predict_mixed(source, step)
        predictions["consumed_ns"] = consumed_ns
        predictions["features_ns"] = features_ns
        predictions["inferred_ns"] = inferred_ns = self.clock()
        all_accepted = len(step.rows) == len(ticks)
        rejected = _NOTHING if all_accepted else self._rejected(source, step.reason)
        return LaneOutput(predictions, rejected, step.has_marks, (consumed_ns, features_ns, inferred_ns), (step,))

    def changed(self) -> NDArray[np.int64]:
        """Return the rows of the symbols that `take` has not had since they changed."""
        return np.flatnonzero(self.windows.dirty)

    def take(self, rows: NDArray[np.int64]) -> list[tuple[bytes, bytes]]:
        """Return (symbol, `STATE` row) of some rows, for a checkpoint."""
        self.windows.dirty[rows] = False
        states = self.windows.states
        return [(bytes(states[row]["symbol"]), encode_state(states[row])) for row in rows]

    def _predict_mixed(self, source: "_Source", step: Step) -> Records:
        """Predict with the model of each symbol, while some have switched and others have not."""
        self.timeline.give_a_model(step.rows, int(source.offsets[0]))
        predictions = np.zeros(len(step.rows), PREDICTION)
        ids = self.windows.states["model_id"][step.rows]
        left = len(ids)
        for model_id, predictor in self.timeline.models().items():
            at = np.flatnonzero(ids == model_id)
            predictions[at] = self._predict(source, step.only(at), predictor)
            left -= len(at)
        if left:
            raise InvariantError(f"lane {self.partition}: {left} ticks are for models that are not loaded: {ids}")
        return predictions

    def _predict(self, source: "_Source", step: Step, model: Predictor) -> Records:
        count = len(step.rows)
        predictions = np.zeros(count, PREDICTION)
        if count:
            states = self.windows.states
            out = np.empty((count, 4), np.float32)
            model.run(step.features, step.rows, step.rounds, states["h"], states["c"], out)
            _fill(
                predictions,
                np.ascontiguousarray(source.ticks),
                source.offsets,
                source.positions,
                step.index,
                step.rows,
                step.seq,
                step.ref,
                step.spread_bps,
                step.marks,
                step.feature_hash,
                out,
                states,
                np.uint64(model.model_id),
                model.horizon_ns,
                model.warmup_ticks,
                self.partition,
            )
        return predictions

    def _rejected(self, source: "_Source", reason: NDArray[np.uint8]) -> Records:
        index = np.flatnonzero((reason != 0) & (reason < CONTROL))
        rejected = np.zeros(len(index), REJECTED)
        rejected["tick"] = source.ticks[index]
        rejected["reason"] = reason[index]
        rejected["source_index"] = source.positions[index]
        rejected["source_partition"] = self.partition
        rejected["source_offset"] = source.offsets[index]
        return rejected

    def recent_features(self, symbols: int) -> list[NDArray[np.float32]]:
        """Return copies of the feature rows that some symbols have kept, ``float32[<= RECENT_ROWS, F]`` each."""
        return [self._kept(row) for row in range(min(symbols, self.windows.count))]

    def _kept(self, row: int) -> NDArray[np.float32]:
        """Return the feature rows that a symbol's state has kept, in their order."""
        state = self.windows.states[row]
        seen = int(state["seq"])
        kept = min(seen, RECENT_ROWS)
        return np.ascontiguousarray(state["recent"][np.arange(seen - kept, seen) % RECENT_ROWS])

    def _warm_up(self) -> None:
        """Rebuild h and c of rows that a model left which is none of this lane."""
        models = np.array(list(self.timeline.models()), np.uint64)
        states = self.windows.states[: self.windows.count]
        for row in np.flatnonzero(~np.isin(states["model_id"], models) & (states["seq"] > 0)).tolist():
            self._rebuild(row, self.timeline.model_of(row))

    def _rebuild(self, row: int, predictor: Predictor) -> None:
        """Make h and c those of another model, by running the feature rows that the state has kept, from zero."""
        states = self.windows.states
        state = states[row]
        state["h"] = state["c"] = 0.0
        features = self._kept(row)
        kept = len(features)
        if kept:
            predictor.run(
                features,
                np.full(kept, row, np.int64),
                np.arange(kept, dtype=np.int64),
                states["h"],
                states["c"],
                np.empty((kept, 4), np.float32),
            )
        state["model_id"], state["model_steps"] = predictor.model_id, kept
        self.windows.dirty[row] = True


def _places(blocks: Blocks) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return of each tick the offset of its block, and its place in it."""
    if len(blocks) == 1:  # the rule, and three times as fast
        offset, block = blocks[0]
        offsets = np.empty(len(block), np.int64)
        offsets.fill(offset)
        return offsets, np.arange(len(block), dtype=np.uint32)
    sizes = [len(block) for _, block in blocks]
    offsets = np.repeat(np.array([offset for offset, _ in blocks], np.int64), sizes)
    return offsets, np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes])


def compile_kernels(predictor: Predictor) -> None:
    """Compile everything that a tick runs through, or load it from numba's cache, now rather than at the first
    tick: some 15 s on a new machine, 1 s later."""
    quotes = empty_ticks(3)
    quotes["symbol"], quotes["kind"], quotes["source_seq"] = b"WARM-UP", TickKind.QUOTE, (1, 2, 3)
    for name in ("bid", "ask", "bid_size", "ask_size"):
        quotes[name] = 1.0
    # A block from Kafka is read-only, blocks that were put together are not: two types, for numba.
    block = decode_block(encode_block(quotes), TICK)
    lane = Lane(0, Windows(0, 0, max_symbols=1), predictor)
    lane.windows.load(lane.windows.states[:0])
    lane.windows.row_of(b"WARM-UP")
    lane.apply([(0, block[:1])])
    lane.apply([(1, block[1:2]), (2, block[2:])])


@compiled
def _fill(
    predictions: Any,
    ticks: Any,
    offsets: Any,
    positions: Any,
    index: Any,
    rows: Any,
    seq: Any,
    ref: Any,
    spread_bps: Any,
    marks: Any,
    feature_hash: Any,
    out: Any,
    states: Any,
    model_id: Any,
    horizon_ns: int,
    warmup_ticks: int,
    partition: int,
) -> None:
    """Write what is known of each prediction before it is sent: compiled, as 20 numpy calls cost a tick 40 us."""
    for at in range(len(predictions)):
        prediction, tick, state = predictions[at], ticks[index[at]], states[rows[at]]
        state.model_id = model_id
        state.model_steps += np.uint64(1)
        prediction.symbol = tick.symbol
        prediction.event_ns = tick.event_ns
        prediction.recv_ns = tick.recv_ns
        prediction.seq = seq[at]
        prediction.ref_price = ref[at]
        prediction.horizon_ns = horizon_ns
        prediction.model_id = model_id
        prediction.feature_hash = feature_hash[at]
        prediction.p_down = out[at, 0]
        prediction.p_flat = out[at, 1]
        prediction.p_up = out[at, 2]
        prediction.expected_return_bps = out[at, 3]
        prediction.flags = marks[at] | np.uint32(FLAG_WARMING if state.model_steps <= warmup_ticks else 0)
        prediction.source_index = positions[index[at]]
        prediction.source_partition = partition
        prediction.spread_bps = spread_bps[at]
        prediction.source_offset = offsets[index[at]]
