"""The client beside real gateways on a real broker: what it gives, and what it tells."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from feed_driver import Running, Start, known
from pydantic import SecretStr

from exporters.client import Batch, Connected, Feed, FeedRefused, Item, ReplayCompleted, Reset, Resumed
from stream.embedded.kafka import EmbeddedKafka


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


async def until(feed: Feed, done: Callable[[list[Item]], bool], within_s: float = 20.0) -> list[Item]:
    """Read until what came is enough."""
    items: list[Item] = []
    async with asyncio.timeout(within_s):
        while not done(items):
            items.append(await anext(feed))
    return items


def seqs(items: list[Item], symbol: str) -> list[int]:
    return [
        seq
        for item in items
        if isinstance(item, Batch)
        for seq in item.records["seq"][item.records["symbol"] == symbol.encode()].tolist()
    ]


def reaches(symbol: str, seq: int) -> Callable[[list[Item]], bool]:
    return lambda items: seqs(items[-1:], symbol)[-1:] == [seq]


async def test_everything_comes_once_and_in_order(gateway: Running, publish: Any, make_rows: Any) -> None:
    await publish(make_rows(["AIG", "BAC"], 5))
    async with Feed(gateway.where.feed) as feed:
        await feed.subscribe("*", mode="full")
        await publish(make_rows(["AIG", "BAC"], 400, first=6), block_rows=7)
        items = await until(feed, reaches("AIG", 405))
        assert isinstance(items[0], Connected)
        first = seqs(items, "AIG")[0]
        assert seqs(items, "AIG") == list(range(first, 406))
        row = next(item for item in reversed(items) if isinstance(item, Batch)).rows()[-1]
        assert (row["symbol"], row["p_up"], row["model"]) in (
            ("AIG", 0.5, "fedcba9876543210"),
            ("BAC", 0.5, "fedcba9876543210"),
        )
