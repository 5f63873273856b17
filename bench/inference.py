"""What does a prediction cost, by size of the model and of the burst, in each engine that could run it?

    python -m bench.inference [--seconds 0.3] [--json FILE]

Models of 18 features with untrained weights, exported as training does it (so this needs the `train` extra), called
as a worker calls them (`agents.inference.Predictor.run`):

* compiled: `models/compiled_predictor.py`, what serves;
* iobinding: `models/predictor.py`, onnxruntime bound once to fixed buffers, what serves graphs of other forms;
* session: plain ``session.run`` for each round, states gathered and scattered with numpy;
* numpy: matrix products for each round, the same way.

A burst is one call: so many symbols with one row each, or 512 rows of 3 symbols, as in a replay of a real day.
Hot is a closed loop. Paced sleeps 1 ms before each call, as a live feed does: caches and predictors are cold.
Engines take turns, so that a slow moment of the machine hits all of them. Figures in us belong to the machine;
compare the ratios: p50 over the compiled one's.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.inference import Predictor
from agents.state import STATE
from models import lstm
from models.artifact import OUTPUTS, Artifact, open_session
from models.card import Golden, ModelCard
from models.compiled_predictor import CompiledPredictor
from models.onnx_wire import read_graph
from models.predictor import OrtPredictor
from models.step_graph import read_step

SIZES: Final = ((1, 32), (1, 64), (2, 32), (2, 64))  # layers, units
BURSTS: Final = {"1 symbol": (1, 1), "3 symbols": (3, 3), "64 symbols": (64, 64), "512 rows of 3": (512, 3)}
QUANTILES: Final = (50, 90, 99, 99.9, 99.99)
_TURNS: Final = 10
_PACE_S: Final = 0.001
_PACED_CALLS: Final = 50  # in each turn

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


def build_artifact(layers: int, units: int) -> Artifact:
    """Return a model with untrained weights, exported as trained ones are."""
    some = np.random.default_rng(0).normal(0.0, 1.0, (64, features.COUNT)).astype(np.float32)
    graph = lstm.export_step(lstm.build(lstm.Scaler.fit(some), layers, units, seed=1))
    read = read_graph(graph)
    card = ModelCard(
        name=f"{layers}x{units}",
        version=1,
        feature_names=features.NAMES,
        horizon_ns=1,
        dead_band_bps=1.0,
        clip_bps=1.0,
        warmup_ticks=1,
        layers=layers,
        units=units,
        trained_from_ns=0,
        trained_to_ns=1,
        data_sha256="",
        weights_sha256=read.weights_sha256,
        code_version="",
        golden=Golden(some, np.zeros((len(some), 4), np.float32), 1e-5),
    )
    return Artifact(Path(card.name), "", card, read, open_session(graph))


def engines(artifact: Artifact) -> dict[str, Predictor]:
    """Return every engine with one model, after it was seen that the compiled one is right."""
    layers, units = artifact.card.layers, artifact.card.units
    compiled = CompiledPredictor.build(artifact)
    compiled.check_against(artifact)
    return {
        "compiled": compiled,
        "iobinding": OrtPredictor(artifact),
        "session": InRounds(_session_step(artifact), layers, units),
        "numpy": InRounds(_numpy_step(artifact), layers, units),
    }


def _session_step(artifact: Artifact) -> Step:
    names, session = list(OUTPUTS), artifact.session

    def step(x: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        probabilities, expected, h, c = session.run(names, {"x": x, "h": h, "c": c})
        return np.concatenate([probabilities, expected[:, None]], axis=1), h, c

    return step


def _numpy_step(artifact: Artifact) -> Step:
    card = artifact.card
    weights = read_step(artifact.graph, features.COUNT, card.layers, card.units)
    one, units = np.float32(1.0), card.units
    joined = [np.vstack([layer.kernel, layer.recurrent]) for layer in weights.layers]

    def step(x: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        current = (x - weights.mean) * weights.inverse
        for at, layer in enumerate(weights.layers):
            sums = np.concatenate([current, h[at]], axis=1) @ joined[at] + layer.bias
            gates = one / (one + np.exp(-sums[:, : 3 * units]))
            i, o, f = gates[:, :units], gates[:, units : 2 * units], gates[:, 2 * units :]
            c[at] = f * c[at] + i * np.tanh(sums[:, 3 * units :])
            h[at] = current = o * np.tanh(c[at])
        answers = current @ weights.heads + weights.heads_bias
        odds = np.exp(answers[:, :3] - answers[:, :3].max(axis=1, keepdims=True))
        answers[:, :3] = odds / odds.sum(axis=1, keepdims=True)
        return np.asarray(answers, np.float32), h, c

    return step


def measure(engine: Predictor, count: int, symbols: int, calls: Iterable[Any], pace_s: float) -> list[int]:
    """Return the ns of some calls of one engine with a burst; the first, cold, is not among them."""
    generator = np.random.default_rng(1)
    values = generator.normal(0.0, 1.0, (count, features.COUNT)).astype(np.float32)
    rows, rounds = np.arange(count) % symbols, np.arange(count) // symbols
    states, out = np.zeros(symbols, STATE), np.empty((count, 4), np.float32)
    arguments = (values, rows, rounds, states["h"], states["c"], out)
    engine.run(*arguments)
    spent_ns = []
    for _ in calls:
        if pace_s:
            time.sleep(pace_s)
        start_ns = time.perf_counter_ns()
        engine.run(*arguments)
        spent_ns.append(time.perf_counter_ns() - start_ns)
    return spent_ns


def compare(some: dict[str, Predictor], count: int, symbols: int, seconds: float) -> dict[str, Any]:
    """Return what a burst costs in each engine: all of them hot, and paced where a live feed would send it."""
    paced = count <= max(BURSTS["3 symbols"])
    result: dict[str, Any] = {}
    for mode, pace_s in (("hot", 0.0), *((("paced", _PACE_S),) if paced else ())):
        spent: dict[str, list[int]] = {name: [] for name in some}
        for _ in range(_TURNS):
            for name, engine in some.items():
                calls = range(_PACED_CALLS) if pace_s else _for(seconds / _TURNS)
                spent[name] += measure(engine, count, symbols, calls, pace_s)
        result[mode] = {name: _figures(values, count) for name, values in spent.items()}
        base = result[mode]["compiled"]["p50_us"]
        for figures in result[mode].values():
            figures["ratio"] = round(figures["p50_us"] / base, 2)
    return result


def _for(seconds: float) -> Iterable[None]:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        yield


def _figures(spent_ns: list[int], count: int) -> dict[str, float]:
    spent_us = np.array(spent_ns) / 1e3
    figures = {f"p{q:g}_us": round(float(np.percentile(spent_us, q)), 2) for q in QUANTILES}
    return figures | {"p50_us_a_prediction": round(float(np.median(spent_us)) / count, 3), "calls": len(spent_ns)}


def main() -> None:
    """Run the bench and print its report."""
    parser = argparse.ArgumentParser(description="What does a prediction cost?")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each hot figure")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    lstm.start_tensorflow()
    models = {}
    for layers, units in SIZES:
        some = engines(build_artifact(layers, units))
        gc.collect()
        gc.freeze()
        bursts = {name: compare(some, *burst, arguments.seconds) for name, burst in BURSTS.items()}
        models[f"{layers}x{units}"] = bursts
    report = json.dumps(
        {"machine": platform.machine(), "python": platform.python_version(), "models": models}, indent=2
    )
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
