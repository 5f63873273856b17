"""What no predictor lets pass: arguments that do not fit together, and whatever its kernel would not touch."""

from typing import Any

from models.card import ModelCard
from models.exchange import BAD_FEATURE, BAD_OUTPUT, BAD_ROUND, BAD_ROW, BAD_SHAPE, KIND_SHIFT
from stream.errors import InvariantError


def refusal(card: ModelCard, trouble: int) -> InvariantError:
    """Return the error for what a kernel returned that was not `FINE`."""
    kind, index = trouble >> KIND_SHIFT, trouble & ((1 << KIND_SHIFT) - 1)
    what = {
        BAD_FEATURE: "was given a feature that is not finite",
        BAD_OUTPUT: "gave a value that is not finite",
        BAD_ROW: "was given a row that has no state",
        BAD_ROUND: "was given a round that is not in 0..N-1",
        BAD_SHAPE: f"was given states of less than {card.layers * card.units} floats, or less than 4 answers a row",
    }[kind]
    return InvariantError(f"model {card.name} ({card.model_id:016x}) {what}, for feature row {index}")


def check_lengths(features: Any, width: int, rows: Any, rounds: Any, out: Any) -> None:
    """Check that the arguments of one `agents.inference.Predictor.run` fit together; a row has ``width`` features.

    Raises:
        InvariantError: they do not.
    """
    count = len(rows)
    if features.shape != (count, width) or len(rounds) != count or len(out) != count:
        raise InvariantError(
            f"{features.shape} features, {count} rows, {len(rounds)} rounds and {len(out)} answers; right "
            f"would be N x {width} features and N of the others"
        )
