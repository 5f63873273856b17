"""The demo's own client of the WebSocket feed: what a desk would see, per symbol."""

import time
from dataclasses import dataclass, field
from typing import Any

from exporters.client import Batch, Connected, Disconnected, Feed, Item


@dataclass
class FeedView:
    """What has come through the feed so far."""

    latest: dict[str, dict[str, Any]] = field(default_factory=dict)  # newest message of each symbol
    seen_s: dict[str, float] = field(default_factory=dict)  # monotonic time of it
    messages: int = 0
    predictions: int = 0  # messages, and those that conflation skipped
    connected: bool = False

    def take(self, item: Item) -> None:
        """Account for one item of the feed."""
        match item:
            case Batch():
                self.messages += len(item)
                self.predictions += len(item) + (0 if item.skipped is None else int(item.skipped.sum()))
                for row in item.rows():
                    self.latest[row["symbol"]] = row
                    self.seen_s[row["symbol"]] = time.monotonic()
            case Connected():
                self.connected = True
            case Disconnected():
                self.connected = False


async def listen(url: str, token: str | None, view: FeedView) -> None:
    """Follow every symbol, conflated, for ever. Cancelling it is safe.

    Raises:
        FeedRefused: the gateway does not know the token.
    """
    async with Feed(url, token=token) as feed:
        await feed.subscribe("*")
        async for item in feed:
            view.take(item)
