"""Outcomes of two models for the same ticks, put together: they come from two topics, and not at the same time."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.records import Records

_LEAST_PROBABILITY: Final = 1e-7
_PROBABILITIES: Final = ("p_down", "p_flat", "p_up")
# Outcomes that wait for the other model's; more come only where that one does not predict. 200 bytes each.
_MOST_WAITING: Final = 1 << 16

Floats = NDArray[np.float64]
Pairs = tuple[NDArray[np.int64], Floats, Floats]  # as `models.trial.Trial.add` takes them


class Pairing:
    """Outcomes that wait for those of the other model."""

    def __init__(self) -> None:
        self._waiting: tuple[dict[tuple[bytes, int], tuple[float, ...]], ...] = ({}, {})

    def add(self, outcomes: Records, *, is_other: bool) -> Pairs:
        """Take ``OUTCOME[N]`` of one of the models; return the pairs that this makes."""
        mine, theirs = self._waiting[is_other], self._waiting[not is_other]
        keys = zip(outcomes["symbol"].tolist(), outcomes["seq"].tolist(), strict=True)
        values = zip(*(outcomes[name].tolist() for name in ("log_loss", *_PROBABILITIES)), strict=True)
        both = []
        for place, (key, value) in enumerate(zip(keys, values, strict=True)):
            partner = theirs.pop(key, None)
            if partner is None:
                mine[key] = value
            else:
                both.append((place, *((partner, value) if is_other else (value, partner))))
        while len(mine) > _MOST_WAITING:
            del mine[next(iter(mine))]
        places = np.array([pair[0] for pair in both], np.int64)
        served = np.array([pair[1] for pair in both], np.float64).reshape(-1, 4)
        other = np.array([pair[2] for pair in both], np.float64).reshape(-1, 4)
        return (
            outcomes["from_ns"][places],
            served[:, 0] - other[:, 0],
            least_difference(served[:, 1:], other[:, 1:]),
        )


def least_difference(served: Floats, other: Floats) -> Floats:
    """Return the least that the log loss of the served model minus that of the other can be: ``float64[N]``.

    Args:
        served: ``float64[N, 3]``, its probabilities of the classes.
        other: likewise.
    """
    losses = [-np.log(np.maximum(each, _LEAST_PROBABILITY)) for each in (served, other)]
    least: Floats = np.min(losses[0] - losses[1], axis=1, initial=0.0)
    return least


def against_fallback(outcomes: Records) -> Pairs:
    """Return ``OUTCOME[N]``, on each of which the fallback had something to say, beside that."""
    served = np.stack([outcomes[name].astype(np.float64) for name in _PROBABILITIES], axis=1)
    names = ("fallback_down", "fallback_flat", "fallback_up")
    fallback = np.stack([outcomes[name].astype(np.float64) for name in names], axis=1)
    difference = outcomes["log_loss"].astype(np.float64) - outcomes["fallback_log_loss"]
    return outcomes["from_ns"], difference, least_difference(served, fallback)
