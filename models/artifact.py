"""A model on disk: ``model.onnx`` with its metadata inside, and ``model.json`` beside it with the file's SHA-256.

The graph is one step: ``x[N, F]``, ``h[L, N, U]``, ``c[L, N, U]`` -> ``probabilities[N, 3]``,
``expected_return_bps[N]``, ``h_out[L, N, U]``, ``c_out[L, N, U]``, all float32.

`load` is the only way in, and refuses whatever it cannot vouch for. The manifest is no formality: of 300 files with
one flipped bit onnxruntime loaded every one, and 74 of them answered something else.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from models.card import ModelCard
from models.onnx_wire import Graph, read_graph
from stream.errors import ModelError

logger = logging.getLogger(__name__)

INPUTS: Final = ("x", "h", "c")
OUTPUTS: Final = ("probabilities", "expected_return_bps", "h_out", "c_out")

# What a step of stacked LSTM cells is made of. Nothing here loops, branches, draws random numbers or reads files.
OPERATORS: Final = frozenset(
    {"Add", "Sub", "Mul", "Div", "Min", "Max", "MatMul", "Gemm", "LSTM", "Sigmoid", "Tanh", "Softmax"}
    | {"Concat", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Expand", "Shape"}
    | {"Constant", "Identity"}
)
_LARGEST_BYTES: Final = 64 << 20  # the largest state has room for 128 floats: such a model has < 1 MB of weights


@dataclass(frozen=True)
class Artifact:
    """A model that has passed every check."""

    path: Path
    sha256: str  # of the file
    card: ModelCard
    graph: Graph
    session: ort.InferenceSession
    available: tuple[str, ...] = features.NAMES  # the features in a row, in their order


def manifest_path(path: Path) -> Path:
    """Return where the manifest of a model file lies."""
    return path.with_suffix(".json")


def write_manifest(path: Path, card: ModelCard) -> None:
    """Write the manifest beside a model file: its SHA-256 for `load`, and what a reader wants to know first."""
    model = path.read_bytes()
    manifest = {
        "file": path.name,
        "bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        "name": card.name,
        "version": card.version,
        "model_id": f"{card.model_id:016x}",
        "horizon_ns": card.horizon_ns,
        "dead_band_bps": card.dead_band_bps,
        "metrics": dict(card.metrics),
    }
    manifest_path(path).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def load(path: Path, available: tuple[str, ...] = features.NAMES) -> Artifact:
    """Return the model at ``path``, checked from the bytes of the file to its answers.

    Args:
        path: of the model file.
        available: the features that the engine computes, in their order: their names follow the periods.

    Raises:
        ModelError: it must not serve; the message says why.
    """
    model, sha256 = _read_verified(path)
    try:
        graph = read_graph(model)
        refused = sorted(set(graph.operators) - OPERATORS)
        if refused or graph.subgraphs:
            raise ModelError(
                f"a step does not need these operators: {', '.join(refused) or 'functions or subgraphs'}; Loop, "
                "Scan and If come from layers that do not export as one step (GRU, masking, recurrent dropout)"
            )
        if graph.external:
            raise ModelError("weights lie in another file, which the manifest does not cover; export them inside")
        session = open_session(model)
        card = ModelCard.from_entries(session.get_modelmeta().custom_metadata_map)
        if card.weights_sha256 != graph.weights_sha256:
            raise ModelError(
                f"the metadata is of other weights: it says {card.weights_sha256[:16]}, "
                f"the tensors are {graph.weights_sha256[:16]}"
            )
        _check_features(card, available)
        _check_signature(session, card)
        _check_golden(session, card)
    except ModelError as error:
        raise ModelError(f"model {path}: {error}") from None
    logger.info("model %s: %s version %d, id %016x", path, card.name, card.version, card.model_id)
    return Artifact(path, sha256, card, graph, session, available)


def open_session(model: bytes) -> ort.InferenceSession:
    """Return a single-threaded session: with more threads the p99 of one step is 4 ms when a core is busy.

    Raises:
        ModelError: onnxruntime cannot make sense of it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Not session.set_denormal_as_zero: it changes the arithmetic of the whole calling thread (models/exchange.py).
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a class of its own for each of its status codes
        raise ModelError(f"onnxruntime cannot load it: {error}") from None


def replay(session: ort.InferenceSession, card: ModelCard, rows: Any) -> Any:
    """Return the answers, ``float32[T, 4]``, to ``rows``, ``float32[T, F]``, of one symbol from the zero state."""
    h = np.zeros((card.layers, 1, card.units), np.float32)
    c = np.zeros_like(h)
    answers = np.empty((len(rows), 4), np.float32)
    for step, row in enumerate(rows):
        probabilities, expected_return, h, c = session.run(list(OUTPUTS), {"x": row[None], "h": h, "c": c})
        answers[step, :3], answers[step, 3] = probabilities[0], expected_return[0]
    return answers


def _read_verified(path: Path) -> tuple[bytes, str]:
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise ModelError(f"model {path} has {size} bytes; a step model has at most {_LARGEST_BYTES}")
        model = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; `tickloom train` makes one") from None
    manifest = manifest_path(path)
    try:
        says = json.loads(manifest.read_text("utf-8"))
        expected_bytes, expected = int(says["bytes"]), str(says["sha256"])
    except OSError as error:
        raise ModelError(f"cannot read the manifest {manifest} of the model: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{manifest} is not a manifest ({type(error).__name__}: {error})") from None
    if len(model) < expected_bytes:
        raise ModelError(f"model {path} is truncated: {len(model)} of {expected_bytes} bytes")
    sha256 = hashlib.sha256(model).hexdigest()
    if sha256 != expected:
        raise ModelError(f"model {path} is damaged: its SHA-256 is {sha256}, its manifest says {expected}")
    return model, sha256


def _check_features(card: ModelCard, available: tuple[str, ...]) -> None:
    unknown = [name for name in card.feature_names if name not in available]
    if unknown:
        raise ModelError(
            f"it wants features that we do not have: {', '.join(unknown)}; we have {', '.join(available)}"
        )
    if card.layers * card.units > MODEL_STATE_FLOATS:
        raise ModelError(
            f"its h and c are {card.layers} x {card.units} floats each; there is room for {MODEL_STATE_FLOATS}"
        )


def _check_signature(session: ort.InferenceSession, card: ModelCard) -> None:
    width, layers, units = len(card.feature_names), card.layers, card.units
    state = [layers, None, units]
    right = {
        "inputs": {"x": [None, width], "h": state, "c": state},
        "outputs": {"probabilities": [None, 3], "expected_return_bps": [None], "h_out": state, "c_out": state},
    }
    for kind, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        # A dimension that may vary has a name or nothing; the batch must be one of those.
        seen = {node.name: [size if isinstance(size, int) else None for size in node.shape] for node in nodes}
        if seen != right[kind]:
            raise ModelError(f"its {kind} are {seen}; right would be {right[kind]}")
        other = {node.name: node.type for node in nodes if node.type != "tensor(float)"}
        if other:
            raise ModelError(f"its {kind} have types {other}; right would be tensor(float)")


def _check_golden(session: ort.InferenceSession, card: ModelCard) -> None:
    try:
        answers = replay(session, card, card.golden.features)
    except Exception as error:  # noqa: BLE001 - as in open_session
        raise ModelError(f"it fails on its golden vectors: {error}") from None
    if not np.isfinite(answers).all():
        raise ModelError("it answers its golden vectors with values that are not finite")
    golden = card.golden.answers
    worst = float(np.max(np.abs(answers - golden) / (1.0 + np.abs(golden))))
    if not worst <= card.golden.tolerance:
        raise ModelError(
            f"its answers are off its golden vectors by {worst:.3g}; right would be {card.golden.tolerance:.3g}"
        )
