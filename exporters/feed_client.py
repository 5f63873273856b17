"""One client of the feed, as the fan-out sees it: what it follows, what it has had, and what waits for it.

Nothing here waits for a socket. A frame goes straight to the transport while that has room; else it is held here,
and `pump` moves it on when there is room again. So a slow client costs memory, bounded, and nothing else.
"""

import asyncio
import logging
import socket
import time
from collections import defaultdict, deque
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from exporters.feed_following import Following
from exporters.feed_messages import Warn
from exporters.feed_metrics import FeedMetrics
from exporters.feed_wire import Held, message_frame
from exporters.protocol import BINARY_PROTOCOL, Close

logger = logging.getLogger(__name__)

# What the transport may hold unsent: enough for one event-loop turn at any speed, small beside the queue.
_TRANSPORT_BYTES: Final = 256 << 10
# What the kernel may hold unsent. Its buffers grow to megabytes, and whatever is in there can no longer be
# conflated: a slow reader of `latest` would see seconds-old prices.
_KERNEL_UNSENT_BYTES: Final = 64 << 10
# A close waits until the client has read what was sent before; one that reads nothing is cut off after this.
_CLOSE_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.005
_OPEN: Final = State.OPEN
_REASON_BYTES: Final = 123  # of a close frame, says RFC 6455


class FeedClient:
    """A connection with its subscriptions and its queue."""

    def __init__(
        self, connection: ServerConnection, queue_items: int, metrics: FeedMetrics, holding: "set[FeedClient]"
    ) -> None:
        """Take over what is sent on ``connection``.

        Args:
            connection: open; nobody else sends messages on it.
            queue_items: predictions held for it before it is closed as too slow.
            metrics: told what was sent.
            holding: it is in there while something waits here for room in the transport.
        """
        self.followings: defaultdict[str, Following] = defaultdict(Following)  # by channel
        self.turn = 0  # of heartbeats, see `Hub.beat`
        self.is_binary = connection.subprotocol == BINARY_PROTOCOL
        self._deflates = bool(connection.protocol.extensions)
        self._connection, self._queue_items, self._metrics = connection, queue_items, metrics
        self._holding = holding
        # Looked up once: they are called for every frame of every client.
        self._protocol, self._transport_write = connection.protocol, connection.transport.write
        self._unsent_bytes = connection.transport.get_write_buffer_size
        self._held: deque[tuple[Held, int]] = deque()  # with when it was held, ns
        self._held_items = 0
        self._snapshot_items = 0
        self._delivered: tuple[bytes, int] | None = None
        self._warned = self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        _limit_kernel_buffer(connection)

    @property
    def open(self) -> bool:
        """Whether anything can still be sent."""
        return not self._closing and self._protocol.state is State.OPEN

    @property
    def drained(self) -> bool:
        """Whether all that was sent has left for the network: what comes now would not wait behind it."""
        return not self._held and self._unsent_bytes() == 0

    @property
    def holding(self) -> bool:
        """Whether something waits here for room in the transport."""
        return bool(self._held)

    @property
    def waiting(self) -> int:
        """How many messages are held here."""
        return self._held_items

    @property
    def subscribed(self) -> bool:
        """Whether anything is followed."""
        return any(following.subscriptions for following in self.followings.values())

    @property
    def peer(self) -> str:
        """Who it is, for logs."""
        return str(self._connection.remote_address)

    def post(self, held: Held) -> None:
        """Send a frame after all before it; close the client when too much waits for it."""
        if self._closing or self._protocol.state is not _OPEN:
            return
        # The way of nearly every frame, for every client: few properties and calls on it.
        if not self._held and self._unsent_bytes() < _TRANSPORT_BYTES:
            self._write(held)
            return
        self._held.append((held, time.monotonic_ns()))
        self._holding.add(self)
        # A message without items counts as one, so that replies are bounded too.
        self._held_items += max(held.items, 1)
        if self._held_items > self._queue_items + self._snapshot_items:
            self._close_as_slow()
        elif self._held_items > self._queue_items // 2 and not self._warned:
            self._warn()

    def allow_snapshot(self, items: int) -> None:
        """A snapshot of so many predictions is about to be posted: it is not the client's fault."""
        self._snapshot_items = max(self._snapshot_items, items)

    def pump(self) -> None:
        """Send what is held, as far as there is room."""
        while self._held and self.open and self._room():
            held, since_ns = self._held.popleft()
            self._held_items -= max(held.items, 1)
            self._metrics.queued.record_one(time.monotonic_ns() - since_ns)
            self._write(held)
        if not self._held:
            self._warned, self._held_items = False, 0
        if not self._held or not self.open:
            self._holding.discard(self)

    async def room(self) -> bool:
        """Wait until nothing is held and the network has taken most of it; return whether the client is there.

        For whoever sends the past: it goes as fast as the client reads. Cancelling it is safe.
        """
        while self.open and (self._held or not self._room()):
            await asyncio.sleep(_LOOK_EVERY_S)
        return self.open

    def close(self, code: Close, reason: str) -> None:
        """Close the connection after what is in the transport; what is held is dropped."""
        if not self.open:
            return
        self._closing = True
        self._held.clear()
        self._holding.discard(self)
        encoded = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        task = asyncio.create_task(self._connection.close(code, encoded))
        self._tasks.add(task)
        cut = asyncio.get_running_loop().call_later(_CLOSE_WITHIN_S, self._connection.transport.abort)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: cut.cancel())

    async def closed(self) -> None:
        """Wait until a close that was begun is done. Cancelling it is safe."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _room(self) -> bool:
        return self._unsent_bytes() < _TRANSPORT_BYTES

    def _write(self, held: Held) -> None:
        # Frames are whole messages and `websockets` writes whole frames too (pong, close), so both may write.
        self._transport_write(held.deflated() if self._deflates else held.frame)
        self._metrics.sent += held.items
        if held.last is not None:
            self._delivered = held.last

    def _warn(self) -> None:
        self._warned = True
        text = f"{self._held_items} wait for you; above {self._queue_items} the feed closes with {Close.SLOW:d}"
        warning: Warn = {"type": "warning", "code": "slow", "message": text, "id": None}
        # Ahead of what waits, or it would come too late.
        self._held.appendleft((Held(message_frame(warning)), time.monotonic_ns()))
        self._held_items += 1

    def _close_as_slow(self) -> None:
        self._metrics.slow_closes += 1
        reason = f"too slow: {self._queue_items} waited; nothing was sent after the snapshot"
        if self._delivered is not None:
            symbol, seq = self._delivered
            reason = f"too slow: {self._queue_items} waited; last delivered: {symbol.decode()} seq {seq}"
        logger.warning("feed client %s: %s", self.peer, reason)
        self.close(Close.SLOW, reason)


def _limit_kernel_buffer(connection: ServerConnection) -> None:
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    sock = connection.transport.get_extra_info("socket")
    if option is not None and sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, _KERNEL_UNSENT_BYTES)
