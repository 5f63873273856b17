"""What the gateway counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class FeedMetrics:
    """Counters of the feed, and figures for ``/health`` and the page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.clients = Gauge("tickloom_feed_clients", "Connected clients", registry=registry)
        self.messages = Counter("tickloom_feed_messages", "Predictions written to clients", registry=registry)
        self.slow_disconnects = Counter(
            "tickloom_feed_slow_disconnects", "Clients that were sent away for being slow", registry=registry
        )
        self._refused = Counter(
            "tickloom_feed_refused_requests", "Requests answered with an error", ["code"], registry=registry
        )
        self._turned_away = Counter(
            "tickloom_feed_turned_away", "Handshakes answered with an error", ["status"], registry=registry
        )
        self._published = Counter("tickloom_feed_predictions", "Predictions handed to the feed", registry=registry)
        self._symbols = Gauge("tickloom_feed_symbols", "Symbols with a prediction", registry=registry)
        self._lag = Gauge("tickloom_consumer_lag_blocks", "Blocks behind the end", ["partition"], registry=registry)
        self._sink_lag = Gauge(
            "tickloom_sink_lag_blocks", "Blocks that another exporter is behind", ["exporter"], registry=registry
        )
        self.published = 0
        self.ends: dict[int, int] = {}  # of the log, by partition

    def on_published(self, rows: int, symbols: int) -> None:
        """Count predictions that went through the hub."""
        self._published.inc(rows)
        self._symbols.set(symbols)
        self.published += rows

    def on_refused(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.labels(code).inc()

    def on_turned_away(self, status: int) -> None:
        """Count a handshake that was answered with an error."""
        self._turned_away.labels(str(status)).inc()

    def on_ends(self, ends: dict[int, int], positions: dict[int, int]) -> None:
        """Set where each partition ends and where we are in it; we may have read on since the end was asked for."""
        self.ends = ends
        for partition, end in ends.items():
            self._lag.labels(str(partition)).set(max(0, end - positions[partition]))

    def on_sink_lag(self, exporter: str, blocks: int) -> None:
        """Set how far another exporter is behind."""
        self._sink_lag.labels(exporter).set(blocks)
