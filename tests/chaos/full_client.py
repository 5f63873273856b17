"""A client of the feed in mode `full` that notes every promise of the protocol that is broken."""

import asyncio
import contextlib
from typing import Any

import orjson
from flows import Flow
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

_RECONNECT_S = 0.2
_SUBSCRIBE = {"op": "subscribe", "id": 1, "channel": "prediction", "symbols": ["*"], "mode": "full"}
_CONTENT = (
    "symbol",
    "seq",
    "event_ns",
    "ref_price",
    "horizon_ns",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "model",
    "warming",
)


class FullView:
    """What has come through the feed, by (symbol, seq), and what was wrong with it."""

    def __init__(self, flow: Flow) -> None:
        """Begin with nothing."""
        self.seen: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.newest: dict[str, int] = {}
        self.broken: list[str] = []
        self.connections = 0
        self._flow = flow
        self._epoch: str | None = None
        self._last: dict[str, int] = {}  # seq of each symbol on this connection

    def begin(self) -> None:
        """A connection begins: nothing is known of any symbol until its snapshot."""
        self.connections += 1
        self._last = {}

    def take(self, message: dict[str, Any]) -> None:
        """Account for one message."""
        match message["type"]:
            case "snapshot" | "prediction":
                for item in message["predictions"]:
                    self._follow(item, message["type"] == "snapshot")
            case "heartbeat":
                if message["seqs"] != {symbol: self._last.get(symbol) for symbol in message["seqs"]}:
                    self.broken.append(f"the heartbeat says {message['seqs']}, and what came is {self._last}")
            case "epoch":
                # A gateway that has just started says so to those who came before it had asked Kafka.
                if self._epoch not in (None, message["epoch"]):
                    self.broken.append(f"another epoch of the same Kafka: {message['epoch']} after {self._epoch}")
                self._epoch, self._last = message["epoch"], {}
            case "error":
                self.broken.append(str(message))

    def _follow(self, item: dict[str, Any], is_snapshot: bool) -> None:
        last = self._last.get(item["symbol"])
        if not is_snapshot and (last is None or item["seq"] != last + 1):
            self.broken.append(f"{item['symbol']}: seq {item['seq']} came after {last}")
        self._last[item["symbol"]] = item["seq"]
        self._note(item)

    def _note(self, item: dict[str, Any]) -> None:
        key = item["symbol"], item["seq"]
        content = tuple(item[name] for name in _CONTENT)
        if self.seen.setdefault(key, content) != content:
            self.broken.append(f"{key} is {content}, and was {self.seen[key]}")
        self.newest[key[0]] = item["seq"]
        self._flow.note(key[0], item["recv_ns"])


async def follow(url: str, view: FullView) -> None:
    """Follow every symbol, and connect again for ever. Cancelling it is safe."""
    while True:
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            async with connect(url, max_size=None) as socket:
                await socket.send(orjson.dumps(_SUBSCRIBE).decode())
                view.begin()
                async for raw in socket:
                    view.take(orjson.loads(raw))
        await asyncio.sleep(_RECONNECT_S)
