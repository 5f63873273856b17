"""`CompiledPredictor`: the model step in compiled code, on the weights of the very file that onnxruntime would run.

For graphs of the form that we export (`models/step_graph.py`). Before it serves, its answers and its states are
compared with those of onnxruntime, which otherwise takes 7 us for one row where this takes one.
"""

import logging
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents import features as feature_row
from agents.inference import MODEL_STATE_FLOATS
from models import step_kernel
from models.artifact import OUTPUTS, Artifact
from models.card import ModelCard
from models.guards import check_lengths, refusal
from models.step_graph import StepWeights, read_step
from stream.errors import InvariantError, ModelError

logger = logging.getLogger(__name__)

# Largest difference to onnxruntime, relative to 1 + |value|. Both are within some 1e-6 of the exact value.
TOLERANCE: Final = 1e-5
_STEPS: Final = 512
_SYMBOLS: Final = 3
_CACHE_LINE_FLOATS: Final = 16
_VECTOR_FLOATS: Final = 8

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class CompiledPredictor:
    """A `Predictor` (agents/inference.py) of one LSTM step. Not for use by two threads at once."""

    def __init__(
        self, card: ModelCard, weights: StepWeights, available: tuple[str, ...] = feature_row.NAMES
    ) -> None:
        """Lay the weights out for the kernel.

        Args:
            card: of the model.
            weights: of a model with the card's features, layers and units.
            available: the features in a row, in their order.
        """
        self.card = card
        self.model_id = card.model_id
        self.horizon_ns = card.horizon_ns
        self.warmup_ticks = card.warmup_ticks
        self._width = len(available)
        self._columns = feature_row.indices(card.feature_names, available)
        self._weights, self._scratch, self._layout = _lay_out(weights, self._columns)

    @classmethod
    def build(cls, artifact: Artifact) -> "CompiledPredictor":
        """Return a predictor of a loaded model; `check_against` it before it serves.

        Raises:
            ModelError: its graph is not of the form that can be compiled.
        """
        card = artifact.card
        weights = read_step(artifact.graph, len(card.feature_names), card.layers, card.units)
        return cls(card, weights, artifact.available)

    def run(self, features: Floats, rows: Integers, rounds: Integers, h: Floats, c: Floats, out: Floats) -> None:
        """Take one step for each feature row: see `agents.inference.Predictor.run`.

        Raises:
            InvariantError: an input or an output is not finite, or an index is out of bounds.
        """
        check_lengths(features, self._width, rows, rounds, out)
        trouble = step_kernel.step_rows(
            features, rows, rounds, h, c, out, self._weights, self._scratch, self._layout
        )
        if trouble:
            raise refusal(self.card, trouble)

    def check_against(self, artifact: Artifact) -> float:
        """Compare answers and states with those of onnxruntime: on the golden vectors, then on noise around them.

        Returns:
            The largest difference, relative to 1 + |value|.

        Raises:
            ModelError: it is more than rounding explains.
        """
        card, golden = artifact.card, artifact.card.golden.features
        generator = np.random.default_rng(0)
        some = golden[generator.integers(0, len(golden), (_STEPS, _SYMBOLS))]
        noisy = (some * generator.normal(1.0, 0.5, some.shape)).astype(np.float32)
        steps = np.concatenate([np.repeat(golden[:, None], _SYMBOLS, axis=1), noisy])
        mine = np.zeros((2, _SYMBOLS, MODEL_STATE_FLOATS), np.float32)
        h = np.zeros((card.layers, _SYMBOLS, card.units), np.float32)
        c = np.zeros_like(h)
        rows, rounds = np.arange(_SYMBOLS), np.zeros(_SYMBOLS, np.int64)
        features = np.zeros((_SYMBOLS, feature_row.COUNT), np.float32)
        out = np.empty((_SYMBOLS, 4), np.float32)
        worst = 0.0
        for x in steps:
            probabilities, expected, h, c = artifact.session.run(list(OUTPUTS), {"x": x, "h": h, "c": c})
            features[:, self._columns] = x
            try:
                self.run(features, rows, rounds, mine[0], mine[1], out)
            except InvariantError as error:
                raise ModelError(f"compiled, it fails: {error}") from None
            theirs = np.concatenate([probabilities, expected[:, None], *h, *c], axis=1)
            ours = np.concatenate([out, *mine[:, :, : card.layers * card.units]], axis=1)
            worst = np.maximum(worst, np.max(np.abs(ours - theirs) / (1.0 + np.abs(theirs))))  # NaN stays
        if not worst < TOLERANCE:
            raise ModelError(f"compiled, it is off onnxruntime by {worst:.2g}; right would be {TOLERANCE:.0e}")
        logger.info("model %s: compiled, within %.1e of onnxruntime over %d steps", card.name, worst, len(steps))
        return float(worst)


def _lay_out(weights: StepWeights, columns: list[int]) -> tuple[Floats, Floats, Integers]:
    """Return weights, scratch and layout as `models/step_kernel.py` wants them."""
    width, layers, units = len(weights.mean), len(weights.layers), len(weights.heads)
    answer_columns = 4 if len(weights.direct) else 0
    stride = _rounded(4 * units + answer_columns, _VECTOR_FLOATS)
    layout = np.zeros(step_kernel.LAYER + layers * step_kernel.LAYER_SIZE + width, np.int64)
    layout[: step_kernel.MEAN] = layers, units, width, stride
    layout[step_kernel.LAYER + layers * step_kernel.LAYER_SIZE :] = columns
    constants, scratch = _Parts(), _Parts()
    layout[step_kernel.MEAN] = constants.add(weights.mean)
    layout[step_kernel.INVERSE] = constants.add(weights.inverse)
    layout[step_kernel.LIMIT] = constants.add(np.array([weights.limit]))
    layout[step_kernel.DIRECT] = answer_columns
    layout[step_kernel.HEADS] = constants.add(np.vstack([weights.heads, weights.heads_bias]))
    layout[step_kernel.SUMS] = scratch.add(np.zeros(step_kernel.TILE * stride))
    tile_inputs = step_kernel.TILE * _rounded(width, step_kernel.TOGETHER)
    layout[step_kernel.TILE_INPUTS] = scratch.add(np.zeros(tile_inputs))
    for part in (step_kernel.H_NEW, step_kernel.C_NEW):
        layout[part] = scratch.add(np.zeros(layers * units))
    layout[step_kernel.ANSWER] = scratch.add(np.zeros(4))
    for at, layer in enumerate(weights.layers):
        inputs = _rounded(len(layer.kernel), step_kernel.TOGETHER)
        rows = inputs + _rounded(units, step_kernel.TOGETHER)
        matrix = np.zeros((rows + 1, stride), np.float32)
        matrix[: len(layer.kernel), : 4 * units] = layer.kernel
        matrix[inputs : inputs + units, : 4 * units] = layer.recurrent
        matrix[rows, : 4 * units] = layer.bias
        if at == 0 and answer_columns:
            matrix[:width, 4 * units : 4 * units + answer_columns] = weights.direct
        place = step_kernel.LAYER + at * step_kernel.LAYER_SIZE
        layout[place : place + step_kernel.LAYER_SIZE] = (
            inputs,
            rows,
            constants.add(matrix),
            scratch.add(np.zeros(rows)),
        )
    return constants.joined(), scratch.joined(), layout


class _Parts:
    """Arrays that are to lie in one block of memory, each at the start of a cache line."""

    def __init__(self) -> None:
        self._arrays: list[Floats] = []
        self._length = 0

    def add(self, values: NDArray[np.floating]) -> int:
        """Add one array, and return where it will start."""
        start = self._length
        self._arrays.append(np.zeros(_rounded(values.size, _CACHE_LINE_FLOATS), np.float32))
        self._arrays[-1][: values.size] = values.ravel()
        self._length += len(self._arrays[-1])
        return start

    def joined(self) -> Floats:
        """Return the block."""
        raw = np.zeros(self._length + _CACHE_LINE_FLOATS, np.float32)
        skip = (-raw.ctypes.data // raw.itemsize) % _CACHE_LINE_FLOATS
        block = raw[skip : skip + self._length]
        np.concatenate(self._arrays, out=block)
        return block


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
