"""Compiled copies between the rows of symbols and the buffers that a model's batches read and write.

Everything here moves numbers and computes none, apart from one rule: a state value below the smallest normal
float32 becomes 0. (Onnxruntime's own option for that sets flush-to-zero for the whole calling thread, so the
features of a process that has loaded a model would differ from those of one that has not.)
"""

from typing import Any, Final

import numpy as np
from numba import types

from stream.compiled import compiled, inlined

# Rows of a plan, ``int64[5, capacity + 1]``.
ORDER: Final = 0  # indices of feature rows: by round, and in order of arrival within a round
FIRST: Final = 1  # of each batch: where its rows start in ORDER
COUNT: Final = 2  # of each batch: how many rows it has
SIZE: Final = 3  # of each batch: which of the sizes it is run with; rows beyond COUNT are padding
ENDS: Final = 4  # of each round: where its rows end in ORDER

# A layout, ``int64[COLUMNS + F]``: three sizes, where each tensor starts in the arena, the model's F columns.
LAYERS: Final = 0
UNITS: Final = 1
WIDTH: Final = 2
X: Final = 3
H: Final = 4
C: Final = 5
PROBABILITIES: Final = 6
RETURN: Final = 7
H_OUT: Final = 8
C_OUT: Final = 9
COLUMNS: Final = 10

# What can be wrong with row i: the kernels return kind << 32 | i, or a number of batches, or FINE.
FINE: Final = 0
BAD_FEATURE: Final = 1
BAD_OUTPUT: Final = 2
BAD_ROW: Final = 3
BAD_ROUND: Final = 4
BAD_SHAPE: Final = 5
KIND_SHIFT: Final = 32

_SMALLEST_NORMAL = np.float32(np.finfo(np.float32).smallest_normal)


def _any_layout(dtype: types.Type, ndim: int, readonly: bool) -> types.Array:
    # A field of a structured array is strided, and unaligned if the record is packed so; plain arrays fit as well.
    return types.Array(dtype, ndim, "A", readonly=readonly, aligned=False)


READ_F32 = _any_layout(types.float32, 2, readonly=True)
READ_I64 = _any_layout(types.int64, 1, readonly=True)
WRITE_F32 = _any_layout(types.float32, 2, readonly=False)
_PLAN = types.int64[:, ::1]
_LAYOUT = types.int64[::1]
_ARENA = types.float32[::1]


@compiled(types.int64(READ_I64, _LAYOUT, _PLAN))
def make_plan(rounds: Any, sizes: Any, plan: Any) -> Any:
    """Sort feature rows by round and cut each round into batches.

    Args:
        rounds: ``int64[N]``, N >= 1: how many rows of the same symbol stand before each row.
        sizes: ``int64[K]``: the batch sizes that may be used, ascending.
        plan: ``int64[5, > N]``: filled.

    Returns:
        The number of batches; or ``BAD_ROUND << 32 | i`` if round i is out of bounds.
    """
    n = len(rounds)
    ends = plan[ENDS]
    ends[: n + 1] = 0
    for i in range(n):
        if rounds[i] < 0 or rounds[i] >= n:
            return BAD_ROUND << KIND_SHIFT | i
        ends[rounds[i] + 1] += 1
    for r in range(1, n + 1):
        ends[r] += ends[r - 1]
    for i in range(n):  # moves each entry of `ends` from the start of its round to the end
        plan[ORDER, ends[rounds[i]]] = i
        ends[rounds[i]] += 1
    batches = 0
    start = 0
    for r in range(n):
        while start < ends[r]:
            count = min(ends[r] - start, sizes[-1])
            plan[FIRST, batches] = start
            plan[COUNT, batches] = count
            plan[SIZE, batches] = np.searchsorted(sizes, count)
            start += count
            batches += 1
        if start == n:
            break
    return batches


@inlined
def _tensors(arena: Any, layout: Any, h_at: int, c_at: int, size: int) -> Any:
    """Return h and c, ``float32[L, size, U]`` each, as views."""
    layers, units = layout[LAYERS], layout[UNITS]
    floats = layers * size * units
    h = arena[layout[h_at] : layout[h_at] + floats].reshape(layers, size, units)
    c = arena[layout[c_at] : layout[c_at] + floats].reshape(layers, size, units)
    return h, c


@inlined
def flushed(value: Any) -> Any:
    """Return one float32, or 0 for what is smaller than the smallest normal one."""
    return value if abs(value) >= _SMALLEST_NORMAL else np.float32(0)


@compiled
def _put_results(rows: Any, h: Any, c: Any, out: Any, arena: Any, layout: Any, order: Any, size: int) -> Any:
    layers, units, count = layout[LAYERS], layout[UNITS], len(order)
    probabilities = arena[layout[PROBABILITIES] : layout[PROBABILITIES] + size * 3].reshape(size, 3)
    returns = arena[layout[RETURN] : layout[RETURN] + size]
    h_new, c_new = _tensors(arena, layout, H_OUT, C_OUT, size)
    for j in range(count):
        # A sum is finite only if each of its terms is; they are far too small to overflow it.
        total = probabilities[j].sum() + returns[j]
        for layer in range(layers):
            total += h_new[layer, j].sum() + c_new[layer, j].sum()
        if not np.isfinite(total):
            return BAD_OUTPUT << KIND_SHIFT | order[j]
    for j in range(count):
        i = order[j]
        row = rows[i]
        for k in range(3):
            out[i, k] = probabilities[j, k]
        out[i, 3] = returns[j]
        for layer in range(layers):
            for u in range(units):
                h[row, layer * units + u] = flushed(h_new[layer, j, u])
                c[row, layer * units + u] = flushed(c_new[layer, j, u])
    return FINE


@compiled
def _take_inputs(features: Any, rows: Any, h: Any, c: Any, arena: Any, layout: Any, order: Any, size: int) -> Any:
    layers, units, width, count = layout[LAYERS], layout[UNITS], layout[WIDTH], len(order)
    x = arena[layout[X] : layout[X] + size * width].reshape(size, width)
    h_old, c_old = _tensors(arena, layout, H, C, size)
    for j in range(count):
        i = order[j]
        row = rows[i]
        if row < 0 or row >= len(h) or row >= len(c):
            return BAD_ROW << KIND_SHIFT | i
        for k in range(width):
            value = features[i, layout[COLUMNS + k]]
            if not np.isfinite(value):
                return BAD_FEATURE << KIND_SHIFT | i
            x[j, k] = value
        for layer in range(layers):
            for u in range(units):
                h_old[layer, j, u] = h[row, layer * units + u]
                c_old[layer, j, u] = c[row, layer * units + u]
    return FINE


_EXCHANGE = types.int64(
    *(types.int64, types.int64),
    *(READ_F32, READ_I64, WRITE_F32, WRITE_F32, WRITE_F32),
    *(_ARENA, _PLAN, _LAYOUT, _LAYOUT),
)


@compiled(_EXCHANGE)
def exchange(
    done: int,
    todo: int,
    features: Any,
    rows: Any,
    h: Any,
    c: Any,
    out: Any,
    arena: Any,
    plan: Any,
    sizes: Any,
    layout: Any,
) -> Any:
    """Copy the results of one batch out of the arena and the inputs of the next one into it.

    Args:
        done: batch of the plan that was run, or -1.
        todo: batch of the plan to be run next, or -1.
        features: ``float32[N, features.COUNT]``.
        rows: ``int64[N]``.
        h: ``float32[S, >= L * U]``, read and written.
        c: ``float32[S, >= L * U]``, read and written.
        out: ``float32[N, 4]``, written.
        arena: ``float32[A]``: every tensor of the model, each as large as the largest batch needs.
        plan: as `make_plan` filled it.
        sizes: ``int64[K]``.
        layout: ``int64[COLUMNS + F]``.

    Returns:
        `FINE`, or ``kind << 32 | i`` for what is wrong with feature row i. Nothing of its batch is written then.
    """
    floats = layout[LAYERS] * layout[UNITS]
    if h.shape[1] < floats or c.shape[1] < floats or out.shape[1] < 4:
        return BAD_SHAPE << KIND_SHIFT
    if done >= 0:
        first = plan[FIRST, done]
        order = plan[ORDER, first : first + plan[COUNT, done]]
        trouble = _put_results(rows, h, c, out, arena, layout, order, sizes[plan[SIZE, done]])
        if trouble != FINE:
            return trouble
    if todo >= 0:
        first = plan[FIRST, todo]
        order = plan[ORDER, first : first + plan[COUNT, todo]]
        return _take_inputs(features, rows, h, c, arena, layout, order, sizes[plan[SIZE, todo]])
    return FINE
