"""The compiled LSTM step: all rows of a call in order of arrival, each computed alone.

Each row is the same sequence of float32 operations whatever stands beside it, and vectors run across the units of a
layer, never along a sum: the order of every sum is the order of its inputs, but in the heads, where it is that of
`_answer`. No operation is contracted (a x b + c is rounded twice) or taken from a maths library, so that the bits
are those of the plain numpy loop in `tests/models/step_in_numpy.py`, on every CPU.

The inputs of the first layer do not depend on its state. So they are added up for `TILE` rows of the burst at a
time, while a few rows of weights are at hand: with 80 features all weights are 57 kB, more than the processor's
first cache holds. What depends on the state follows row by row. The order of each sum is the same. The direct path
to the answers, of models that have one, is four more columns of that first layer.

Rows of weights are added `TOGETHER`: the running sums are loaded and stored less often. Four are best on Zen 4.
"""

from typing import Any, Final

import numpy as np
from numba import types

from models.activations import exp_of_negative, sigmoid, tanh
from models.exchange import (
    BAD_FEATURE,
    BAD_OUTPUT,
    BAD_ROUND,
    BAD_ROW,
    BAD_SHAPE,
    FINE,
    KIND_SHIFT,
    READ_F32,
    READ_I64,
    WRITE_F32,
    flushed,
)
from stream.compiled import compiled, inlined

# A layout, ``int64[LAYER + L * LAYER_SIZE + F]``: sizes, where each part starts, and the model's F columns.
# Weights and scratch are two arrays, of which every part starts at a cache line.
LAYERS: Final = 0
UNITS: Final = 1
WIDTH: Final = 2  # F
# The length of a row of weights: 4 x UNITS, and 4 of the direct path if there is one, rounded up to whole vectors.
STRIDE: Final = 3
MEAN: Final = 4  # in the weights: float32[F]
INVERSE: Final = 5  # float32[F]
LIMIT: Final = 6  # float32[1]: of the scaled features, up and down
DIRECT: Final = 7  # columns of the first layer's matrix after those of gates: 4 of the direct path, or 0
HEADS: Final = 8  # float32[U + 1, 4], the bias last
SUMS: Final = 9  # in the scratch: float32[TILE, STRIDE]
H_NEW: Final = 10  # float32[L * U]
C_NEW: Final = 11  # float32[L * U]
ANSWER: Final = 12  # float32[4]
TILE_INPUTS: Final = 13  # float32[TILE, I of the first layer]
LAYER: Final = 14
# Of each layer.
LAYER_INPUTS: Final = 0  # I: features, or units of the layer below, rounded up to whole `TOGETHER`
LAYER_ROWS: Final = 1  # I, and U rounded up likewise
LAYER_MATRIX: Final = 2  # in the weights: float32[ROWS + 1, STRIDE]: kernel, zeros, recurrent kernel, zeros; bias
LAYER_VALUES: Final = (
    3  # in the scratch: float32[ROWS]: the layer's inputs (but the first one's), zeros, its h, zeros
)
LAYER_SIZE: Final = 4

TOGETHER: Final = 4  # rows of weights that are added up in one pass over the sums
TILE: Final = 8  # rows of a burst whose inputs are added up side by side

_INFINITY: Final = np.float32(np.inf)
_FLOATS = types.float32[::1]
_STEP = types.int64(
    *(READ_F32, READ_I64, READ_I64, WRITE_F32, WRITE_F32, WRITE_F32),
    *(_FLOATS, _FLOATS, types.int64[::1]),
)


@inlined
def _add_up(sums: Any, values: Any, matrix: Any) -> None:
    """Add values @ matrix to the sums, input after input."""
    for k in range(0, len(values), TOGETHER):
        a, b, c, d = values[k], values[k + 1], values[k + 2], values[k + 3]
        row_a, row_b, row_c, row_d = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(len(sums)):
            sums[j] = (((sums[j] + a * row_a[j]) + b * row_b[j]) + c * row_c[j]) + d * row_d[j]


@inlined
def _add_up_tile(sums: Any, values: Any, matrix: Any) -> None:
    """Do as `_add_up` for each row of ``sums`` and ``values``."""
    for k in range(0, values.shape[1], TOGETHER):
        row_a, row_b, row_c, row_d = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for i in range(len(sums)):
            a, b, c, d = values[i, k], values[i, k + 1], values[i, k + 2], values[i, k + 3]
            own = sums[i]
            for j in range(len(own)):
                own[j] = (((own[j] + a * row_a[j]) + b * row_b[j]) + c * row_c[j]) + d * row_d[j]


@inlined
def _advance(sums: Any, c_new: Any, h_new: Any) -> None:
    """Turn the sums of four gates, and the old c in ``c_new``, into the new states of one layer."""
    units = len(h_new)
    i, o, f, g = sums[:units], sums[units : 2 * units], sums[2 * units : 3 * units], sums[3 * units : 4 * units]
    for u in range(units):
        cell = sigmoid(f[u]) * c_new[u] + sigmoid(i[u]) * tanh(g[u])
        c_new[u] = cell
        h_new[u] = sigmoid(o[u]) * tanh(cell)


@inlined
def _answer(answer: Any, hidden: Any, heads: Any) -> None:
    """Turn what the direct path says, and the heads, into three probabilities and the expected return."""
    units = len(hidden)
    for k in range(4):
        answer[k] += heads[units, k]
    whole = units - units % TOGETHER
    for u in range(0, whole, TOGETHER):
        a, b, c, d = hidden[u], hidden[u + 1], hidden[u + 2], hidden[u + 3]
        row_a, row_b, row_c, row_d = heads[u], heads[u + 1], heads[u + 2], heads[u + 3]
        for k in range(4):  # in pairs: four columns are one vector, whose next sum waits for the one before
            answer[k] += (a * row_a[k] + b * row_b[k]) + (c * row_c[k] + d * row_d[k])
    for u in range(whole, units):
        value, row = hidden[u], heads[u]
        for k in range(4):
            answer[k] += value * row[k]
    highest = max(answer[0], answer[1], answer[2])
    for k in range(3):
        answer[k] = exp_of_negative(answer[k] - highest)
    total = (answer[0] + answer[1]) + answer[2]
    for k in range(3):
        answer[k] = answer[k] / total


@inlined
def _hold(values: Any, limit: Any) -> None:
    """Hold values within +-limit: a loop of its own, for it becomes vectors."""
    for k in range(len(values)):
        value = values[k]
        value = value if value < limit else limit
        values[k] = value if value > -limit else -limit


@inlined
def _all_finite(values: Any) -> Any:
    finite = True
    for value in values:
        finite &= abs(value) < _INFINITY
    return finite


@inlined
def _matrix(weights: Any, of_layer: Any, stride: Any) -> Any:
    rows, start = of_layer[LAYER_ROWS], of_layer[LAYER_MATRIX]
    return weights[start : start + (rows + 1) * stride].reshape(rows + 1, stride)


@compiled
def _begin(features: Any, sums: Any, weights: Any, scratch: Any, layout: Any) -> Any:
    """Add up the inputs of up to `TILE` rows; return how many of them are finite, before the first that is not."""
    width, of_layer = layout[WIDTH], layout[LAYER : LAYER + LAYER_SIZE]
    mean = weights[layout[MEAN] : layout[MEAN] + width]
    inverse = weights[layout[INVERSE] : layout[INVERSE] + width]
    limit = weights[layout[LIMIT]]
    columns = layout[LAYER + layout[LAYERS] * LAYER_SIZE :]
    inputs, start = of_layer[LAYER_INPUTS], layout[TILE_INPUTS]
    values = scratch[start : start + TILE * inputs].reshape(TILE, inputs)
    matrix = _matrix(weights, of_layer, layout[STRIDE])
    count = len(features)
    for i in range(count):
        own, row, finite = values[i], features[i], True
        for k in range(width):
            value = row[columns[k]]
            finite &= abs(value) < _INFINITY
            own[k] = (value - mean[k]) * inverse[k]
        if limit < _INFINITY:
            _hold(own[:width], limit)
        if not finite:
            count = i
            break
    for i in range(count):
        sums[i] = matrix[of_layer[LAYER_ROWS]]
    _add_up_tile(sums[:count], values[:count], matrix)
    return count


@compiled
def _step(all_sums: Any, h: Any, c: Any, out: Any, weights: Any, scratch: Any, layout: Any) -> Any:
    """Take one row's step from the sums of its inputs; return what is wrong. Then only the scratch is written."""
    layers, units, stride = layout[LAYERS], layout[UNITS], layout[STRIDE]
    answer = scratch[layout[ANSWER] : layout[ANSWER] + 4]
    answer[:] = np.float32(0.0)
    for k in range(layout[DIRECT]):
        answer[k] = all_sums[4 * units + k]
    sums = all_sums[: 4 * units]
    all_h = scratch[layout[H_NEW] : layout[H_NEW] + layers * units]
    all_c = scratch[layout[C_NEW] : layout[C_NEW] + layers * units]
    hidden = all_h[:units]
    for layer in range(layers):
        of_layer = layout[LAYER + layer * LAYER_SIZE : LAYER + (layer + 1) * LAYER_SIZE]
        inputs, rows = of_layer[LAYER_INPUTS], of_layer[LAYER_ROWS]
        values = scratch[of_layer[LAYER_VALUES] : of_layer[LAYER_VALUES] + rows]
        matrix = _matrix(weights, of_layer, stride)
        h_new, c_new = all_h[layer * units : (layer + 1) * units], all_c[layer * units : (layer + 1) * units]
        for u in range(units):
            values[inputs + u] = h[layer * units + u]
            c_new[u] = c[layer * units + u]
        if layer > 0:
            values[:units] = hidden
            sums[:] = matrix[rows, : 4 * units]
            _add_up(sums, values[:inputs], matrix)
        _add_up(sums, values[inputs:], matrix[inputs:])
        _advance(sums, c_new, h_new)
        hidden = h_new
    heads = weights[layout[HEADS] : layout[HEADS] + (units + 1) * 4].reshape(units + 1, 4)
    _answer(answer, hidden, heads)
    if not (_all_finite(answer) & _all_finite(all_h) & _all_finite(all_c)):
        return BAD_OUTPUT
    for k in range(4):
        out[k] = answer[k]
    for u in range(layers * units):
        h[u] = flushed(all_h[u])
        c[u] = flushed(all_c[u])
    return FINE


@compiled(_STEP)
def step_rows(
    features: Any,
    rows: Any,
    rounds: Any,
    h: Any,
    c: Any,
    out: Any,
    weights: Any,
    scratch: Any,
    layout: Any,
) -> Any:
    """Take one step for each feature row, in order of arrival.

    Args:
        features: ``float32[N, features.COUNT]``.
        rows: ``int64[N]``.
        rounds: ``int64[N]``: only checked. Rows of one symbol come in order, so that rounds need not be made.
        h: ``float32[S, >= L * U]``, read and written.
        c: ``float32[S, >= L * U]``, read and written.
        out: ``float32[N, 4]``, written.
        weights: ``float32[W]``, as the layout says.
        scratch: ``float32[X]``, as the layout says.
        layout: ``int64[LAYER + L * LAYER_SIZE + F]``.

    Returns:
        `FINE`, or ``kind << 32 | i`` for what is wrong with feature row i. Nothing of that row is written then, and
        nothing of those after it.
    """
    n, floats = len(rows), layout[LAYERS] * layout[UNITS]
    if h.shape[1] < floats or c.shape[1] < floats or out.shape[1] < 4:
        return BAD_SHAPE << KIND_SHIFT
    for i in range(n):
        if rounds[i] < 0 or rounds[i] >= n:
            return BAD_ROUND << KIND_SHIFT | i
    stride, start = layout[STRIDE], layout[SUMS]
    sums = scratch[start : start + TILE * stride].reshape(TILE, stride)
    for first in range(0, n, TILE):
        stop = min(n, first + TILE)
        finite = first + _begin(features[first:stop], sums, weights, scratch, layout)
        for i in range(first, stop):
            row = rows[i]
            if row < 0 or row >= len(h) or row >= len(c):
                return BAD_ROW << KIND_SHIFT | i
            if i == finite:
                return BAD_FEATURE << KIND_SHIFT | i
            trouble = _step(sums[i - first], h[row], c[row], out[i], weights, scratch, layout)
            if trouble != FINE:
                return trouble << KIND_SHIFT | i
    return FINE
