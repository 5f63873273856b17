"""What must come out of some ticks, computed here and in one go."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.lane import Lane, LaneOutput
from agents.windows import Windows
from models.predictor import load_predictor
from stream.clock import NS_PER_S
from stream.records import PREDICTION_CONTENT_BYTES, Records, partition_of
from stream.settings import Settings
from stream.sources.replay import Replay

_BLOCK_TICKS = 4096


def real_ticks(files: Sequence[Path]) -> Records:
    """Return the whole replay as the engine would receive it."""
    ticks = np.concatenate(list(Replay(files).days()))
    ticks["recv_ns"] = np.maximum(ticks["recv_ns"], ticks["event_ns"])
    return ticks


def undisturbed(settings: Settings, ticks: Records) -> LaneOutput:
    """Return everything that comes of ``ticks`` where nothing ever goes wrong."""
    predictor = load_predictor(settings.model, settings.predictor)
    lanes = partition_of(ticks["symbol"], settings.partitions)
    outputs: list[LaneOutput] = []
    for number in range(settings.partitions):
        mine = ticks[lanes == number]
        windows = Windows(int(settings.lateness_s * NS_PER_S), int(settings.future_s * NS_PER_S))
        lane = Lane(number, windows, predictor)
        starts = range(0, len(mine), _BLOCK_TICKS)
        outputs += [lane.apply([(start, mine[start : start + _BLOCK_TICKS])]) for start in starts]
    return LaneOutput(
        np.concatenate([output.predictions for output in outputs]),
        np.concatenate([output.rejected for output in outputs]),
        any(output.has_marks for output in outputs),
        (0, 0, 0),
        (),
    )


def contents(predictions: Records) -> list[bytes]:
    """Return what was predicted, each as bytes that are the same wherever and however often it was computed."""
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), predictions.itemsize)
    return [content.tobytes() for content in raw[:, PREDICTION_CONTENT_BYTES]]


def in_order(predictions: Records) -> NDArray[np.uint8]:
    """Return what was predicted, ``uint8[N, content bytes]``, by symbol and seq, identical ones once."""
    order = np.lexsort((predictions["seq"], predictions["symbol"]))
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), predictions.itemsize)
    rows = raw[order][:, PREDICTION_CONTENT_BYTES]
    differs = np.ones(len(rows), np.bool_)
    differs[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return rows[differs]


def newest(predictions: Records) -> dict[str, int]:
    """Return the newest seq of each symbol."""
    seqs: dict[str, int] = {}
    for symbol, seq in zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True):
        seqs[symbol.decode()] = max(seq, seqs.get(symbol.decode(), 0))
    return seqs
