"""What the lanes of a worker count. Lanes add to plain numbers; Prometheus's objects are made when it asks."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agents.lane import Lane, LaneOutput
from agents.model_metrics import ModelMetrics
from agents.validate import MARKS, OUTCOMES
from stream.telemetry import StageLatencies

# Symbols that have series of their own, the first that had something to count; the rest are summed under OTHER, so
# that a feed gone mad cannot fill Prometheus: 101 symbols, 16 reasons and 6 marks are 2,222 series at the most.
NAMED_SYMBOLS = 100
OTHER = "other"

_ALL_MARKS = np.uint32(sum(MARKS))


class LaneMetrics:
    """Counters of a worker, and the latency of the stages that it owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.outcomes: NDArray[np.int64] = np.zeros(256, np.int64)  # ticks by outcome, counted up by the kernel
        self.blocks: Counter[str] = Counter()  # by outcome: "applied", or the error of what was no block
        self.symbols: dict[int, int] = {}  # by partition
        self.rejected: Counter[tuple[str, str]] = Counter()  # by symbol and reason
        self.marked: Counter[tuple[str, str]] = Counter()  # by symbol and mark
        self.predictions = 0
        self.feature_rows = 0  # published
        self._named: set[bytes] = set()
        self.stages = StageLatencies(("source_to_consumed", "features", "inference", "publish"))
        self.models = ModelMetrics(registry)
        self.checkpoint_seconds = Histogram(
            "tickloom_checkpoint_seconds",
            "From the snapshot of a lane to its acknowledged state",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        registry.register(self.stages)
        registry.register(self)

    def on_blocks(self, blocks: int, lane: Lane, output: LaneOutput, published_ns: int) -> None:
        """Count what blocks became, which was handed to the producer then."""
        self.blocks["applied"] += blocks
        self.symbols[lane.partition] = lane.windows.count
        self.models.serving[lane.partition] = lane.predictor.model_id
        self._count_odd(lane, output)
        predictions = output.predictions
        count = len(predictions)
        if count == 0:
            return
        self.predictions += count
        stages = self.stages.stages
        # The stages inside the worker are the same for all predictions of a call.
        consumed, computed, inferred = output.stamps_ns
        if count == 1:
            stages["source_to_consumed"].record_one(consumed - int(predictions[0]["recv_ns"]))
        else:
            stages["source_to_consumed"].record(consumed - predictions["recv_ns"])
        stages["features"].record_one(computed - consumed, count)
        stages["inference"].record_one(inferred - computed, count)
        stages["publish"].record_one(published_ns - inferred, count)

    def _count_odd(self, lane: Lane, output: LaneOutput) -> None:
        rejected, predictions = output.rejected, output.predictions
        if len(rejected):
            for (symbol, reason), count in _pairs(rejected["tick"]["symbol"], rejected["reason"]).items():
                self.rejected[self._label(symbol, lane), OUTCOMES[reason]] += count
        if output.has_marks:
            flags = predictions["flags"] & _ALL_MARKS
            odd = flags != 0
            for (symbol, bits), count in _pairs(predictions["symbol"][odd], flags[odd]).items():
                label = self._label(symbol, lane)
                for bit, mark in MARKS.items():
                    if bits & bit:
                        self.marked[label, mark] += count

    def _label(self, symbol: bytes, lane: Lane) -> str:
        # A symbol without a state, as garbage has it, gets no name. A symbol that has one keeps it: were it counted
        # under another one day, both series would lie.
        if symbol not in self._named:
            if len(self._named) >= NAMED_SYMBOLS or lane.windows.row_of(symbol) is None:
                return OTHER
            self._named.add(symbol)
        return symbol.decode("ascii")

    def ticks(self) -> dict[str, int]:
        """Return the ticks by outcome, those outcomes that were seen."""
        return {OUTCOMES[code]: int(self.outcomes[code]) for code in np.flatnonzero(self.outcomes).tolist()}

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        ticks = CounterMetricFamily("tickloom_ticks", "Ticks by outcome", labels=["outcome"])
        for code, outcome in OUTCOMES.items():
            ticks.add_metric([outcome], int(self.outcomes[code]))
        yield ticks
        for name, told, label, counts in (
            ("tickloom_rejected_ticks", "Rejected ticks by symbol and reason", "reason", self.rejected),
            ("tickloom_marked_ticks", "Ticks accepted with a mark, by symbol and mark", "mark", self.marked),
        ):
            odd = CounterMetricFamily(name, told, labels=["symbol", label])
            for labels, count in list(counts.items()):
                odd.add_metric(labels, count)
            yield odd
        blocks = CounterMetricFamily("tickloom_blocks", "Blocks of ticks by outcome", labels=["outcome"])
        for outcome, count in self.blocks.items():
            blocks.add_metric([outcome], count)
        yield blocks
        yield CounterMetricFamily("tickloom_predictions", "Predictions sent", value=self.predictions)
        yield CounterMetricFamily("tickloom_feature_rows", "Rows of features published", value=self.feature_rows)
        symbols = GaugeMetricFamily("tickloom_lane_symbols", "Symbols in a lane", labels=["partition"])
        for partition, count in self.symbols.items():
            symbols.add_metric([str(partition)], count)
        yield symbols


def _pairs(symbols: NDArray[np.bytes_], codes: NDArray[np.uint32]) -> "Counter[tuple[bytes, int]]":
    return Counter(zip(symbols.tolist(), codes.tolist(), strict=True))
