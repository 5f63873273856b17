"""What training does to weights, with models that are too small to take time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import lstm
from models.dataset import HistoryRows, Labels, Streams, cut_streams
from models.trainer import Objective, Schedule, Trainer, run_epochs
from stream.errors import ModelError

WIDTH, COUNT = 3, 400
PLAIN = Objective(
    learning_rate=1e-2,
    weight_decay=0.0,
    return_weight=0.5,
    return_spread_bps=1.0,
    class_weights=np.ones(3, np.float32),
)
SCALER = lstm.Scaler(np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32))


@pytest.fixture(scope="module")
def build() -> Callable[..., lstm.Models]:
    pytest.importorskip("tensorflow")
    lstm.start_tensorflow()
    return lambda **chosen: lstm.build(SCALER, **({"layers": 1, "units": 4, "seed": 1} | chosen))


@pytest.fixture
def streams() -> Streams:
    generator = np.random.default_rng(1)
    everything = np.ones(COUNT, np.bool_)
    rows = HistoryRows(
        generator.normal(size=(COUNT, WIDTH)).astype(np.float32),
        np.zeros(COUNT, np.int64),
        np.arange(COUNT),
        np.ones(COUNT),
        np.ones(COUNT, np.float32),
        ("A",),
        "",
    )
    direction = 1 + np.sign(np.round(rows.features[:, 0])).astype(np.int64)
    labels = Labels(everything, direction, rows.features[:, 0], np.arange(COUNT))
    return cut_streams(rows, labels, np.arange(WIDTH), everything, everything, pieces=4, burn_in=5)


def named(models: lstm.Models) -> dict[str, Any]:
    return {weight.path: np.array(weight.numpy()) for weight in models.sequence.trainable_variables}


def nothing(steps: int) -> None:
    assert steps > 0


@pytest.mark.train
def test_where_there_is_nothing_to_learn_weights_decay_and_biases_do_not(
    build: Callable[..., lstm.Models], streams: Streams
) -> None:
    models = build()
    before = named(models)
    trainer = Trainer(models, Objective(1e-2, 0.1, 0.5, 1.0, np.ones(3, np.float32)))
    streams.weight[:] = 0.0
    assert trainer.epoch(streams, 50, True, nothing) == 0.0
    for path, after in named(models).items():
        # Two chunks: each takes off learning rate x decay.
        kept = 1.0 if path.endswith("bias") else (1.0 - 1e-3) ** 2
        np.testing.assert_allclose(after, before[path] * kept, rtol=1e-6)


@pytest.mark.train
def test_dropout_is_for_training_only_and_each_chunk_draws_anew(build: Callable[..., lstm.Models]) -> None:
    models = build(dropout=0.5, input_dropout=0.3, layers=2)
    x = np.random.default_rng(0).normal(size=(1, 20, WIDTH)).astype(np.float32)
    state = np.zeros((2, 1, 4), np.float32)
    served, again = (np.array(models.sequence([x, state, state])[0]) for _ in range(2))
    learning, later = (np.array(models.sequence([x, state, state], training=True)[0]) for _ in range(2))
    assert (served == again).all()
    assert not (served == learning).all()
    assert not (learning == later).all()
    h = c = state
    for step in range(20):
        answer, _, h, c = (np.array(each) for each in models.step([x[:, step], h, c]))
        np.testing.assert_allclose(answer[0], served[0, step], atol=1e-6)


@pytest.mark.train
def test_a_class_that_weighs_more_is_learnt_more(build: Callable[..., lstm.Models], streams: Streams) -> None:
    given = []
    for weights in ([1.0, 1.0, 1.0], [1.0, 1.0, 8.0]):
        models = build()
        trainer = Trainer(models, Objective(1e-2, 0.0, 0.5, 1.0, np.array(weights, np.float32)))
        for _ in range(3):
            trainer.epoch(streams, 25, True, nothing)
        given.append(float(lstm.walk(models, streams.rows.features)[:, 2].mean()))
    assert given[1] > given[0] + 0.1


@pytest.mark.train
def test_training_ends_when_the_validation_loss_stops_falling_and_keeps_the_best(
    build: Callable[..., lstm.Models], streams: Streams
) -> None:
    models = build()
    trainer = Trainer(models, PLAIN)
    script = iter([9.0, 3.0, 1.0, 2.0, 2.5, 0.1])  # the first before it begins
    weights: list[Any] = []
    real = trainer.epoch

    def scripted(some: Streams, steps: int, learn: bool, told: Callable[[int], object]) -> float:
        loss = real(some, steps, learn, told)
        if learn:
            return loss
        weights.append(models.sequence.get_weights())
        return next(script)

    trainer.epoch = scripted  # type: ignore[method-assign]
    told: list[tuple[int, float]] = []
    losses = run_epochs(
        trainer, streams, streams, Schedule(9, 2, 50), told=lambda epoch, _, loss: told.append((epoch, loss))
    )
    assert told == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)]
    assert [validation for _, validation in losses] == [3.0, 1.0, 2.0, 2.5]
    kept = models.sequence.get_weights()
    assert all((mine == its).all() for mine, its in zip(kept, weights[2], strict=True))


@pytest.mark.train
def test_a_training_that_diverges_is_an_error(build: Callable[..., lstm.Models], streams: Streams) -> None:
    streams.rows.features[200:, 1] = np.nan
    with pytest.raises(ModelError, match="training diverged"):
        run_epochs(Trainer(build(), PLAIN), streams, streams, Schedule(5, 3, 50))


@pytest.mark.train
def test_variables_of_another_model_are_refused(build: Callable[..., lstm.Models]) -> None:
    with pytest.raises(ModelError, match="do not fit"):
        Trainer(build(), PLAIN).restore(Trainer(build(units=5), PLAIN).variables())


def test_a_scaler_knows_the_rows_and_columns_that_it_is_given_and_no_others() -> None:
    values = np.random.default_rng(0).normal(3.0, 5.0, (1000, 6)).astype(np.float32)
    values[:, 4] = 7.0  # never moves
    inside = np.arange(1000) < 600
    columns = np.array([5, 0, 4])
    scaler = lstm.Scaler.fit(values, inside, columns)
    values[600:] = np.nan
    again = lstm.Scaler.fit(values, inside, columns)
    assert scaler.mean.tobytes() == again.mean.tobytes()
    assert scaler.inverse.tobytes() == again.inverse.tobytes()
    wanted = values[:600][:, columns].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, wanted.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaler.inverse[:2], 1.0 / wanted[:, :2].std(axis=0), rtol=1e-6)
    assert scaler.inverse[2] == 1.0
