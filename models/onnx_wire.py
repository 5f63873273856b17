"""A walk through the bytes of an ONNX file: which operators it runs, and a hash of its weights.

Serving has onnxruntime but not the ``onnx`` package, and onnxruntime does not tell which operators a file holds.
ONNX is protocol buffers; the few fields that matter are read here.

Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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
_NODE_OP_TYPE: Final = 4
_NODE_ATTRIBUTE: Final = 5
_NODE_DOMAIN: Final = 7
_ATTRIBUTE_GRAPHS: Final = (6, 11)  # g, graphs
_TENSOR_NAME: Final = 8
_TENSOR_EXTERNAL: Final = (13, 14)  # external_data, data_location


@dataclass(frozen=True)
class Graph:
    """What `read_graph` found."""

    operators: tuple[str, ...]  # "LSTM", or "domain::Name" outside of ONNX's own domain; sorted, each once
    nodes: int
    subgraphs: bool  # some operator carries a graph of its own, or the file defines functions
    external: bool  # some tensor lies in another file
    weights_sha256: str


def read_graph(model: bytes) -> Graph:
    """Walk through the bytes of one ONNX file.

    The hash of the weights is the SHA-256 of the sorted SHA-256s of its tensors, names left out: two exports of
    the same weights have the same hash although the exporter numbers its names anew each time.

    Raises:
        ModelError: the bytes are not an ONNX model.
    """
    operators: set[str] = set()
    tensors: list[bytes] = []
    nodes = 0
    subgraphs = external = graphs = False
    for number, value in _fields(memoryview(model)):
        subgraphs |= number == _MODEL_FUNCTIONS
        if number != _MODEL_GRAPH:
            continue
        graphs = True
        for part, content in _fields(_message(value)):
            if part == _GRAPH_NODE:
                nodes += 1
                operator, carries_graph = _read_node(_message(content))
                operators.add(operator)
                subgraphs |= carries_graph
            elif part == _GRAPH_INITIALIZER:
                digest, elsewhere = _read_tensor(_message(content))
                tensors.append(digest)
                external |= elsewhere
            elif part == _GRAPH_SPARSE_INITIALIZER:
                raise ModelError("the model has sparse weights; right would be dense ones")
    if not graphs or nodes == 0:
        raise ModelError("not an ONNX model: there is no graph in it")
    weights = hashlib.sha256(b"".join(sorted(tensors))).hexdigest()
    return Graph(tuple(sorted(operators)), nodes, subgraphs, external, weights)


def _read_node(node: memoryview) -> tuple[str, bool]:
    operator = domain = ""
    carries_graph = False
    for number, value in _fields(node):
        if number == _NODE_OP_TYPE:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            carries_graph |= any(field in _ATTRIBUTE_GRAPHS for field, _ in _fields(_message(value)))
    return (operator if domain in ("", "ai.onnx") else f"{domain}::{operator}"), carries_graph


def _read_tensor(tensor: memoryview) -> tuple[bytes, bool]:
    digest = hashlib.sha256()
    external = False
    for number, value in _fields(tensor):
        external |= number in _TENSOR_EXTERNAL and value != 0  # data_location 0 is "in this file"
        if number != _TENSOR_NAME:
            digest.update(number.to_bytes(4, "little"))
            digest.update(value.to_bytes(8, "little") if isinstance(value, int) else value)
    return digest.digest(), external


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ModelError("not an ONNX model: a number stands where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


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
