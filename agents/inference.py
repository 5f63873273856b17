"""The seam between lanes and models: what a lane needs of a model. `models/predictor.py` plugs in here."""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

# Room for the recurrent state of one symbol in its STATE row: layers x units of h, and the same of c.
MODEL_STATE_FLOATS: Final = 128

Floats = NDArray[np.float32]


class Challengers(Protocol):
    """Whoever wants to know of challengers that fail."""

    def on_challenger_failed(self, model_id: int, error: Exception) -> None:
        """Take note that a lane has dropped one."""
        ...


class Predictor(Protocol):
    """A recurrent model that takes one step for each feature row."""

    model_id: int  # first 8 bytes of the SHA-256 of the weights, as an unsigned number
    horizon_ns: int  # how far ahead it predicts
    warmup_ticks: int  # steps after which its state no longer depends on where it started

    def run(
        self,
        features: Floats,
        rows: NDArray[np.int64],
        rounds: NDArray[np.int64],
        h: Floats,
        c: Floats,
        out: Floats,
    ) -> None:
        """Take one step for each feature row, in order for each symbol.

        Args:
            features: ``float32[N, F]``, F = features.COUNT, all finite, in order of arrival.
            rows: ``int64[N]``, the symbol's row in ``h`` and ``c``.
            rounds: ``int64[N]``, how many feature rows of the same symbol stand before this one.
            h: ``float32[S, MODEL_STATE_FLOATS]``, hidden state of S symbols, updated in place.
            c: ``float32[S, MODEL_STATE_FLOATS]``, cell state, updated in place.
            out: ``float32[N, 4]``: probabilities of down, flat, up; expected return in bps.

        The values do not depend on how a stream of rows was cut into calls: not by a bit.

        Raises:
            InvariantError: the model gave a value that is not finite.
        """
        ...
