"""What a training keeps on disk after each epoch, so that a killed one goes on instead of starting again.

A file has all that the next epoch depends on: weights, the optimizer's moments and step, the states of the random
generators, and the best weights so far. It is replaced as a whole, so that a kill at any moment leaves the one
before. Its name is the hash of all that the training depends on: trainings may share a directory, and none takes
over from another.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.dataset import HistoryRows, Labels
from models.splits import Split
from stream.errors import ModelError

_ID_DIGITS: Final = 24

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A training after some epochs."""

    # Of training (unknown: NaN) and of validation at the start, then those of each epoch.
    losses: tuple[tuple[float, float], ...]
    latest: Arrays  # all variables after the last epoch
    best: Arrays  # and after the one with the least validation loss


def training_id(
    rows: HistoryRows, labels: Labels, split: Split, settings: Mapping[str, Any], libraries: Mapping[str, str]
) -> str:
    """Return a name for a training: another one where anything differs that its weights depend on.

    Args:
        rows: A rows.
        labels: of them.
        split: which of them count.
        settings: of the training, as plain values.
        libraries: that train, with their versions: others round differently.
    """
    plain = {"settings": settings, "libraries": libraries, "symbols": rows.symbols}
    moments = (split.from_ns, split.validation_ns, split.test_ns)
    digest = hashlib.sha256(json.dumps([plain, moments], sort_keys=True).encode())
    arrays = (rows.features, rows.symbol_row, rows.event_ns, labels.direction, labels.return_bps)
    for array in (*arrays, split.train, split.validation):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:_ID_DIGITS]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file at once; its directory is made where it is missing.

    Raises:
        ModelError: it cannot be written.
    """
    groups = {"latest": checkpoint.latest, "best": checkpoint.best}
    arrays = {f"{group}_{place}": array for group, some in groups.items() for place, array in enumerate(some)}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, losses=np.array(checkpoint.losses), **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return what `write_checkpoint` wrote; None where there is nothing.

    Raises:
        ModelError: it cannot be read, or is damaged.
    """
    if not path.exists():
        return None
    try:
        # Opened here: of a damaged one numpy would leave it open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            groups = {
                group: [
                    stored[f"{group}_{place}"] for place in range(sum(n.startswith(group) for n in stored.files))
                ]
                for group in ("latest", "best")
            }
            losses = tuple((float(loss), float(validation)) for loss, validation in stored["losses"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the checkpoint {path} cannot be read ({error}); delete it, and the training starts again"
        ) from None
    return Checkpoint(losses, groups["latest"], groups["best"])
