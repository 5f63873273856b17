"""How good a model is, measured in the mode that it serves in: one step at a time with carried state."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agents.inference import MODEL_STATE_FLOATS, Predictor
from models.dataset import HistoryRows, Labels, by_symbol, rounds_of
from models.scores import classification, log_losses
from stream.records import MAX_BLOCK_RECORDS

_SETTLED: Final = 0.01  # of the answers' own spread
_LONGEST_WARMUP: Final = 1024
_PROBES: Final = 64

Answers = NDArray[np.float32]


def serve(predictor: Predictor, rows: HistoryRows) -> Answers:
    """Return the answers, ``float32[A, 4]``, that the engine would have given to a recording."""
    states = np.zeros((2, len(rows.symbols), MODEL_STATE_FLOATS), np.float32)
    answers = np.empty((len(rows.symbol_row), 4), np.float32)
    for start in range(0, len(answers), MAX_BLOCK_RECORDS):
        some = slice(start, start + MAX_BLOCK_RECORDS)
        block = rows.symbol_row[some]
        predictor.run(rows.features[some], block, rounds_of(block), states[0], states[1], answers[some])
    return answers


def score(
    answers: Answers, labels: Labels, judged: NDArray[np.bool_], prior: NDArray[np.float64]
) -> dict[str, float]:
    """Return the metrics of some rows, beside those of always answering with the class frequencies of training.

    Args:
        answers: ``float32[A, 4]``.
        labels: of A rows.
        judged: ``bool[A]``: the rows to judge by, all with known labels.
        prior: ``float64[3]``: how often each class came in the training span.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (1/3 is chance), ``log_loss`` (nats), ``ic`` (rank correlation of the
        expected with the realised return); ``majority_accuracy`` and ``prior_log_loss`` to compare with; ``rows``.
    """
    direction, probabilities = labels.direction[judged], answers[judged, :3].astype(np.float64)
    found = classification(probabilities, direction)
    returns = pd.DataFrame({"expected": answers[judged, 3], "realised": labels.return_bps[judged]}).rank()
    spread = returns.std().min()
    return {
        "rows": float(len(direction)),
        "accuracy": found["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "log_loss": found["log_loss"],
        "ic": float(returns["expected"].corr(returns["realised"])) if spread > 0.0 else 0.0,
        "majority_accuracy": float((direction == prior.argmax()).mean()),
        "prior_log_loss": float(log_losses(np.broadcast_to(prior, probabilities.shape), direction).mean()),
    }


def measure_warmup(predictor: Predictor, rows: HistoryRows, answers: Answers) -> int:
    """Return after how many steps from the zero state the answers are those of a state that was never reset.

    That is: from there on the root mean square difference of the up and down probabilities and of the expected
    return is below 1 % of their standard deviation; 1,024 where it takes longer, or nothing that long was recorded.

    Args:
        predictor: the model.
        rows: a recording.
        answers: what `serve` gave for it.
    """
    probes = _probes(rows)
    if not len(probes):
        return _LONGEST_WARMUP
    count = len(probes)
    states = np.zeros((2, count, MODEL_STATE_FLOATS), np.float32)
    restarted = np.empty((count, 4), np.float32)
    spread = answers.std(axis=0) + 1e-12
    unsettled = 0
    for step in range(_LONGEST_WARMUP):
        where = probes[:, step]
        predictor.run(
            rows.features[where], np.arange(count), np.zeros(count, np.int64), states[0], states[1], restarted
        )
        off = np.sqrt(np.mean(((restarted - answers[where]) / spread) ** 2, axis=0))
        if off.max() >= _SETTLED:
            unsettled = step + 1
    return max(1, min(unsettled, _LONGEST_WARMUP))


def _probes(rows: HistoryRows) -> NDArray[np.int64]:
    """Return indices ``int64[K, _LONGEST_WARMUP]`` of consecutive rows of one symbol each, spread over time."""
    groups = [where for where in by_symbol(rows.symbol_row) if len(where) >= 2 * _LONGEST_WARMUP]
    each = max(1, _PROBES // max(1, len(groups)))
    starts = [
        where[start : start + _LONGEST_WARMUP]
        for where in groups
        for start in np.linspace(len(where) // 4, len(where) - _LONGEST_WARMUP, each).astype(np.int64)
    ]
    return np.array(starts[:_PROBES], np.int64).reshape(-1, _LONGEST_WARMUP)
