"""`OrtPredictor`: the model step in onnxruntime, for one live tick or a burst of thousands.

A call is cut into rounds, so that each symbol's rows go in order, and rounds into batches of a few fixed sizes.
Each size has one IOBinding, made once, to views of one arena; between two runs one compiled function copies
results out of the arena and inputs into it. Per batch that is two calls from Python and no new object.

A row's answer must not depend on which batch it was in, not by a bit. Kernels of a linear algebra library may well
round differently for a batch of 1 and of 8, so the sizes that are used are those that were seen to agree with each
other on this CPU when the model was loaded. On x86 with AVX2 all of them do.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agents import features as feature_row
from models import exchange
from models.artifact import INPUTS, OUTPUTS, Artifact, load
from models.compiled_predictor import CompiledPredictor
from models.guards import check_lengths, refusal
from stream.errors import ModelError
from stream.records import MAX_BLOCK_RECORDS

logger = logging.getLogger(__name__)

# Up to 8 exactly, then at most a third of padding. Beyond 128 a row does not get cheaper.
BATCH_SIZES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LARGEST: Final = max(BATCH_SIZES)
_ALIGNMENT_FLOATS: Final = 16  # 64 bytes, a cache line

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Arena:
    """One block of memory with every tensor of the model, and where each starts."""

    floats: Floats
    layout: Integers

    @classmethod
    def make(cls, layers: int, columns: list[int], units: int) -> "_Arena":
        state = layers * _LARGEST * units
        sizes = (_LARGEST * len(columns), state, state, _LARGEST * 3, _LARGEST, state, state)
        rounded = [-(-size // _ALIGNMENT_FLOATS) * _ALIGNMENT_FLOATS for size in sizes]
        offsets = np.concatenate([[0], np.cumsum(rounded)])
        raw = np.zeros(int(offsets[-1]) + _ALIGNMENT_FLOATS, np.float32)
        skip = (-raw.ctypes.data // raw.itemsize) % _ALIGNMENT_FLOATS
        layout = np.array([layers, units, len(columns), *offsets[:-1], *columns], np.int64)
        return cls(raw[skip : skip + int(offsets[-1])], layout)

    def tensors(self, size: int) -> dict[str, Floats]:
        """Return the tensors of a batch of ``size`` as views."""
        layers, units, width = (int(value) for value in self.layout[: exchange.X])
        state = (layers, size, units)
        shapes = ((size, width), state, state, (size, 3), (size,), state, state)
        views = {}
        for name, start, shape in zip((*INPUTS, *OUTPUTS), self.layout[exchange.X :], shapes, strict=False):
            views[name] = self.floats[start : start + int(np.prod(shape))].reshape(shape)
        return views


class OrtPredictor:
    """A `Predictor` (agents/inference.py) that runs an `Artifact` in onnxruntime. Not for use by two threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Bind the model and find the batch sizes that agree. Takes about 0.15 s, and warms the model up."""
        card = artifact.card
        self.card = card
        self.model_id = card.model_id
        self.horizon_ns = card.horizon_ns
        self.warmup_ticks = card.warmup_ticks
        self._width = len(artifact.available)
        self._run = artifact.session.run_with_iobinding
        self._arena = _Arena.make(
            card.layers, feature_row.indices(card.feature_names, artifact.available), card.units
        )
        self._bindings = {size: _bind(artifact.session, self._arena.tensors(size)) for size in BATCH_SIZES}
        self.batch_sizes = self._sizes_that_agree()
        self._by_size = [self._bindings[size] for size in self.batch_sizes]
        self._sizes: Integers = np.array(self.batch_sizes, np.int64)
        self._plan = _empty_plan(MAX_BLOCK_RECORDS)
        # One row alone, the live tick, needs no planning.
        self._plan_of_one = _empty_plan(1)
        self._plan_of_one[exchange.COUNT, 0] = 1

    def run(self, features: Floats, rows: Integers, rounds: Integers, h: Floats, c: Floats, out: Floats) -> None:
        """Take one step for each feature row: see `agents.inference.Predictor.run`.

        Raises:
            InvariantError: an input or an output is not finite, or an index is out of bounds.
        """
        check_lengths(features, self._width, rows, rounds, out)
        count = len(rows)
        if count == 1:
            self._run_one(features, rows, h, c, out)
        elif count:
            self._run_many(features, rows, rounds, h, c, out)

    def _run_one(self, features: Floats, rows: Integers, h: Floats, c: Floats, out: Floats) -> None:
        fixed = (features, rows, h, c, out, self._arena.floats, self._plan_of_one, self._sizes, self._arena.layout)
        trouble = exchange.exchange(-1, 0, *fixed)
        if not trouble:
            self._run(self._by_size[0])
            trouble = exchange.exchange(0, -1, *fixed)
        if trouble:
            raise refusal(self.card, trouble)

    def _run_many(
        self, features: Floats, rows: Integers, rounds: Integers, h: Floats, c: Floats, out: Floats
    ) -> None:
        count = len(rows)
        if self._plan.shape[1] <= count:
            self._plan = _empty_plan(count)
        plan = self._plan
        batches = exchange.make_plan(rounds, self._sizes, plan)
        if batches > count:
            raise refusal(self.card, batches)
        fixed = (features, rows, h, c, out, self._arena.floats, plan, self._sizes, self._arena.layout)
        trouble = exchange.exchange(-1, 0, *fixed)
        for batch, size in enumerate(plan[exchange.SIZE, :batches].tolist()):
            if trouble:
                break
            self._run(self._by_size[size])
            trouble = exchange.exchange(batch, batch + 1 if batch + 1 < batches else -1, *fixed)
        if trouble:
            raise refusal(self.card, trouble)

    def _sizes_that_agree(self) -> tuple[int, ...]:
        """Return batch sizes that give each row the same bits, whichever it is run in and wherever in it."""
        generator = np.random.default_rng(0)
        golden, state = self.card.golden.features, (_LARGEST, self.card.layers, self.card.units)
        inputs = {
            "x": golden[generator.integers(0, len(golden), _LARGEST)] * generator.normal(1.0, 0.1, (_LARGEST, 1)),
            "h": generator.uniform(-1.0, 1.0, state),
            "c": generator.normal(0.0, 1.0, state),
        }
        shuffled = generator.permutation(_LARGEST)
        in_order = np.arange(_LARGEST)
        answers = {
            size: [self._answers(size, inputs, order) for order in (in_order, shuffled)] for size in BATCH_SIZES
        }
        best: tuple[int, ...] = ()
        for anchor in BATCH_SIZES:
            right = answers[anchor][0]
            agreeing = tuple(size for size, both in answers.items() if all(_same(one, right) for one in both))
            best = max(best, agreeing, key=len)
        if len(best) < len(BATCH_SIZES):
            logger.warning("this CPU rounds differently in other batches than of %s rows: using only these", best)
        return best

    def _answers(self, size: int, inputs: dict[str, NDArray[Any]], order: Integers) -> Floats:
        """Return the answers and new states of rows, ``float32[len(order), *]``, run in batches of ``size``."""
        tensors = self._arena.tensors(size)
        answers: list[Floats] = [np.empty(0, np.float32)] * len(order)
        for start in range(0, len(order), size):
            some = order[np.arange(start, start + size) % len(order)]
            for name, values in inputs.items():
                np.copyto(tensors[name], np.moveaxis(values[some], 0, -2))
            self._run(self._bindings[size])
            for place, row in enumerate(some):
                answers[row] = np.concatenate(
                    [tensors[name][place].ravel() for name in OUTPUTS[:2]]
                    + [tensors[name][:, place].ravel() for name in OUTPUTS[2:]]
                )
        return np.stack(answers)


def load_predictor(
    path: Path,
    engine: Literal["auto", "compiled", "onnxruntime"] = "auto",
    *,
    available: tuple[str, ...] = feature_row.NAMES,
) -> "CompiledPredictor | OrtPredictor":
    """Return the model at ``path``, ready to serve on rows of the ``available`` features.

    Args:
        path: of the model file.
        engine: ``auto`` compiles the step where its graph is of the form that we export and answers as onnxruntime
            does, and leaves the rest to onnxruntime.

    Raises:
        ModelError: it must not serve, or not so; the message says why.
    """
    artifact = load(path, available)
    if engine == "onnxruntime":
        return OrtPredictor(artifact)
    try:
        compiled = CompiledPredictor.build(artifact)
        compiled.check_against(artifact)
    except ModelError as error:
        if engine == "compiled":
            raise ModelError(f"model {path} cannot be compiled: {error}") from None
        logger.warning("model %s: onnxruntime serves it, more slowly, as it cannot be compiled: %s", path, error)
        return OrtPredictor(artifact)
    return compiled


def _bind(session: ort.InferenceSession, tensors: dict[str, Floats]) -> Any:
    binding = session.io_binding()
    for name, view in tensors.items():
        bind = binding.bind_input if name in INPUTS else binding.bind_output
        bind(name, "cpu", 0, np.float32, view.shape, view.ctypes.data)
    return binding


def _same(one: Floats, other: Floats) -> bool:
    return one.tobytes() == other.tobytes()


def _empty_plan(rows: int) -> Integers:
    return np.zeros((5, rows + 1), np.int64)
