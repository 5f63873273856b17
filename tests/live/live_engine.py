"""The whole engine as its processes, for tests that kill, stop and disturb them."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from stream.demo.listener import FeedView, listen
from stream.demo.outcome import Outcome, read_outcome
from stream.demo.parts import Part, Role
from stream.embedded.ports import free_port
from stream.embedded.servers import EmbeddedServers
from stream.records import PREDICTION, Records, decode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

PATIENCE_S = 90.0
_POLL_S = 0.1


class Engine:
    """Real servers and real processes below one directory.

    Parts that end by themselves, and those that are ``supervised``, get a new process when theirs has died.
    """

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.servers = EmbeddedServers(root).start()
        assert self.servers.kafka is not None
        assert self.servers.kafka.degraded_reason is None
        assert self.servers.clickhouse is not None
        assert self.servers.redis is not None
        self.bootstrap = self.servers.kafka.bootstrap
        early = f"127.0.0.1:{free_port()}"
        self.settings = Settings(
            data_dir=root,
            kafka=self.bootstrap,
            clickhouse=SecretStr(self.servers.clickhouse.url),
            redis=SecretStr(self.servers.redis.url),
            gateway_port=free_port(),
            early_to=early,
            early_at=early,
            **{"session_timeout_s": 6.0} | settings,
        )
        self.parts: dict[str, Part] = {}
        self.supervised: set[str] = set()
        self.feed = FeedView()
        self._listener: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the topics and begin to listen to the feed."""
        settings = self.settings
        await create_topics(self.bootstrap, settings.partitions, settings.replication, settings.retention_hours)
        self._session = aiohttp.ClientSession()
        self._listener = asyncio.create_task(listen(self.feed_url, None, self.feed))

    @property
    def feed_url(self) -> str:
        """Where the feed is."""
        return f"ws://127.0.0.1:{self.settings.gateway_port}/feed"

    async def close(self) -> None:
        """Stop everything, source first."""
        for part in reversed(self.parts.values()):
            await asyncio.to_thread(part.stop)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self.servers.stop)

    async def start(self, name: str, *arguments: str, ends: bool = False, ready: bool = True) -> Part:
        """Start a role of the command line and wait until it is healthy."""
        part = Part(Role(name, arguments, {}, ends_by_itself=ends), self.settings, self.root)
        self.parts[name] = part
        part.start()
        if ready:
            await self.until(lambda: part.healthy or part.finished, f"{name} is ready")
        return part

    async def start_ways_out(self) -> None:
        """Start both exporters and the gateway."""
        await self.start("redis", "export", "redis", ready=False)
        await self.start("clickhouse", "export", "clickhouse", ready=False)
        await self.start("gateway", "gateway", ready=False)
        await self.until(lambda: all(part.healthy for part in self.parts.values()), "the ways out are ready")

    async def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
        """Look at every part, and start those anew that have to, until ``condition`` holds."""
        assert self._session is not None
        begun_s = time.monotonic()
        deadline_s = begun_s + patience_s
        while not condition():
            if time.monotonic() > deadline_s:
                said = {name: (part.healthy, part.health, part.last_lines()) for name, part in self.parts.items()}
                raise AssertionError(f"not within {patience_s:.0f} s: {what}; {said}")
            await asyncio.sleep(_POLL_S)
            await asyncio.gather(*(part.poll(self._session) for part in self.parts.values()))
            for name, part in self.parts.items():
                if part.role.ends_by_itself or name in self.supervised:
                    part.restart_if_dead()
        print(f"{time.monotonic() - begun_s:6.1f} s until {what}")  # pytest shows it where a test fails

    def kill(self, name: str) -> None:
        """End a part as a crash would."""
        os.kill(self.parts[name].pid, signal.SIGKILL)

    def made(self) -> int:
        """How many predictions the workers have made since they started."""
        return sum(part.health.get("predictions", 0) for name, part in self.parts.items() if "worker" in name)

    async def settled_outcome(self, predictions: int) -> Outcome:
        """Wait until every sink holds ``predictions`` and return what they hold then, a moment later."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            outcome = await read_outcome(self.settings)
            if outcome.clickhouse_distinct >= predictions <= outcome.redis_latest_seq_sum:
                await asyncio.sleep(1.0)
                return await read_outcome(self.settings)
            assert time.monotonic() < deadline_s, f"{predictions} predictions were made; the sinks hold {outcome}"
            await asyncio.sleep(0.5)

    async def send_raw(self, topic: str, partition: int, value: bytes) -> int:
        """Send bytes to a topic and return their offset."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        try:
            return int((await producer.send_and_wait(topic, value, partition=partition)).offset)
        finally:
            await producer.stop()

    async def read_topic(self, topic: str, partitions: int | None = None) -> list[Any]:
        """Return every message of a topic, in order for each partition; one for each lane, unless told."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            parts = [TopicPartition(topic, number) for number in range(partitions or self.settings.partitions)]
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            messages: list[Any] = []
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    messages += batch
            return messages
        finally:
            await consumer.stop()

    async def predictions(self) -> Records:
        """Return every prediction in Kafka, repetitions included."""
        messages = await self.read_topic(PREDICTIONS)
        return np.concatenate([decode_block(message.value, PREDICTION) for message in messages])
