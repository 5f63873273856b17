"""A small recurrent model in numpy that keeps the promises of `agents/inference.py`, down to the bit."""

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.inference import MODEL_STATE_FLOATS, Floats

UNITS = 12


class Recurrent:
    """h' = tanh(W x + U h), c' = decay c + h': its output depends on all that came before."""

    horizon_ns = 1_000_000_000
    warmup_ticks = 32

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.model_id = int(rng.integers(2**63, 2**64, dtype=np.uint64))
        self.w = rng.normal(0, 0.3, (UNITS, features.COUNT)).astype(np.float32)
        self.u = rng.normal(0, 0.3, (UNITS, UNITS)).astype(np.float32)
        self.v = rng.normal(0, 0.5, (4, UNITS)).astype(np.float32)
        self.decay = np.float32(0.8)

    def run(
        self,
        features: Floats,
        rows: NDArray[np.int64],
        rounds: NDArray[np.int64],
        h: Floats,
        c: Floats,
        out: Floats,
    ) -> None:
        assert h.shape[1] == c.shape[1] == MODEL_STATE_FLOATS
        assert np.isfinite(features).all()
        x = np.arcsinh(features)
        for number in range(int(rounds.max()) + 1):
            at = np.flatnonzero(rounds == number)
            where = rows[at]
            # Sums along the last axis: a row's result does not depend on the rows beside it.
            inner = (self.w * x[at, None, :]).sum(axis=2) + (self.u * h[where, None, :UNITS]).sum(axis=2)
            h[where, :UNITS] = np.tanh(inner)
            c[where, :UNITS] = self.decay * c[where, :UNITS] + h[where, :UNITS]
            scores = (self.v * c[where, None, :UNITS]).sum(axis=2)
            likely = np.exp(scores[:, :3] - scores[:, :3].max(axis=1, keepdims=True))
            out[at, :3] = likely / likely.sum(axis=1, keepdims=True)
            out[at, 3] = scores[:, 3]
