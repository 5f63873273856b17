"""What the lanes of a worker count about models."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class ModelMetrics:
    """Counters of swaps, refusals and challengers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.serving: dict[int, int] = {}  # model id by partition
        self.swaps = 0
        self.refused = 0
        self.shadow_predictions = 0
        self.shadow_failures = 0  # blocks of them that the brokers did not take
        self.challengers_dropped = 0
        self.night_failed = False
        self.load_seconds = Histogram(
            "tickloom_model_load_seconds",
            "To load, check and try out a model, beside the lanes",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.swap_seconds = Histogram(
            "tickloom_model_swap_seconds",
            "From the decision of a lane to swap until the brokers have its record",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "tickloom_model_swap_wait_seconds",
            "How long blocks of ticks waited for the record of a swap, those that did",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=registry,
        )
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        serving = GaugeMetricFamily(
            "tickloom_model_in_service", "1 for the model that a lane serves", labels=["partition", "model_id"]
        )
        for partition, model_id in list(self.serving.items()):
            serving.add_metric([str(partition), f"{model_id:016x}"], 1)
        yield serving
        yield GaugeMetricFamily(
            "tickloom_retrain_failed", "1 where the last night's retraining failed", value=float(self.night_failed)
        )
        for name, told, value in (
            ("tickloom_model_swaps", "Swaps that lanes have recorded", self.swaps),
            ("tickloom_refused_models", "Models that were promoted and must not serve", self.refused),
            ("tickloom_shadow_predictions", "Predictions of challengers", self.shadow_predictions),
            ("tickloom_shadow_failures", "Blocks of challengers that were not stored", self.shadow_failures),
            ("tickloom_challengers_dropped", "Challengers that failed", self.challengers_dropped),
        ):
            yield CounterMetricFamily(name, told, value=value)
