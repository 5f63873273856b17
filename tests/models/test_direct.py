"""The regression that a model begins with, and that it is before it has learnt anything else."""

from typing import Any

import numpy as np
import pytest

from models import lstm
from models.artifact import OUTPUTS, open_session
from models.baselines import regressions
from models.direct import Sample, fit_direct

pytest.importorskip("sklearn")
WIDTH, ROWS = 5, 4000


def some(seed: int, classes: tuple[int, ...] = (0, 1, 2)) -> Sample:
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(ROWS, WIDTH)) * [1.0, 10.0, 0.1, 3.0, 1.0] + [0.0, 50.0, 0.0, -3.0, 0.0]).astype(
        np.float32
    )
    pull = x[:, 0] + generator.normal(size=ROWS)
    direction = np.array(classes)[np.searchsorted([-0.7, 0.7], pull) * (len(classes) - 1) // 2]
    return Sample(x, direction, pull.astype(np.float32))


def scaler_of(rows: Any) -> lstm.Scaler:
    return lstm.Scaler.fit(rows)


def probabilities(direct: Any, scaler: lstm.Scaler, rows: Any) -> Any:
    logits = np.clip((rows - scaler.mean) * scaler.inverse, -3.0, 3.0) @ direct.weights + direct.bias
    odds = np.exp(logits[:, :3])
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1, 2)], ids=str)
def test_it_is_the_baseline_of_the_same_name(classes: tuple[int, ...]) -> None:
    train, validation, judged = some(1, classes), some(2, classes), some(3, classes)
    scaler = scaler_of(train.features)
    direct = fit_direct(scaler.mean, scaler.inverse, train, validation)
    theirs = regressions(train, validation)(judged.features)
    ours = probabilities(direct, scaler, judged.features)
    # A class that never came is impossible for the one, and as likely as a row in thousands for the other.
    np.testing.assert_allclose(ours, theirs[:, :3], atol=1e-4 if len(classes) == 3 else 5e-3)
    assert (ours > 0.0).all()
    assert ours.std(axis=0).max() > 0.1


def test_of_one_class_it_is_nearly_sure() -> None:
    train = some(1, (1,))
    scaler = scaler_of(train.features)
    direct = fit_direct(scaler.mean, scaler.inverse, train, train)
    assert (probabilities(direct, scaler, train.features)[:, 1] > 0.999).all()


@pytest.mark.train
def test_before_it_learns_a_model_answers_as_the_regression_whatever_its_state() -> None:
    pytest.importorskip("tensorflow")
    lstm.start_tensorflow()
    train = some(1)
    scaler = scaler_of(train.features)
    direct = fit_direct(scaler.mean, scaler.inverse, train, some(2))
    models = lstm.build(scaler, 2, 4, seed=1, dropout=0.5, input_dropout=0.5, direct=direct)
    walked = lstm.walk(models, train.features[:200] * 3.0)  # far outside of what it knows, too
    np.testing.assert_allclose(walked[:, :3], probabilities(direct, scaler, train.features[:200] * 3.0), atol=1e-5)
    h, c = np.random.default_rng(0).normal(size=(2, 2, 200, 4)).astype(np.float32)
    session = open_session(lstm.export_step(models))
    stepped = session.run(list(OUTPUTS), {"x": train.features[:200] * 3.0, "h": h, "c": c})
    np.testing.assert_allclose(stepped[0], walked[:, :3], atol=1e-5)
    np.testing.assert_allclose(stepped[1], walked[:, 3], rtol=1e-5, atol=1e-5)
