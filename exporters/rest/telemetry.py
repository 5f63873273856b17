"""What the API counts. A route is its template, never the path: symbols would make a time series each."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ApiMetrics:
    """The metrics of one API process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything with ``registry``."""
        self.in_flight = Gauge("tickloom_api_in_flight", "Requests that are being answered", registry=registry)
        self._seconds = Histogram(
            "tickloom_api_request_seconds",
            "From a request's head to the end of its answer",
            ["route", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "tickloom_api_requests",
            "Requests answered; status 499: the client went away",
            ["route", "method", "status"],
            registry=registry,
        )
        self.up = Gauge(
            "tickloom_api_backend_up", "1 while a server behind the API answers", ["server"], registry=registry
        )
        self.refused = Counter(
            "tickloom_api_refused", "Requests refused at the door", ["reason"], registry=registry
        )
        self.requests = 0
        self.failed = 0

    def on_answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        method = method if method in ("GET", "HEAD", "OPTIONS") else "other"
        self._seconds.labels(route, method).observe(seconds)
        self._requests.labels(route, method, str(status)).inc()
        self.requests += 1
        self.failed += status >= 500
