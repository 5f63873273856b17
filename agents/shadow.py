"""A challenger in one lane: it predicts every tick after the champion has, and nothing depends on it.

Its h and c live in memory only. They start at zero when it joins, and after a restart; its predictions are marked
as warming until it has taken as many steps as its warm-up takes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.inference import MODEL_STATE_FLOATS, Predictor
from agents.windows import Step
from stream.clock import Clock
from stream.records import FLAG_WARMING, Records


class Shadow:
    """The state of one challenger in one lane."""

    def __init__(self, predictor: Predictor, max_symbols: int) -> None:
        """Make room for ``max_symbols`` (1 KiB each); memory is only used once a symbol ticks."""
        self.predictor = predictor
        self._h = np.zeros((max_symbols, MODEL_STATE_FLOATS), np.float32)
        self._c = np.zeros((max_symbols, MODEL_STATE_FLOATS), np.float32)
        self._steps: NDArray[np.int64] = np.zeros(max_symbols, np.int64)

    def predict(self, served: Records, steps: Sequence[Step], clock: Clock) -> Records:
        """Return what it predicts where the champion has predicted ``served``, ``PREDICTION[A]``.

        Args:
            served: one prediction for each accepted tick of the steps.
            steps: what they were made of.
            clock: of now, for ``inferred_ns``.

        Raises:
            InvariantError: it gave a value that is not finite.
        """
        predictions = served.copy()
        start = 0
        for step in steps:
            stop = start + len(step.rows)
            self._take(predictions[start:stop], step)
            start = stop
        predictions["model_id"] = self.predictor.model_id
        predictions["horizon_ns"] = self.predictor.horizon_ns
        predictions["inferred_ns"] = clock()
        return predictions

    def _take(self, predictions: Records, step: Step) -> None:
        if not len(predictions):
            return
        out = np.empty((len(predictions), 4), np.float32)
        self.predictor.run(step.features, step.rows, step.rounds, self._h, self._c, out)
        taken = self._steps[step.rows] + step.rounds + 1
        self._steps[step.rows] = taken  # rows stand in order: the last one of a symbol counts
        for column, name in enumerate(("p_down", "p_flat", "p_up", "expected_return_bps")):
            predictions[name] = out[:, column]
        warming = np.where(taken <= self.predictor.warmup_ticks, np.uint32(FLAG_WARMING), np.uint32(0))
        predictions["flags"] = (predictions["flags"] & ~np.uint32(FLAG_WARMING)) | warming
