"""A lane without inference: a `Predictor` that predicts nothing, to see what the rest costs.

    python -m bench.no_model worker --kafka HOST:PORT

is ``tickloom worker`` with the model step left out: everything else, checkpoints and all, is the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import models.predictor
from agents.inference import Floats


class NoModel:
    """Answers 0 to everything."""

    model_id = 1
    horizon_ns = 0
    warmup_ticks = 0

    def run(
        self,
        features: Floats,
        rows: NDArray[np.int64],
        rounds: NDArray[np.int64],
        h: Floats,
        c: Floats,
        out: Floats,
    ) -> None:
        """Fill ``out`` with 0."""
        out[:] = 0.0


def main() -> None:
    """Run tickloom's command line with this in place of the model that it would load."""
    from stream.__main__ import main as tickloom

    def load_nothing(*_: Any, **__: Any) -> NoModel:
        return NoModel()

    models.predictor.load_predictor = load_nothing  # type: ignore[assignment]
    tickloom()


if __name__ == "__main__":
    main()
