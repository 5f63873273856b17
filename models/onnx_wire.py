"""A walk through the bytes of an ONNX file: which operators it runs and on what, its weights, and their hash.

Serving has onnxruntime but not the ``onnx`` package, and onnxruntime does not tell which operators a file holds.
ONNX is protocol buffers; the few fields that matter are read here.

Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import ModelError

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5

# Field numbers.
_MODEL_GRAPH: Final = 7
_MODEL_FUNCTIONS: Final = 25
_GRAPH_NODE: Final = 1
_GRAPH_INITIALIZER: Final = 5
_GRAPH_SPARSE_INITIALIZER: Final = 15
_NODE_INPUT: Final = 1
_NODE_OUTPUT: Final = 2
_NODE_OP_TYPE: Final = 4
_NODE_ATTRIBUTE: Final = 5
_NODE_DOMAIN: Final = 7
_ATTRIBUTE_NAME: Final = 1
_ATTRIBUTE_FLOAT: Final = 2
_ATTRIBUTE_INT: Final = 3
_ATTRIBUTE_STRING: Final = 4
_ATTRIBUTE_TYPE: Final = 20
_FIELD_OF_TYPE: Final = {
    1: _ATTRIBUTE_FLOAT,
    2: _ATTRIBUTE_INT,
    3: _ATTRIBUTE_STRING,
}  # AttributeProto.AttributeType
_ATTRIBUTE_GRAPHS: Final = (6, 11)  # g, graphs
_TENSOR_DIMS: Final = 1
_TENSOR_DATA_TYPE: Final = 2
_TENSOR_NAME: Final = 8
_TENSOR_RAW_DATA: Final = 9
_TENSOR_EXTERNAL: Final = (13, 14)  # external_data, data_location
_DTYPES: Final = {1: "<f4", 7: "<i8"}  # TensorProto.DataType: the two that a step is made of


@dataclass(frozen=True)
class Node:
    """One operator and what it is wired to, by name; an input that is left out is ""."""

    operator: str  # "LSTM", or "domain::Name" outside of ONNX's own domain
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # by name: an int, a float, a text, or None for another kind
    carries_graph: bool


@dataclass(frozen=True)
class Graph:
    """What `read_graph` found."""

    wiring: tuple[Node, ...]  # in the order of the file: each after those whose outputs it reads
    subgraphs: bool  # some operator carries a graph of its own, or the file defines functions
    external: bool  # some tensor lies in another file
    weights_sha256: str
    # Read-only, by name: those of float32 and int64 that are stored as raw bytes, as exporters do.
    tensors: Mapping[str, NDArray[Any]] = field(repr=False, compare=False)

    @property
    def operators(self) -> tuple[str, ...]:
        """Return the operators, sorted, each once."""
        return tuple(sorted({node.operator for node in self.wiring}))

    @property
    def nodes(self) -> int:
        """Return how many nodes there are."""
        return len(self.wiring)


def read_graph(model: bytes) -> Graph:
    """Walk through the bytes of one ONNX file.

    The hash of the weights is the SHA-256 of the sorted SHA-256s of its tensors, names left out: two exports of
    the same weights have the same hash although the exporter numbers its names anew each time.

    Raises:
        ModelError: the bytes are not an ONNX model.
    """
    wiring: list[Node] = []
    digests: list[bytes] = []
    tensors: dict[str, NDArray[Any]] = {}
    subgraphs = external = False
    for number, value in _fields(memoryview(model)):
        subgraphs |= number == _MODEL_FUNCTIONS
        if number != _MODEL_GRAPH:
            continue
        for part, content in _fields(_message(value)):
            if part == _GRAPH_NODE:
                wiring.append(_read_node(_message(content)))
            elif part == _GRAPH_INITIALIZER:
                digest, elsewhere = _digest_tensor(_message(content))
                digests.append(digest)
                external |= elsewhere
                tensors |= _read_tensor(_message(content))
            elif part == _GRAPH_SPARSE_INITIALIZER:
                raise ModelError("the model has sparse weights; right would be dense ones")
    if not wiring:
        raise ModelError("not an ONNX model: there is no graph in it")
    subgraphs |= any(node.carries_graph for node in wiring)
    weights = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return Graph(tuple(wiring), subgraphs, external, weights, tensors)


def _read_node(node: memoryview) -> Node:
    operator = domain = ""
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Any] = {}
    carries_graph = False
    for number, value in _fields(node):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_OP_TYPE:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            carries_graph |= any(field in _ATTRIBUTE_GRAPHS for field, _ in _fields(_message(value)))
            attributes |= _read_attribute(_message(value))
    full_name = operator if domain in ("", "ai.onnx") else f"{domain}::{operator}"
    return Node(full_name, tuple(inputs), tuple(outputs), attributes, carries_graph)


def _read_attribute(attribute: memoryview) -> dict[str, Any]:
    fields = dict(_fields(attribute))
    kind = fields.get(_ATTRIBUTE_TYPE)
    place = _FIELD_OF_TYPE.get(kind) if isinstance(kind, int) else None
    value = fields.get(place) if place is not None else None
    seen: Any = None
    if isinstance(value, int):
        seen = _signed(value)
    elif value is not None and place == _ATTRIBUTE_STRING:
        seen = _text(value)
    elif value is not None and len(value) == struct.calcsize("<f"):
        seen = struct.unpack("<f", value)[0]
    return {_text(fields.get(_ATTRIBUTE_NAME, memoryview(b""))): seen}


def _digest_tensor(tensor: memoryview) -> tuple[bytes, bool]:
    digest = hashlib.sha256()
    external = False
    for number, value in _fields(tensor):
        external |= number in _TENSOR_EXTERNAL and value != 0  # data_location 0 is "in this file"
        if number != _TENSOR_NAME:
            digest.update(number.to_bytes(4, "little"))
            digest.update(value.to_bytes(8, "little") if isinstance(value, int) else value)
    return digest.digest(), external


def _read_tensor(tensor: memoryview) -> dict[str, NDArray[Any]]:
    shape: list[int] = []
    fields: dict[int, int | memoryview] = {}
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            shape += [_signed(value)] if isinstance(value, int) else _varints(value)
        else:
            fields[number] = value
    kind, raw = fields.get(_TENSOR_DATA_TYPE), fields.get(_TENSOR_RAW_DATA)
    dtype = _DTYPES.get(kind) if isinstance(kind, int) else None
    if dtype is None or not isinstance(raw, memoryview) or min(shape, default=1) < 1:
        return {}
    if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
        return {}
    name = _text(fields.get(_TENSOR_NAME, memoryview(b"")))
    return {name: np.frombuffer(bytes(raw), dtype).reshape(shape)}


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ModelError("not an ONNX model: a number stands where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varints(packed: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _varint(packed, at)
        numbers.append(_signed(number))
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of each field of one message, in order."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire_type = key & 7
        if wire_type == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
            continue
        if wire_type == _BYTES:
            size, at = _varint(message, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ModelError(f"not an ONNX model: wire type {wire_type} at byte {at}")
        if at + size > len(message):
            raise ModelError(f"not an ONNX model: a field of {size} bytes where {len(message) - at} are left")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise ModelError("not an ONNX model: a number does not end")
