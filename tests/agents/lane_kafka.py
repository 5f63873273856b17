"""What tests of lanes send to a real broker and read from it, and the answer that they compare with."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from lane_worker import FEATURES_EVERY_MS, PARTITIONS
from markets import FUTURE_NS, LATENESS_NS, Feed
from recurrent import Recurrent

from agents import features
from agents.feature_tap import FeatureTap
from agents.lane import Lane
from agents.windows import Windows
from stream.feature_blocks import decode_features
from stream.records import (
    PREDICTION,
    PREDICTION_CONTENT_BYTES,
    TICK,
    Records,
    decode_block,
    encode_block,
    features_record,
    partition_of,
)
from stream.topics import FEATURES, PREDICTIONS, TICKS

PATIENCE_S = 60.0
Identity = tuple[bytes, int]
NewWorker = Callable[..., Any]


class Kafka:
    """What a test sends and reads."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap)

    async def send(self, ticks: Records) -> None:
        """Send ticks as blocks, each to its partition."""
        numbers = partition_of(ticks["symbol"], PARTITIONS)
        for number in np.unique(numbers):
            await self.producer.send_and_wait(TICKS, encode_block(ticks[numbers == number]), partition=int(number))

    async def read(self, topic: str) -> list[Any]:
        """Return every message of a topic."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap, fetch_max_wait_ms=20) as consumer:
            parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(parts)
            await consumer.seek_to_beginning(*parts)
            ends = await consumer.end_offsets(parts)
            messages: list[Any] = []
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    messages += batch
        return messages

    async def predictions(self, prefix: str) -> Records:
        """Return every prediction of symbols that start so, repetitions included."""
        blocks = [decode_block(message.value, PREDICTION) for message in await self.read(PREDICTIONS)]
        every = np.concatenate([np.zeros(0, PREDICTION), *blocks])
        return every[np.char.startswith(every["symbol"], prefix.encode())]

    async def features(self, prefix: str) -> Records:
        """Return every row of features of symbols that start so, repetitions included."""
        blocks = [decode_features(message.value, features.COUNT) for message in await self.read(FEATURES)]
        every = np.concatenate([np.zeros(0, features_record(features.COUNT)), *blocks])
        return every[np.char.startswith(every["symbol"], prefix.encode())]

    async def ticks(self, prefix: str) -> list[tuple[int, int, Records]]:
        """Return (partition, offset, ticks) of each block of ticks of symbols that start so."""
        found = []
        for message in await self.read(TICKS):
            if (message.value or b"").startswith(b"TLB1\x01\x00\x01\x00"):
                ticks = decode_block(message.value, TICK)
                if ticks["symbol"][0].startswith(prefix.encode()):
                    found.append((message.partition, message.offset, ticks))
        return sorted(found, key=lambda block: block[:2])


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.05)
    pytest.fail(what)


def identities(predictions: Records) -> dict[Identity, set[bytes]]:
    """Return the different contents of each (symbol, seq)."""
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    seen: dict[Identity, set[bytes]] = {}
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    for key, row in zip(keys, raw, strict=True):
        seen.setdefault(key, set()).add(row[PREDICTION_CONTENT_BYTES].tobytes())
    return seen


def undisturbed(blocks: list[tuple[int, int, Records]]) -> dict[Identity, set[bytes]]:
    lanes = {number: Lane(number, Windows(LATENESS_NS, FUTURE_NS), Recurrent()) for number in range(PARTITIONS)}
    outputs = [lanes[number].apply([(offset, ticks)]).predictions for number, offset, ticks in blocks]
    return identities(np.concatenate([np.zeros(0, PREDICTION), *outputs]))


def feature_contents(rows: Records) -> dict[Identity, set[bytes]]:
    """Return the different rows of features of each (symbol, seq), without where and when they were sent."""
    seen: dict[Identity, set[bytes]] = {}
    for row in rows:
        content = b"".join(row[name].tobytes() for name in ("event_ns", "feature_hash", "names_id", "values"))
        seen.setdefault((row["symbol"].item(), int(row["seq"])), set()).add(content)
    return seen


def undisturbed_features(blocks: list[tuple[int, int, Records]]) -> dict[Identity, set[bytes]]:
    lanes = {number: Lane(number, Windows(LATENESS_NS, FUTURE_NS), Recurrent()) for number in range(PARTITIONS)}
    taps = {number: FeatureTap(lane.windows, FEATURES_EVERY_MS) for number, lane in lanes.items()}
    rows = [taps[number].take(lanes[number].apply([(offset, ticks)])) for number, offset, ticks in blocks]
    return feature_contents(np.concatenate(rows))


def trades(feed: Feed, prefix: str, rounds: int, symbols: int = 8) -> Records:
    return np.concatenate(
        [feed.trade(f"{prefix}{number}", 100.0 + turn % 4) for turn in range(rounds) for number in range(symbols)]
    )
