"""What every process tells about itself: Prometheus metrics at ``/metrics``, its state at ``/health``.

``/health`` answers 200 while the process can do its work and 503 when it cannot, with one JSON object that says
why in plain words. The server runs in the process's own event loop: a stuck loop does not answer.
"""

import asyncio
import bisect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from stream.errors import SettingsError

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# 1 us to 17 s in steps of a factor of 2**(1/8) (9 %): fine enough for p99.99, 200 cells small.
_BUCKETS_PER_OCTAVE = 8
_SMALLEST_NS = 1_000
_CELLS = 24 * _BUCKETS_PER_OCTAVE + 2
_UPPER_NS: NDArray[np.float64] = _SMALLEST_NS * 2.0 ** (np.arange(_CELLS - 1) / _BUCKETS_PER_OCTAVE)
_UPPER_NS_LIST: list[float] = _UPPER_NS.tolist()
_SUMMARY = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_EXPORTED_EVERY = 4  # a Prometheus bucket for each half octave
# Arrays that wait to be counted together: a call of numpy costs as much for ten values as for a thousand.
_PENDING_ARRAYS = 64


class LatencyHistogram:
    """Counts of latencies in logarithmic cells, filled a whole array at a time (about 20 ns a value)."""

    def __init__(self, name: str, documentation: str) -> None:
        self.name = name
        self.documentation = documentation
        self._counts: NDArray[np.int64] = np.zeros(_CELLS, np.int64)
        self._sum_ns = 0
        self._pending: list[NDArray[np.int64]] = []

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many there are in each cell, ``int64[_CELLS]``."""
        self._count_pending()
        return self._counts

    @property
    def sum_ns(self) -> int:
        """All of them added up, in ns."""
        self._count_pending()
        return self._sum_ns

    def record(self, latencies_ns: NDArray[np.int64]) -> None:
        """Count ``int64[N]`` latencies in ns, which nobody changes any more; negative ones (a clock went back)
        count as 0."""
        self._pending.append(latencies_ns)
        if len(self._pending) >= _PENDING_ARRAYS:
            self._count_pending()

    def record_one(self, latency_ns: int, count: int = 1) -> None:
        """Count one latency in ns ``count`` times."""
        self._counts[bisect.bisect_left(_UPPER_NS_LIST, latency_ns)] += count
        self._sum_ns += max(latency_ns, 0) * count

    def _count_pending(self) -> None:
        if self._pending:
            latencies_ns = np.concatenate(self._pending)
            self._pending.clear()
            cells = np.searchsorted(_UPPER_NS, latencies_ns, side="left")
            self._counts += np.bincount(cells, minlength=_CELLS)
            known_ns = np.maximum(latencies_ns, 0)
            # In two halves: thousands of them can be more than an int64 holds.
            self._sum_ns += (int((known_ns >> 32).sum()) << 32) + int((known_ns & 0xFFFFFFFF).sum())

    def quantile_ns(self, quantile: float) -> float:
        """Return the upper edge of the cell that holds ``quantile`` (0 to 1), in ns; NaN when empty."""
        return self._quantiles_ns([quantile])[0]

    def summary_us(self) -> dict[str, float]:
        """Return p50, p90, p99 and p99.9 in microseconds, and the count."""
        out: dict[str, float] = {"count": int(self.counts.sum())}
        if out["count"]:
            quantiles_ns = self._quantiles_ns(_SUMMARY.values())
            out |= {name: round(ns / 1e3, 1) for name, ns in zip(_SUMMARY, quantiles_ns, strict=True)}
        return out

    def _quantiles_ns(self, quantiles: Iterable[float]) -> list[float]:
        cumulative = np.cumsum(self.counts)
        total = int(cumulative[-1])
        if total == 0:
            return [float("nan") for _ in quantiles]
        ranks = np.maximum(np.fromiter(quantiles, np.float64) * total, 1.0)
        cells: list[float] = _UPPER_NS[np.minimum(np.searchsorted(cumulative, ranks), _CELLS - 2)].tolist()
        return cells

    def metric(self, labels: tuple[str, ...] = ()) -> HistogramMetricFamily:
        """Return the histogram in seconds for Prometheus, as a family that more label sets can be added to."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=labels)
        self.add_to(family, [])
        return family

    def add_to(self, family: HistogramMetricFamily, values: list[str]) -> None:
        """Add these counts to ``family`` under the label values."""
        cumulative = np.cumsum(self.counts)
        buckets = [
            (f"{_UPPER_NS[cell] / 1e9:.9g}", float(cumulative[cell]))
            for cell in range(0, _CELLS - 1, _EXPORTED_EVERY)
        ]
        family.add_metric(values, [*buckets, ("+Inf", float(cumulative[-1]))], sum_value=self.sum_ns / 1e9)


class StageLatencies:
    """One histogram for each stage of a tick, exported as one metric with the label ``stage``."""

    def __init__(self, stages: Iterable[str]) -> None:
        name = "tickloom_stage_latency_seconds"
        self.stages = {stage: LatencyHistogram(name, "Time that a stage took") for stage in stages}

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield the metric: the protocol of a Prometheus collector."""
        family = HistogramMetricFamily("tickloom_stage_latency_seconds", "Time that a stage took", labels=["stage"])
        for stage, histogram in self.stages.items():
            histogram.add_to(family, [stage])
        yield family

    def summary_us(self) -> dict[str, dict[str, float]]:
        """Return the percentiles of each stage in microseconds."""
        return {stage: histogram.summary_us() for stage, histogram in self.stages.items()}


@dataclass
class Health:
    """The state of a process: problems by name, in plain words. No problem means healthy."""

    role: str
    problems: dict[str, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def fail(self, part: str, why: str) -> None:
        """Say that ``part`` cannot do its work now, and log it once."""
        if self.problems.get(part) != why:
            logger.error("%s: %s", part, why)
        self.problems[part] = why

    def recover(self, part: str) -> None:
        """Say that ``part`` works (again)."""
        if self.problems.pop(part, None) is not None:
            logger.info("%s: works again", part)


class TelemetryServer:
    """Serves ``/metrics`` and ``/health`` of one process on a TCP port, in the running event loop."""

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        figures: Callable[[], dict[str, Any]],
        host: str = "127.0.0.1",
        port: int = 0,
        routes: Mapping[str, Handler] = MappingProxyType({}),
    ) -> None:
        """Make the server.

        Args:
            health: what is wrong, if anything.
            registry: the process's metrics.
            figures: called for each ``/health`` request; its values join the answer.
            host: address to listen on.
            port: 0 picks a free one; `port` tells which, once started.
            routes: what else answers to GET, by path.
        """
        self.health = health
        self.registry = registry
        self.figures = figures
        self.host = host
        self.port = port
        self._routes = routes
        ProcessCollector(registry=registry)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            SettingsError: the address is in use, or is not ours to listen on.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        for path, handler in self._routes.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror}; set another port, or 0 for any"
            ) from None
        self.port = self._runner.addresses[0][1]
        logger.info("metrics and health on http://%s:%d", self.host, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: web.Request) -> web.Response:
        problems = self.health.problems
        body = {
            "role": self.health.role,
            "status": "failing" if problems else "ok",
            "problems": problems,
            "up_s": round(time.monotonic() - self.health.started_s, 1),
            **self.figures(),
        }
        return web.Response(
            status=503 if problems else 200,
            body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
            content_type="application/json",
        )


async def event_loop_lag(histogram: LatencyHistogram, every_s: float = 0.05) -> None:
    """Record for ever how late the event loop wakes us: garbage collections and long calls show here.

    Cancelling it is safe.
    """
    while True:
        before_ns = time.monotonic_ns()
        await asyncio.sleep(every_s)
        late_ns = time.monotonic_ns() - before_ns - int(every_s * 1e9)
        histogram.record(np.array([late_ns], np.int64))
