"""The peers of `bench.inference`: the same Keras model as others run it, and models of a window at each tick."""

import contextlib
import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from models import lstm
from models.artifact import INPUTS, OUTPUTS, open_session

WINDOW_TICKS: Final = 64

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Step = Callable[[Floats, Floats, Floats], tuple[Floats, Floats, Floats]]


class InRounds:
    """A `Predictor` as one writes it first: a step for each round, states gathered and scattered with numpy."""

    model_id, horizon_ns, warmup_ticks = 0, 1, 1

    def __init__(self, step: Step, layers: int, units: int) -> None:
        """Take a step of (x[N, F], h[L, N, U], c[L, N, U]) that returns (answers[N, 4], h, c)."""
        self._step, self._layers, self._units = step, layers, units

    def run(self, features: Floats, rows: Integers, rounds: Integers, h: Floats, c: Floats, out: Floats) -> None:
        """Take one step for each feature row: see `agents.inference.Predictor.run`."""
        floats = self._layers * self._units
        for number in range(int(rounds.max()) + 1):
            some = np.flatnonzero(rounds == number)
            where = rows[some]
            shape = (len(some), self._layers, self._units)
            old = (np.ascontiguousarray(state[where, :floats].reshape(shape).swapaxes(0, 1)) for state in (h, c))
            out[some], new_h, new_c = self._step(features[some], *old)
            for state, new in ((h, new_h), (c, new_c)):
                state[where, :floats] = new.swapaxes(0, 1).reshape(len(some), floats)


class Windowed:
    """A `Predictor` without a state: the last 64 rows of features through the whole LSTM, at each tick."""

    model_id, horizon_ns, warmup_ticks = 0, 1, 1

    def __init__(self, models: lstm.Models) -> None:
        """Export the sequence model, whose LSTM is onnxruntime's fused operator."""
        import tensorflow as tf
        import tf2onnx

        width = models.sequence.inputs[0].shape[-1]
        state = (models.layers, None, models.units)
        shapes = ((None, WINDOW_TICKS, width), state, state)
        signature = [
            tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(INPUTS, shapes, strict=True)
        ]
        exported, _ = tf2onnx.convert.from_keras(models.sequence, signature, opset=lstm.OPSET)
        self._session = open_session(exported.SerializeToString())
        self._layers, self._units = models.layers, models.units

    def run(self, features: Floats, rows: Integers, rounds: Integers, h: Floats, c: Floats, out: Floats) -> None:
        """Answer each row as if its symbol's window were that row 64 times: what it costs does not depend on it."""
        windows = np.repeat(features[:, None], WINDOW_TICKS, axis=1)
        nothing = np.zeros((self._layers, len(features), self._units), np.float32)
        given = {"x": windows, "h": nothing, "c": nothing}
        probabilities, expected = self._session.run(list(OUTPUTS[:2]), given)
        out[:, :3], out[:, 3] = probabilities[:, -1], expected[:, -1]


def peers(models: lstm.Models, rows: int) -> dict[str, Predictor]:
    """Return the peers for bursts of ``rows`` rows of as many symbols."""
    made: dict[str, Predictor] = {"window": Windowed(models)}
    steps = {
        "keras predict": _keras_predict(models),
        "keras model(x)": _keras_call(models),
        "tf.function": _tf_function(models),
        "litert": _litert(models, rows),
    }
    return made | {name: InRounds(step, models.layers, models.units) for name, step in steps.items()}


def _answers(results: Any) -> tuple[Floats, Floats, Floats]:
    probabilities, expected, h, c = (np.asarray(result) for result in results)
    return np.concatenate([probabilities, expected[:, None]], axis=1), h, c


def _keras_predict(models: lstm.Models) -> Step:
    # On a batch: `predict` itself cuts each input along its first axis, which is the layer in our h and c.
    return lambda x, h, c: _answers(models.step.predict_on_batch([x, h, c]))


def _keras_call(models: lstm.Models) -> Step:
    return lambda x, h, c: _answers(models.step([x, h, c], training=False))


def _tf_function(models: lstm.Models) -> Step:
    import tensorflow as tf

    width, state = models.step.inputs[0].shape[-1], (models.layers, None, models.units)
    shapes = ((None, width), state, state)
    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(INPUTS, shapes, strict=True)]
    function = tf.function(lambda x, h, c: models.step([x, h, c]), autograph=False)
    concrete = function.get_concrete_function(*signature)
    return lambda x, h, c: _answers(concrete(tf.constant(x), tf.constant(h), tf.constant(c)))


def _litert(models: lstm.Models, rows: int) -> Step:
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    width, state = models.step.inputs[0].shape[-1], (models.layers, rows, models.units)
    shapes = ((rows, width), state, state)
    inputs = [keras.Input(batch_shape=shape, name=name) for name, shape in zip(INPUTS, shapes, strict=True)]
    fixed = keras.Model(inputs, models.step(inputs))
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it saves on the way
        model = tf.lite.TFLiteConverter.from_keras_model(fixed).convert()
    runner = Interpreter(model_content=model, num_threads=1).get_signature_runner()
    outputs = sorted(runner.get_output_details())  # output_0 ... output_3, in the order of the model's

    def step(x: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        results = runner(x=x, h=h, c=c)
        return _answers([results[name] for name in outputs])

    return step
