"""How good predictions were that have come true: sums of outcomes, and the scores that they give.

Sums can be added: over partitions, symbols and hours. A *position* is one unit up or down where that class is the
likeliest, none where flat is; it is held to the horizon and costs what the outcome says, both ways.

Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950 (over
the three classes, 0 to 2); the information coefficient is Pearson's correlation of expected and realised return.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.records import Records

# In this order in each row of sums. Append only: rows are kept in Kafka.
SUMS: Final = (
    "outcomes",
    "moved",  # not flat
    "hits",  # of those: the likelier of up and down is what it did; half of one where both are as likely
    "log_loss",
    "brier",
    "fallback_outcomes",  # those on which the fallback had something to say
    "fallback_moved",
    "fallback_hits",
    "fallback_log_loss",
    "served_log_loss",  # of the model, on those same ones
    "positions",
    "gross_bps",
    "cost_bps",
    "expected",  # the five of a correlation of expected and realised return
    "returned",
    "expected_squared",
    "returned_squared",
    "product",
    "ups",  # realised classes
    "downs",
)
Floats = NDArray[np.float64]
HOUR_NS: Final = 3600 * 1_000_000_000


def rows_of_sums(outcomes: Records) -> Floats:
    """Return what each of ``OUTCOME[N]`` adds to the sums: ``float64[N, len(SUMS)]``."""
    down, flat, up = (outcomes[name].astype(np.float64) for name in ("p_down", "p_flat", "p_up"))
    realised = outcomes["realised"]
    moved = realised != 1
    fallback = np.isfinite(outcomes["fallback_log_loss"])
    fallback_lead = np.where(fallback, outcomes["fallback_up"] - outcomes["fallback_down"], 0.0)
    side = np.where(flat >= np.maximum(down, up), 0.0, np.sign(up - down))
    expected = outcomes["expected_return_bps"].astype(np.float64)
    returned = outcomes["return_bps"].astype(np.float64)
    loss = outcomes["log_loss"].astype(np.float64)
    columns = [
        np.ones(len(outcomes)),
        moved,
        _hits(up - down, realised) * moved,
        loss,
        outcomes["brier"],
        fallback,
        fallback & moved,
        _hits(fallback_lead, realised) * (fallback & moved),
        np.where(fallback, outcomes["fallback_log_loss"], 0.0),
        np.where(fallback, loss, 0.0),
        side != 0,
        side * returned,
        np.abs(side) * outcomes["cost_bps"],
        expected,
        returned,
        expected**2,
        returned**2,
        expected * returned,
        realised == 2,
        realised == 0,
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _hits(lead: Floats, realised: NDArray[np.uint16]) -> Floats:
    agrees: Floats = 0.5 + 0.5 * np.sign(lead) * (realised.astype(np.float64) - 1.0)
    return agrees


def group_sums(values: Floats, groups: NDArray[np.int64], count: int) -> Floats:
    """Return the sums of ``float64[N, S]`` rows by group: ``float64[count, S]``."""
    return np.stack([np.bincount(groups, column, count) for column in values.T], axis=1)


def scores_of(sums: Floats) -> dict[str, float | int | None]:
    """Return the scores that ``float64[len(SUMS)]`` give; None where there is nothing to divide by.

    Rates are 0 to 1, losses in nats, profit in bps a position.
    """
    of = dict(zip(SUMS, sums.tolist(), strict=True))
    outcomes, moved, positions = of["outcomes"], of["moved"], of["positions"]
    fallback, fallback_moved = of["fallback_outcomes"], of["fallback_moved"]
    return {
        "outcomes": int(outcomes),
        "moved": int(moved),
        "hit_rate": _share(of["hits"], moved),
        "log_loss": _share(of["log_loss"], outcomes),
        "brier": _share(of["brier"], outcomes),
        "ic": _correlation(of),
        "positions": int(positions),
        "net_bps": _share(of["gross_bps"] - of["cost_bps"], positions),
        "fallback_outcomes": int(fallback),
        "fallback_hit_rate": _share(of["fallback_hits"], fallback_moved),
        "fallback_log_loss": _share(of["fallback_log_loss"], fallback),
        "log_loss_beside_fallback": _share(of["served_log_loss"], fallback),
        "majority_hit_rate": _share(max(of["ups"], of["downs"]), moved),
    }


def _share(part: float, whole: float) -> float | None:
    return None if whole <= 0 else part / whole


def _correlation(of: dict[str, float]) -> float | None:
    count = of["outcomes"]
    if count < 2:
        return None
    varies = of["expected_squared"] - of["expected"] ** 2 / count
    returned = of["returned_squared"] - of["returned"] ** 2 / count
    together = of["product"] - of["expected"] * of["returned"] / count
    # A spread that is only rounding is none.
    if varies <= 1e-9 * of["expected_squared"] or returned <= 1e-9 * of["returned_squared"]:
        return None
    return float(together / np.sqrt(varies * returned))
