import dataclasses

import numpy as np
import pytest

from models.lstm import start_tensorflow
from models.stocknet import FEATURES, Days, Samples, score
from models.stocknet_lstm import CANDIDATES, CHOSEN, Recipe, fit_predict

pytestmark = pytest.mark.train

SMALL = Recipe(lag_days=4, units=8, epochs=12, batch=64, learning_rate=1e-2, weight_decay=0.0)


def made_up(days: int = 90, stocks: int = 12, seed: int = 0) -> tuple[Days, Samples, Samples]:
    """Days on which a stock rises if its third feature was high the day before, and samples of both halves."""
    generator = np.random.default_rng(seed)
    features = generator.normal(3.0, 2.0, (days, stocks, FEATURES))
    features[:20, 0] = np.nan  # listed later
    change = np.roll(features[:, :, 2], 1, axis=0) - 3.0
    dates = np.datetime64("2014-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    day, stock = np.nonzero(np.isfinite(np.roll(change, 5, axis=0)))
    up = change[day, stock] > 0.0
    later = day >= 70
    early, late = (Samples(day[part], stock[part], up[part]) for part in ((day >= 10) & ~later, later))
    return Days(dates, features, change), early, late


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    pytest.importorskip("tensorflow")
    start_tensorflow()


def epochs_of(recipe: Recipe, seed: int = 1, spoil_from_day: int | None = None) -> tuple[np.ndarray, int, Samples]:
    days, train, judged = made_up()
    if spoil_from_day is not None:
        features = days.features.copy()
        features[spoil_from_day:] = 1e6
        days = dataclasses.replace(days, features=features)
        first = judged.day == spoil_from_day
        judged = Samples(judged.day[first], judged.stock[first], judged.up[first])
    epochs = 0

    def count() -> None:
        nonlocal epochs
        epochs += 1

    return fit_predict(days, train, judged, recipe, seed, count), epochs, judged


@pytest.mark.parametrize("attention", [False, True])
def test_it_learns_what_there_is_to_learn(attention: bool) -> None:
    scores, epochs, judged = epochs_of(dataclasses.replace(SMALL, attention=attention, market=not attention))
    assert scores.shape == judged.up.shape
    assert epochs == SMALL.epochs
    assert score(judged.up, scores > 0.0).mcc > 0.5


def test_the_same_seed_gives_the_same_scores() -> None:
    recipe = dataclasses.replace(SMALL, epochs=2)
    scores = [epochs_of(recipe, seed)[0].tobytes() for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_a_prediction_uses_neither_its_own_day_nor_those_after() -> None:
    recipe = dataclasses.replace(SMALL, epochs=2)
    honest, _, judged = epochs_of(recipe)
    spoilt, _, _ = epochs_of(recipe, spoil_from_day=75)
    np.testing.assert_allclose(spoilt, honest[judged.day == 75], atol=1e-5)


def test_the_chosen_recipe_was_a_candidate() -> None:
    assert CHOSEN in CANDIDATES.values()
    assert len(set(CANDIDATES.values())) == len(CANDIDATES)
