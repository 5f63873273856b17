"""What the gateway counts. The hub adds to plain numbers; Prometheus's objects are made when it asks."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from stream.records import Records, join_records
from stream.telemetry import LatencyHistogram, StageLatencies

# Each stage from when to when; the last two end when the gateway has read the prediction.
_STAGES: Final = {
    "source_to_lane": ("recv_ns", "consumed_ns"),
    "features": ("consumed_ns", "features_ns"),
    "inference": ("features_ns", "inferred_ns"),
    "publish": ("inferred_ns", "published_ns"),
}
_TO_GATEWAY: Final = {"publish_to_gateway": "published_ns", "total": "recv_ns"}
_SENT: Final = "publish_to_send"
_QUEUED: Final = "tickloom_feed_queue_seconds"
_LOOK_AT_BLOCKS: Final = 64  # at once: arrays for ten numbers cost as much as for some hundred


class FeedMetrics:
    """Numbers of one gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.clients = 0
        self.symbols: dict[str, int] = {}  # by channel
        self.queues: Callable[[], list[int]] = list  # messages held for each client
        self.resumes: Counter[str] = Counter()  # symbols that clients resumed, by where from, or why not
        self.queued = LatencyHistogram(_QUEUED, "How long frames waited for a client that is behind")
        self.sent = 0  # predictions handed to sockets, over all clients
        self.skipped = 0  # predictions that conflation left out, over all clients
        self.slow_closes = 0
        self.refused: Counter[str] = Counter()  # connections, by reason
        self.bad_messages: Counter[str] = Counter()  # of clients, by code
        self.lag_blocks: dict[int, int] = {}
        self._stages = StageLatencies((*_STAGES, *_TO_GATEWAY, _SENT))
        self._read: list[tuple[Records, int]] = []  # not looked at yet
        self._sent: list[tuple[Records, int]] = []
        registry.register(self)

    @property
    def stages(self) -> StageLatencies:
        """How long each stage took."""
        self._look()
        return self._stages

    def on_read(self, rows: Records, read_ns: int) -> None:
        """Record how long each stage of ``PREDICTION[N]`` took that we read at ``read_ns``; nobody changes them."""
        self._read.append((rows, read_ns))
        if len(self._read) >= _LOOK_AT_BLOCKS:
            self._look()

    def _look(self) -> None:
        stages = self._stages.stages
        if self._read:
            rows, read_ns = _joined(self._read)
            for stage, (start, end) in _STAGES.items():
                stages[stage].record(rows[end] - rows[start])
            for stage, start in _TO_GATEWAY.items():
                stages[stage].record(read_ns - rows[start])
        if self._sent:
            rows, sent_ns = _joined(self._sent)
            stages[_SENT].record(sent_ns - rows["published_ns"])

    def on_sent(self, rows: Records, sent_ns: int) -> None:
        """Record how long after they were published ``PREDICTION[N]`` were handed to the sockets; as `on_read`."""
        self._sent.append((rows, sent_ns))
        if len(self._sent) >= _LOOK_AT_BLOCKS:
            self._look()

    def collect(self) -> Iterable[Metric]:
        """Yield every metric: the protocol of a Prometheus collector."""
        yield from self.stages.collect()
        queues = self.queues()
        for name, text, value in (
            ("tickloom_feed_clients", "Clients of the feed", self.clients),
            ("tickloom_feed_symbols", "Symbols that the feed knows", self.symbols.get("prediction", 0)),
            ("tickloom_feed_queued", "Messages held for slow clients, over all", sum(queues)),
            ("tickloom_feed_queued_max", "Messages held for the slowest client", max(queues, default=0)),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("tickloom_feed_sent", "Predictions sent, over all clients", self.sent),
            ("tickloom_feed_skipped", "Predictions that clients of `latest` did not get", self.skipped),
            ("tickloom_feed_slow_closes", "Clients of `full` closed because they were too slow", self.slow_closes),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for name, text, label, counts in (
            ("tickloom_feed_refused", "Connections refused or closed by us", "reason", self.refused),
            ("tickloom_feed_bad_messages", "Messages of clients that got an error", "code", self.bad_messages),
            ("tickloom_feed_resumes", "Symbols that clients resumed, by outcome", "outcome", self.resumes),
        ):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family
        yield self.queued.metric()
        lag = GaugeMetricFamily("tickloom_consumer_lag_blocks", "Blocks behind the end", labels=["partition"])
        for partition, blocks in self.lag_blocks.items():
            lag.add_metric([str(partition)], blocks)
        yield lag


def _joined(parts: list[tuple[Records, int]]) -> tuple[Records, NDArray[np.int64]]:
    """Return all rows in one, and the time of each; there are no more parts then."""
    rows = join_records([rows for rows, _ in parts])
    at_ns = np.repeat([at_ns for _, at_ns in parts], [len(rows) for rows, _ in parts])
    parts.clear()
    return rows, at_ns
