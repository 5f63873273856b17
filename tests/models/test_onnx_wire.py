import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.onnx_wire import read_graph
from stream.errors import ModelError

onnx = pytest.importorskip("onnx")


def test_the_walk_finds_the_operators_that_onnx_finds(random_model: Callable[..., Any]) -> None:
    for fused in (True, False):
        path = random_model(layers=2, units=64, fused=fused).path
        model = onnx.load(path)
        graph = read_graph(path.read_bytes())
        assert set(graph.operators) == {node.op_type for node in model.graph.node}
        assert graph.nodes == len(model.graph.node)
        assert not graph.subgraphs
        assert not graph.external


def test_the_walk_finds_the_wiring_and_the_weights_that_onnx_finds(random_model: Callable[..., Any]) -> None:
    for fused in (True, False):
        path = random_model(layers=2, units=64, fused=fused).path
        model = onnx.load(path)
        graph = read_graph(path.read_bytes())
        for seen, node in zip(graph.wiring, model.graph.node, strict=True):
            expected = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            assert (seen.operator, seen.inputs, seen.outputs) == (
                node.op_type,
                tuple(node.input),
                tuple(node.output),
            )
            assert seen.attributes == expected
        assert graph.tensors.keys() == {tensor.name for tensor in model.graph.initializer}
        for tensor in model.graph.initializer:
            np.testing.assert_array_equal(graph.tensors[tensor.name], onnx.numpy_helper.to_array(tensor))
            assert not graph.tensors[tensor.name].flags.writeable


def test_attributes_of_each_kind_are_read() -> None:
    values = {"whole": -3, "real": 0.25, "text": "forward", "many": [1, 2]}
    node = onnx.helper.make_node("Identity", ["a"], ["b"], **values)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], []))
    (seen,) = read_graph(model.SerializeToString()).wiring
    assert seen.attributes == {**values, "many": None}


@pytest.mark.parametrize("raw", [b"\0" * 12, b"\0" * 20])
def test_weights_that_do_not_fill_their_shape_are_left_out(raw: bytes) -> None:
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    tensor = onnx.TensorProto(dims=[2, 2], data_type=onnx.TensorProto.FLOAT, name="a", raw_data=raw)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], [], [tensor]))
    assert read_graph(model.SerializeToString()).tensors == {}


def test_the_hash_of_the_weights_does_not_depend_on_names_or_metadata(random_model: Callable[..., Any]) -> None:
    path = random_model().path
    before = read_graph(path.read_bytes()).weights_sha256
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"anything": "else"})
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"{name}__7" if name == tensor.name else name for name in node.input]
        tensor.name += "__7"
    model.graph.initializer.reverse()
    assert read_graph(model.SerializeToString()).weights_sha256 == before


def test_the_hash_of_the_weights_depends_on_each_bit_of_them(random_model: Callable[..., Any]) -> None:
    path = random_model().path
    before = read_graph(path.read_bytes()).weights_sha256
    for index in range(len(onnx.load(path).graph.initializer)):
        model = onnx.load(path)
        tensor = model.graph.initializer[index]
        bits = np.frombuffer(tensor.raw_data, np.uint8).copy()
        bits[-1] ^= 1
        tensor.raw_data = bits.tobytes()
        assert read_graph(model.SerializeToString()).weights_sha256 != before


def test_a_loop_inside_a_branch_is_seen_as_a_subgraph() -> None:
    inner = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "inner", [], [])
    node = onnx.helper.make_node("Scan", ["a"], ["b"], body=inner)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], []))
    graph = read_graph(model.SerializeToString())
    assert graph.subgraphs
    assert graph.operators == ("Scan",)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_a_model_error(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        read_graph(data)


def test_any_damage_is_a_graph_or_a_model_error(random_model: Callable[..., Any]) -> None:
    whole = random_model().path.read_bytes()
    generator = np.random.default_rng(2)
    for place in generator.integers(0, 4000, 300).tolist():
        damaged = bytearray(whole)
        damaged[place] = int(generator.integers(0, 256))
        with contextlib.suppress(ModelError):
            read_graph(bytes(damaged))
