"""What the process of any source does around its ticks: waiting for Kafka, publishing, resuming, telling its state.

A `Delivery` waits for Kafka at the start and whenever it is away, says so at ``/health``, and goes on by itself.
With a ``stream_id`` it leaves out what an earlier run has published already.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Gauge

from stream.errors import SinkUnavailable
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import Records, partition_of
from stream.settings import Settings
from stream.sources.resume import Bookmarks
from stream.telemetry import Health, TelemetryServer
from stream.topics import TICKS

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]

_TELL_S: Final = 1.0
_BOOKMARK_S: Final = 5.0
# Kafka's own retries hide a short absence; what lasts longer is told.
_STALLED_S: Final = 5.0
_RETRY_S: Final = (0.2, 5.0)
# How long a stopping source waits for acknowledgements. What is lost then, a repeatable source sends again.
_GRACE_S: Final = 10.0


class Delivery:
    """The way of one source's ticks to Kafka; an async context manager."""

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        role: str,
        stop: asyncio.Event,
        *,
        stream_id: int | None = None,
        port: int = 0,
        progress: Progress | None = None,
        topic: str = TICKS,
    ) -> None:
        """Make it; entering it connects.

        Args:
            settings: partitions, linger, host.
            bootstrap: ``HOST:PORT[,HOST:PORT]`` of the brokers.
            role: what this process is, in ``/health``.
            stop: when set, nothing waits any longer than a grace period.
            stream_id: of a source that can repeat itself; None for one that cannot.
            port: of ``/metrics`` and ``/health``; 0 picks a free one.
            progress: called with the figures about once a second, and at the end.
            topic: that ticks go to.
        """
        self.stop = stop
        self.health = Health(role)
        self.registry = CollectorRegistry()
        self.state = "connecting"
        self.total: int | None = None
        self.behind_s = 0.0  # how late the source is against its own pace
        self.details: Callable[[], dict[str, Any]] = dict
        self.already_there: NDArray[np.uint64] = np.zeros(settings.partitions, np.uint64)
        self.accepted = 0
        self.skipped = 0
        self._partitions = settings.partitions
        self._progress = progress
        self._rate_per_s = 0.0
        self._behind = Gauge(
            "tickloom_source_behind_seconds", "Lateness against the source's pace", registry=self.registry
        )
        self._telemetry = TelemetryServer(self.health, self.registry, self.figures, settings.host, port)
        metrics = PublisherMetrics(self.registry)
        self.publisher = TickPublisher(
            bootstrap,
            settings.partitions,
            settings.linger_ms,
            metrics,
            topic,
            idempotent=settings.idempotent_producer,
        )
        self._bookmarks = None if stream_id is None else Bookmarks(bootstrap, settings.partitions, stream_id, topic)
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, waiting for Kafka as long as it takes.

        Raises:
            SinkUnavailable: stopped before Kafka answered.
            ServerError: the topic has another number of partitions.
        """
        async with contextlib.AsyncExitStack() as resources:
            await resources.enter_async_context(self._telemetry)
            await self._connect(resources)
            resources.push_async_callback(_cancel, asyncio.create_task(self._watch(), name="source watch"))
            self._resources = resources.pop_all()
        self.state = "running"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect; call `finish` before, which makes sure of the acknowledgements."""
        await self._resources.aclose()

    @property
    def port(self) -> int:
        """Where ``/metrics`` and ``/health`` are."""
        return self._telemetry.port

    def figures(self) -> dict[str, Any]:
        """Return the state in numbers, for ``/health`` and progress displays."""
        return {
            "state": self.state,
            "ticks": self.accepted,
            "unacknowledged_ticks": self.publisher.unacknowledged_ticks,
            "skipped_ticks": self.skipped,
            "rate_per_s": round(self._rate_per_s, 1),
            "position": max(self.publisher.published_seq, int(self.already_there.max())),
            "total": self.total,
            "behind_s": round(self.behind_s, 3),
            **self.details(),
        }

    def without_known(self, ticks: Records) -> Records:
        """Return ``TICK[N]`` without what an earlier run has published; free once the source is past it."""
        if len(ticks) == 0 or int(ticks["source_seq"][0]) > int(self.already_there.max()):
            return ticks
        partitions = partition_of(ticks["symbol"], self._partitions)
        new = ticks["source_seq"] > self.already_there[partitions]
        self.skipped += len(ticks) - int(new.sum())
        return ticks[new]

    async def send(self, ticks: Records) -> None:
        """Publish ticks, waiting for Kafka as long as it takes.

        Args:
            ticks: ``TICK[N]``; must not be changed afterwards.

        Raises:
            SinkUnavailable: stopped while Kafka was away.
            SinkRejected: Kafka will never take them.
        """
        self.accepted += len(ticks)
        try:
            await self.publisher.publish(ticks)
        except SinkUnavailable as error:
            await self._recover(error)

    async def settle(self) -> None:
        """Wait until everything sent so far is acknowledged, as long as it takes.

        Raises:
            SinkUnavailable: stopped, and not everything was acknowledged in time.
            SinkRejected: Kafka will never take what is left.
        """
        try:
            await self.publisher.flush()
        except SinkUnavailable as error:
            await self._recover(error)

    async def finish(self, state: str) -> None:
        """Wait until everything is acknowledged: without limit, or for the grace period once ``stop`` is set.

        Args:
            state: to be in then: "finished" or "stopped".

        Raises:
            SinkUnavailable: stopped, and not everything was acknowledged in time.
            SinkRejected: Kafka will never take what is left.
        """
        await self.settle()
        await self._bookmark()
        self.state = state
        self._tell()

    async def _connect(self, resources: contextlib.AsyncExitStack) -> None:
        for delay_s in _delays_s():
            try:
                async with contextlib.AsyncExitStack() as connecting:
                    await self._unless_stopped(self._open(connecting))
                    await resources.enter_async_context(connecting.pop_all())
                self.health.recover("kafka")
                return
            except SinkUnavailable as error:
                self.health.fail("kafka", str(error))
                if self.stop.is_set():
                    raise
            await self._sleep(delay_s)

    async def _open(self, connecting: contextlib.AsyncExitStack) -> None:
        if self._bookmarks is not None:
            await connecting.enter_async_context(self._bookmarks)
            self.already_there = await self._bookmarks.load()
        await connecting.enter_async_context(self.publisher)

    async def _recover(self, error: SinkUnavailable) -> None:
        for delay_s in _delays_s():
            if self.stop.is_set():
                raise error
            self.health.fail("kafka", str(error))
            await self._sleep(delay_s)
            try:
                await self._unless_stopped(self.publisher.restart())
                await self.publisher.flush()
            except SinkUnavailable as again:
                error = again
            else:
                self.health.recover("kafka")
                return

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    async def _unless_stopped(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step that may wait long for Kafka; cancel it when the grace period after ``stop`` is over."""
        task = asyncio.create_task(step)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({task}, timeout=_GRACE_S)
            if not task.done():
                raise SinkUnavailable("stopped before Kafka answered")
            task.result()
        finally:
            await _cancel(stopping)
            if not task.done():
                await _cancel(task)

    async def _watch(self) -> None:
        """Once a second: rate, stalls, bookmarks, progress; and the end of patience after ``stop``."""
        last_s, last_count, bookmarked_s = time.monotonic(), self.accepted, time.monotonic()
        stopped_s: float | None = None
        while True:
            await asyncio.sleep(_TELL_S)
            now_s = time.monotonic()
            self._rate_per_s = (self.accepted - last_count) / (now_s - last_s)
            last_s, last_count = now_s, self.accepted
            if self.publisher.stalled_s > _STALLED_S:
                self.health.fail(
                    "acknowledgements", f"Kafka has acknowledged nothing for more than {_STALLED_S:g} s"
                )
            else:
                self.health.recover("acknowledgements")
            if self.stop.is_set():
                stopped_s = now_s if stopped_s is None else stopped_s
                if now_s - stopped_s > _GRACE_S:
                    self.publisher.give_up(f"stopped {_GRACE_S:g} s ago")
            if now_s - bookmarked_s > _BOOKMARK_S:
                await self._bookmark()
                bookmarked_s = now_s
            self._tell()

    async def _bookmark(self) -> None:
        if self._bookmarks is not None:
            try:
                await self._bookmarks.save(self.publisher)
            except SinkUnavailable as error:
                logger.info("no new bookmark, which only makes a restart slower: %s", error)

    def _tell(self) -> None:
        self._behind.set(self.behind_s)
        if self._progress is not None:
            self._progress(self.figures())


def _delays_s() -> Iterator[float]:
    delay_s, longest_s = _RETRY_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, longest_s)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
