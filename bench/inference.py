"""What does a prediction cost, by size of the model and of the burst, in each engine that could run it?

    python -m bench.inference [--seconds 0.3] [--json FILE]

Models of all features with untrained weights, exported as training does it (so this needs the `train` extra),
called as a worker calls them (`agents.inference.Predictor.run`):

* compiled: `models/compiled_predictor.py`, what serves;
* iobinding: `models/predictor.py`, onnxruntime bound once to fixed buffers, what serves graphs of other forms;
* session: plain ``session.run`` for each round, states gathered and scattered with numpy;
* numpy: matrix products for each round, the same way;
* with 1 x 32, for one symbol and for 128 (`bench/inference_peers.py`): Keras's ``predict_on_batch`` and
  ``model(x)``, a `tf.function`, LiteRT, and a window of 64 ticks through all of it in onnxruntime at each tick.

A burst is one call: so many symbols with one row each, or 512 rows of 3 symbols, as in a replay of a real day.
Hot is a closed loop. Paced sleeps 1 ms before each call, as a live feed does: caches and predictors are cold.
Engines take turns, so that a slow moment of the machine hits all of them. Figures in us belong to the machine;
compare the ratios: p50 over the compiled one's.

"stac-ml-a" is of the shape of STAC-ML's LSTM_A (100 features, 2 x 100 units), one step with its state carried,
which is how "Tacana" results are measured. Unaudited, and not a STAC result. Published p99 for it, in us, audited:
NVIDIA GH200 4.7, Myrtle VOLLO on FPGAs 5.07, NVIDIA A100 35.2.

Exit code 0 also where a goal is missed: it is told.
"""

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from agents import features
from agents.inference import MODEL_STATE_FLOATS, Predictor
from bench.inference_peers import Floats, InRounds, Step, peers
from models import lstm
from models.artifact import OUTPUTS, Artifact, open_session
from models.card import Golden, ModelCard
from models.compiled_predictor import CompiledPredictor
from models.direct import Direct
from models.onnx_wire import read_graph
from models.predictor import OrtPredictor
from models.step_graph import read_step

SIZES: Final = ((1, 32), (1, 64), (2, 32), (2, 64))  # layers, units
STAC_ML_A: Final = (100, 2, 100)  # features, layers, units
BURSTS: Final = {
    "1 symbol": (1, 1),
    "3 symbols": (3, 3),
    "64 symbols": (64, 64),
    "128 symbols": (128, 128),
    "512 rows of 3": (512, 3),
}
_WITH_PEERS: Final = ("1 symbol", "128 symbols")
# Of a step of 1 x 32: one hot call, and a prediction of a batch of 128.
_GOAL_P99_US: Final = 25.0
_GOAL_A_PREDICTION_US: Final = 1.0
QUANTILES: Final = (50, 90, 99, 99.9, 99.99)
_TURNS: Final = 10
_PACE_S: Final = 0.001
_PACED_CALLS: Final = 50  # in each turn


def build(width: int, layers: int, units: int) -> tuple[Artifact, lstm.Models]:
    """Return a model of ``width`` features with untrained weights, exported as trained ones are."""
    generator = np.random.default_rng(0)
    some = generator.normal(0.0, 1.0, (64, width)).astype(np.float32)
    direct = Direct(generator.normal(0.0, 0.1, (width, 4)).astype(np.float32), np.zeros(4, np.float32))
    models = lstm.build(lstm.Scaler.fit(some), layers, units, seed=1, direct=direct)
    graph = lstm.export_step(models)
    read = read_graph(graph)
    names = features.NAMES if width == features.COUNT else tuple(f"feature_{at}" for at in range(width))
    card = ModelCard(
        name=f"{layers}x{units}",
        version=1,
        feature_names=names,
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
    return Artifact(Path(card.name), "", card, read, open_session(graph), names), models


def engines(artifact: Artifact) -> dict[str, Predictor]:
    """Return every engine with one model, after it was seen that the compiled one is right."""
    layers, units = artifact.card.layers, artifact.card.units
    compiled = CompiledPredictor.build(artifact)
    if layers * units <= MODEL_STATE_FLOATS:  # a symbol's state has no room for STAC-ML's
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
    weights = read_step(artifact.graph, len(card.feature_names), card.layers, card.units)
    one, units, limit = np.float32(1.0), card.units, np.float32(weights.limit)
    joined = [np.vstack([layer.kernel, layer.recurrent]) for layer in weights.layers]

    def step(x: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        current = np.clip((x - weights.mean) * weights.inverse, -limit, limit)
        directly = current @ weights.direct
        for at, layer in enumerate(weights.layers):
            sums = np.concatenate([current, h[at]], axis=1) @ joined[at] + layer.bias
            gates = one / (one + np.exp(-sums[:, : 3 * units]))
            i, o, f = gates[:, :units], gates[:, units : 2 * units], gates[:, 2 * units :]
            c[at] = f * c[at] + i * np.tanh(sums[:, 3 * units :])
            h[at] = current = o * np.tanh(c[at])
        answers = directly + current @ weights.heads + weights.heads_bias
        odds = np.exp(answers[:, :3] - answers[:, :3].max(axis=1, keepdims=True))
        answers[:, :3] = odds / odds.sum(axis=1, keepdims=True)
        return np.asarray(answers, np.float32), h, c

    return step


def measure(engine: Predictor, card: ModelCard, burst: tuple[int, int], calls: Iterable[Any]) -> list[int]:
    """Return the ns of some calls of one engine with a burst; the first, cold, is not among them."""
    count, symbols = burst
    generator = np.random.default_rng(1)
    values = generator.normal(0.0, 1.0, (count, len(card.feature_names))).astype(np.float32)
    rows, rounds = np.arange(count) % symbols, np.arange(count) // symbols
    h = np.zeros((symbols, card.layers * card.units), np.float32)
    arguments = (values, rows, rounds, h, np.zeros_like(h), np.empty((count, 4), np.float32))
    engine.run(*arguments)
    spent_ns = []
    for _ in calls:
        start_ns = time.perf_counter_ns()
        engine.run(*arguments)
        spent_ns.append(time.perf_counter_ns() - start_ns)
    return spent_ns


def compare(some: dict[str, Predictor], card: ModelCard, burst: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Return what a burst costs in each engine: all of them hot, and paced where a live feed would send it."""
    result: dict[str, Any] = {}
    for mode in ("hot", "paced") if burst[0] <= max(BURSTS["3 symbols"]) else ("hot",):
        spent: dict[str, list[int]] = {name: [] for name in some}
        for _ in range(_TURNS):
            for name, engine in some.items():
                spent[name] += measure(engine, card, burst, _paced() if mode == "paced" else _for(seconds / _TURNS))
        result[mode] = {name: _figures(values, burst[0]) for name, values in spent.items()}
        base = result[mode]["compiled"]["p50_us"]
        for figures in result[mode].values():
            figures["ratio"] = round(figures["p50_us"] / base, 2)
    return result


def goals(models: dict[str, Any]) -> dict[str, Any]:
    """Return what was to be reached by a step of 1 x 32, and what was."""
    bursts = models["1x32"]
    return {
        "one symbol, hot, p99 us": [_GOAL_P99_US, bursts["1 symbol"]["hot"]["compiled"]["p99_us"]],
        "128 symbols, us a prediction": [
            _GOAL_A_PREDICTION_US,
            bursts["128 symbols"]["hot"]["compiled"]["p50_us_a_prediction"],
        ],
    }


def _paced() -> Iterable[None]:
    for _ in range(_PACED_CALLS):
        time.sleep(_PACE_S)
        yield


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
    shapes = {f"{layers}x{units}": (features.COUNT, layers, units) for layers, units in SIZES}
    results: dict[str, dict[str, Any]] = {}
    for name, shape in (shapes | {"stac-ml-a": STAC_ML_A}).items():
        artifact, models = build(*shape)
        some = engines(artifact)
        results[name] = {}
        for burst, size in BURSTS.items() if name in shapes else (("1 symbol", (1, 1)),):
            print(f"bench.inference: {name}, {burst}", file=sys.stderr, flush=True)
            others = peers(models, size[0]) if name == "1x32" and burst in _WITH_PEERS else {}
            gc.collect()
            gc.freeze()
            results[name][burst] = compare(some | others, artifact.card, size, arguments.seconds)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    report = json.dumps(machine | {"models": results, "goals": goals(results)}, indent=2)
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
