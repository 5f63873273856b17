import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import features
from agents.inference import MODEL_STATE_FLOATS, Predictor
from agents.state import STATE
from models import compiled_predictor, step_graph
from models.artifact import Artifact, load, open_session
from models.compiled_predictor import CompiledPredictor
from models.predictor import BATCH_SIZES, OrtPredictor, load_predictor
from stream.errors import InvariantError, ModelError

SHAPES = [(1, 32, True), (1, 32, False), (2, 64, True), (2, 64, False), (1, 7, True), (3, 40, False)]
SYMBOLS = 40
Engine = CompiledPredictor | OrtPredictor
ENGINES: dict[str, Callable[[Artifact], Engine]] = {
    "compiled": CompiledPredictor.build,
    "onnxruntime": OrtPredictor,
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}-{'fused' if shape[2] else 'flat'}"
)
def pair(request: pytest.FixtureRequest, random_model: Callable[..., Any], engine: str) -> tuple[Engine, Any]:
    layers, units, fused = request.param
    model = random_model(layers=layers, units=units, fused=fused)
    return ENGINES[engine](load(model.path)), model


@pytest.fixture(scope="module")
def predictor(random_model: Callable[..., Any], engine: str) -> Engine:
    return ENGINES[engine](load(random_model().path))


@pytest.fixture(scope="module")
def ort_predictor(random_model: Callable[..., Any]) -> OrtPredictor:
    return OrtPredictor(load(random_model().path))


def make_stream(count: int, symbols: int, seed: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, symbols, count)
    # Every order of magnitude, zeros and denormals: what must agree is bits.
    scale = 10.0 ** generator.uniform(-42, 3, (count, features.COUNT))
    values = (generator.normal(0.0, 1.0, (count, features.COUNT)) * scale).astype(np.float32)
    return values, rows


def rounds_of(rows: Any) -> Any:
    seen: dict[int, int] = {}
    rounds = np.zeros(len(rows), np.int64)
    for index, row in enumerate(rows.tolist()):
        rounds[index] = seen.get(row, 0)
        seen[row] = seen.get(row, 0) + 1
    return rounds


def run_in_cuts(model: Predictor, values: Any, rows: Any, cuts: list[int]) -> tuple[Any, Any]:
    states = np.zeros(SYMBOLS, STATE)
    out = np.zeros((len(rows), 4), np.float32)
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        some = rows[start:stop]
        model.run(values[start:stop], some, rounds_of(some), states["h"], states["c"], out[start:stop])
    return out, states


def lstm_in_float64(weights: Any, layers: int, units: int, xs: Any) -> Any:
    """The textbook LSTM over one symbol's rows. Source: Hochreiter, Schmidhuber, 1997; gates as in Keras."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    h, c = np.zeros((layers, units)), np.zeros((layers, units))
    answers = []
    for x in xs.astype(np.float64):
        current = (x - w["mean"]) * w["inverse"]
        for layer in range(layers):
            gates = current @ w[f"kernel{layer}"] + h[layer] @ w[f"recurrent{layer}"] + w[f"bias{layer}"]
            i, f, g, o = np.split(gates, 4)
            i, f, o = (1.0 / (1.0 + np.exp(-gate)) for gate in (i, f, o))
            c[layer] = f * c[layer] + i * np.tanh(g)
            current = h[layer] = o * np.tanh(c[layer])
        odds = np.exp(current @ w["direction"] + w["direction_bias"])
        answers.append([*odds / odds.sum(), *(current @ w["return"] + w["return_bias"])])
    return np.array(answers)


def test_answers_agree_with_an_lstm_in_float64(pair: tuple[Engine, Any]) -> None:
    predictor, model = pair
    generator = np.random.default_rng(5)
    values = generator.normal(0.0, 4.0, (600, features.COUNT)).astype(np.float32)
    rows = generator.integers(0, 3, 600)
    out, _ = run_in_cuts(predictor, values, rows, [200])
    for row in range(3):
        expected = lstm_in_float64(model.weights, model.card.layers, model.card.units, values[rows == row])
        np.testing.assert_allclose(out[rows == row], expected, atol=2e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), symbols=st.integers(1, SYMBOLS), data=st.data())
def test_no_bit_depends_on_how_rows_were_cut_into_calls(
    pair: tuple[Engine, Any], seed: int, symbols: int, data: st.DataObject
) -> None:
    predictor, _ = pair
    values, rows = make_stream(data.draw(st.integers(1, 300)), symbols, seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=30)) - {len(rows)})
    whole, whole_states = run_in_cuts(predictor, values, rows, [])
    cut, cut_states = run_in_cuts(predictor, values, rows, cuts)
    assert cut.tobytes() == whole.tobytes()
    assert cut_states.tobytes() == whole_states.tobytes()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_bit_depends_on_the_order_of_other_symbols(pair: tuple[Engine, Any], seed: int) -> None:
    predictor, _ = pair
    values, rows = make_stream(200, SYMBOLS, seed)
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    # Any order of arrival in which each symbol's own rows stay in order.
    order = np.empty(len(rows), np.int64)
    for row in np.unique(rows):
        order[rows[shuffled] == row] = np.flatnonzero(rows == row)
    whole, whole_states = run_in_cuts(predictor, values, rows, [])
    other, other_states = run_in_cuts(predictor, values[order], rows[order], [77])
    assert other.tobytes() == whole[order].tobytes()
    assert other_states.tobytes() == whole_states.tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_bit_depends_on_the_batch_that_a_row_is_in(
    random_model: Callable[..., Any], shape: tuple[int, int, bool]
) -> None:
    layers, units, fused = shape
    model = random_model(layers=layers, units=units, fused=fused)
    session = open_session(model.path.read_bytes())
    generator = np.random.default_rng(9)
    state = (model.card.layers, 128, model.card.units)
    inputs = {
        "x": generator.normal(0.0, 5.0, (128, features.COUNT)).astype(np.float32),
        "h": np.tanh(generator.normal(0.0, 1.0, state)).astype(np.float32),
        "c": generator.normal(0.0, 1.5, state).astype(np.float32),
    }

    def answer(some: Any) -> Any:
        batch = {name: np.ascontiguousarray(value[..., some, :]) for name, value in inputs.items()}
        p, r, h, c = session.run(None, batch)
        return np.concatenate([p, r[:, None], *h, *c], axis=1)

    alone = np.concatenate([answer(np.array([row])) for row in range(128)])
    # What the predictor found when it was loaded, found again by other means.
    for size in OrtPredictor(load(model.path)).batch_sizes:
        for _ in range(3):
            some = generator.permutation(128)[:size]
            assert answer(some).tobytes() == alone[some].tobytes(), size


def test_batches_larger_than_the_largest_size_are_cut(predictor: Engine) -> None:
    values, _ = make_stream(1000, 1, 4)
    rows = np.arange(1000)
    h, c = np.zeros((2, 1000, MODEL_STATE_FLOATS), np.float32)
    together = np.zeros((1000, 4), np.float32)
    predictor.run(values, rows, np.zeros(1000, np.int64), h, c, together)
    h[:], c[:] = 0.0, 0.0
    alone = np.zeros((1000, 4), np.float32)
    for index in range(1000):
        one = slice(index, index + 1)
        predictor.run(values[one], rows[one], np.zeros(1, np.int64), h, c, alone[one])
    assert alone.tobytes() == together.tobytes()


def test_a_call_may_be_longer_than_a_block(predictor: Engine) -> None:
    values, rows = make_stream(5000, SYMBOLS, 4)
    assert (
        run_in_cuts(predictor, values, rows, [])[0].tobytes()
        == run_in_cuts(predictor, values, rows, [1])[0].tobytes()
    )


def test_no_rows_are_no_work(predictor: Engine) -> None:
    nothing = np.zeros(0, np.int64)
    h, c = np.zeros((2, 1, MODEL_STATE_FLOATS), np.float32)
    predictor.run(np.zeros((0, features.COUNT), np.float32), nothing, nothing, h, c, np.zeros((0, 4), np.float32))


def test_strided_and_read_only_arrays_are_as_good_as_plain_ones(predictor: Engine) -> None:
    values, rows = make_stream(50, SYMBOLS, 4)
    expected, _ = run_in_cuts(predictor, values, rows, [])
    wide = np.zeros((50, 2 * features.COUNT), np.float32)
    wide[:, ::2] = values
    packed = np.zeros(SYMBOLS, [("odd", "i1"), ("h", "f4", MODEL_STATE_FLOATS), ("c", "f4", MODEL_STATE_FLOATS)])
    strided, frozen_rows = wide[:, ::2], rows.copy()
    strided.flags.writeable = frozen_rows.flags.writeable = False
    out = np.zeros((50, 8), np.float32)[:, ::2]
    predictor.run(strided, frozen_rows, rounds_of(rows), packed["h"], packed["c"], out)
    assert out.tobytes() == expected.tobytes()


def test_only_the_rows_that_ticked_change(predictor: Engine) -> None:
    values, _ = make_stream(2, 1, 4)
    h, c = np.random.default_rng(0).normal(0.0, 1.0, (2, 5, MODEL_STATE_FLOATS)).astype(np.float32)
    before = h.copy(), c.copy()
    predictor.run(values, np.array([1, 3]), np.zeros(2, np.int64), h, c, np.zeros((2, 4), np.float32))
    others = [0, 2, 4]
    assert (h[others] == before[0][others]).all()
    assert (c[others] == before[1][others]).all()
    used = predictor.card.layers * predictor.card.units
    assert (h[[1, 3], :used] != before[0][[1, 3], :used]).any()
    assert (h[:, used:] == before[0][:, used:]).all()


def test_a_model_gets_its_own_features_in_its_own_order(
    random_model: Callable[..., Any], predictor: Engine, engine: str
) -> None:
    artifact = load(random_model().path)
    backwards = dataclasses.replace(artifact.card, feature_names=features.NAMES[::-1])
    turned = ENGINES[engine](dataclasses.replace(artifact, card=backwards))
    values, rows = make_stream(60, SYMBOLS, 4)
    expected, _ = run_in_cuts(predictor, values, rows, [])
    assert run_in_cuts(turned, values[:, ::-1], rows, [])[0].tobytes() == expected.tobytes()


def test_denormal_states_become_zero_and_the_process_keeps_its_denormals(predictor: Engine) -> None:
    values = np.zeros((1, features.COUNT), np.float32)
    h, c = np.full((2, 1, MODEL_STATE_FLOATS), 1e-40, np.float32)
    predictor.run(values, np.zeros(1, np.int64), np.zeros(1, np.int64), h, c, np.zeros((1, 4), np.float32))
    used = predictor.card.layers * predictor.card.units
    smallest = np.finfo(np.float32).smallest_normal
    assert not ((np.abs(h[:, :used]) < smallest) & (h[:, :used] != 0.0)).any()
    # Features are computed in the same thread: loading a model must not change their arithmetic.
    assert np.float64(1e-310) * np.float64(0.5) > 0.0


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_feature_that_is_not_finite_stops_the_worker(predictor: Engine, count: int, bad: float) -> None:
    values, rows = make_stream(count, 1, 4)
    values[count - 1, 3] = bad
    with pytest.raises(InvariantError, match=f"not finite, for feature row {count - 1}"):
        run_in_cuts(predictor, values, rows, [])


@pytest.mark.parametrize("count", [1, 7])
def test_an_answer_that_is_not_finite_stops_the_worker(predictor: Engine, count: int) -> None:
    values, rows = make_stream(count, 1, 4)
    h, c = np.zeros((2, 1, MODEL_STATE_FLOATS), np.float32)
    h[0, 0] = math.nan
    c[0, 0] = math.inf
    with pytest.raises(InvariantError, match="gave a value that is not finite, for feature row 0"):
        predictor.run(values, rows, rounds_of(rows), h, c, np.zeros((count, 4), np.float32))


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_without_state_is_refused(predictor: Engine, count: int, row: int) -> None:
    values, _ = make_stream(count, 1, 4)
    rows = np.full(count, row)
    h, c = np.zeros((2, 2, MODEL_STATE_FLOATS), np.float32)
    with pytest.raises(InvariantError, match="row that has no state"):
        predictor.run(values, rows, rounds_of(rows), h, c, np.zeros((count, 4), np.float32))


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_round_that_cannot_be_is_refused(predictor: Engine, bad: int) -> None:
    values, _ = make_stream(3, 1, 4)
    h, c = np.zeros((2, 2, MODEL_STATE_FLOATS), np.float32)
    with pytest.raises(InvariantError, match="feature row 2"):
        predictor.run(values, np.array([0, 1, 0]), np.array([0, 0, bad]), h, c, np.zeros((3, 4), np.float32))


def test_states_without_room_are_refused(predictor: Engine) -> None:
    values, rows = make_stream(3, 1, 4)
    h, c = np.zeros((2, 2, 31), np.float32)
    with pytest.raises(InvariantError, match="states of less than 32 floats"):
        predictor.run(values, rows, rounds_of(rows), h, c, np.zeros((3, 4), np.float32))


def test_arrays_that_do_not_fit_together_are_refused(predictor: Engine) -> None:
    values, rows = make_stream(3, 1, 4)
    h, c = np.zeros((2, 2, MODEL_STATE_FLOATS), np.float32)
    with pytest.raises(InvariantError, match="right would be"):
        predictor.run(values[:, 1:], rows, rounds_of(rows), h, c, np.zeros((3, 4), np.float32))


def test_sizes_that_round_differently_are_not_used(
    ort_predictor: OrtPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = OrtPredictor._answers

    def as_on_a_cpu_with_a_special_path_for_one_row(self: OrtPredictor, size: int, inputs: Any, order: Any) -> Any:
        answers = truth(self, size, inputs, order)
        return np.nextafter(answers, np.float32(9.0)) if size == 1 else answers

    monkeypatch.setattr(OrtPredictor, "_answers", as_on_a_cpu_with_a_special_path_for_one_row)
    assert ort_predictor._sizes_that_agree() == BATCH_SIZES[1:]

    def as_where_the_place_in_the_batch_matters(self: OrtPredictor, size: int, inputs: Any, order: Any) -> Any:
        answers = truth(self, size, inputs, order)
        return np.nextafter(answers, np.float32(9.0)) if size > 1 and order[0] != 0 else answers

    monkeypatch.setattr(OrtPredictor, "_answers", as_where_the_place_in_the_batch_matters)
    assert ort_predictor._sizes_that_agree() == (1,)


def test_a_live_tick_is_padded_where_a_batch_of_one_rounds_differently(
    random_model: Callable[..., Any], ort_predictor: OrtPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtPredictor, "_sizes_that_agree", lambda _: (8, 16))
    padded = OrtPredictor(load(random_model().path))
    values, rows = make_stream(100, SYMBOLS, 4)
    every_tick = list(range(1, 100))
    expected, _ = run_in_cuts(ort_predictor, values, rows, [])
    assert run_in_cuts(padded, values, rows, every_tick)[0].tobytes() == expected.tobytes()
    assert run_in_cuts(padded, values, rows, [])[0].tobytes() == expected.tobytes()


def test_what_we_export_is_compiled_and_what_we_do_not_is_left_to_onnxruntime(
    random_model: Callable[..., Any], write_model: Callable[..., Any], tmp_path: Path, caplog: Any
) -> None:
    path = random_model().path
    assert isinstance(load_predictor(path), CompiledPredictor)
    assert isinstance(load_predictor(path, "compiled"), CompiledPredictor)
    assert isinstance(load_predictor(path, "onnxruntime"), OrtPredictor)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    (squeeze,) = (node for node in model.graph.node if node.output[0] == "expected_return_bps")
    squeeze.output[0] = "halved"
    model.graph.node.append(onnx.helper.make_node("Sigmoid", ["halved"], ["expected_return_bps"]))
    write_model(tmp_path / "model.onnx", model)
    assert caplog.text == ""
    assert isinstance(load_predictor(tmp_path / "model.onnx"), OrtPredictor)
    assert "onnxruntime serves it" in caplog.text
    with pytest.raises(ModelError, match="cannot be compiled: it has Sigmoid"):
        load_predictor(tmp_path / "model.onnx", "compiled")


@pytest.mark.parametrize("choice", ["auto", "compiled", "onnxruntime"])
def test_no_engine_runs_weights_that_were_tampered_with(
    random_model: Callable[..., Any], tmp_path: Path, choice: Any
) -> None:
    model = random_model()
    data = bytearray(model.path.read_bytes())
    place = data.index(model.weights["direction"].tobytes())
    data[place] ^= 1
    (tmp_path / model.path.name).write_bytes(data)
    (tmp_path / model.path.name).with_suffix(".json").write_bytes(model.path.with_suffix(".json").read_bytes())
    with pytest.raises(ModelError, match="is damaged"):
        load_predictor(tmp_path / model.path.name, choice)


def test_a_compiled_model_that_answers_otherwise_does_not_serve(
    random_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    truth = step_graph.read_step

    def with_gates_in_another_order(*args: Any) -> Any:
        weights = truth(*args)
        (layer,) = weights.layers
        return dataclasses.replace(weights, layers=(dataclasses.replace(layer, bias=layer.bias[::-1].copy()),))

    monkeypatch.setattr(compiled_predictor, "read_step", with_gates_in_another_order)
    path = random_model().path
    assert isinstance(load_predictor(path), OrtPredictor)
    assert "off onnxruntime by" in caplog.text
    with pytest.raises(ModelError, match="off onnxruntime by"):
        load_predictor(path, "compiled")
