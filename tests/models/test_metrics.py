from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.artifact import load
from models.dataset import Labels, by_symbol, history
from models.metrics import measure_warmup, score, serve
from models.predictor import OrtPredictor

PRIOR = np.array([0.2, 0.5, 0.3])


def labels_of(direction: list[int], returns: list[float]) -> Labels:
    count = len(direction)
    return Labels(
        np.ones(count, np.bool_), np.array(direction), np.array(returns, np.float32), np.ones(count, np.int64)
    )


def test_a_model_that_knows_everything_has_the_best_metrics() -> None:
    labels = labels_of([0, 1, 2, 2], [-5.0, 0.0, 4.0, 6.0])
    answers = np.array([[1, 0, 0, -5], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 1, 6]], np.float32)
    metrics = score(answers, labels, np.ones(4, np.bool_), PRIOR)
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == 1.0
    assert metrics["ic"] == pytest.approx(1.0)
    assert metrics["log_loss"] == pytest.approx(0.0)
    assert metrics["majority_accuracy"] == 0.25
    assert metrics["prior_log_loss"] == pytest.approx(-np.log([0.2, 0.5, 0.3, 0.3]).mean())
    assert metrics["rows"] == 4


def test_a_model_that_always_answers_the_same_has_the_metrics_of_no_model() -> None:
    generator = np.random.default_rng(0)
    direction = generator.choice(3, 5000, p=PRIOR)
    labels = labels_of(direction.tolist(), generator.normal(0.0, 3.0, 5000).tolist())
    answers = np.tile(np.array([*PRIOR, 0.5], np.float32), (5000, 1))
    metrics = score(answers, labels, np.ones(5000, np.bool_), PRIOR)
    assert metrics["accuracy"] == metrics["majority_accuracy"]
    assert metrics["balanced_accuracy"] == pytest.approx(1 / 3)
    assert metrics["log_loss"] == pytest.approx(metrics["prior_log_loss"], abs=1e-6)
    assert metrics["ic"] == 0.0


def test_only_judged_rows_count() -> None:
    labels = labels_of([0, 2], [-1.0, 1.0])
    answers = np.array([[1, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    assert score(answers, labels, np.array([True, False]), PRIOR)["accuracy"] == 1.0
    assert score(answers, labels, np.array([False, True]), PRIOR)["accuracy"] == 0.0


def test_a_recording_is_served_one_step_at_a_time_with_carried_state(
    random_model: Callable[..., Any], make_ticks: Callable[..., Any]
) -> None:
    predictor = OrtPredictor(load(random_model().path))
    rows = history(make_ticks(9000, symbols=2), 5_000_000_000)
    answers = serve(predictor, rows)
    for symbol, where in enumerate(by_symbol(rows.symbol_row)):
        h, c = np.zeros((2, 2, 128), np.float32)
        one = np.zeros((1, 4), np.float32)
        for index in where[:300]:
            predictor.run(rows.features[[index]], np.array([symbol]), np.zeros(1, np.int64), h, c, one)
            assert (one[0] == answers[index]).all()


def test_the_warm_up_is_as_long_as_the_memory_of_the_model(
    random_model: Callable[..., Any], make_ticks: Callable[..., Any]
) -> None:
    rows = history(make_ticks(8000, symbols=2), 5_000_000_000)
    predictor = OrtPredictor(load(random_model(gain=0.02).path))
    answers = serve(predictor, rows)
    warmup = measure_warmup(predictor, rows, answers)
    assert 1 < warmup < 1024
    # By hand, from one place: after that many steps from nothing the answers are the same to 1 %.
    where = next(iter(by_symbol(rows.symbol_row)))[1500 : 1500 + warmup + 50]
    states = np.zeros((2, 1, 128), np.float32)
    restarted = np.zeros((len(where), 4), np.float32)
    predictor.run(
        rows.features[where], np.zeros(len(where), np.int64), np.arange(len(where)), states[0], states[1], restarted
    )
    off = np.abs(restarted - answers[where]) / answers.std(axis=0)
    assert off[warmup:].max() < 0.05
    assert off[0].max() > 0.05


def test_a_recording_too_short_to_measure_the_warm_up_gives_the_longest(
    random_model: Callable[..., Any], make_ticks: Callable[..., Any]
) -> None:
    rows = history(make_ticks(900, symbols=1), 5_000_000_000)
    predictor = OrtPredictor(load(random_model().path))
    assert measure_warmup(predictor, rows, serve(predictor, rows)) == 1024
