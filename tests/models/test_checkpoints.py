import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints import Checkpoint, read_checkpoint, training_id, write_checkpoint
from models.dataset import HistoryRows, Labels
from models.splits import Split
from stream.errors import ModelError

CHECKPOINT = Checkpoint(
    losses=((1.5, 1.25), (1.0, np.nextafter(1.0, 2.0))),
    latest=[np.arange(12, dtype=np.float32).reshape(3, 4), np.array([1, 7], np.uint32), np.array(9, np.int64)],
    best=[np.ones((3, 4), np.float32), np.array([1, 6], np.uint32), np.array(8, np.int64)],
)


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "one.npz"
    assert read_checkpoint(path) is None
    write_checkpoint(path, CHECKPOINT)
    write_checkpoint(path, CHECKPOINT)
    back = read_checkpoint(path)
    assert back is not None
    assert back.losses == CHECKPOINT.losses
    for mine, its in ((back.latest, CHECKPOINT.latest), (back.best, CHECKPOINT.best)):
        assert [(a.dtype, a.shape, a.tobytes()) for a in mine] == [(a.dtype, a.shape, a.tobytes()) for a in its]
    assert [each.name for each in path.parent.iterdir()] == ["one.npz"]


def test_a_damaged_checkpoint_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    write_checkpoint(path, CHECKPOINT)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-40], b"", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"one\.npz cannot be read .*delete it"):
            read_checkpoint(path)


def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write the checkpoint"):
        write_checkpoint(tmp_path / "file" / "one.npz", CHECKPOINT)


def _training() -> dict[str, Any]:
    count = 6
    flags = np.ones(count, np.bool_)
    return {
        "rows": HistoryRows(
            np.zeros((count, 2), np.float32),
            np.zeros(count, np.int64),
            np.arange(count),
            np.ones(count),
            np.ones(count, np.float32),
            ("A",),
            "",
        ),
        "labels": Labels(flags, np.ones(count, np.int64), np.zeros(count, np.float32), np.arange(count)),
        "split": Split(flags, ~flags, ~flags, 0, 6, 7, 8),
        "settings": {"units": 8, "feature_names": ("a", "b")},
        "libraries": {"keras": "3"},
    }


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("rows", lambda rows: dataclasses.replace(rows, features=rows.features + 1)),
        ("rows", lambda rows: dataclasses.replace(rows, symbols=("B",))),
        ("labels", lambda labels: dataclasses.replace(labels, direction=labels.direction * 2)),
        ("split", lambda split: dataclasses.replace(split, train=split.validation)),
        ("split", lambda split: dataclasses.replace(split, validation_ns=5)),
        ("settings", lambda settings: settings | {"units": 9}),
        ("libraries", lambda libraries: libraries | {"keras": "4"}),
    ],
)
def test_a_training_of_anything_else_has_another_name(part: str, change: Any) -> None:
    training = _training()
    name = training_id(**training)
    assert name == training_id(**_training())
    assert name != training_id(**{**training, part: change(training[part])})
