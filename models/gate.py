"""The gate before service: whether a model may replace the one that serves, by the figures of its card.

A pure function: the same card gives the same verdict, with reasons in plain words either way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.judgement import CONVINCING

FREQUENCIES: Final = "majority"  # the baseline that answers with the class frequencies of training


@dataclass(frozen=True)
class Rules:
    """What the gate asks for."""

    level: float = CONVINCING  # a lead with a larger Diebold-Mariano p-value is not believed
    calibration_error: float = 0.05  # stated probabilities may be this far from what came, on average
    parity: float = 1e-5  # the exported graph may differ so much from Keras


@dataclass(frozen=True)
class Verdict:
    """Yes or no, and why: where it is no, only what speaks against it."""

    passed: bool
    reasons: tuple[str, ...]


def decide(card: Mapping[str, Any], candidate: str, serving: str | None, parity: float, rules: Rules) -> Verdict:
    """Return whether a model may serve.

    It must have less log loss than the model in service and than class frequencies, beyond doubt, on the same
    rows, with probabilities that mean what they say, and be exported as it was trained.

    Args:
        card: of `models.judgement.judge`.
        candidate: the model's name in the card.
        serving: the name of the one in service; None where none predicts the same, so that frequencies decide.
        parity: largest difference between Keras and the exported graph.
        rules: what is asked for.

    Raises:
        KeyError: the card does not judge them.
    """
    rivals = [FREQUENCIES] if serving is None else [serving, FREQUENCIES]
    findings = [_against(card, candidate, rival, rules.level) for rival in rivals]
    findings.append(_calibration(card, candidate, rules.calibration_error))
    # Turned so that a number that is none does not pass.
    exact = parity <= rules.parity
    findings.append(
        (exact, f"the exported graph differs from Keras by {parity:.1e}, allowed is {rules.parity:.0e}")
    )
    passed = all(good for good, _ in findings)
    return Verdict(passed, tuple(words for good, words in findings if good == passed))


def _against(card: Mapping[str, Any], candidate: str, rival: str, level: float) -> tuple[bool, str]:
    found = [
        each
        for each in card["comparisons"]
        if (each["model"], each["against"], each["group"]) == (candidate, rival, "all")
    ]
    if not found:
        raise KeyError(f"the card does not compare {candidate} with {rival}")
    difference, p_value = float(found[0]["mean_difference"]), float(found[0]["p_value"])
    good = difference < 0.0 and p_value < level
    lead = "less" if difference < 0.0 else "more"
    words = f"log loss {abs(difference):.4f} {lead} than {rival}, p = {p_value:.2g}"
    return good, words if good else f"{words}; asked for is less with p < {level:g}"


def _calibration(card: Mapping[str, Any], candidate: str, bound: float) -> tuple[bool, str]:
    entry = next((each for each in card["forecasters"] if each["name"] == candidate), None)
    if entry is None:
        raise KeyError(f"the card does not judge {candidate}")
    scores = next(each for each in entry["scores"] if each["group"] == "all")
    error = float(scores["mean"]["calibration_error"])
    return error <= bound, f"calibration error {error:.4f}, allowed is {bound:g}"
