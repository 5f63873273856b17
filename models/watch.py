"""One partition of predictions under watch: outcomes, scores, and trials of the model in service. Pure.

Everything that it knows can be saved at any moment, and goes on from there: a restart scores nothing twice.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from agents.outcomes import Costs, OutcomeJoin
from models.live_scores import HOUR_NS, SUMS, Floats, group_sums, rows_of_sums
from models.pairing import Pairing, against_fallback
from models.trial import Trial
from stream.errors import RecordError
from stream.records import OUTCOME_WARMING, Records

# Hours of scores that are kept of each model, and models of which scores are kept at all: the busiest in time.
KEPT_HOURS: Final = 24
KEPT_MODELS: Final = 16
FALLBACK: Final = "fallback"
PREVIOUS: Final = "previous"
_STATE_VERSION: Final = 1


@dataclass(frozen=True)
class Service:
    """Which model is in service, since which change, and which it took the place of."""

    model_id: int
    horizon_ns: int
    generation: int = 0  # of the registry's aliases
    previous_id: int | None = None
    previous_horizon_ns: int = 0

    @property
    def others(self) -> dict[str, int]:
        """What it is compared with, and the horizon of that comparison in ns."""
        found = {FALLBACK: self.horizon_ns}
        if self.previous_id is not None:
            found[PREVIOUS] = max(self.horizon_ns, self.previous_horizon_ns)
        return found


class PartitionWatch:
    """Joins, scores and trials of one partition."""

    def __init__(self, partition: int, costs: Costs, patience_ns: int) -> None:
        """Make an empty one.

        Args:
            partition: which.
            costs: of a position.
            patience_ns: a prediction is given up when its horizon ended so long ago by the market's clock.
        """
        self.partition = partition
        self.service: Service | None = None
        self.since_promotion = 0  # outcomes of the model in service
        self.trials: dict[str, Trial] = {}
        self.hours: dict[int, dict[int, Floats]] = {}  # sums by model and hour
        self.served = OutcomeJoin(partition, costs)
        self.shadows: dict[int, OutcomeJoin] = {}
        self._pairing = Pairing()  # not kept: a restart leaves a few pairs out
        self._gone: Counter[str] = Counter()  # of challengers that are none any more
        self._dead_bands_bps: dict[int, float] = {}
        self._costs, self._patience_ns = costs, patience_ns

    @property
    def joins(self) -> list[OutcomeJoin]:
        """All joins: that of the model in service first."""
        return [self.served, *self.shadows.values()]

    def know(self, dead_bands_bps: Mapping[int, float]) -> None:
        """Learn the dead bands of models, by model id."""
        self._dead_bands_bps |= dead_bands_bps
        for join in self.joins:
            join.know(self._dead_bands_bps)

    def serve(self, service: Service) -> None:
        """Begin anew with the trials, if another model came into service, or the same once more."""
        if service != self.service:
            self.service, self.since_promotion = service, 0
            self.trials = {other: Trial(horizon_ns) for other, horizon_ns in service.others.items()}
            self._pairing = Pairing()

    def take(self, rows: Records, offsets: NDArray[np.int64], *, is_shadow: bool) -> Records:
        """Take predictions; return the outcomes that they tell, scored.

        Args:
            rows: ``PREDICTION[N]`` in the order of the topic.
            offsets: ``int64[N]`` of the block of each.
            is_shadow: they are of challengers.
        """
        if not is_shadow:
            outcomes = self.served.take(rows, offsets)
        else:
            found = [self._shadow(model).take(rows[of], offsets[of]) for model, of in _by_model(rows)]
            outcomes = found[0] if len(found) == 1 else np.concatenate(found)
        if len(outcomes):
            self._score(outcomes)
            self._try(outcomes, is_shadow)
        if self.service is not None:
            for other, trial in self.trials.items():
                trial.close(self._clock_ns(other))
        return outcomes

    def give_up(self) -> int:
        """Give up what waits for symbols that are silent; return how many."""
        return sum(join.give_up(self.served.clock_ns - self._patience_ns) for join in self.joins)

    def oldest_offset(self, *, is_shadow: bool) -> int | None:
        """Return the offset of the oldest block in one of the topics with a prediction that waits, if any."""
        joins = list(self.shadows.values()) if is_shadow else [self.served]
        oldest = [offset for join in joins if (offset := join.oldest_offset()) is not None]
        return min(oldest, default=None)

    def keep_shadows(self, models: set[int]) -> None:
        """Forget challengers that are none any more; what waits of theirs will not be told."""
        for model in [model for model in self.shadows if model not in models]:
            shadow = self.shadows.pop(model)
            self._gone += shadow.tallies() + Counter(abandoned=shadow.pending)

    def tallies(self) -> "Counter[str]":
        """Return what became of the predictions, since the start of the process: `agents.outcomes.TALLIES`."""
        return sum((join.tallies() for join in self.joins), self._gone.copy())

    def _shadow(self, model: int) -> OutcomeJoin:
        if model not in self.shadows:
            self.shadows[model] = OutcomeJoin(self.partition, self._costs, is_shadow=True)
            self.shadows[model].know(self._dead_bands_bps)
        return self.shadows[model]

    def _clock_ns(self, other: str) -> int:
        if other == FALLBACK or self.service is None or self.service.previous_id not in self.shadows:
            return self.served.clock_ns
        return min(self.served.clock_ns, self.shadows[self.service.previous_id].clock_ns)

    def _score(self, outcomes: Records) -> None:
        keys = np.stack([outcomes["model_id"], (outcomes["from_ns"] // HOUR_NS).astype(np.uint64)], axis=1)
        groups, where = np.unique(keys, axis=0, return_inverse=True)
        sums = group_sums(rows_of_sums(outcomes), where.ravel(), len(groups))
        for (model, hour), row in zip(groups.tolist(), sums, strict=True):
            hours = self.hours.setdefault(model, {})
            hours[hour] = hours.get(hour, np.zeros(len(SUMS))) + row
            while len(hours) > KEPT_HOURS:
                del hours[min(hours)]
        while len(self.hours) > KEPT_MODELS:
            del self.hours[min(self.hours, key=lambda model: max(self.hours[model]))]

    def _try(self, outcomes: Records, is_shadow: bool) -> None:
        service = self.service
        if service is None:
            return
        model = service.previous_id if is_shadow else service.model_id
        of = outcomes[outcomes["model_id"] == model]
        if not is_shadow:
            self.since_promotion += len(of)
            trial = self.trials[FALLBACK]
            known = of[np.isfinite(of["fallback_log_loss"]) & trial.counts(of["from_ns"])]
            trial.add(*against_fallback(known))
        if PREVIOUS in self.trials:
            trial = self.trials[PREVIOUS]
            of = of[trial.counts(of["from_ns"])]
            if is_shadow:  # there a model starts with an empty state
                of = of[(of["flags"] & OUTCOME_WARMING) == 0]
            trial.add(*self._pairing.add(of, is_other=is_shadow))

    def save(self, next_offsets: Mapping[str, int]) -> bytes:
        """Return everything that `restore` needs.

        Args:
            next_offsets: of each topic of predictions, what has been taken.
        """
        joins = [(0, self.served), *self.shadows.items()]
        parts = [join.save() for _, join in joins]
        head = {
            "version": _STATE_VERSION,
            "partition": self.partition,
            "next_offsets": dict(next_offsets),
            "joins": [[f"{model:016x}", len(part)] for (model, _), part in zip(joins, parts, strict=True)],
            "service": None if self.service is None else {**vars(self.service)},
            "since_promotion": self.since_promotion,
            "trials": {other: trial.save() for other, trial in self.trials.items()},
            "hours": [
                [f"{model:016x}", hour, sums.tolist()]
                for model, hours in self.hours.items()
                for hour, sums in hours.items()
            ],
        }
        return orjson.dumps(head) + b"\n" + b"".join(parts)

    def restore(self, raw: bytes) -> dict[str, int]:
        """Go on, in an empty watch that knows the models, from what `save` returned; return the next offsets.

        Raises:
            RecordError: it was not written by `save`, or by a version that this tickloom does not read.
        """
        try:
            line, _, rest = raw.partition(b"\n")
            head: dict[str, Any] = orjson.loads(line)
            if head["version"] != _STATE_VERSION or head["partition"] != self.partition:
                raise ValueError(f"version {head['version']} of partition {head['partition']}")
            at = 0
            for model, size in head["joins"]:
                join = self.served if int(model, 16) == 0 else self._shadow(int(model, 16))
                join.restore(rest[at : at + size])
                at += size
            self.service = None if head["service"] is None else Service(**head["service"])
            self.since_promotion = head["since_promotion"]
            self.trials = {other: Trial.restore(saved) for other, saved in head["trials"].items()}
            for model, hour, sums in head["hours"]:
                widened = np.zeros(len(SUMS))
                widened[: len(sums)] = sums
                self.hours.setdefault(int(model, 16), {})[hour] = widened
            return dict(head["next_offsets"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RecordError(f"no state of outcomes that this tickloom reads: {error!r}") from None


def _by_model(rows: Records) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for model in np.unique(rows["model_id"]).tolist():
        yield model, rows["model_id"] == model
