"""A second model to swap to: the champion with other weights, exported and signed as any model is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifact import load, open_session, replay, write_manifest
from models.card import Golden
from models.onnx_wire import read_graph

Weights = NDArray[Any]


def write_other_model(source: Path, out: Path, *, seed: int, noise: float = 0.05, gain: float = 1.0) -> int:
    """Write a model like that of ``source`` with noise on its weights; return its id.

    Args:
        source: path of a model.
        out: path of the new one.
        seed: of the noise.
        noise: its standard deviation, relative to each tensor's.
        gain: what the tensors are multiplied with as well.

    Raises:
        ModelError: ``source`` must not serve.
    """
    generator = np.random.default_rng(seed)

    def spoil(values: Weights) -> Weights:
        noisy: Weights = gain * values + noise * values.std() * generator.standard_normal(values.shape)
        return noisy

    return _write_changed(source, out, lambda values: spoil(values) if values.ndim >= 2 else values)


def write_poisoned_model(source: Path, out: Path, *, gain: float) -> int:
    """Write a model that is like that of ``source``, but for up and down, which it confuses; return its id.

    Args:
        source: path of a model.
        out: path of the new one.
        gain: how much surer it is: what the logits are multiplied with.

    Raises:
        ModelError: ``source`` must not serve.
    """
    # Only the head has three columns, and its bias.
    return _write_changed(source, out, lambda values: gain * values[..., ::-1] if values.shape[-1] == 3 else values)


def _write_changed(source: Path, out: Path, change: Callable[[Weights], Weights]) -> int:
    import onnx
    from onnx import helper, numpy_helper

    card = load(source).card
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim >= 1:
            changed = np.ascontiguousarray(change(values), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    raw = model.SerializeToString()
    card = dataclasses.replace(card, weights_sha256=read_graph(raw).weights_sha256)
    answers = replay(open_session(raw), card, card.golden.features)
    card = dataclasses.replace(card, golden=Golden(card.golden.features, answers, card.golden.tolerance))
    helper.set_model_props(model, card.to_entries())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model.SerializeToString())
    write_manifest(out, card)
    return card.model_id
