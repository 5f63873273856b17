"""What is known of the models that predict, for Prometheus, ``/health`` and the topic ``model.scores``."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agents.drift import Drift
from exporters.metrics import IntakeMetrics
from models.live_scores import SUMS, Floats, rows_of_sums, scores_of
from models.rollback import Guard
from models.watch import PartitionWatch, Service
from stream.clock import Clock
from stream.records import Records

# Symbols that have series of their own, the first that had outcomes; the others are summed up under OTHER.
NAMED_SYMBOLS: Final = 100
OTHER: Final = b"other"
# Scores of each model as gauges, over the newest two hours that have outcomes: at most two and at least one.
_GAUGES: Final = {
    "hit_rate": ("tickloom_model_hit_rate", "Share of moves whose direction was likelier"),
    "fallback_hit_rate": ("tickloom_model_fallback_hit_rate", "The same of the fallback, on the same ticks"),
    "majority_hit_rate": (
        "tickloom_model_majority_hit_rate",
        "The same, had always the commoner direction been said",
    ),
    "log_loss": ("tickloom_model_log_loss_nats", "Mean log loss"),
    "log_loss_beside_fallback": (
        "tickloom_model_log_loss_beside_fallback_nats",
        "Where the fallback knew something",
    ),
    "fallback_log_loss": ("tickloom_model_fallback_log_loss_nats", "Mean log loss of the fallback on those ticks"),
    "brier": ("tickloom_model_brier", "Mean Brier score, 0 to 2"),
    "ic": ("tickloom_model_information_coefficient", "Correlation of expected and realised return"),
    "net_bps": ("tickloom_model_net_profit_bps", "Mean profit of a position, costs taken off"),
}
_RECENT_HOURS: Final = 2
_PER_SYMBOL: Final = ("outcomes", "moved", "hits")


class OutcomeBoard:
    """Adds up what the partitions know; Prometheus's objects are made when it asks."""

    def __init__(self, registry: CollectorRegistry, guard: Guard, intake: IntakeMetrics, clock: Clock) -> None:
        """Register with ``registry``."""
        self.watches: dict[int, PartitionWatch] = {}
        self.answers: Drift | None = None  # of the model in service
        self.rollbacks = 0
        self.failed_rollbacks = 0
        self.restarts = 0
        self.lag_blocks: dict[str, int] = {}
        self._guard, self._intake, self._clock = guard, intake, clock
        self._symbols: dict[bytes, Floats] = {}
        registry.register(self)

    def take(self, outcomes: Records) -> None:
        """Count outcomes of the model in service by symbol."""
        service = self._guard.service()
        ours = outcomes[outcomes["model_id"] == (0 if service is None else service.model_id)]
        if len(ours) == 0:
            return
        columns = [SUMS.index(name) for name in _PER_SYMBOL]
        values = rows_of_sums(ours)[:, columns]
        slots: dict[bytes, int] = {}
        where = [slots.setdefault(symbol, len(slots)) for symbol in ours["symbol"].tolist()]
        sums = np.stack([np.bincount(where, column, len(slots)) for column in values.T], axis=1)
        for symbol, row in zip(slots, sums, strict=True):
            name = symbol if symbol in self._symbols or len(self._symbols) < NAMED_SYMBOLS else OTHER
            self._symbols[name] = self._symbols.get(name, np.zeros(len(columns))) + row

    def tallies(self) -> "Counter[str]":
        """Return what became of the predictions since the start of the process."""
        return sum((watch.tallies() for watch in self.watches.values()), Counter())

    def pending(self) -> int:
        """Return how many predictions wait for their horizons."""
        return sum(join.pending for watch in self.watches.values() for join in watch.joins)

    def since_promotion(self) -> int:
        """Return how many outcomes of the model in service are known since it was promoted."""
        return sum(watch.since_promotion for watch in self.watches.values())

    def scores(self) -> dict[int, dict[str, Any]]:
        """Return what there is to say of each model that has outcomes, by model id: plain values."""
        service = self._guard.service()
        models = {model for watch in self.watches.values() for model in watch.hours}
        return {model: self._scores_of(model, service) for model in models}

    def _scores_of(self, model: int, service: Service | None) -> dict[str, Any]:
        hours: dict[int, Floats] = {}
        for watch in self.watches.values():
            for hour, sums in watch.hours.get(model, {}).items():
                hours[hour] = hours.get(hour, np.zeros(len(SUMS))) + sums
        newest = max(hours)
        recent = sum((sums for hour, sums in hours.items() if hour > newest - _RECENT_HOURS), np.zeros(len(SUMS)))
        terms = self._guard.terms.get(model)
        told: dict[str, Any] = {
            "model": f"{model:016x}",
            "name": None if terms is None else terms.name,
            "horizon_ns": None if terms is None else terms.horizon_ns,
            "dead_band_bps": None if terms is None else terms.dead_band_bps,
            "role": self._role(model, service),
            "at_ns": self._clock(),
            "event_ns": max(watch.served.clock_ns for watch in self.watches.values()),
            "recent": scores_of(recent),
            "all": scores_of(sum(hours.values(), np.zeros(len(SUMS)))),
            "hours": len(hours),
        }
        if service is not None and model == service.model_id:
            told["since_promotion"] = self.since_promotion()
            told["trials"] = self.trials()
            told["drift"] = {} if self.answers is None else self.answers.psi()
        return told

    def _role(self, model: int, service: Service | None) -> str:
        if service is not None and model == service.model_id:
            return "champion"
        if service is not None and model == service.previous_id:
            return "previous"
        return "challenger" if model in self._guard.said.challengers else "retired"

    def trials(self) -> dict[str, dict[str, float | int]]:
        """Return how the trials of the model in service stand: the highest e-value of a partition counts."""
        found: dict[str, dict[str, float | int]] = {}
        for watch in self.watches.values():
            for other, trial in watch.trials.items():
                so_far = found.setdefault(other, {"e_value": 0.0, "windows": 0, "left_out": 0})
                if trial.e_value >= so_far["e_value"]:
                    so_far |= {"e_value": min(trial.e_value, 1e300), "windows": trial.windows}
                so_far["left_out"] += trial.left_out
                so_far["threshold"] = self._guard.threshold(len(watch.trials))
        return found

    def figures(self) -> dict[str, Any]:
        """Return what ``/health`` shows."""
        tallies = self.tallies()
        service = self._guard.service()
        champion = None if service is None else self.scores().get(service.model_id)
        recent = {} if champion is None else champion["recent"]
        told = ("hit_rate", "fallback_hit_rate", "majority_hit_rate")
        return {
            "model": "" if service is None else f"{service.model_id:016x}",
            **{name: f"{recent[name]:.1%}" for name in told if recent.get(name) is not None},
            "moved": recent.get("moved", 0),
            "settled": tallies["settled"],
            "pending": self.pending(),
            "unknown_model": tallies["unknown_model"],
            "overflowed": tallies["overflowed"],
            "abandoned": tallies["abandoned"],
            "rollbacks": self.rollbacks,
            "trials": {name: f"e {trial['e_value']:.3g}" for name, trial in self.trials().items()},
            "lag_blocks": self.lag_blocks,
        }

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        yield from self._collect_scores()
        tallies = CounterMetricFamily(
            "tickloom_outcome_predictions", "Predictions by what became of them", labels=["outcome"]
        )
        for outcome, count in self.tallies().items():
            tallies.add_metric([outcome], count)
        yield tallies
        yield GaugeMetricFamily("tickloom_outcomes_pending", "Predictions whose horizon is to come", self.pending())
        yield CounterMetricFamily("tickloom_model_rollbacks", "Models taken out of service", value=self.rollbacks)
        yield CounterMetricFamily(
            "tickloom_model_rollback_failures", "Models that should go and could not", value=self.failed_rollbacks
        )
        yield CounterMetricFamily("tickloom_bad_predictions", "Rows that cannot be true", value=self._intake.bad)
        for number, name in enumerate(_PER_SYMBOL):
            family = CounterMetricFamily(
                f"tickloom_symbol_{name}",
                f"{name.capitalize()} of the models in service by symbol",
                labels=["symbol"],
            )
            for symbol, sums in self._symbols.items():
                family.add_metric([symbol.decode()], float(sums[number]))
            yield family
        lag = GaugeMetricFamily("tickloom_consumer_lag_blocks", "Blocks behind the end", labels=["partition"])
        for partition, blocks in self.lag_blocks.items():
            lag.add_metric([partition], blocks)
        yield lag

    def _collect_scores(self) -> Iterable[Metric]:
        scores = self.scores()
        known = CounterMetricFamily(
            "tickloom_outcomes", "Outcomes of the last 24 hours that have any", labels=["model", "role"]
        )
        families = {name: GaugeMetricFamily(*text, labels=["model", "role"]) for name, text in _GAUGES.items()}
        for told in scores.values():
            labels = [told["model"], told["role"]]
            known.add_metric(labels, told["all"]["outcomes"])
            for name, family in families.items():
                if told["recent"][name] is not None:
                    family.add_metric(labels, told["recent"][name])
        yield known
        yield from families.values()
        e_values = GaugeMetricFamily(
            "tickloom_model_trial_e_value", "How sure it is that the model is worse", labels=["other"]
        )
        thresholds = GaugeMetricFamily(
            "tickloom_model_trial_threshold", "Where it goes out of service", labels=["other"]
        )
        for other, trial in self.trials().items():
            e_values.add_metric([other], trial["e_value"])
            thresholds.add_metric([other], trial["threshold"])
        yield e_values
        yield thresholds
        drift = GaugeMetricFamily(
            "tickloom_answer_drift_psi", "PSI of answers against the training span", labels=["answer"]
        )
        for answer, psi in self._answer_drift().items():
            drift.add_metric([answer], psi)
        yield drift

    def _answer_drift(self) -> Mapping[str, float]:
        return {} if self.answers is None else self.answers.psi()
