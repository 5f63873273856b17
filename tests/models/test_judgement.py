import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents.periods import DEFAULT
from models.dataset import history, label
from models.judged import Judged, judged_rows
from models.judgement import CARD_SCHEMA_VERSION, Forecaster, judge
from models.scores import classification, log_losses
from models.splits import split_at

pytest.importorskip("scipy")

HORIZON_NS = 5_000_000_000


@pytest.fixture(scope="module")
def judged(make_ticks: Callable[..., Any]) -> Judged:
    rows = history(make_ticks(20_000, symbols=2, seed=4), HORIZON_NS)
    labels = label(rows, HORIZON_NS, 1.0, 50.0)
    at = [int(rows.event_ns[place]) for place in (0, 3000, 5000)]
    return judged_rows(rows, labels, [split_at(rows, labels, *at, int(rows.event_ns[-1]) + 1)], DEFAULT)


def knows(judged: Judged, share: float, seed: int) -> Any:
    """Answers that know the outcome of a share of the rows, and the frequencies of the rest."""
    generator = np.random.default_rng(seed)
    frequencies = np.bincount(judged.direction, minlength=3) / len(judged.direction)
    answers = np.zeros((len(judged.direction), 4), np.float32)
    told = (generator.random(len(answers)) < share)[:, None]
    answers[:, :3] = np.where(told, 0.7 * np.eye(3)[judged.direction] + 0.3 * frequencies, frequencies)
    answers[:, 3] = np.where(told[:, 0], judged.market.return_bps, 0.0)
    return answers


def card_of(judged: Judged, *who: tuple[str, bool, float], seeds: int = 2, fee_bps: float = 0.0) -> Any:
    forecasters = [
        Forecaster(name, name, baseline, [knows(judged, share, seed) for seed in range(seeds)])
        for name, baseline, share in who
    ]
    return judge(judged, forecasters, {"name": "test"}, fee_bps, 1.0)


def words(card: Any) -> list[str]:
    return [each["words"] for each in card["verdicts"]]


def test_a_card_is_plain_values_that_json_gives_back(judged: Judged) -> None:
    card = card_of(judged, ("simple", True, 0.0), ("lstm", False, 0.3))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["schema_version"] == CARD_SCHEMA_VERSION
    assert card["name"] == "test"


def test_scores_are_the_mean_over_seeds_with_their_spread(judged: Judged) -> None:
    card = card_of(judged, ("lstm", False, 0.3), seeds=3)
    found = card["forecasters"][0]["scores"][0]
    each = [
        classification(knows(judged, 0.3, seed)[:, :3].astype(float), judged.direction)["mcc"] for seed in range(3)
    ]
    assert found["group"] == "all"
    assert found["by_seed"]["mcc"] == pytest.approx(each)
    assert found["mean"]["mcc"] == pytest.approx(np.mean(each))
    assert found["deviation"]["mcc"] == pytest.approx(np.std(each, ddof=1))


def test_every_slice_has_every_score_of_every_forecaster(judged: Judged) -> None:
    card = card_of(judged, ("simple", True, 0.0), ("lstm", False, 0.3))
    slices = [(each["group"], each["key"]) for each in card["slices"]]
    names = {"log_loss", "mcc", "hit_rate", "rank_ic_t", "net_bps", "turnover_per_hour", "calibration_error"}
    for entry in card["forecasters"]:
        assert [(each["group"], each["key"]) for each in entry["scores"]] == slices
        assert all(names <= each["mean"].keys() for each in entry["scores"])
    assert sum(each["rows"] for each in card["slices"] if each["group"] == "symbol") == len(judged.index)


def test_a_better_model_is_said_to_be_better_and_a_worse_one_to_be_worse(judged: Judged) -> None:
    card = card_of(judged, ("simple", True, 0.1), ("lstm", False, 0.4))
    assert {each["verdict"] for each in card["comparisons"]} == {"better"}
    assert not any("lstm is worse" in each or "cannot be told" in each for each in words(card))
    card = card_of(judged, ("clever", True, 0.4), ("lstm", False, 0.1))
    assert {each["verdict"] for each in card["comparisons"]} == {"worse"}
    assert any(each.startswith("lstm is worse than clever (log loss ") for each in words(card))
    assert any(each.startswith("lstm on SYM1 is worse than clever") for each in words(card))


def test_equals_are_not_told_apart_and_the_card_says_so(judged: Judged) -> None:
    card = card_of(judged, ("simple", True, 0.2), ("lstm", False, 0.2), seeds=1)
    # The same seeds: the very same answers.
    assert {each["verdict"] for each in card["comparisons"]} == {"undecided"}
    assert any("lstm cannot be told from simple" in each for each in words(card))


def test_the_difference_is_that_of_the_mean_loss_over_the_seeds(judged: Judged) -> None:
    card = card_of(judged, ("simple", True, 0.0), ("lstm", False, 0.3))
    losses = [
        np.mean([log_losses(knows(judged, share, seed)[:, :3].astype(float), judged.direction) for seed in (0, 1)])
        for share in (0.3, 0.0)
    ]
    assert card["comparisons"][0]["mean_difference"] == pytest.approx(losses[0] - losses[1])


def test_better_probabilities_that_choose_no_better_are_told(judged: Judged) -> None:
    def blurred(sharpness: float) -> Any:
        answers = np.zeros((len(judged.direction), 4), np.float32)
        came = np.eye(3)[judged.direction]
        wrong = np.random.default_rng(1).random(len(answers)) < 0.3
        came[wrong] = np.roll(came[wrong], 1, axis=1)
        answers[:, :3] = sharpness * came + (1.0 - sharpness) / 3
        return answers

    forecasters = [Forecaster("blunt", "", True, [blurred(0.1)]), Forecaster("lstm", "", False, [blurred(0.5)])]
    card = judge(judged, forecasters, {}, 0.0, 1.0)
    assert {each["verdict"] for each in card["comparisons"]} == {"better"}
    assert any(
        "lstm has better probabilities, but chooses no better, than blunt (MCC" in each for each in words(card)
    )


def test_the_curve_of_profit_ends_where_all_trades_end(judged: Judged) -> None:
    entry = card_of(judged, ("lstm", False, 0.3), seeds=1)["forecasters"][0]
    means = entry["scores"][0]["mean"]
    assert means["trades"] > 10
    assert entry["cumulative_net_bps"][-1] == pytest.approx(means["net_bps"])
    assert len(entry["cumulative_net_bps"]) == len(entry["cumulative_at_ns"]) == 200


def test_whether_trading_pays_is_said_in_words(judged: Judged) -> None:
    assert not any("rading" in each for each in words(card_of(judged, ("lstm", False, 0.3))))
    wrong = knows(judged, 0.3, 0)
    wrong[:, 3] *= -1.0
    card = judge(judged, [Forecaster("lstm", "", False, [wrong])], {}, 0.0, 1.0)
    assert any("Trading on lstm loses money after costs" in each for each in words(card))
    card = card_of(judged, ("lstm", False, 0.3), fee_bps=500.0)
    assert any("lstm never expects a move" in each for each in words(card))
