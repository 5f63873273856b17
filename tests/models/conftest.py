"""Models with random weights, built node by node, so that the tests choose their shape and their flaws."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import features
from models.artifact import open_session, replay, write_manifest
from models.card import Golden, ModelCard
from models.onnx_wire import read_graph
from stream.errors import ModelError
from stream.records import TICK

# A plain module beside the tests: step_in_numpy.
sys.path.insert(0, str(Path(__file__).parent))

FEATURES = features.NAMES
Weights = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RandomModel:
    """A model file, its card, and the weights it was made of."""

    path: Path
    card: ModelCard
    weights: Weights


LIMIT = np.float32(2.0)  # of scaled features, in models with a direct path


def _weights(width: int, layers: int, units: int, seed: int, gain: float, direct: bool) -> Weights:
    generator = np.random.default_rng(seed)

    def normal(scale: float, *shape: int) -> Any:
        return generator.normal(0.0, scale, shape).astype(np.float32)

    weights: Weights = {"mean": normal(5.0, width), "inverse": np.abs(normal(0.6, width)) * np.float32(gain)}
    for layer in range(layers):
        inputs = width if layer == 0 else units
        weights[f"kernel{layer}"] = normal(inputs**-0.5, inputs, 4 * units)
        weights[f"recurrent{layer}"] = normal(units**-0.5, units, 4 * units)
        weights[f"bias{layer}"] = normal(0.3, 4 * units)
    weights |= {"direction": normal(0.3, units, 3), "direction_bias": normal(0.3, 3)}
    weights |= {"return": normal(0.3, units, 1), "return_bias": normal(0.3, 1)}
    return weights | ({"direct": normal(0.2, width, 4)} if direct else {})


class _Builder:
    """A graph in the making: fused (one LSTM operator a layer) or decomposed (Gemm, Sigmoid, Tanh)."""

    def __init__(self, weights: Weights, layers: int, units: int) -> None:
        self.weights, self.layers, self.units = weights, layers, units
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def build(self, fused: bool) -> None:
        weights, layers = self.weights, self.layers
        self.constant("axis_0", np.array([0]))
        self.constant("axis_1", np.array([1]))
        self.node("Sub", ["x", self.constant("mean", weights["mean"])], ["centred"])
        current = self.node("Mul", ["centred", self.constant("inverse", weights["inverse"])], ["scaled"])
        if "direct" in weights:
            self.node("Min", [current, self.constant("above", LIMIT)], ["lowered"])
            current = limited = self.node("Max", ["lowered", self.constant("below", -LIMIT)], ["limited"])
        self.constant("ones", np.ones(layers, np.int64))
        for name in ("h", "c"):
            self.node("Split", [name, "ones"], [f"{name}_{layer}" for layer in range(layers)], axis=0)
        for layer in range(layers):
            current = (self.fused if fused else self.decomposed)(layer, current)
        for name in ("h", "c"):
            self.node("Concat", [f"{name}_new_{layer}" for layer in range(layers)], [f"{name}_out"], axis=0)
        for name in ("direction", "return"):
            self.constant(name, weights[name])
            self.constant(f"{name}_bias", weights[f"{name}_bias"])
            self.node("Gemm", [current, name, f"{name}_bias"], [f"{name}_head"])
        heads = ["direction_head", "return_head"]
        if "direct" in weights:
            self.node("MatMul", [limited, self.constant("direct", weights["direct"])], ["regression"])
            self.node("Split", ["regression", self.constant("parts", np.array([3, 1]))], ["odds", "gain"], axis=-1)
            parts = zip(heads, ("odds", "gain"), strict=True)
            heads = [self.node("Add", [head, part], [f"{head}_in_all"]) for head, part in parts]
        self.node("Softmax", [heads[0]], ["probabilities"], axis=1)
        self.node("Squeeze", [heads[1], "axis_1"], ["expected_return_bps"])

    def fused(self, layer: int, current: str) -> str:
        def gates(value: Any) -> Any:  # Keras has i f g o, ONNX i o f g
            i, f, g, o = np.split(value, 4, -1)
            return np.concatenate([i, o, f, g], -1)

        bias = gates(self.weights[f"bias{layer}"])
        constants = [
            self.constant(f"W{layer}", gates(self.weights[f"kernel{layer}"]).T[None]),
            self.constant(f"R{layer}", gates(self.weights[f"recurrent{layer}"]).T[None]),
            self.constant(f"B{layer}", np.concatenate([bias, np.zeros_like(bias)])[None]),
        ]
        sequence = self.node("Unsqueeze", [current, "axis_0"], [f"sequence{layer}"])
        inputs = [sequence, *constants, "", f"h_{layer}", f"c_{layer}"]
        outputs = ["", f"h_new_{layer}", f"c_new_{layer}"]
        self.node("LSTM", inputs, outputs, hidden_size=self.units)
        return self.node("Squeeze", [f"h_new_{layer}", "axis_0"], [f"last{layer}"])

    def decomposed(self, layer: int, current: str) -> str:
        units, at = self.units, str(layer)
        kernel = np.concatenate([self.weights["kernel" + at], self.weights["recurrent" + at]])
        for name in ("h", "c"):
            self.node("Squeeze", [f"{name}_{at}", "axis_0"], [f"{name}{at}"])
        self.node("Concat", [current, f"h{at}"], [f"xh{at}"], axis=1)
        constants = [self.constant("W" + at, kernel), self.constant("B" + at, self.weights["bias" + at])]
        self.node("Gemm", [f"xh{at}", *constants], [f"gates{at}"])
        self.constant("units" + at, np.full(4, units))
        self.node("Split", [f"gates{at}", "units" + at], [f"{gate}_in{at}" for gate in "ifgo"], axis=1)
        for gate in "ifgo":
            self.node("Tanh" if gate == "g" else "Sigmoid", [f"{gate}_in{at}"], [gate + at])
        self.node("Mul", [f"i{at}", f"g{at}"], [f"ig{at}"])
        self.node("Mul", [f"f{at}", f"c{at}"], [f"fc{at}"])
        self.node("Add", [f"ig{at}", f"fc{at}"], [f"cell{at}"])
        self.node("Tanh", [f"cell{at}"], [f"squashed{at}"])
        self.node("Mul", [f"o{at}", f"squashed{at}"], [f"hidden{at}"])
        self.node("Unsqueeze", [f"cell{at}", "axis_0"], [f"c_new_{at}"])
        self.node("Unsqueeze", [f"hidden{at}", "axis_0"], [f"h_new_{at}"])
        return f"hidden{at}"


def onnx_model(weights: Weights, layers: int, units: int, fused: bool) -> Any:
    """Return an ``onnx.ModelProto`` without metadata."""
    from onnx import TensorProto, helper

    builder = _Builder(weights, layers, units)
    builder.build(fused)
    state = [layers, "N", units]

    def values(shapes: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    inputs = values({"x": ["N", len(weights["mean"])], "h": state, "c": state})
    outputs = values({"probabilities": ["N", 3], "expected_return_bps": ["N"], "h_out": state, "c_out": state})
    graph = helper.make_graph(builder.nodes, "step", inputs, outputs, builder.tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _write_model(
    path: Path, model: Any, card: ModelCard | None = None, sign_weights: bool = False, **changes: Any
) -> ModelCard:
    """Write a model with a card, true unless ``changes`` say otherwise, and its manifest."""
    from onnx import helper

    data = model.SerializeToString()
    if card is None:
        layers, _, units = (size.dim_value for size in model.graph.input[1].type.tensor_type.shape.dim)
        names = FEATURES[: model.graph.input[0].type.tensor_type.shape.dim[1].dim_value]
        rows = np.random.default_rng(3).normal(5.0, 3.0, (16, len(names))).astype(np.float32)
        card = ModelCard(
            name="random",
            version=1,
            feature_names=tuple(names),
            horizon_ns=10_000_000_000,
            dead_band_bps=1.0,
            clip_bps=50.0,
            warmup_ticks=64,
            layers=layers,
            units=units,
            trained_from_ns=0,
            trained_to_ns=1,
            data_sha256="0" * 64,
            weights_sha256=read_graph(data).weights_sha256,
            code_version="test",
            golden=Golden(rows, np.zeros((16, 4), np.float32), 1e-5),
        )
        answers = replay(open_session(data), card, rows)
        card = dataclasses.replace(card, golden=Golden(rows, answers, 1e-5))
    if sign_weights:
        # Where the walk refuses the graph, there is no hash to sign it with: any will do.
        with contextlib.suppress(ModelError):
            card = dataclasses.replace(card, weights_sha256=read_graph(data).weights_sha256)
    card = dataclasses.replace(card, **changes)
    helper.set_model_props(model, card.to_entries())
    path.write_bytes(model.SerializeToString())
    write_manifest(path, card)
    return card


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RandomModel]:
    """A function that writes a model with random weights and returns where it is."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("models")

    def make(
        layers: int = 1,
        units: int = 32,
        fused: bool = True,
        width: int = len(FEATURES),
        seed: int = 0,
        gain: float = 1.0,
        direct: bool = False,
    ) -> RandomModel:
        weights = _weights(width, layers, units, seed, gain, direct)
        kind = ("fused" if fused else "decomposed") + ("-direct" if direct else "")
        path = folder / f"{kind}-{layers}x{units}-{width}-{seed}-{gain}.onnx"
        card = _write_model(path, onnx_model(weights, layers, units, fused))
        return RandomModel(path, card, weights)

    return make


@pytest.fixture
def write_model() -> Callable[..., ModelCard]:
    """A function that writes a model with a card, true or not, and its manifest."""
    return _write_model


def _make_ticks(count: int, symbols: int = 3, seed: int = 0, edge: float = 0.3, event_step_s: float = 0.5) -> Any:
    """Quotes whose book leans the way that the price will go, as much as ``edge``; with 0 it tells nothing."""
    generator = np.random.default_rng(seed)
    ticks = np.zeros(count, TICK)
    which = generator.integers(0, symbols, count)
    gaps_ns = generator.exponential(event_step_s * 1e9, count).astype(np.int64) + 1
    ticks["event_ns"] = 1_700_000_000_000_000_000 + np.cumsum(gaps_ns)
    ticks["recv_ns"] = ticks["event_ns"] + 1_000_000
    ticks["source_seq"] = np.arange(1, count + 1)
    ticks["kind"] = 2
    ticks["price"] = ticks["size"] = np.nan
    ticks["symbol"] = [f"SYM{index}".encode() for index in which]
    for symbol in range(symbols):
        where = np.flatnonzero(which == symbol)
        noise = generator.normal(0.0, 1.0, (2, len(where)))
        lean = np.zeros(len(where))
        for i in range(1, len(where)):
            lean[i] = 0.98 * lean[i - 1] + 0.2 * noise[0, i]
        change_bps = np.concatenate([[0.0], edge * lean[:-1] + noise[1, 1:]])
        mid = 100.0 * (1.0 + symbol) * np.exp(np.cumsum(change_bps) * 1e-4)
        ticks["bid"][where], ticks["ask"][where] = mid * (1 - 5e-5), mid * (1 + 5e-5)
        ticks["bid_size"][where] = 10.0 * np.exp(0.5 * lean)
        ticks["ask_size"][where] = 10.0 * np.exp(-0.5 * lean)
    return ticks


@pytest.fixture(scope="session")
def make_ticks() -> Callable[..., Any]:
    """A function that makes ticks with a modest, known regularity."""
    return _make_ticks


@pytest.fixture(scope="session")
def make_card() -> Callable[..., Any]:
    """A function that makes the card of a model that knows something of a made-up market, with a given name."""
    pytest.importorskip("scipy")
    from models.judged import Judged
    from models.judgement import Forecaster, judge
    from models.profit import Market

    def make(name: str = "lstm", share: float = 0.3, symbols: int = 2, rows: int = 6000) -> Any:
        generator = np.random.default_rng(0)
        event_ns = 1_381_150_000_000_000_000 + np.sort(generator.integers(0, 10_800_000_000_000, rows))
        direction = generator.choice(3, rows, p=[0.25, 0.5, 0.25])
        spread_bps = np.full(rows, 1.0)
        market = Market(
            symbol_row=np.arange(rows) % symbols,
            event_ns=event_ns,
            end_ns=event_ns + 10_000_000_000,
            return_bps=3.0 * (direction - 1.0),
            spread_bps=spread_bps,
            exit_spread_bps=spread_bps,
        )
        judged = Judged(
            np.arange(rows),
            np.zeros(rows, np.int64),
            direction,
            np.arange(rows) % 3,
            market,
            tuple(f"SYM{number}" for number in range(symbols)),
            10_000_000_000,
            "volatility_60s_bps",
        )

        def answers(seed: int, share: float) -> Any:
            told = np.random.default_rng(seed).random(rows) < share
            made = np.full((rows, 4), 1 / 3, np.float32)
            made[told, :3] = 0.1 + 0.7 * np.eye(3)[direction[told]]
            made[:, 3] = np.where(told, market.return_bps, 0.0)
            return made

        forecasters = [
            Forecaster("majority", "always the same", True, [answers(0, 0.0)]),
            Forecaster("logistic", "a regression", True, [answers(1, 0.25)]),
            Forecaster(name, "a network", False, [answers(seed, share) for seed in (2, 3, 4)]),
        ]
        fold = {"from_ns": 0, "validation_ns": 1, "test_ns": 2, "to_ns": 3}
        about = {"name": name, "symbols": judged.symbols, "dead_band_bps": 1.0, "folds": [fold]}
        return judge(judged, forecasters, about, 0.1, 1.0)

    return make
