"""The fallback as a model that can serve: the class frequencies of late, whatever the tick. Needs no TensorFlow.

It goes through the same loader, the same registry and the same swap as any model, so that going back to it is
nothing special. What it lacks beside the fallback in `agents/outcomes.py` is the memory of the last outcome, which
no step graph has: it stands in for a model that does harm, until somebody promotes a better one.

Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding.
"""

import dataclasses
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.artifact import open_session, replay, write_manifest
from models.card import CLASSES, Golden, ModelCard
from models.export import code_version
from models.onnx_wire import read_graph

NAME: Final = "fallback"
_IR_VERSION: Final = 9
_OPSET: Final = 17
_FLOAT: Final = 1
_INT64: Final = 7
_INT_ATTRIBUTE: Final = 2
_GOLDEN_STEPS: Final = 4


def write_fallback(
    path: Path,
    shares: NDArray[np.float64],
    *,
    feature: str,
    horizon_ns: int,
    dead_band_bps: float,
    seen_from_ns: int,
    seen_to_ns: int,
) -> ModelCard:
    """Write the model with its manifest, and return its card.

    Args:
        path: of the model file, ending in ``.onnx``.
        shares: of down, flat and up: ``float64[3]``, all above 0; they sum to 1.
        feature: any one of the engine's: a step has an input, and this one does not look at it.
        horizon_ns: as the model that it stands in for.
        dead_band_bps: likewise.
        seen_from_ns: event time of the outcomes that were counted.
        seen_to_ns: likewise.

    Raises:
        ValueError: the shares are none.
    """
    if shares.shape != (len(CLASSES),) or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-6:
        raise ValueError(f"shares are {shares}; right would be {len(CLASSES)} above 0 that sum to 1")
    graph = _model(np.log(shares).astype(np.float32))
    rows = np.linspace(-1.0, 1.0, _GOLDEN_STEPS, dtype=np.float32)[:, None]
    card = ModelCard(
        name=NAME,
        version=1,
        feature_names=(feature,),
        horizon_ns=horizon_ns,
        dead_band_bps=dead_band_bps,
        clip_bps=0.0,
        warmup_ticks=1,
        layers=1,
        units=1,
        trained_from_ns=seen_from_ns,
        trained_to_ns=seen_to_ns,
        data_sha256="",
        weights_sha256=read_graph(graph).weights_sha256,
        code_version=code_version(),
        golden=Golden(rows, np.zeros((_GOLDEN_STEPS, 4), np.float32), 1e-5),
        metrics={f"share_{name}": float(share) for name, share in zip(CLASSES, shares, strict=True)},
    )
    answers = replay(open_session(graph), card, rows)
    card = dataclasses.replace(card, golden=Golden(rows, answers, 1e-5))
    properties = [_message(14, _text(1, key) + _text(2, value)) for key, value in card.to_entries().items()]
    path.write_bytes(graph + b"".join(properties))
    write_manifest(path, card)
    return card


def _model(logits: NDArray[np.float32]) -> bytes:
    tensors: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "nothing": np.zeros((1, 3), np.float32),
        "logits": logits,
        "no_return": np.zeros((1, 1), np.float32),
        "last": np.array([1], np.int64),
    }
    nodes = [
        _node("Gemm", ["x", "nothing", "logits"], "scores"),
        _node("Softmax", ["scores"], "probabilities", axis=1),
        _node("MatMul", ["x", "no_return"], "return_column"),
        _node("Squeeze", ["return_column", "last"], "expected_return_bps"),
        _node("Identity", ["h"], "h_out"),
        _node("Identity", ["c"], "c_out"),
    ]
    state: tuple[int | str, ...] = (1, "N", 1)
    inputs = {"x": ("N", 1), "h": state, "c": state}
    outputs = {"probabilities": ("N", 3), "expected_return_bps": ("N",), "h_out": state, "c_out": state}
    graph = b"".join(
        [
            *(_message(1, node) for node in nodes),
            _text(2, "fallback"),
            *(_message(5, _tensor(name, values)) for name, values in tensors.items()),
            *(_message(11, _value(name, shape)) for name, shape in inputs.items()),
            *(_message(12, _value(name, shape)) for name, shape in outputs.items()),
        ]
    )
    opset = _text(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _text(2, "tickloom") + _message(7, graph) + _message(8, opset)


def _node(operator: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    wires = [*(_text(1, name) for name in inputs), _text(2, output), _text(4, operator)]
    chosen = [
        _message(5, _text(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE))
        for name, value in attributes.items()
    ]
    return b"".join(wires + chosen)


def _tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    kind = _FLOAT if values.dtype == np.float32 else _INT64
    sizes = b"".join(_number(1, size) for size in values.shape)
    return sizes + _number(2, kind) + _text(8, name) + _message(9, values.tobytes())


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _text(2, size) for size in shape]
    tensor = _number(1, _FLOAT) + _message(2, b"".join(_message(1, size) for size in sizes))
    return _text(1, name) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
