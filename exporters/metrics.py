"""What exporters count. No label names the exporter: each is a process, which Prometheus labels as a job."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from exporters.sequence import Accepted

_WRITE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class IntakeMetrics:
    """What came in through the door of an exporter, and what was wrong with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self._received = Counter("tickloom_predictions_received", "New predictions read", registry=registry)
        self._duplicates = Counter(
            "tickloom_prediction_duplicates", "Predictions read again and dropped", registry=registry
        )
        self._gaps = Counter(
            "tickloom_prediction_gaps", "Predictions missing between two that were read", registry=registry
        )
        self._restarts = Counter(
            "tickloom_prediction_restarts", "Times that a symbol's seq began anew", registry=registry
        )
        self._bad_blocks = Counter(
            "tickloom_bad_blocks", "Blocks that could not be read", ["reason"], registry=registry
        )
        self._bad_rows = Counter("tickloom_bad_predictions", "Rows that cannot be true", registry=registry)
        self.received = 0
        self.duplicates = 0
        self.missing = 0
        self.bad = 0

    def on_accepted(self, accepted: Accepted) -> None:
        """Count the outcome of some rows."""
        self._received.inc(len(accepted.rows))
        self.received += len(accepted.rows)
        if accepted.duplicates or accepted.missing or accepted.restarts:
            self._duplicates.inc(accepted.duplicates)
            self._gaps.inc(accepted.missing)
            self._restarts.inc(accepted.restarts)
            self.duplicates += accepted.duplicates
            self.missing += accepted.missing

    def on_bad_block(self, reason: str) -> None:
        """Count a block that could not be read."""
        self._bad_blocks.labels(reason).inc()
        self.bad += 1

    def on_bad_rows(self, count: int) -> None:
        """Count rows that cannot be true."""
        self._bad_rows.inc(count)
        self.bad += count


class SinkMetrics:
    """What became of the batches of a sink."""

    def __init__(self, registry: CollectorRegistry, rows: str = "predictions") -> None:
        """Register everything with ``registry``.

        Args:
            registry: of the process.
            rows: what they are. Of anything but predictions all metrics are named for it, as in
                ``tickloom_outcomes_sink_up``.
        """
        name, what = f"tickloom_{rows}", rows.replace("_", " ").capitalize()
        sink = "tickloom_sink" if rows == "predictions" else f"{name}_sink"
        lag = "tickloom_consumer_lag_blocks" if rows == "predictions" else f"{name}_lag_blocks"
        self._written = Counter(f"{name}_written", f"{what} that the sink has", registry=registry)
        self._refused = Counter(f"{name}_refused", f"{what} that the sink will never take", registry=registry)
        self._retries = Counter(f"{sink}_retries", "Batches that had to be tried again", registry=registry)
        self._seconds = Histogram(
            f"{sink}_write_seconds",
            "From a batch to its acknowledgement",
            buckets=_WRITE_BUCKETS_S,
            registry=registry,
        )
        self._up = Gauge(f"{sink}_up", "1 while the sink takes what we write", registry=registry)
        self._lag = Gauge(lag, "Blocks behind the end", ["partition"], registry=registry)
        self.written = 0
        self.refused = 0
        self.lag_blocks: dict[int, int] = {}

    def on_written(self, rows: int, seconds: float) -> None:
        """Count a batch that the sink has acknowledged."""
        self._written.inc(rows)
        self._seconds.observe(seconds)
        self.written += rows

    def on_refused(self, rows: int) -> None:
        """Count predictions that were given up."""
        self._refused.inc(rows)
        self.refused += rows

    def on_retry(self) -> None:
        """Count a batch that stays with us."""
        self._retries.inc()

    def on_up(self, up: bool) -> None:
        """Say whether the sink works."""
        self._up.set(1 if up else 0)

    def on_lag(self, lag_blocks: dict[int, int]) -> None:
        """Set how far each of our partitions is behind; others are no longer ours."""
        for partition in self.lag_blocks.keys() - lag_blocks.keys():
            self._lag.remove(str(partition))
        for partition, blocks in lag_blocks.items():
            self._lag.labels(str(partition)).set(blocks)
        self.lag_blocks = lag_blocks
