import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.periods import DEFAULT
from models.contenders import from_file, task_of
from models.dataset import HistoryRows, history, label
from models.metrics import serve
from models.predictor import load_predictor
from models.splits import Split, by_shares
from stream.errors import ModelError

HORIZON_NS = 10_000_000_000


@pytest.fixture(scope="module")
def recording(make_ticks: Callable[..., Any]) -> tuple[HistoryRows, Split]:
    rows = history(make_ticks(6000, symbols=2, seed=6), HORIZON_NS)
    return rows, by_shares(rows, label(rows, HORIZON_NS, 1.0, 50.0), 0.2, 0.3)


def test_a_file_answers_as_it_would_serve_with_the_state_that_the_validation_span_left(
    recording: Any, random_model: Callable[..., Any], tmp_path: Path
) -> None:
    rows, split = recording
    model = random_model(gain=0.02)
    contender = from_file(rows, model.path, DEFAULT)
    answers = contender.learn(split, 0, tmp_path)
    later = rows.event_ns >= split.validation_ns
    recent = dataclasses.replace(rows, features=rows.features[later], symbol_row=rows.symbol_row[later])
    assert answers.tobytes() == serve(load_predictor(model.path), recent)[split.test[later]].tobytes()
    from_nothing = dataclasses.replace(
        rows, features=rows.features[split.test], symbol_row=rows.symbol_row[split.test]
    )
    assert np.abs(answers[0] - serve(load_predictor(model.path), from_nothing)[0]).max() > 1e-4
    assert contender.about["model_id"] == f"{model.card.model_id:016x}"
    assert contender.name.startswith("random 1 (")


def test_a_model_is_not_judged_by_what_it_was_trained_on(
    recording: Any, random_model: Callable[..., Any], write_model: Callable[..., Any], tmp_path: Path
) -> None:
    import onnx

    rows, split = recording
    model = random_model()
    for trained_to_ns, fair in ((split.test_ns, True), (split.test_ns + 1, False)):
        path = tmp_path / f"{fair}.onnx"
        write_model(path, onnx.load(model.path), model.card, trained_to_ns=trained_to_ns)
        contender = from_file(rows, path, DEFAULT)
        if fair:
            contender.learn(split, 0, tmp_path)
        else:
            with pytest.raises(ModelError, match=r"was trained on ticks up to 20.* and would be judged from 20"):
                contender.learn(split, 0, tmp_path)


def test_models_that_predict_different_things_are_not_compared(
    random_model: Callable[..., Any], write_model: Callable[..., Any], tmp_path: Path
) -> None:
    import onnx

    model = random_model()
    other = tmp_path / "other.onnx"
    write_model(other, onnx.load(model.path), model.card, dead_band_bps=0.5)
    assert task_of([model.path, model.path], DEFAULT).dead_band_bps == 1.0
    with pytest.raises(
        ModelError, match=r"predict different things: 10 s ahead with a dead band of 0\.5 bps, 10 s"
    ):
        task_of([model.path, other], DEFAULT)
