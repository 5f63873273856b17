"""From trained Keras models to a file that says what it is, checked against Keras on the way."""

import dataclasses
import importlib.metadata
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.artifact import open_session, replay, write_manifest
from models.card import Golden, ModelCard
from models.lstm import Models, walk
from stream.errors import ModelError

GOLDEN_TOLERANCE: Final = 1e-5
_GOLDEN_STEPS: Final = 32
_PARITY_STEPS: Final = 10_000
_PARITY_TOLERANCE: Final = 1e-5


def check_parity(
    models: Models, graph: bytes, card: ModelCard, rows: NDArray[np.float32], steps: int = _PARITY_STEPS
) -> float:
    """Compare the exported graph with Keras over many steps of carried state.

    Args:
        models: as trained.
        graph: as exported.
        card: the sizes in it.
        rows: ``float32[T, F]`` of one symbol.
        steps: how many.

    Returns:
        The largest difference: of probabilities as it is, of returns in bps relative to 1 + |return|.

    Raises:
        ModelError: they differ by more than rounding explains.
    """
    # A symbol with fewer rows starts again from its first one; the state goes on.
    many = np.resize(rows, (steps, rows.shape[1]))
    keras_answers = walk(models, many)
    answers = replay(open_session(graph), card, many)
    scale = np.ones_like(keras_answers)
    scale[:, 3] += np.abs(keras_answers[:, 3])
    parity = float(np.max(np.abs(answers - keras_answers) / scale))
    if not parity < _PARITY_TOLERANCE:
        raise ModelError(f"the exported graph is off Keras by {parity:.2e}; right would be {_PARITY_TOLERANCE:.0e}")
    return parity


def with_golden(card: ModelCard, graph: bytes, rows: NDArray[np.float32]) -> ModelCard:
    """Return the card with golden vectors from the middle of ``rows``, ``float32[T, F]`` of one symbol."""
    some = rows[len(rows) // 2 :][:_GOLDEN_STEPS]
    answers = replay(open_session(graph), card, some)
    return dataclasses.replace(card, golden=Golden(some, answers, GOLDEN_TOLERANCE))


def write_model(path: Path, graph: bytes, card: ModelCard) -> None:
    """Write the graph with the card inside it, and the manifest beside it."""
    import onnx

    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, card.to_entries())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    write_manifest(path, card)


def code_version() -> str:
    """Return the version of tickloom, with the commit if this is a working copy."""
    version = importlib.metadata.version("tickloom")
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version
    return f"{version}+g{commit}"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that made the model."""
    import tensorflow as tf

    names = ("keras", "tf2onnx", "onnx", "onnxruntime", "numpy")
    # Not by the name of its package: with a GPU that is another one.
    return {"tensorflow": tf.__version__} | {name: importlib.metadata.version(name) for name in names}
