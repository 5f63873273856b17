"""What each stage of a lane costs, in ns of CPU time a tick, in this process and without Kafka."""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.inference import Floats, Predictor
from agents.lane import Lane, compile_kernels
from agents.state import encode_state
from agents.windows import Step, Windows
from bench.markets import FUTURE_NS, LATENESS_NS, chunks
from stream.records import TICK, Records, decode_block, encode_block

# The worker's checkpoint: state rows that changed, about once a second.
_CHECKPOINT_NS: Final = 1_000_000_000


class _TimedWindows(Windows):
    """Windows that know how long their steps took."""

    spent_ns = 0

    def step(self, ticks: Records, offsets: NDArray[np.int64]) -> Step:
        begun_ns = time.thread_time_ns()
        step = super().step(ticks, offsets)
        self.spent_ns += time.thread_time_ns() - begun_ns
        return step


class _TimedPredictor:
    """A predictor that knows how long its runs took."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.model_id = inner.model_id
        self.horizon_ns = inner.horizon_ns
        self.warmup_ticks = inner.warmup_ticks
        self.spent_ns = 0

    def run(
        self,
        features: Floats,
        rows: NDArray[np.int64],
        rounds: NDArray[np.int64],
        h: Floats,
        c: Floats,
        out: Floats,
    ) -> None:
        begun_ns = time.thread_time_ns()
        self._inner.run(features, rows, rounds, h, c, out)
        self.spent_ns += time.thread_time_ns() - begun_ns


@dataclass
class _Spent:
    """CPU time of this thread by stage."""

    decode_ns: int = 0
    apply_ns: int = 0
    encode_ns: int = 0
    checkpoint_ns: int = 0
    checkpoints: int = 0
    checkpoint_rows: int = 0


def kernel(ticks: Records, block_ticks: int) -> dict[str, Any]:
    """Return what the kernel alone reaches: validation, windows and features, no records, no model."""
    windows = Windows(LATENESS_NS, FUTURE_NS)
    blocks = list(chunks(ticks, block_ticks))
    wall_ns, begun_ns = time.perf_counter_ns(), time.thread_time_ns()
    for block, offsets in blocks:
        windows.step(block, offsets)
    cpu_ns, wall_ns = time.thread_time_ns() - begun_ns, time.perf_counter_ns() - wall_ns
    return _rates(len(ticks), wall_ns, cpu_ns) | {"features": features.COUNT}


def lane(ticks: Records, block_ticks: int, predictor: Predictor) -> dict[str, Any]:
    """Return what one lane costs from the bytes of blocks of ticks to those of blocks of predictions, by stage."""
    compile_kernels(predictor)
    windows, model = _TimedWindows(LATENESS_NS, FUTURE_NS), _TimedPredictor(predictor)
    measured = Lane(0, windows, model)
    raw = [encode_block(block) for block, _ in chunks(ticks, block_ticks)]
    spent = _Spent()
    wall_ns, begun_ns = time.perf_counter_ns(), time.thread_time_ns()
    next_ns = wall_ns + _CHECKPOINT_NS
    for offset, block in enumerate(raw):
        _apply(measured, offset, block, spent)
        if time.perf_counter_ns() >= next_ns or offset == len(raw) - 1:
            next_ns = time.perf_counter_ns() + _CHECKPOINT_NS
            before_ns = time.thread_time_ns()
            spent.checkpoint_rows += len(_checkpoint(windows))
            spent.checkpoint_ns += time.thread_time_ns() - before_ns
            spent.checkpoints += 1
    cpu_ns, wall_ns = time.thread_time_ns() - begun_ns, time.perf_counter_ns() - wall_ns
    stages = {
        "decode": spent.decode_ns,
        "windows_and_features": windows.spent_ns,
        "inference": model.spent_ns,
        "records": spent.apply_ns - windows.spent_ns - model.spent_ns,
        "encode": spent.encode_ns,
        "checkpoint": spent.checkpoint_ns,
    }
    return _rates(len(ticks), wall_ns, cpu_ns) | {
        "block_ticks": block_ticks,
        "ns_per_tick": {name: ns / len(ticks) for name, ns in stages.items()},
        "checkpoints": spent.checkpoints,
        "ns_per_checkpoint_row": spent.checkpoint_ns / max(spent.checkpoint_rows, 1),
    }


def _apply(measured: Lane, offset: int, block: bytes, spent: _Spent) -> None:
    begun_ns = time.thread_time_ns()
    ticks = decode_block(block, TICK)
    decoded_ns = time.thread_time_ns()
    output = measured.apply([(offset, ticks)])
    applied_ns = time.thread_time_ns()
    if len(output.predictions):
        encode_block(output.predictions)
    spent.decode_ns += decoded_ns - begun_ns
    spent.apply_ns += applied_ns - decoded_ns
    spent.encode_ns += time.thread_time_ns() - applied_ns


def _checkpoint(windows: Windows) -> list[tuple[bytes, bytes]]:
    """Take what a lane's checkpoint writes: the rows that changed, as bytes."""
    rows = np.flatnonzero(windows.dirty)
    windows.dirty[rows] = False
    return [(bytes(windows.states[row]["symbol"]), encode_state(windows.states[row])) for row in rows]


def _rates(ticks: int, wall_ns: int, cpu_ns: int) -> dict[str, Any]:
    return {
        "ticks": ticks,
        "wall_s": wall_ns / 1e9,
        "cpu_s": cpu_ns / 1e9,
        "ticks_per_s": ticks / wall_ns * 1e9,
        "ticks_per_cpu_s": ticks / cpu_ns * 1e9,
    }
