"""From Kafka to the archive: `tickloom archive run`.

    ticks, ticks.rejected, predictions, outcomes, model.events ─▶ OpenRange of each partition ─▶ Vault.add_range

The archive itself says how far it is (see `exporters/archive/vault.py`); the offsets that the group commits are
only for whoever watches its lag. A range is closed when it has enough rows or is old enough, so memory is bounded.
Files are made in a thread: Kafka's heartbeats go on. While the store is away the same range waits, and nothing is
fetched.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from prometheus_client import CollectorRegistry

from exporters.archive.compaction import compact
from exporters.archive.metrics import ArchiveMetrics
from exporters.archive.ranges import OpenRange
from exporters.archive.vault import Chain, Vault
from exporters.waiting import BROKER_PATIENCE_S, Backoff, pause
from stream.cluster import cluster_id
from stream.ending import end_consumer
from stream.errors import ArchiveError
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import APP_ID, await_topics

logger = logging.getLogger(__name__)

GROUP: Final = f"{APP_ID}-archive"
_POLL_MS: Final = 200
_RETRY_LIMIT_S: Final = 5.0
_GATHER_BYTES: Final = 1 << 20
_WATCH_EVERY_S: Final = 2.0
_COMPACT_EVERY_S: Final = 3600.0
_NEVER_MS: Final = 2**31 - 1
_YESTERDAY: Final = timedelta(days=1)


class Archiver(ConsumerRebalanceListener):
    """Takes topics to an archive. Several share the partitions."""

    def __init__(
        self, settings: Settings, vault: Vault, topics: Sequence[str], metrics: ArchiveMetrics, health: Health
    ) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set; ``archive_every_s`` says how old a range may get.
            vault: the archive.
            topics: which to archive.
            metrics: counts what became of them.
            health: told when Kafka or the store is away.
        """
        self._settings, self._vault, self._topics = settings, vault, topics
        self._metrics, self._health = metrics, health
        self._writer = secrets.token_hex(4)
        self._open: dict[TopicPartition, OpenRange] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}
        self._unswept: set[Chain] = set()  # those where a writer before us was cut off
        self._consumer: Any = None
        self._epoch = ""
        self._watched_s = 0.0
        self._compacted_s = time.monotonic()

    async def run(self, stop: asyncio.Event, once: bool = False) -> None:
        """Archive until ``stop`` is set, or only what there is now; then close every range.

        Raises:
            ArchiveError: the archive and Kafka contradict each other.
        """
        backoff = Backoff(_RETRY_LIMIT_S)
        while not stop.is_set():
            try:
                await self._run_connected(stop, once)
            except KafkaError as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka}: {error!r}; trying again")
                await pause(stop, backoff.next_s())
            else:
                return

    async def _run_connected(self, stop: asyncio.Event, once: bool) -> None:
        self._open, self._ends = {}, {}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_min_bytes=_GATHER_BYTES,
            session_timeout_ms=int(self._settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._settings.session_timeout_s * 1000 / 4),
            max_poll_interval_ms=_NEVER_MS,
            request_timeout_ms=int(self._settings.session_timeout_s * 1000) + 5_000,
        )
        try:
            await self._consumer.start()
            self._epoch = await cluster_id(str(self._settings.kafka))
            self._consumer.subscribe(list(self._topics), listener=self)
            await self._pump(stop, once)
            for part in list(self._open):
                await self._close(part, stop)
        finally:
            await end_consumer(self._consumer)

    async def _pump(self, stop: asyncio.Event, once: bool) -> None:
        while not stop.is_set():
            read = await self._consumer.getmany(timeout_ms=_POLL_MS)
            fresh = await self._take_up()
            for part in (
                read.keys() - fresh
            ):  # of those we have just told where to go on, this is not what comes next
                await self._add(part, read[part], stop)
            for part in [p for p, each in self._open.items() if each.is_due(self._settings.archive_every_s)]:
                await self._close(part, stop)
            await self._watch()
            if time.monotonic() - self._compacted_s > _COMPACT_EVERY_S:
                await self._compact()
            if once and self._ends and all(self._has(part, end) for part, end in self._ends.items()):
                return

    def _has(self, part: TopicPartition, end: int) -> bool:
        each = self._open.get(part)
        # What Kafka drops while we wait for it never comes; the next range will tell.
        return each is not None and (each.next >= end or self._starts.get(part, 0) >= end)

    async def _take_up(self) -> set[TopicPartition]:
        """Learn where partitions that are new to us stand, and read on from there; return them."""
        fresh = {part for part in self._consumer.assignment() if part not in self._open}
        if not fresh:
            return fresh
        starts = await self._consumer.beginning_offsets(fresh)
        ends = await self._consumer.end_offsets(fresh)
        for part in fresh:
            chain = Chain(part.topic, self._epoch, part.partition)
            history = await asyncio.to_thread(self._vault.history, chain)
            has = history.next
            if history.plans:
                self._unswept.add(chain)
            if has is not None and has > ends[part]:
                raise ArchiveError(
                    f"{self._vault.url} has {chain.topic} of partition {chain.partition} up to offset {has}, and "
                    f"Kafka's ends at {ends[part]}: the topic was made anew; archive it at another place"
                )
            first = starts[part] if has is None else max(has, starts[part])
            missing = 0 if has is None else first - has
            if missing:
                _tell_missing(part, missing)
            try:
                self._consumer.seek(part, first)
            except IllegalStateError:
                continue  # a rebalance took it meanwhile
            self._open[part] = OpenRange(chain, first, missing)
            self._ends[part] = ends[part]
        self._health.recover("kafka")
        return fresh

    async def _add(self, part: TopicPartition, messages: Sequence[Any], stop: asyncio.Event) -> None:
        each = self._open.get(part)
        if each is None:
            return  # a rebalance took it
        missing = messages[0].offset - each.next
        if missing > 0:  # while we waited for the store, Kafka's retention went past us
            _tell_missing(part, missing)
            await self._close(part, stop)
            if self._open.get(part) is None or not (each := self._open[part]).empty:
                return
            each = self._open[part] = OpenRange(each.chain, messages[0].offset, each.missing + missing)
        each.add(messages)

    async def _close(self, part: TopicPartition, stop: asyncio.Event) -> None:
        """Archive a range, however long the store is away; begin the next."""
        each = self._open.get(part)
        if each is None or each.empty:
            return
        backoff = Backoff(_RETRY_LIMIT_S)
        closed, data = await asyncio.to_thread(each.close, self._writer)
        while True:
            try:
                won = await asyncio.to_thread(self._vault.add_range, each.chain, closed, data, self._writer)
                break
            except ArchiveError as error:
                self._metrics.on_up(False)
                self._metrics.on_retry()
                self._health.fail("archive", f"{error}; waiting, Kafka keeps what comes in")
                if stop.is_set():
                    return
                await pause(stop, backoff.next_s())
        self._metrics.on_up(True)
        self._health.recover("archive")
        if self._open.get(part) is not each:
            return  # a rebalance took it meanwhile; what we wrote counts, or is somebody else's
        if won:
            self._metrics.on_archived(each.chain.topic, closed)
            self._open[part] = OpenRange(each.chain, each.next)
            await self._commit(part, each.next)
            if each.chain in self._unswept:
                await self._sweep(each.chain)
        else:
            logger.warning("offset %d of %s was archived by another", each.first, each.chain.folder)
            self._metrics.on_lost_race(each.chain.topic)
            del self._open[part]  # taken up again where the archive ends now

    async def _sweep(self, chain: Chain) -> None:
        try:
            swept = await asyncio.to_thread(self._vault.sweep, chain)
        except ArchiveError as error:
            logger.warning("what a writer left in %s is not swept yet: %s", chain.folder, error)
        else:
            self._unswept.discard(chain)
            logger.info("swept %d files that a writer left in %s", swept, chain.folder)

    async def _commit(self, part: TopicPartition, offset: int) -> None:
        try:
            await asyncio.wait_for(self._consumer.commit({part: offset}), BROKER_PATIENCE_S)
        except (CommitFailedError, IllegalStateError):
            return  # a rebalance; and the archive itself says how far it is
        except (KafkaError, TimeoutError) as error:
            logger.warning("the offset of %s is not committed yet: %r", part, error)

    async def _watch(self) -> None:
        if time.monotonic() - self._watched_s < _WATCH_EVERY_S or not self._open:
            return
        self._watched_s = time.monotonic()
        parts = list(self._open)
        try:
            ends = await asyncio.wait_for(self._consumer.end_offsets(parts), BROKER_PATIENCE_S)
            self._starts = await asyncio.wait_for(self._consumer.beginning_offsets(parts), BROKER_PATIENCE_S)
        except (KafkaError, TimeoutError) as error:
            self._health.fail("kafka", f"Kafka at {self._settings.kafka} does not answer ({error!r}); waiting")
            return
        self._health.recover("kafka")
        lag = {(p.topic, p.partition): end - self._open[p].first for p, end in ends.items() if p in self._open}
        self._metrics.on_lag(lag)

    async def _compact(self) -> None:
        self._compacted_s = time.monotonic()
        before = (datetime.now(UTC) - _YESTERDAY).date().isoformat()
        for each in list(self._open.values()):
            try:
                fewer = await asyncio.to_thread(compact, self._vault, each.chain, before, self._writer)
            except ArchiveError as error:
                logger.warning("%s is not compacted: %s", each.chain.folder, error)
            else:
                logger.info("compacted %s: %d files fewer", each.chain.folder, fewer)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Give partitions up (called by aiokafka): what is not archived yet is read again by whoever gets them."""
        for part in revoked:
            self._open.pop(part, None)
            self._ends.pop(part, None)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take partitions (called by aiokafka); `_take_up` finds where to go on."""
        logger.info("archiving %s", ", ".join(sorted(f"{p.topic}/{p.partition}" for p in assigned)))


def _tell_missing(part: TopicPartition, count: int) -> None:
    logger.error("Kafka dropped %d messages of %s before they were archived", count, part)


async def run_archiver(
    settings: Settings, url: str, topics: Sequence[str], stop: asyncio.Event, once: bool = False
) -> dict[str, Any]:
    """Archive topics until ``stop`` is set, or only what there is now; return what was done.

    Raises:
        SettingsError: ``settings.kafka`` is not set, or there is no driver for ``url``.
        ArchiveError: the archive and Kafka contradict each other.
    """
    registry, health = CollectorRegistry(), Health("archiver")
    metrics = ArchiveMetrics(registry)

    def figures() -> dict[str, Any]:
        return {"archive": url, "rows": metrics.rows, "missing": metrics.missing, "raw": metrics.raw}

    vault = Vault(url)
    async with TelemetryServer(health, registry, figures, settings.host, settings.exporter_port):
        if await await_topics(settings, health, stop):
            await Archiver(settings, vault, topics, metrics, health).run(stop, once)
    return figures()
