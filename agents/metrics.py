"""What the lanes of a worker count."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.lane import Lane, LaneOutput
from stream.telemetry import StageLatencies

_WORKER_STAMPS = ["consumed_ns", "features_ns", "inferred_ns", "published_ns"]


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
        self.bad_blocks = 0

    def on_blocks(self, blocks: int, lane: Lane, output: LaneOutput) -> None:
        """Count what blocks became; ``lane.ticks`` holds their outcomes since the last call."""
        self.blocks.labels("applied").inc(blocks)
        for outcome, count in lane.ticks.items():
            self.ticks.labels(outcome).inc(count)
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        lane.ticks.clear()
        self.symbols.labels(str(lane.partition)).set(lane.windows.count)
        predictions = output.predictions
        if len(predictions) == 0:
            return
        self.predictions.inc(len(predictions))
        self.predicted += len(predictions)
        stages = self.stages.stages
        stages["source_to_consumed"].record(predictions["consumed_ns"] - predictions["recv_ns"])
        # The stages inside the worker are the same for all predictions of a call.
        consumed, computed, inferred, published = predictions[-1][_WORKER_STAMPS].item()
        stages["features"].record_one(computed - consumed, len(predictions))
        stages["inference"].record_one(inferred - computed, len(predictions))
        stages["publish"].record_one(published - inferred, len(predictions))

    def on_bad_block(self, error: str) -> None:
        """Count bytes that were not a block of ticks."""
        self.bad_blocks += 1
        self.blocks.labels(error).inc()
