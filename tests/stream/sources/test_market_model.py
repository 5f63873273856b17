"""The parameters of the simulated market hang together."""

import numpy as np
import pytest

from stream.sources import market_model as model


def test_excitement_dies_out_in_every_regime() -> None:
    assert all(0 < model.mean_offspring(regime) < 1 for regime in range(3))


def test_the_shares_of_time_are_those_of_a_long_walk_through_the_regimes() -> None:
    assert np.allclose(np.sum(model.NEXT_REGIME, axis=1), 1)
    random = np.random.default_rng(1)
    regime, spent_s = 1, np.zeros(3)
    for _ in range(60_000):
        spent_s[regime] += random.exponential(model.HOLDING_S[regime])
        regime = int(random.choice(3, p=model.NEXT_REGIME[regime]))
    assert spent_s / spent_s.sum() == pytest.approx(model.regime_shares(), abs=0.02)


def test_base_rates_and_excitement_give_a_mean_rate_of_one() -> None:
    offspring = np.array([model.mean_offspring(regime) for regime in range(3)])
    rates = model.base_rate_factors() / (1 - offspring)
    assert rates @ model.regime_shares() == pytest.approx(1)
    assert rates / rates[1] == pytest.approx(np.array(model.ACTIVITY))
