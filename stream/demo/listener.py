"""The demo's own client of the WebSocket feed: what a desk would see, per symbol."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

_RECONNECT_S = 0.5


@dataclass
class FeedView:
    """What has come through the feed so far."""

    latest: dict[str, dict[str, Any]] = field(default_factory=dict)  # newest message of each symbol
    seen_s: dict[str, float] = field(default_factory=dict)  # monotonic time of it
    messages: int = 0
    predictions: int = 0  # messages, and those that conflation skipped
    connected: bool = False

    def take(self, message: dict[str, Any]) -> None:
        """Account for one message of the feed."""
        if message.get("type") not in ("prediction", "snapshot"):
            return
        for item in message.get("predictions", [message]):
            self.messages += 1
            self.predictions += 1 + int(item.get("skipped", 0))
            self.latest[item["symbol"]] = item
            self.seen_s[item["symbol"]] = time.monotonic()


async def listen(url: str, token: str | None, view: FeedView) -> None:
    """Follow every symbol, conflated, and reconnect for ever. Cancelling it is safe."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = {"op": "subscribe", "id": 1, "channel": "prediction", "symbols": ["*"], "mode": "latest"}
    while True:
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            async with connect(url, additional_headers=headers, max_size=None) as socket:
                await socket.send(orjson.dumps(request).decode())
                view.connected = True
                async for raw in socket:
                    view.take(orjson.loads(raw))
        view.connected = False
        await asyncio.sleep(_RECONNECT_S)
