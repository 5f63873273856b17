"""The LSTM: two Keras models on the same weights, one to train on sequences, one to export as a step.

TensorFlow is imported inside the functions: it takes 10 s and 1.3 GB, and serving needs none of it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.artifact import INPUTS, OUTPUTS
from models.direct import LIMIT_SIGMAS, Direct
from models.onnx_wire import read_graph
from stream.errors import ModelError, SettingsError

logger = logging.getLogger(__name__)

OPSET: Final = 17
PRODUCER: Final = "tf2onnx 1.17.0"  # the exporter that the checks were made with; pyproject.toml pins it
_SCALED_AT_ONCE: Final = 65_536

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Scaler:
    """Mean and spread of each feature over the training span, explicit nodes of the graph: (x - mean) x inverse.

    Folded into the weights they would cancel badly: 5e-5 instead of 6e-8 for a feature with mean 60,000.
    """

    mean: Floats  # [F]
    inverse: Floats  # [F]

    @classmethod
    def fit(
        cls, features: Floats, inside: NDArray[np.bool_] | None = None, columns: Integers | None = None
    ) -> "Scaler":
        """Return the scaler of some rows and columns; a feature that never moves keeps its unit.

        Args:
            features: ``float32[A, K]``.
            inside: ``bool[A]``: the rows; all if not given.
            columns: ``int64[F]``: the features that the model takes; all if not given.
        """
        where = np.arange(len(features)) if inside is None else np.flatnonzero(inside)
        wanted = np.arange(features.shape[1]) if columns is None else columns
        # A part at a time: all of it in float64 would be twice the recording.
        parts = np.split(where, range(_SCALED_AT_ONCE, len(where), _SCALED_AT_ONCE))
        total = sum(features[part][:, wanted].sum(axis=0, dtype=np.float64) for part in parts)
        mean = total / len(where)
        square = sum(np.square(features[part][:, wanted] - mean).sum(axis=0) for part in parts)
        spread = np.sqrt(square / len(where))
        inverse = 1.0 / np.where(spread > 1e-6, spread, 1.0)
        return cls(mean.astype(np.float32), inverse.astype(np.float32))


@dataclass(frozen=True)
class Models:
    """The same layers twice. State is ``float32[L, B, U]``, in and out."""

    sequence: Any  # x[B, T, F], h, c -> probabilities[B, T, 3], expected_return_bps[B, T], h_out, c_out
    step: Any  # x[B, F], h, c -> probabilities[B, 3], expected_return_bps[B], h_out, c_out
    layers: int
    units: int
    heads: tuple[Any, Any]  # kernels on the topmost layer: of the direction [U, 3], of the expected return [U, 1]


def build(
    scaler: Scaler,
    layers: int,
    units: int,
    seed: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    direct: Direct | None = None,
) -> Models:
    """Return both models with fresh weights, after `start_tensorflow`.

    Args:
        scaler: of the features, as many as the models shall take.
        layers: of LSTM cells.
        units: of a layer.
        seed: of the weights and of dropout.
        dropout: share of what a layer hands on (to the next one, or to the heads) that is left out in training.
        input_dropout: share of the scaled features that is, each for a whole chunk: a step that misses a feature
            guesses it from the step before, and learns nothing from missing it. The direct path misses none.
        direct: the regression to begin with, which training does not change: the heads add to it, from nothing.
            Then all scaled features are held within its limits. Without it, there is no direct path and no limit.

    Nothing is left out of the recurrence: recurrent dropout would need a loop in the exported graph, and blurs the
    very memory that is to be learnt. The step model has no dropout at all.

    The step model uses the layers' own cells, and not the layers over a sequence of one: flat products and sums
    serve 10 % faster than the fused operator between its reshapes, and unlike it they do not swallow NaN.
    """
    import keras
    from keras import ops

    keras.utils.set_random_seed(seed)
    cells = [keras.layers.LSTMCell(units, name=f"lstm_{layer}") for layer in range(layers)]
    stack = [keras.layers.RNN(cell, return_sequences=True, return_state=True) for cell in cells]
    heads = [_head("direction", slice(0, 3), direct), _head("expected", slice(3, 4), direct)]
    wide = keras.layers.Dense(4, use_bias=False, trainable=False, name="direct")
    drops = [
        keras.layers.SpatialDropout1D(input_dropout, seed=seed),
        *(keras.layers.Dropout(dropout, seed=seed + k) for k in range(1, layers + 1)),
    ]

    def connect(x: Any, advance: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]], drop: bool) -> Any:
        h = keras.Input(batch_shape=(layers, None, units), name="h")
        c = keras.Input(batch_shape=(layers, None, units), name="c")
        scaled = (x - scaler.mean) * scaler.inverse
        if direct:
            scaled = ops.maximum(ops.minimum(scaled, LIMIT_SIGMAS), -LIMIT_SIGMAS)
        current = drops[0](scaled) if drop else scaled
        old = zip(_unstack(h, layers), _unstack(c, layers), strict=True)
        new_h, new_c = [], []
        for layer, after, (old_h, old_c) in zip(stack, drops[1:], old, strict=True):
            current, layer_h, layer_c = advance(layer, current, old_h, old_c)
            current = after(current) if drop else current
            new_h.append(layer_h)
            new_c.append(layer_c)
        answers = [head(current) for head in heads]
        if direct:
            answers = [ops.add(*pair) for pair in zip(answers, ops.split(wide(scaled), [3], axis=-1), strict=True)]
        outputs = (ops.softmax(answers[0]), ops.squeeze(answers[1], -1), _stack(new_h), _stack(new_c))
        # Identity gives each output the name that the exported graph must have.
        named = [keras.layers.Identity(name=name)(out) for name, out in zip(OUTPUTS, outputs, strict=True)]
        return keras.Model([x, h, c], named)

    def over_time(layer: Any, current: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        out, h, c = layer(current, initial_state=[h, c])
        return out, h, c

    def one_step(layer: Any, current: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        out, (h, c) = layer.cell(current, [h, c])
        return out, h, c

    width = len(scaler.mean)
    models = Models(
        sequence=connect(keras.Input((None, width), name="x"), over_time, drop=True),
        step=connect(keras.Input((width,), name="x"), one_step, drop=False),
        layers=layers,
        units=units,
        heads=tuple(head.kernel for head in heads),
    )
    if direct:
        wide.set_weights([direct.weights])
    return models


def walk(models: Models, rows: Floats) -> Floats:
    """Return Keras's answers, ``float32[T, 4]``, to rows of one symbol, ``float32[T, F]``, from the zero state."""
    import tensorflow as tf

    state = np.zeros((models.layers, 1, models.units), np.float32)
    probabilities, expected, _, _ = tf.function(models.sequence, autograph=False)([rows[None], state, state])
    return np.concatenate([probabilities[0], expected[0][:, None]], axis=1)


def export_step(models: Models) -> bytes:
    """Return the step model as ONNX bytes, without metadata.

    Raises:
        ModelError: the exporter made something else than one flat step.
    """
    import tensorflow as tf
    import tf2onnx

    width = models.step.inputs[0].shape[-1]
    state = (models.layers, None, models.units)
    shapes = ((None, width), state, state)
    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(INPUTS, shapes, strict=True)]
    exported, _ = tf2onnx.convert.from_keras(models.step, signature, opset=OPSET)
    check_export(exported)
    return bytes(exported.SerializeToString())


def check_export(exported: Any) -> None:
    """Check that an ``onnx.ModelProto`` is a step as it must be: by its exporter, its opset, its names, and flat.

    Raises:
        ModelError: it is something else.
    """
    producer = f"{exported.producer_name} {exported.producer_version}"
    if not f"{producer} ".startswith(f"{PRODUCER} "):
        raise ModelError(f"exported by {producer}; right would be {PRODUCER}: uv sync --extra train")
    # The exporter names a second domain, of which it uses nothing.
    opset = {each.domain: each.version for each in exported.opset_import}.get("")
    if opset != OPSET:
        raise ModelError(f"the exporter used opset {opset}; right would be {OPSET}")
    names = [[value.name for value in values] for values in (exported.graph.input, exported.graph.output)]
    if names != [list(INPUTS), list(OUTPUTS)]:
        raise ModelError(f"the exporter named inputs and outputs {names}; right would be {[INPUTS, OUTPUTS]}")
    graph = read_graph(exported.SerializeToString())
    if graph.subgraphs or {"Loop", "Scan", "If", "LSTM"} & set(graph.operators):
        raise ModelError(f"the exporter made {', '.join(graph.operators)}; right would be flat products and sums")


def start_tensorflow() -> None:
    """Import TensorFlow, its start-up notes off the terminal, its arithmetic the same from run to run.

    Raises:
        SettingsError: the training set is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras  # noqa: F401
        import onnx  # noqa: F401
        import sklearn  # noqa: F401
        import tensorflow as tf
        import tf2onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"training needs {error.name}, which serving does not: uv sync --extra train, or "
            "pip install 'tickloom[train]'"
        ) from None
    tf.config.experimental.enable_op_determinism()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)


def _head(name: str, answers: slice, direct: Direct | None) -> Any:
    from keras import initializers, layers

    size = answers.stop - answers.start
    if direct is None:
        return layers.Dense(size, name=name)
    return layers.Dense(
        size, name=name, kernel_initializer="zeros", bias_initializer=initializers.Constant(direct.bias[answers])
    )


def _unstack(state: Any, layers: int) -> list[Any]:
    from keras import ops

    return [ops.squeeze(part, 0) for part in (ops.split(state, layers, axis=0) if layers > 1 else [state])]


def _stack(parts: list[Any]) -> Any:
    from keras import ops

    return ops.stack(parts) if len(parts) > 1 else ops.expand_dims(parts[0], 0)
