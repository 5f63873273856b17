"""From a graph's wiring to the weights of the LSTM step that it is, if it is one.

The nodes are walked once, and each value becomes a small expression: a weighted sum of other values, a product, a
sigmoid. The outputs' expressions are then compared with the textbook's. A fused LSTM operator becomes the very
expressions that flat nodes become, so that there is one comparison. Operators that only change a tensor's rank are
taken as they come: who uses the weights must compare its answers with onnxruntime's anyway.

Source: Hochreiter, Schmidhuber, 1997, with a forget gate; onnx/Operators.md (LSTM: gates i, o, f, c).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.onnx_wire import Graph, Node
from stream.errors import ModelError

GATES: Final = "iofg"  # input, output and forget gate, and the candidate: the sigmoids first, in one piece

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerWeights:
    """One LSTM cell with U units and I inputs; columns are gates in the order of `GATES`, U each."""

    kernel: Floats  # [I, 4U]
    recurrent: Floats  # [U, 4U]
    bias: Floats  # [4U]


@dataclass(frozen=True)
class StepWeights:
    """(x - mean) x inverse within limits, then L cells on top of each other, then two heads.

    The heads are on the topmost hidden state, and on the limited features where there is a direct path.
    """

    mean: Floats  # [F]
    inverse: Floats  # [F]
    layers: tuple[LayerWeights, ...]
    heads: Floats  # [U, 4]: logits of down, flat, up; expected return in bps
    heads_bias: Floats  # [4]
    direct: Floats  # [F, 4] beside the heads; [0, 4] where there is none
    limit: float  # of the scaled features, up and down; infinite where there is none


# Values are compared by identity: two of them are the same only if they are one output of one node.
@dataclass(frozen=True, eq=False)
class _Source:
    """The features, or h or c of one layer, or of all of them."""

    name: str
    width: int


@dataclass(frozen=True, eq=False)
class _Affine:
    """The sum of value @ matrix over its terms, and a bias."""

    terms: tuple[tuple[Any, Floats], ...]
    bias: Floats

    @property
    def width(self) -> int:
        return len(self.bias)


@dataclass(frozen=True, eq=False)
class _Call:
    """A product, a sum, a difference, a bound, a sigmoid, a tanh, a softmax, or parts side by side (Concat)."""

    operator: str
    arguments: tuple[Any, ...]
    width: int


def read_step(graph: Graph, width: int, layers: int, units: int) -> StepWeights:
    """Return the weights of a graph that is an LSTM step.

    Args:
        graph: with the inputs and outputs of `models.artifact`.
        width: number of features.
        layers: of the state.
        units: of each layer.

    Raises:
        ModelError: the graph is something else; the message says where it differs.
    """
    walk = _Walk(graph, width, layers, units)
    try:
        for node in graph.wiring:
            walk.take(node)
        return walk.step()
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        # An operator may be used in ways that nobody has thought of. That is another form, and no more.
        raise ModelError(f"its wiring is of another kind ({type(error).__name__}: {error})") from None


class _Walk:
    def __init__(self, graph: Graph, width: int, layers: int, units: int) -> None:
        self._width, self._layers, self._units = width, layers, units
        self._states = {name: [_Source(f"{name}{at}", units) for at in range(layers)] for name in "hc"}
        whole = {name: _Source(name, units) for name in "hc"}
        self._whole = {id(source): self._states[name] for name, source in whole.items()}
        self._values: dict[str, Any] = {**graph.tensors, "x": _Source("x", width), **whole}
        if layers == 1:
            self._values |= {name: states[0] for name, states in self._states.items()}

    def take(self, node: Node) -> None:
        """Add the outputs of one node to the values."""
        known: dict[str, Callable[[Node, list[Any]], Any]] = {
            **dict.fromkeys(("Identity", "Squeeze", "Unsqueeze"), lambda _, inputs: inputs[0]),
            **dict.fromkeys(("Sigmoid", "Tanh", "Softmax", "Sub", "Mul", "Min", "Max"), _call),
            "Add": _add,
            "MatMul": lambda _, inputs: _product(inputs[0], inputs[1]),
            "Gemm": _gemm,
            "Concat": _concat,
            "Split": self._split,
            "LSTM": self._lstm,
        }
        missing = [name for name in node.inputs if name and name not in self._values]
        if node.operator not in known or missing:
            raise ModelError(f"it has a {node.operator} of {', '.join(missing) or ', '.join(node.inputs)}")
        results = known[node.operator](node, [self._values[name] if name else None for name in node.inputs])
        if isinstance(results, list):
            self._values |= dict(zip(node.outputs, results, strict=False))
        else:
            self._values[node.outputs[0]] = results

    def step(self) -> StepWeights:
        """Return the weights, if the outputs are what they should be."""
        out = self._values
        hidden, cells = (self._parts(out.get(name)) for name in ("h_out", "c_out"))
        mean, inverse, scaled = self._scaler()
        limit, limited = self._limit(scaled)
        layers, current = [], limited
        for h, c, old_h, old_c in zip(hidden, cells, self._states["h"], self._states["c"], strict=True):
            layers.append(self._cell(h, c, current, old_h, old_c))
            current = h
        direction = _arguments(out.get("probabilities"), "Softmax")[0]
        sources = [limited, current] if len(getattr(direction, "terms", ())) > 1 else [current]
        heads = [_matrices(head, sources) for head in (direction, out.get("expected_return_bps"))]
        if [len(bias) for _, bias in heads] != [3, 1]:
            raise ModelError("its heads do not have 3 and 1 columns")
        *direct, matrix = (
            np.concatenate(parts, axis=1) for parts in zip(*(parts for parts, _ in heads), strict=True)
        )
        bias = np.concatenate([bias for _, bias in heads])
        nothing = np.zeros((0, 4), np.float32)
        return StepWeights(mean, inverse, tuple(layers), matrix, bias, direct[0] if direct else nothing, limit)

    def _parts(self, value: Any) -> list[Any]:
        parts = [value] if self._layers == 1 else list(_arguments(value, "Concat"))
        if len(parts) != self._layers:
            raise ModelError(f"it puts {len(parts)} states together; right would be {self._layers}")
        return parts

    def _scaler(self) -> tuple[Floats, Floats, Any]:
        x = self._values["x"]
        for value in self._values.values():
            if isinstance(value, _Call) and value.operator == "Mul":
                inner, inverse = value.arguments
                if isinstance(inner, _Call) and inner.operator == "Sub" and inner.arguments[0] is x:
                    row = np.zeros(self._width, np.float32)
                    return row + inner.arguments[1].ravel(), row + inverse.ravel(), value
        return np.zeros(self._width, np.float32), np.ones(self._width, np.float32), x

    def _limit(self, scaled: Any) -> tuple[float, Any]:
        def bounds(operator: str, of: Any) -> tuple[Any, Any]:
            for value in self._values.values():
                if _is_call(value, operator) and any(argument is of for argument in value.arguments):
                    return next(argument for argument in value.arguments if argument is not of), value
            return None, of

        above, lowered = bounds("Min", scaled)
        below, limited = bounds("Max", lowered)
        if above is None and below is None:
            return math.inf, scaled
        if not (
            _is_constant(above) and _is_constant(below) and above.size == 1 and above.item() == -below.item() > 0
        ):
            raise ModelError("its features are bounded otherwise than by one number, up and down")
        return above.item(), limited

    def _cell(self, h: Any, c: Any, current: Any, old_h: Any, old_c: Any) -> LayerWeights:
        # c = sigmoid(f) x old_c + sigmoid(i) x tanh(g), h = sigmoid(o) x tanh(c): in any order of the factors.
        o, squashed = _factors(h, lambda value: _is_call(value, "Tanh"))
        if squashed.arguments[0] is not c:
            raise ModelError("a hidden state is not made of the cell state beside it")
        kept, added = _factors_of_sum(c, old_c)
        i, g = _factors(added, lambda value: _is_call(value, "Tanh"))
        gates = {
            "i": _arguments(i, "Sigmoid")[0],
            "o": _arguments(o, "Sigmoid")[0],
            "f": _arguments(kept, "Sigmoid")[0],
            "g": g.arguments[0],
        }
        pieces = [_matrices(gates[gate], [current, old_h]) for gate in GATES]
        if any(len(bias) != self._units for _, bias in pieces):
            raise ModelError(f"its gates do not have {self._units} units each")
        return LayerWeights(
            np.concatenate([matrices[0] for matrices, _ in pieces], axis=1),
            np.concatenate([matrices[1] for matrices, _ in pieces], axis=1),
            np.concatenate([bias for _, bias in pieces]),
        )

    def _split(self, node: Node, inputs: list[Any]) -> list[Any]:
        count, value = len(node.outputs), inputs[0]
        if node.attributes.get("axis", 0) == 0:
            states = [value] if count == self._layers == 1 else self._whole.get(id(value), [])
            if len(states) != count:
                raise ModelError(f"it splits something in {count}; only states are split along their first axis")
            return list(states)
        if not isinstance(value, _Affine):
            raise ModelError(f"it splits something in {count} that is not a weighted sum")
        sizes = inputs[1] if len(inputs) > 1 else np.full(count, value.width // count)
        if len(sizes) != count or sizes.sum() != value.width:
            raise ModelError(f"it splits a weighted sum of {value.width} in {count} parts that are not all of it")
        ends = np.cumsum(sizes)
        return [_columns(value, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]

    def _lstm(self, node: Node, inputs: list[Any]) -> list[Any]:
        x, w, r, b, lengths, h, c, peepholes = inputs + [None] * (8 - len(inputs))
        units = self._units
        plain = {"hidden_size": units, "direction": "forward", "input_forget": 0, "layout": 0}
        changed = [name for name, value in node.attributes.items() if name not in plain or plain[name] != value]
        if lengths is not None or peepholes is not None or changed:
            raise ModelError(f"its LSTM has lengths, peepholes, or is special in {changed}")
        if any(not isinstance(part, np.ndarray) for part in (w, r, b)) or b.size != 8 * units:
            raise ModelError(f"its LSTM does not have weights of {units} units")
        whole = _Affine(((x, w[0].T), (h, r[0].T)), b[0, : 4 * units] + b[0, 4 * units :])
        parts = {gate: _columns(whole, slice(at * units, (at + 1) * units)) for at, gate in enumerate("iofg")}
        i, o, f = (_Call("Sigmoid", (parts[gate],), units) for gate in "iof")
        added = _Call("Mul", (i, _Call("Tanh", (parts["g"],), units)), units)
        cell = _Call("Add", (_Call("Mul", (f, c), units), added), units)
        hidden = _Call("Mul", (o, _Call("Tanh", (cell,), units)), units)
        return [hidden, hidden, cell]


def _is_constant(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32


def _is_call(value: Any, operator: str) -> bool:
    return isinstance(value, _Call) and value.operator == operator


def _arguments(value: Any, operator: str) -> tuple[Any, ...]:
    if not _is_call(value, operator):
        raise ModelError(f"it has {_name(value)} where a {operator} should be")
    return tuple(value.arguments)


def _name(value: Any) -> str:
    return value.operator if isinstance(value, _Call) else type(value).__name__.strip("_").lower()


def _call(node: Node, inputs: list[Any]) -> _Call:
    if node.operator == "Softmax" and node.attributes.get("axis", -1) not in (-1, 1):
        raise ModelError(f"its Softmax is along axis {node.attributes['axis']}")
    return _Call(node.operator, tuple(inputs), max(getattr(value, "width", 0) for value in inputs))


def _add(node: Node, inputs: list[Any]) -> Any:
    one, other = inputs if isinstance(inputs[0], _Affine) else reversed(inputs)
    if isinstance(one, _Affine) and isinstance(other, _Affine):
        return _Affine(one.terms + other.terms, one.bias + other.bias)
    if isinstance(one, _Affine) and _is_constant(other):
        return _Affine(one.terms, one.bias + other.ravel())
    return _call(node, inputs)


def _product(value: Any, matrix: Any) -> _Affine:
    if not _is_constant(matrix) or matrix.ndim != 2:
        raise ModelError("it multiplies by something that is not a matrix of weights")
    parts = value.arguments if _is_call(value, "Concat") else (value,)
    starts = np.cumsum([0, *(getattr(part, "width", 0) for part in parts)])
    if starts[-1] != len(matrix):
        raise ModelError(f"it multiplies {starts[-1]} values by {len(matrix)} rows of weights")
    terms = ((part, matrix[start:][: part.width]) for part, start in zip(parts, starts, strict=False))
    return _Affine(tuple(terms), np.zeros(matrix.shape[1], np.float32))


def _gemm(node: Node, inputs: list[Any]) -> _Affine:
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    changed = {
        name: node.attributes[name] for name in plain if node.attributes.get(name, plain[name]) != plain[name]
    }
    if changed or not _is_constant(inputs[1]):
        raise ModelError(f"its Gemm has {changed} or multiplies by no weights")
    product = _product(inputs[0], inputs[1].T if node.attributes.get("transB", 0) else inputs[1])
    return product if len(inputs) < 3 else _Affine(product.terms, product.bias + inputs[2].ravel())


def _concat(node: Node, inputs: list[Any]) -> Any:
    if len(inputs) == 1:
        return inputs[0]
    return _Call("Concat", tuple(inputs), sum(getattr(value, "width", 0) for value in inputs))


def _columns(value: _Affine, some: slice) -> _Affine:
    return _Affine(tuple((source, matrix[:, some]) for source, matrix in value.terms), value.bias[some])


def _factors(value: Any, is_second: Callable[[Any], bool]) -> tuple[Any, Any]:
    one, other = _arguments(value, "Mul")
    if is_second(other):
        return one, other
    if is_second(one):
        return other, one
    raise ModelError(f"it multiplies {_name(one)} and {_name(other)} where a gate should be")


def _factors_of_sum(cell: Any, old_cell: Any) -> tuple[Any, Any]:
    one, other = _arguments(cell, "Add")
    for kept, added in ((one, other), (other, one)):
        if any(factor is old_cell for factor in _arguments(kept, "Mul")):
            return _factors(kept, lambda value: value is old_cell)[0], added
    raise ModelError("a new cell state does not hold the old one of its layer")


def _matrices(value: Any, sources: list[Any]) -> tuple[list[Floats], Floats]:
    """Return the matrix of each source, and the bias, of a weighted sum of just these."""
    terms = value.terms if isinstance(value, _Affine) else ()
    found = [[matrix for source, matrix in terms if source is wanted] for wanted in sources]
    if len(terms) != len(sources) or any(len(matrices) != 1 for matrices in found):
        raise ModelError(f"it has {_name(value)} of {len(terms)} terms where the sum of {len(sources)} should be")
    return [matrices[0] for matrices in found], value.bias
