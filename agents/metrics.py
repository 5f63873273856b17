"""What the lanes of a worker count."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.lane import Lane, LaneOutput
from stream.telemetry import StageLatencies


class LaneMetrics:
    """Counters of a worker, and the latency of the stages that it owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.ticks = Counter("tickloom_ticks", "Ticks by outcome", ["outcome"], registry=registry)
        self.predictions = Counter("tickloom_predictions", "Predictions sent", registry=registry)
        self.blocks = Counter("tickloom_blocks", "Blocks of ticks by outcome", ["outcome"], registry=registry)
        self.symbols = Gauge("tickloom_lane_symbols", "Symbols in a lane", ["partition"], registry=registry)
        self.checkpoint_seconds = Histogram(
            "tickloom_checkpoint_seconds",
            "From the snapshot of a lane to its acknowledged state",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.stages = StageLatencies(("source_to_consumed", "features", "inference", "publish"))
        registry.register(self.stages)
        self.outcomes: dict[str, int] = {}
        self.predicted = 0

    def on_block(self, partition: int, lane: Lane, output: LaneOutput) -> None:
        """Count what a block became; ``lane.ticks`` holds its outcomes since the last call."""
        self.blocks.labels("applied").inc()
        for outcome, count in lane.ticks.items():
            self.ticks.labels(outcome).inc(count)
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        lane.ticks.clear()
        self.symbols.labels(str(partition)).set(lane.windows.count)
        predictions = output.predictions
        if len(predictions) == 0:
            return
        self.predictions.inc(len(predictions))
        self.predicted += len(predictions)
        stages = self.stages.stages
        stages["source_to_consumed"].record(predictions["consumed_ns"] - predictions["recv_ns"])
        last = predictions[-1:]  # the stages inside the worker are the same for the whole block
        stages["features"].record(last["features_ns"] - last["consumed_ns"])
        stages["inference"].record(last["inferred_ns"] - last["features_ns"])
        stages["publish"].record(last["published_ns"] - last["inferred_ns"])

    def on_bad_block(self, error: str) -> None:
        """Count bytes that were not a block of ticks."""
        self.blocks.labels(error).inc()
