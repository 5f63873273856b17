"""A lane: one partition of ticks, its windows and its model state. Blocks in, blocks out; no framework, no I/O.

The lane is deterministic: with the same ticks at the same offsets it gives the same prediction content, however
the ticks were cut into blocks and whichever process ran it. `agents/lanes.py` connects it to Kafka.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from agents.state import RECENT_ROWS, decode_state, encode_state
from agents.validate import DUPLICATE, SKIPPED
from agents.windows import Step, Windows
from stream.clock import Clock, wall_ns
from stream.errors import InvariantError
from stream.records import FLAG_WARMING, PREDICTION, REJECTED, Records, Reject

_OUTCOMES = {0: "accepted", DUPLICATE: "duplicate", SKIPPED: "already_applied"} | {
    reason.value: reason.name.lower() for reason in Reject
}


@dataclass(frozen=True)
class LaneOutput:
    """What blocks of ticks became."""

    predictions: Records  # PREDICTION[A], one for each accepted tick, in order
    rejected: Records  # REJECTED[R]


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
        self.ticks: Counter[str] = Counter()  # by outcome: "accepted", "duplicate", "already_applied", a Reject
        self._dirty: NDArray[np.bool_] = np.zeros(len(windows.states), np.bool_)

    def restore(self, values: Iterable[bytes]) -> None:
        """Take over the rows of the table, and warm the model up where they were left by another one.

        Raises:
            UnknownVersion: a row of a version that this tickloom does not read.
        """
        rows = [decode_state(value) for value in values]
        if rows:
            self.windows.load(np.concatenate(rows))
            self._warm_up()

    def apply(self, blocks: Sequence[tuple[int, Records]]) -> LaneOutput:
        """Apply blocks of ticks; ticks that a symbol's state has already seen are skipped.

        Args:
            blocks: (offset in the partition, ``TICK[N]``) in ascending order of offset.

        Raises:
            InvariantError: a feature or a model output is not finite.
        """
        consumed_ns = self.clock()
        ticks = blocks[0][1] if len(blocks) == 1 else np.concatenate([block for _, block in blocks])
        sizes = [len(block) for _, block in blocks]
        source = _Source(
            ticks,
            np.repeat(np.array([offset for offset, _ in blocks], np.int64), sizes),
            np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes]),
        )
        step = self.windows.step(ticks, source.offsets, consumed_ns)
        features_ns = self.clock()
        self._count(step.reason)
        self._dirty[self.windows.touched_rows()] = True
        predictions = self._predict(source, step)
        predictions["consumed_ns"] = consumed_ns
        predictions["features_ns"] = features_ns
        predictions["inferred_ns"] = self.clock()
        return LaneOutput(predictions, self._rejected(source, step.reason))

    def take_dirty(self) -> list[tuple[bytes, bytes]]:
        """Return (symbol, row) of every symbol that changed since the last call: a checkpoint's content."""
        rows = np.flatnonzero(self._dirty)
        self._dirty[rows] = False
        states = self.windows.states
        return [(bytes(states[row]["symbol"]), encode_state(states[row])) for row in rows]

    def _predict(self, source: "_Source", step: Step) -> Records:
        count = len(step.rows)
        predictions = np.zeros(count, PREDICTION)
        if count == 0:
            return predictions
        if not np.isfinite(step.features).all():
            at = source.offsets[step.index[~np.isfinite(step.features).all(axis=1)]][0]
            raise InvariantError(f"a feature of a tick in partition {self.partition} offset {at} is not finite")
        states, model = self.windows.states, self.predictor
        states["model_id"][step.rows] = model.model_id
        out = np.empty((count, 4), np.float32)
        model.run(step.features, step.rows, step.rounds, states["h"], states["c"], out)
        ticks = source.ticks[step.index]
        predictions["symbol"] = ticks["symbol"]
        predictions["event_ns"] = ticks["event_ns"]
        predictions["recv_ns"] = ticks["recv_ns"]
        predictions["seq"] = step.seq
        predictions["ref_price"] = step.ref
        predictions["feature_hash"] = step.feature_hash
        predictions["horizon_ns"] = model.horizon_ns
        predictions["model_id"] = model.model_id
        for column, name in enumerate(("p_down", "p_flat", "p_up", "expected_return_bps")):
            predictions[name] = out[:, column]
        predictions["flags"] = np.where(step.seq <= model.warmup_ticks, FLAG_WARMING, 0)
        predictions["source_index"] = source.positions[step.index]
        predictions["source_partition"] = self.partition
        predictions["source_offset"] = source.offsets[step.index]
        return predictions

    def _rejected(self, source: "_Source", reason: NDArray[np.uint8]) -> Records:
        index = np.flatnonzero((reason != 0) & (reason < DUPLICATE))
        rejected = np.zeros(len(index), REJECTED)
        if len(index) == 0:
            return rejected
        rejected["tick"] = source.ticks[index]
        rejected["reason"] = reason[index]
        rejected["source_index"] = source.positions[index]
        rejected["source_partition"] = self.partition
        rejected["source_offset"] = source.offsets[index]
        return rejected

    def _count(self, reason: NDArray[np.uint8]) -> None:
        counts = np.bincount(reason)
        for code in np.flatnonzero(counts):
            self.ticks[_OUTCOMES[int(code)]] += int(counts[code])

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
            self._dirty[row] = True
