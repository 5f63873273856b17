"""The gate, by cards as they are judged and by single figures in them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from models.gate import FREQUENCIES, Rules, decide

RULES = Rules(level=0.01, calibration_error=0.05, parity=1e-5)
SERVING = "lstm 1 (0000000000000001)"


def made_card(difference: float = -0.02, p_value: float = 1e-4, calibration: float = 0.01) -> dict[str, Any]:
    """A card with only what the gate looks at: the model ``new`` beside the one in service and frequencies."""
    return {
        "comparisons": [
            {
                "model": model,
                "against": against,
                "group": group,
                "mean_difference": sign * difference,
                "p_value": p_value,
            }
            for model, against, group, sign in (
                ("new", SERVING, "symbol", -1),  # of one symbol: not what is asked for
                ("new", SERVING, "all", 1),
                ("new", FREQUENCIES, "all", 1),
                (SERVING, "new", "all", -1),
            )
        ],
        "forecasters": [
            {"name": name, "scores": [{"group": "all", "mean": {"calibration_error": error}}]}
            for name, error in ((SERVING, 0.5), ("new", calibration))
        ],
    }


def test_a_model_that_is_better_beyond_doubt_passes_and_the_reasons_say_by_how_much() -> None:
    verdict = decide(made_card(), "new", SERVING, 1e-7, RULES)
    assert verdict.passed
    assert len(verdict.reasons) == 4
    assert verdict.reasons[0] == f"log loss 0.0200 less than {SERVING}, p = 0.0001"


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ({"difference": 0.02}, "0.0200 more than"),
        ({"difference": 0.0}, "asked for is less"),
        ({"p_value": 0.01}, "asked for is less with p < 0.01"),
        ({"p_value": float("nan")}, "asked for is less with p < 0.01"),
        ({"difference": float("nan")}, "asked for is less"),
        ({"calibration": 0.051}, "calibration error 0.0510, allowed is 0.05"),
        ({"calibration": float("nan")}, "calibration error nan"),
    ],
)
def test_each_figure_can_refuse_and_only_what_speaks_against_it_is_said(flaw: dict[str, float], words: str) -> None:
    verdict = decide(made_card(**flaw), "new", SERVING, 1e-7, RULES)
    assert not verdict.passed
    assert words in verdict.reasons[0]
    assert len(verdict.reasons) <= 2


@pytest.mark.parametrize("parity", [1.1e-5, float("nan")])
def test_an_export_that_is_not_what_was_trained_is_refused(parity: float) -> None:
    verdict = decide(made_card(), "new", SERVING, parity, RULES)
    assert not verdict.passed
    assert "differs from Keras" in verdict.reasons[0]


def test_to_beat_the_model_in_service_is_not_enough_where_frequencies_are_better_than_both() -> None:
    card = made_card()
    next(each for each in card["comparisons"] if each["against"] == FREQUENCIES)["mean_difference"] = 0.01
    verdict = decide(card, "new", SERVING, 0.0, RULES)
    assert verdict.reasons == ("log loss 0.0100 more than majority, p = 0.0001; asked for is less with p < 0.01",)


def test_a_model_that_the_card_does_not_compare_is_an_error_and_no_pass() -> None:
    card = copy.deepcopy(made_card())
    card["comparisons"] = card["comparisons"][:2]
    with pytest.raises(KeyError, match="does not compare new with majority"):
        decide(card, "new", None, 0.0, RULES)


def test_it_reads_cards_as_they_are_judged(make_card: Callable[..., Any]) -> None:
    card = make_card("lstm")
    names = {each["name"] for each in card["forecasters"]}
    rival = next(each["against"] for each in card["comparisons"] if each["model"] == "lstm")
    assert rival in names
    if FREQUENCIES not in names:
        for each in card["comparisons"]:
            each["against"] = FREQUENCIES if each["against"] == rival else each["against"]
    assert decide(card, "lstm", None, 0.0, Rules(calibration_error=1.0)).passed
