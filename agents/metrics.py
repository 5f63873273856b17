"""What the lanes of a worker count. Lanes add to plain numbers; Prometheus's objects are made when it asks."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agents.lane import Lane, LaneOutput
from agents.validate import OUTCOMES
from stream.telemetry import StageLatencies

_WORKER_STAMPS = ["consumed_ns", "features_ns", "inferred_ns", "published_ns"]


class LaneMetrics:
    """Counters of a worker, and the latency of the stages that it owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.outcomes: NDArray[np.int64] = np.zeros(256, np.int64)  # ticks by outcome, counted up by the kernel
        self.blocks: Counter[str] = Counter()  # by outcome: "applied", or the error of what was no block
        self.symbols: dict[int, int] = {}  # by partition
        self.predictions = 0
        self.stages = StageLatencies(("source_to_consumed", "features", "inference", "publish"))
        self.checkpoint_seconds = Histogram(
            "tickloom_checkpoint_seconds",
            "From the snapshot of a lane to its acknowledged state",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        registry.register(self.stages)
        registry.register(self)

    def on_blocks(self, blocks: int, lane: Lane, output: LaneOutput) -> None:
        """Count what blocks became."""
        self.blocks["applied"] += blocks
        self.symbols[lane.partition] = lane.windows.count
        predictions = output.predictions
        count = len(predictions)
        if count == 0:
            return
        self.predictions += count
        stages = self.stages.stages
        # The stages inside the worker are the same for all predictions of a call.
        consumed, computed, inferred, published = predictions[-1][_WORKER_STAMPS].item()
        if count == 1:
            stages["source_to_consumed"].record_one(consumed - int(predictions[0]["recv_ns"]))
        else:
            stages["source_to_consumed"].record(consumed - predictions["recv_ns"])
        stages["features"].record_one(computed - consumed, count)
        stages["inference"].record_one(inferred - computed, count)
        stages["publish"].record_one(published - inferred, count)

    def ticks(self) -> dict[str, int]:
        """Return the ticks by outcome, those outcomes that were seen."""
        return {OUTCOMES[code]: int(self.outcomes[code]) for code in np.flatnonzero(self.outcomes).tolist()}

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        ticks = CounterMetricFamily("tickloom_ticks", "Ticks by outcome", labels=["outcome"])
        for code, outcome in OUTCOMES.items():
            ticks.add_metric([outcome], int(self.outcomes[code]))
        yield ticks
        blocks = CounterMetricFamily("tickloom_blocks", "Blocks of ticks by outcome", labels=["outcome"])
        for outcome, count in self.blocks.items():
            blocks.add_metric([outcome], count)
        yield blocks
        yield CounterMetricFamily("tickloom_predictions", "Predictions sent", value=self.predictions)
        symbols = GaugeMetricFamily("tickloom_lane_symbols", "Symbols in a lane", labels=["partition"])
        for partition, count in self.symbols.items():
            symbols.add_metric([str(partition)], count)
        yield symbols
