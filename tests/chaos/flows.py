"""What comes out of the engine while it is disturbed: how soon it flows again after a fault."""

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import redis.asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from clickhouse_driver import Client
from clickhouse_driver.errors import Error as ClickHouseError

from stream.clock import NS_PER_S, wall_ns
from stream.records import PREDICTION, decode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS

_ASK_EVERY_S = 0.2
_RECONNECT_S = 0.2


class Flow:
    """When something new came of each symbol, and how new it was."""

    def __init__(self, symbols: Sequence[str]) -> None:
        """Begin to note.

        Args:
            symbols: that must all flow.
        """
        self._arrivals: dict[str, list[tuple[int, int]]] = {symbol: [] for symbol in symbols}

    def note(self, symbol: str, stamp_ns: int) -> None:
        """Take note of what has just come; ``stamp_ns`` says when it was made."""
        arrivals = self._arrivals[symbol]
        if not arrivals or stamp_ns > arrivals[-1][1]:
            arrivals.append((wall_ns(), stamp_ns))

    def flows_since(self, moment_ns: int) -> int | None:
        """Return when there was something of every symbol that was made after a moment, or None."""
        firsts = [_first_after(arrivals, moment_ns) for arrivals in self._arrivals.values()]
        return None if None in firsts else max(first for first in firsts if first is not None)

    def silence_s(self, begin_ns: int, end_ns: int) -> float:
        """Return the longest time in which nothing new of some symbol came."""
        longest_ns = 0
        for arrivals in self._arrivals.values():
            at_ns = [arrival for arrival, _ in arrivals if begin_ns < arrival < end_ns]
            moments = [begin_ns, *at_ns, end_ns]
            gaps_ns = [after - before for before, after in itertools.pairwise(moments)]
            longest_ns = max(longest_ns, *gaps_ns)
        return longest_ns / NS_PER_S


def _first_after(arrivals: Sequence[tuple[int, int]], moment_ns: int) -> int | None:
    newest_first = None
    for arrival_ns, stamp_ns in reversed(arrivals):
        if stamp_ns <= moment_ns:
            break
        newest_first = arrival_ns
    return newest_first


class Topic:
    """Follows the topic of predictions, whatever happens to the brokers."""

    def __init__(self, settings: Settings, flow: Flow) -> None:
        """Make it; `follow` follows."""
        self.newest: dict[str, int] = defaultdict(int)  # seq by symbol
        self._settings, self._flow = settings, flow
        self._next: dict[TopicPartition, int] = {}

    async def follow(self) -> None:
        """Follow for ever. Cancelling it is safe."""
        while True:
            with contextlib.suppress(KafkaError, OSError):
                await self._follow_connected()
            await asyncio.sleep(_RECONNECT_S)

    async def _follow_connected(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        try:
            await consumer.start()
            parts = [TopicPartition(PREDICTIONS, number) for number in range(self._settings.partitions)]
            consumer.assign(parts)
            for part in parts:
                consumer.seek(part, self._next.get(part, 0))
            while True:
                for part, messages in (await consumer.getmany(timeout_ms=200)).items():
                    self._take(part, messages)
        finally:
            await consumer.stop()

    def _take(self, part: TopicPartition, messages: Iterable[Any]) -> None:
        for message in messages:
            rows = decode_block(message.value, PREDICTION)
            for symbol in np.unique(rows["symbol"]):
                mine = rows[rows["symbol"] == symbol]
                name = symbol.decode()
                self._flow.note(name, int(mine["recv_ns"].max()))
                self.newest[name] = max(self.newest[name], int(mine["seq"].max()))
            self._next[part] = message.offset + 1


async def ask_redis(settings: Settings, symbols: Sequence[str], flow: Flow) -> None:
    """Look for ever at what Redis has of each symbol. Cancelling it is safe."""
    assert settings.redis is not None
    async with redis.asyncio.Redis.from_url(settings.redis.get_secret_value()) as client:
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                for symbol in symbols:
                    stamp_ns = await client.hget(f"tickloom:prediction:{symbol}", "published_ns")
                    if stamp_ns is not None:
                        flow.note(symbol, int(stamp_ns))
            await asyncio.sleep(_ASK_EVERY_S)


async def ask_clickhouse(settings: Settings, flow: Flow) -> None:
    """Look for ever at what ClickHouse has of each symbol. Cancelling it is safe."""
    assert settings.clickhouse is not None
    client = Client.from_url(settings.clickhouse.get_secret_value())
    question = "SELECT symbol, toUnixTimestamp64Nano(max(published_time)) FROM predictions GROUP BY symbol"
    try:
        while True:
            with contextlib.suppress(ClickHouseError, OSError, EOFError):
                for symbol, stamp_ns in await asyncio.to_thread(client.execute, question):
                    flow.note(symbol, stamp_ns)
            await asyncio.sleep(_ASK_EVERY_S)
    finally:
        client.disconnect()
