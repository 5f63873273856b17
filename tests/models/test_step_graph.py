from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import features
from models.onnx_wire import read_graph
from models.step_graph import StepWeights, read_step
from stream.errors import ModelError

onnx = pytest.importorskip("onnx")


def in_order(keras: Any) -> Any:
    i, f, g, o = np.split(keras, 4, axis=-1)
    return np.concatenate([i, o, f, g], axis=-1)


def read(path: Path, change: Callable[[Any], None] | None = None, layers: int = 1, units: int = 32) -> StepWeights:
    model = onnx.load(path)
    if change is not None:
        change(model.graph)
    return read_step(read_graph(model.SerializeToString()), features.COUNT, layers, units)


def node(graph: Any, output: str) -> Any:
    (found,) = (node for node in graph.node if output in node.output)
    return found


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "flat"])
@pytest.mark.parametrize(("layers", "units"), [(1, 32), (3, 40)])
def test_the_weights_are_those_that_the_graph_was_made_of(
    random_model: Callable[..., Any], layers: int, units: int, fused: bool
) -> None:
    model = random_model(layers=layers, units=units, fused=fused)
    seen, made = read(model.path, None, layers, units), model.weights
    assert (seen.mean == made["mean"]).all()
    assert (seen.inverse == made["inverse"]).all()
    for at, layer in enumerate(seen.layers):
        assert (layer.kernel == in_order(made[f"kernel{at}"])).all()
        assert (layer.recurrent == in_order(made[f"recurrent{at}"])).all()
        assert (layer.bias == in_order(made[f"bias{at}"])).all()
    assert (seen.heads == np.hstack([made["direction"], made["return"]])).all()
    assert (seen.heads_bias == np.hstack([made["direction_bias"], made["return_bias"]])).all()
    assert seen.direct.shape == (0, 4)
    assert seen.limit == float("inf")


def test_a_direct_path_and_the_limit_of_features_are_found(random_model: Callable[..., Any]) -> None:
    model = random_model(direct=True)
    seen = read(model.path)
    assert (seen.direct == model.weights["direct"]).all()
    assert (seen.heads == np.hstack([model.weights["direction"], model.weights["return"]])).all()
    assert seen.limit == 2.0


def test_other_bounds_than_one_number_up_and_down_are_another_form(random_model: Callable[..., Any]) -> None:
    def lopsided(graph: Any) -> None:
        (below,) = (tensor for tensor in graph.initializer if tensor.name == "below")
        below.CopyFrom(onnx.numpy_helper.from_array(np.float32(-1.0), "below"))

    with pytest.raises(ModelError, match="bounded otherwise than by one number"):
        read(random_model(direct=True).path, lopsided)


def swap_factors(graph: Any) -> None:
    for item in graph.node:
        if item.op_type == "Mul" and item.output[0] != "scaled":
            item.input[:] = list(item.input)[::-1]


def test_the_order_of_factors_does_not_matter(random_model: Callable[..., Any]) -> None:
    path = random_model(fused=False).path
    assert (read(path, swap_factors).layers[0].kernel == read(path).layers[0].kernel).all()


def test_a_graph_without_a_scaler_has_one_that_changes_nothing(random_model: Callable[..., Any]) -> None:
    def without(graph: Any) -> None:
        for item in graph.node:
            item.input[:] = ["x" if name == "scaled" else name for name in item.input]

    def removed(graph: Any) -> None:
        without(graph)
        for output in ("scaled", "centred"):
            graph.node.remove(node(graph, output))

    seen = read(random_model().path, removed)
    assert (seen.mean == 0.0).all()
    assert (seen.inverse == 1.0).all()


def set_operator(output: str, operator: str) -> Callable[[Any], None]:
    return lambda graph: setattr(node(graph, output), "op_type", operator)


def set_input(output: str, place: int, name: str) -> Callable[[Any], None]:
    return lambda graph: node(graph, output).input.__setitem__(place, name)


def set_attribute(output: str, name: str, value: Any) -> Callable[[Any], None]:
    return lambda graph: node(graph, output).attribute.append(onnx.helper.make_attribute(name, value))


FLAT = {
    "an operator that we do not know": set_operator("scaled", "Div"),
    "a gate that is squashed in another way": set_operator("o0", "Tanh"),
    "a candidate that is squashed in another way": set_operator("g0", "Sigmoid"),
    "states that are added where they are multiplied": set_operator("ig0", "Add"),
    "a cell that forgets nothing": set_input("fc0", 1, "g0"),
    "a hidden state of something else than the cell": set_input("squashed0", 0, "ig0"),
    "a head on the cell": set_input("direction_head", 0, "cell0"),
    "a transposed product": set_attribute("gates0", "transA", 1),
    "a scaled product": set_attribute("gates0", "alpha", 2.0),
    "an input that nothing gives": set_input("scaled", 1, "nothing"),
    "probabilities that do not add up": set_operator("probabilities", "Sigmoid"),
    "a matrix of other rows": set_input("gates0", 1, "direction"),
}
FUSED = {
    "peepholes": lambda graph: node(graph, "h_new_0").input.append("mean"),
    "lengths": set_input("h_new_0", 4, "axis_0"),
    "a direction": set_attribute("h_new_0", "direction", "reverse"),
    "other activations": set_attribute("h_new_0", "activations", ["Relu", "Tanh", "Tanh"]),
    "a clip": set_attribute("h_new_0", "clip", 1.0),
    "coupled gates": set_attribute("h_new_0", "input_forget", 1),
}


@pytest.mark.parametrize("change", FLAT.values(), ids=FLAT)
def test_a_flat_graph_of_another_form_is_refused(random_model: Callable[..., Any], change: Any) -> None:
    path = random_model(fused=False).path
    read(path)
    with pytest.raises(ModelError):
        read(path, change)


@pytest.mark.parametrize("change", FUSED.values(), ids=FUSED)
def test_an_lstm_of_another_form_is_refused(random_model: Callable[..., Any], change: Any) -> None:
    path = random_model(fused=True).path
    read(path)
    with pytest.raises(ModelError):
        read(path, change)


def test_another_number_of_layers_or_units_is_refused(random_model: Callable[..., Any]) -> None:
    path = random_model(layers=2, units=64).path
    for layers, units in ((1, 64), (3, 64), (2, 32)):
        with pytest.raises(ModelError):
            read(path, None, layers, units)
