"""A lane: one partition of ticks, its windows and its model state. Blocks in, blocks out; no framework, no I/O.

The lane is deterministic: with the same ticks at the same offsets it gives the same prediction content, however
the ticks were cut into blocks and whichever process ran it. `agents/lanes.py` connects it to Kafka.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from agents.state import RECENT_ROWS, decode_state, encode_state
from agents.validate import CONTROL
from agents.windows import Step, Windows
from stream.clock import Clock, wall_ns
from stream.compiled import compiled
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


@dataclass(frozen=True)
class LaneOutput:
    """What blocks of ticks became."""

    predictions: Records  # PREDICTION[A], one for each accepted tick, in order
    rejected: Records  # REJECTED[R]
    has_marks: bool  # whether any accepted tick was odd: `stream.records.Mark`


@dataclass(frozen=True)
class _Source:
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
        self.predictor = predictor
        self.clock = clock

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

    def apply(self, blocks: Sequence[tuple[int, Records]]) -> LaneOutput:
        """Apply blocks of ticks; ticks that a symbol's state has already seen are skipped.

        Args:
            blocks: (offset in the partition, ``TICK[N]``) in ascending order of offset.

        Raises:
            InvariantError: a feature or a model output is not finite.
        """
        consumed_ns = self.clock()
        ticks = join_records([block for _, block in blocks])
        sizes = [len(block) for _, block in blocks]
        source = _Source(
            ticks,
            np.repeat(np.array([offset for offset, _ in blocks], np.int64), sizes),
            np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes]),
        )
        step = self.windows.step(ticks, source.offsets)
        features_ns = self.clock()
        predictions = self._predict(source, step)
        predictions["consumed_ns"] = consumed_ns
        predictions["features_ns"] = features_ns
        predictions["inferred_ns"] = self.clock()
        all_accepted = len(step.rows) == len(ticks)
        rejected = _NOTHING if all_accepted else self._rejected(source, step.reason)
        return LaneOutput(predictions, rejected, bool(step.marks.any()))

    def changed(self) -> NDArray[np.int64]:
        """Return the rows of the symbols that `take` has not had since they changed."""
        return np.flatnonzero(self.windows.dirty)

    def take(self, rows: NDArray[np.int64]) -> list[tuple[bytes, bytes]]:
        """Return (symbol, `STATE` row) of some rows, for a checkpoint."""
        self.windows.dirty[rows] = False
        states = self.windows.states
        return [(bytes(states[row]["symbol"]), encode_state(states[row])) for row in rows]

    def _predict(self, source: "_Source", step: Step) -> Records:
        count = len(step.rows)
        predictions = np.zeros(count, PREDICTION)
        if count:
            states, model = self.windows.states, self.predictor
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

    def _warm_up(self) -> None:
        """Rebuild h and c of rows that another model left, by running their recent feature rows."""
        states = self.windows.states[: self.windows.count]
        stale = np.flatnonzero((states["model_id"] != self.predictor.model_id) & (states["seq"] > 0))
        states["h"][stale] = 0.0
        states["c"][stale] = 0.0
        for row in stale:
            seen = int(states[row]["seq"])
            kept = min(seen, RECENT_ROWS)
            features = np.ascontiguousarray(states[row]["recent"][np.arange(seen - kept, seen) % RECENT_ROWS])
            self.predictor.run(
                features,
                np.full(kept, row, np.int64),
                np.arange(kept, dtype=np.int64),
                states["h"],
                states["c"],
                np.empty((kept, 4), np.float32),
            )
            states["model_id"][row] = self.predictor.model_id
            self.windows.dirty[row] = True


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
        prediction, tick = predictions[at], ticks[index[at]]
        states[rows[at]].model_id = model_id
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
        prediction.flags = marks[at] | np.uint32(FLAG_WARMING if seq[at] <= warmup_ticks else 0)
        prediction.source_index = positions[index[at]]
        prediction.source_partition = partition
        prediction.source_offset = offsets[index[at]]
