"""The compiled step once more, as loops of plain numpy float32 operations: what its bits must be on every CPU.

Each numpy operation on float32 arrays is one IEEE operation on each element, and none is contracted with the next.
"""

from typing import Any

import numpy as np

from models import activations as a
from models.step_graph import StepWeights

ONE = np.float32(1.0)


def exp_of_negative(x: Any) -> Any:
    x = np.where(x < a._LOWEST, a._LOWEST, x)
    shifted = x * a._LOG2_E + a._ROUNDER
    whole = shifted - a._ROUNDER
    r = (x - whole * a._LN2_HIGH) - whole * a._LN2_LOW
    q = np.full_like(r, a._E4)
    for coefficient in (a._E3, a._E2, a._E1, a._E0):
        q = q * r + coefficient
    power = ((shifted.view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (((q * r) * r + r) + ONE) * power


def sigmoid(x: Any) -> Any:
    e = exp_of_negative(-np.abs(x))
    below = e / (ONE + e)
    return np.where(x >= 0, ONE - below, below)


def tanh(x: Any) -> Any:
    size = np.abs(x)
    e = exp_of_negative(np.float32(-2.0) * size)
    large = ONE - np.float32(2.0) * e / (ONE + e)
    z = x * x
    small = np.full_like(z, a._T4)
    for coefficient in (a._T3, a._T2, a._T1, a._T0):
        small = small * z + coefficient
    return np.where(size < a._SMALL, small * z * x + x, np.where(x < 0, -large, large))


def step(weights: StepWeights, x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
    """Return the answers ``float32[N, 4]`` and the new ``float32[N, L, U]`` states of N rows."""
    units = h.shape[-1]
    h, c = h.copy(), c.copy()
    limit = np.float32(weights.limit)
    current = scaled = np.clip((x - weights.mean) * weights.inverse, -limit, limit)
    for at, layer in enumerate(weights.layers):
        sums = np.repeat(layer.bias[None], len(x), axis=0)
        for k in range(current.shape[1]):
            sums = sums + current[:, k, None] * layer.kernel[k]
        for k in range(units):
            sums = sums + h[:, at, k, None] * layer.recurrent[k]
        i, o, f, g = np.split(sums, 4, axis=1)
        c[:, at] = sigmoid(f) * c[:, at] + sigmoid(i) * tanh(g)
        h[:, at] = current = sigmoid(o) * tanh(c[:, at])
    answers = np.zeros((len(x), 4), np.float32)
    for k in range(len(weights.direct)):
        answers = answers + scaled[:, k, None] * weights.direct[k]
    answers = answers + weights.heads_bias
    said = [current[:, k, None] * weights.heads[k] for k in range(units)]
    whole = units - units % 4
    for k in range(0, whole, 4):
        answers = answers + ((said[k] + said[k + 1]) + (said[k + 2] + said[k + 3]))
    for k in range(whole, units):
        answers = answers + said[k]
    likely = exp_of_negative(answers[:, :3] - answers[:, :3].max(axis=1, keepdims=True))
    answers[:, :3] = likely / ((likely[:, 0] + likely[:, 1]) + likely[:, 2])[:, None]
    smallest = np.finfo(np.float32).smallest_normal
    return answers, np.where(np.abs(h) < smallest, 0, h), np.where(np.abs(c) < smallest, 0, c)
