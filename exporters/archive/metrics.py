"""What the archiver counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from exporters.archive.vault import Range


class ArchiveMetrics:
    """What became of the messages of each topic."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        name, topic = "tickloom_archive", ["topic"]
        self._rows = Counter(f"{name}_rows", "Rows that the archive has from us", topic, registry=registry)
        self._ranges = Counter(f"{name}_ranges", "Ranges of offsets archived", topic, registry=registry)
        self._bytes = Counter(f"{name}_bytes", "Bytes of Parquet written", topic, registry=registry)
        self._missing = Counter(
            f"{name}_missing_messages",
            "Messages that Kafka dropped before we had them",
            topic,
            registry=registry,
        )
        self._others = Counter(
            f"{name}_raw_messages", "Messages that are no blocks, kept as they came", topic, registry=registry
        )
        self._races = Counter(
            f"{name}_lost_races", "Ranges that another writer had archived before us", topic, registry=registry
        )
        self._retries = Counter(f"{name}_retries", "Times that the store did not take a range", registry=registry)
        self._up = Gauge(f"{name}_up", "1 while the store takes what we write", registry=registry)
        self._lag = Gauge(
            f"{name}_lag_messages", "Messages that are not archived yet", ["topic", "partition"], registry=registry
        )
        self.rows: dict[str, int] = {}
        self.missing = self.raw = 0
        self._shown: set[tuple[str, str]] = set()

    def on_archived(self, topic: str, each: Range) -> None:
        """Count a range."""
        self._rows.labels(topic).inc(each.rows)
        self._ranges.labels(topic).inc()
        self._bytes.labels(topic).inc(sum(file.size_bytes for file in each.files))
        self._missing.labels(topic).inc(each.missing)
        self._others.labels(topic).inc(len(each.others))
        self.rows[topic] = self.rows.get(topic, 0) + each.rows
        self.missing += each.missing
        self.raw += len(each.others)

    def on_lost_race(self, topic: str) -> None:
        """Count a range that was somebody else's."""
        self._races.labels(topic).inc()

    def on_retry(self) -> None:
        """Count a range that stays with us."""
        self._retries.inc()

    def on_up(self, up: bool) -> None:
        """Say whether the store works."""
        self._up.set(1 if up else 0)

    def on_lag(self, lag_messages: dict[tuple[str, int], int]) -> None:
        """Set how far each of our partitions is behind."""
        for gone in self._shown - {(topic, str(partition)) for topic, partition in lag_messages}:
            self._lag.remove(*gone)
        for (topic, partition), lag in lag_messages.items():
            self._lag.labels(topic, str(partition)).set(lag)
        self._shown = {(topic, str(partition)) for topic, partition in lag_messages}
