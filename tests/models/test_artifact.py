import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models.artifact
from agents import features
from agents.periods import Periods
from models.artifact import load, manifest_path, replay, write_manifest
from models.card import Golden
from stream.errors import ModelError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def good(random_model: Callable[..., Any], tmp_path: Path) -> Any:
    """A copy of a good model, to be spoilt."""
    source = random_model()
    path = tmp_path / "model.onnx"
    path.write_bytes(source.path.read_bytes())
    write_manifest(path, source.card)
    return dataclasses.replace(source, path=path)


@pytest.fixture
def spoil(good: Any, write_model: Callable[..., Any]) -> Callable[..., Path]:
    """A function that changes the graph or the card of a good model and signs it as if all were well."""

    def change(edit: Callable[[Any], None] = lambda _: None, **card_changes: Any) -> Path:
        model = onnx.load(good.path)
        del model.metadata_props[:]
        edit(model)
        write_model(good.path, model, good.card, sign_weights=True, **card_changes)
        return good.path  # type: ignore[no-any-return]

    return change


def test_a_good_model_loads_and_answers_as_it_did_when_it_was_written(good: Any) -> None:
    artifact = load(good.path)
    assert artifact.card.feature_names == good.card.feature_names
    assert artifact.card.model_id == int(good.card.weights_sha256[:16], 16)
    assert 0 < artifact.card.model_id < 2**64
    assert replay(artifact.session, artifact.card, good.card.golden.features).tobytes() == (
        good.card.golden.answers.tobytes()
    )


def test_every_field_of_the_card_survives_the_file(good: Any) -> None:
    loaded = load(good.path).card
    for field in dataclasses.fields(loaded):
        if field.name != "golden":
            assert getattr(loaded, field.name) == getattr(good.card, field.name)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model .*nowhere.onnx: No such file.*tickloom train"):
        load(tmp_path / "nowhere.onnx")


def test_a_model_without_manifest_is_refused(good: Any) -> None:
    manifest_path(good.path).unlink()
    with pytest.raises(ModelError, match="cannot read the manifest"):
        load(good.path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bytes": "many", "sha256": ""}', "\x00"])
def test_a_manifest_that_is_none_is_refused(good: Any, text: str) -> None:
    manifest_path(good.path).write_text(text)
    with pytest.raises(ModelError, match="is not a manifest"):
        load(good.path)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(good: Any, kept: int) -> None:
    whole = good.path.read_bytes()
    good.path.write_bytes(whole[:kept])
    with pytest.raises(ModelError, match=f"truncated: {len(whole[:kept])} of {len(whole)} bytes"):
        load(good.path)


def test_a_file_that_grew_is_refused(good: Any) -> None:
    good.path.write_bytes(good.path.read_bytes() + b"\x00")
    with pytest.raises(ModelError, match="damaged"):
        load(good.path)


def test_an_absurdly_large_file_is_refused_unread(good: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.artifact, "_LARGEST_BYTES", 1000)
    with pytest.raises(ModelError, match="at most 1000"):
        load(good.path)


def test_each_of_200_flipped_bits_is_refused(good: Any) -> None:
    whole = good.path.read_bytes()
    generator = np.random.default_rng(1)
    for place in generator.integers(0, len(whole) * 8, 200).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        good.path.write_bytes(damaged)
        with pytest.raises(ModelError, match="damaged: its SHA-256"):
            load(good.path)


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04 not a model at all", b"\x08\x07", bytes(64), b"\x3a\xff\xff\xff\x07abc"]
)
def test_a_signed_file_that_is_not_onnx_is_refused(good: Any, data: bytes) -> None:
    good.path.write_bytes(data)
    write_manifest(good.path, good.card)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(good.path)


def test_a_graph_that_onnxruntime_refuses_is_refused(spoil: Callable[..., Path]) -> None:
    def forget_a_node(model: Any) -> None:
        del model.graph.node[0]

    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        load(spoil(forget_a_node))


def _if_node() -> Any:
    value = onnx.helper.make_tensor_value_info("branch", onnx.TensorProto.FLOAT, [1])
    constant = onnx.helper.make_node(
        "Constant", [], ["branch"], value=onnx.numpy_helper.from_array(np.ones(1, np.float32))
    )
    branch = onnx.helper.make_graph([constant], "branch", [], [value])
    return onnx.helper.make_node("If", ["axis_0"], ["unused"], then_branch=branch, else_branch=branch)


@pytest.mark.parametrize(
    ("node", "named"),
    [
        (_if_node, "If"),
        (lambda: onnx.helper.make_node("RandomNormal", [], ["unused"], shape=[1]), "RandomNormal"),
        (lambda: onnx.helper.make_node("Gemm", ["x"], ["unused"], domain="org.acme"), "org.acme::Gemm"),
    ],
)
def test_operators_that_a_step_does_not_need_are_refused(
    spoil: Callable[..., Path], node: Callable[[], Any], named: str
) -> None:
    with pytest.raises(ModelError, match=f"does not need these operators: {named};"):
        load(spoil(lambda model: model.graph.node.append(node())))


def test_a_graph_with_functions_is_refused(spoil: Callable[..., Path]) -> None:
    function = onnx.helper.make_function("", "Twice", ["a"], ["b"], [], [onnx.helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match="functions or subgraphs"):
        load(spoil(lambda model: model.functions.append(function)))


def test_weights_in_another_file_are_refused(spoil: Callable[..., Path]) -> None:
    def move_out(model: Any) -> None:
        tensor = model.graph.initializer[-1]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="elsewhere.bin")

    with pytest.raises(ModelError, match="weights lie in another file"):
        load(spoil(move_out))


def test_sparse_weights_are_refused(spoil: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="sparse"):
        load(spoil(lambda model: model.graph.sparse_initializer.add()))


def test_metadata_of_other_weights_is_refused(spoil: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="metadata is of other weights"):
        load(spoil(weights_sha256="ab" * 32))


def test_other_weights_under_the_same_golden_vectors_are_refused(spoil: Callable[..., Path]) -> None:
    def nudge(model: Any) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "direction":
                weights = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
                tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "direction"))

    with pytest.raises(ModelError, match="off its golden vectors by"):
        load(spoil(nudge))


def test_answers_that_are_not_finite_are_refused(spoil: Callable[..., Path]) -> None:
    def poison(model: Any) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "return_bias":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(1, np.nan, np.float32), "return_bias"))

    with pytest.raises(ModelError, match="values that are not finite"):
        load(spoil(poison))


def _rename_input(model: Any) -> None:
    model.graph.input[0].name = "features"
    for node in model.graph.node:
        node.input[:] = ["features" if name == "x" else name for name in node.input]


def _drop_output(model: Any) -> None:
    del model.graph.output[1]


def _fix_batch(model: Any) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = 4


def _declare_float64(model: Any) -> None:
    cast = onnx.helper.make_node("Cast", ["x64"], ["x"], to=onnx.TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    model.graph.input[0].name = "x64"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_rename_input, r"its inputs are .*features.*right would be .*'x': \[None, 80\]"),
        (_drop_output, r"its outputs are .*right would be .*expected_return_bps"),
        (_fix_batch, r"its inputs are .*\[4, 80\].*right would be"),
        (_declare_float64, r"its inputs are .*x64|operators: Cast"),
    ],
)
def test_other_inputs_or_outputs_are_refused(
    spoil: Callable[..., Path], edit: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(spoil(edit))


def test_outputs_of_another_type_are_refused(good: Any, write_model: Callable[..., Any]) -> None:
    # An integer output through operators that are allowed: the shape of the input.
    model = onnx.load(good.path)
    del model.metadata_props[:]
    for node in model.graph.node:
        if "expected_return_bps" in node.output:
            node.CopyFrom(onnx.helper.make_node("Shape", ["x"], ["expected_return_bps"]))
    model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    write_model(good.path, model, good.card, sign_weights=True)
    with pytest.raises(ModelError, match=r"expected_return_bps.*right would be"):
        load(good.path)


def test_features_that_we_do_not_have_are_refused(spoil: Callable[..., Path], good: Any) -> None:
    names = ("moon_phase", *good.card.feature_names[1:])
    with pytest.raises(ModelError, match=r"features that we do not have: moon_phase; we have return_1_bps"):
        load(spoil(feature_names=names))


def test_a_model_of_another_period_is_refused(good: Any) -> None:
    assert "rsi_14" in good.card.feature_names
    with pytest.raises(ModelError, match=r"features that we do not have: rsi_14; we have .*, rsi_21, "):
        load(good.path, features.names(Periods(tick_rsi=21)))
    # One that it does not look at may be any.
    assert load(good.path, features.names(Periods(session_gap_s=600.0))).available == features.NAMES


@pytest.mark.parametrize("names", [(), ("spread_bps", "spread_bps")])
def test_a_list_of_features_that_cannot_be_is_refused(spoil: Callable[..., Path], names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="metadata cannot be read"):
        load(
            spoil(
                feature_names=names, golden=Golden(np.zeros((1, 1), np.float32), np.zeros((1, 4), np.float32), 1e-5)
            )
        )


def test_fewer_features_than_inputs_are_refused(spoil: Callable[..., Path], good: Any) -> None:
    names, golden = good.card.feature_names[:-1], good.card.golden
    golden = dataclasses.replace(golden, features=golden.features[:, :-1])
    with pytest.raises(ModelError, match=r"its inputs are .*right would be .*'x': \[None, 79\]"):
        load(spoil(feature_names=names, golden=golden))


def test_a_state_that_has_no_room_is_refused(random_model: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="3 x 43 floats each; there is room for 128"):
        load(random_model(layers=3, units=43).path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2; this tickloom reads version 1"),
        ({"classes": ("up", "down")}, "classes"),
        ({"layers": 0}, "layers is 0"),
        ({"units": "32"}, "units is '32'"),
        ({"horizon_ns": 1.5}, "horizon_ns is 1.5"),
        ({"warmup_ticks": -1}, "warmup_ticks is -1"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
        ({"golden": Golden(np.zeros((0, 80), np.float32), np.zeros((0, 4), np.float32), 1e-5)}, "0 steps"),
        ({"golden": Golden(np.zeros((1, 80), np.float32), np.zeros((1, 4), np.float32), 1.0)}, "tolerance 1.0"),
        ({"golden": Golden(np.zeros((1, 19), np.float32), np.zeros((1, 4), np.float32), 1e-5)}, "cannot be read"),
    ],
)
def test_metadata_that_cannot_be_is_refused(
    spoil: Callable[..., Path], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(spoil(**change))


def test_a_model_of_someone_else_is_refused(good: Any) -> None:
    model = onnx.load(good.path)
    del model.metadata_props[:]
    good.path.write_bytes(model.SerializeToString())
    write_manifest(good.path, good.card)
    with pytest.raises(ModelError, match="no tickloom metadata"):
        load(good.path)


def test_a_field_missing_from_the_metadata_is_refused(good: Any) -> None:
    model = onnx.load(good.path)
    kept = [entry for entry in model.metadata_props if entry.key != "tickloom.horizon_ns"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    good.path.write_bytes(model.SerializeToString())
    write_manifest(good.path, good.card)
    with pytest.raises(ModelError, match=r"metadata cannot be read.*horizon_ns"):
        load(good.path)


def test_the_manifest_says_what_a_reader_wants_to_know_first(good: Any) -> None:
    manifest = json.loads(manifest_path(good.path).read_text())
    assert manifest["file"] == "model.onnx"
    assert manifest["model_id"] == f"{good.card.model_id:016x}"
    assert manifest["bytes"] == good.path.stat().st_size
