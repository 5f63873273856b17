"""One websocket connection to an exchange that is always there again: the I/O around a `Venue`.

A `Session` connects, subscribes and hands every message to a `Feed`. It finds a dead connection by pings and by
silence, and connects again with full jitter, so that many clients of an exchange that restarts do not come
back together. Where the end of a connection is foreseeable (the exchange announces it, or closes connections at a
certain age) it opens the next one before it leaves the old one: both are subscribed for a while, and the `Venue`
drops what comes twice, so nothing is missed.

Source of full jitter: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from stream.sources.venue import Confirmed, Ending, Refused, Route, Venue

logger = logging.getLogger(__name__)

_CLOSE_S: Final = 1.0  # a peer that does not answer our closing is not waited for
_WATCH_S: Final = 1.0
_HANDOVER_RETRY_S: Final = 10.0
# Longer waits than this are not honoured: the exchange may have lifted its ban by hand.
_LONGEST_RETRY_AFTER_S: Final = 600.0


@dataclass(frozen=True)
class Patience:
    """How long a session waits, in seconds. None: as the venue says."""

    open_s: float = 10.0
    ping_s: float = 20.0
    pong_s: float = 20.0
    silence_s: float | None = None
    max_age_s: float | None = None
    backoff_s: float = 0.5  # the longest first wait; it doubles
    longest_backoff_s: float = 30.0
    stable_s: float = 30.0  # a connection that lasted so long starts the backoff anew
    overlap_s: float = 1.0  # how long two connections run side by side
    quiet_s: float = 60.0  # symbols without a tick for so long are named in the log


def backoff_s(attempt: int, patience: Patience, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait before a connection attempt, the first being 0: full jitter, capped."""
    ceiling_s = min(patience.longest_backoff_s, patience.backoff_s * 2.0 ** min(attempt, 30))
    return ceiling_s * draw()


class Feed(Protocol):
    """What a session reports to."""

    def take(self, message: bytes) -> Iterable[Refused | Confirmed | Ending]:
        """Take a message; return what concerns the session."""
        ...

    async def room(self) -> None:
        """Wait while too much is waiting for Kafka."""
        ...

    def established(self, session: "Session") -> None:
        """Note that the session is connected and has subscribed."""
        ...

    def replaced(self, session: "Session", why: str) -> None:
        """Note that the session went over to another connection without a gap."""
        ...

    def lost(self, session: "Session", reason: str, why: str) -> None:
        """Note that the connection is gone, and with it what happens until the next."""
        ...

    def unreachable(self, session: "Session", why: str) -> None:
        """Note that a connection could not be made."""
        ...

    def subscription(self, session: "Session") -> None:
        """Note that ``session.refused`` may have changed."""
        ...


class Session:
    """The connection for one route of a venue."""

    def __init__(self, venue: Venue, route: Route, feed: Feed, patience: Patience) -> None:
        self.venue = venue
        self.route = route
        self.connected = False
        self.refused: dict[str, str] = {}  # symbol, or "" where the exchange names none -> why
        self._feed = feed
        self._patience = patience
        self._silence_s = venue.silence_s if patience.silence_s is None else patience.silence_s
        self._max_age_s = venue.max_age_s if patience.max_age_s is None else patience.max_age_s
        self._next: ClientConnection | None = None
        self._opened_s = 0.0
        self._heard_s = 0.0
        self._ending: str | None = None
        self._silent = False

    async def run(self) -> None:
        """Keep a connection for ever. Cancelling it is safe and closes the connection."""
        attempt = 0
        while True:
            try:
                current = await self._open()
            except (OSError, WebSocketException) as error:
                self._feed.unreachable(self, f"{self.route.url} cannot be reached: {_said(error)}")
                wait_s = max(backoff_s(attempt, self._patience), _retry_after_s(error))
            else:
                opened_s = time.monotonic()
                self.connected = True
                self._feed.established(self)
                await self._serve(current)
                if time.monotonic() - opened_s >= self._patience.stable_s:
                    attempt = 0
                wait_s = backoff_s(attempt, self._patience)
            attempt += 1
            await asyncio.sleep(wait_s)

    async def _open(self) -> ClientConnection:
        connection = await connect(
            self.route.url,
            user_agent_header="tickloom",
            compression=None,  # inflating costs more than the bytes that it saves
            open_timeout=self._patience.open_s,
            ping_interval=self._patience.ping_s,
            ping_timeout=self._patience.pong_s,
            close_timeout=_CLOSE_S,
        )
        try:
            self.refused = {}
            self.venue.connected()
            await self._subscribe(connection)
        except BaseException:
            await connection.close()
            raise
        self._opened_s = self._heard_s = time.monotonic()
        self._ending, self._silent = None, False
        return connection

    async def _subscribe(self, connection: ClientConnection) -> None:
        for index, message in enumerate(self.venue.subscriptions(self.route, self.refused.keys())):
            if index:
                await asyncio.sleep(self.venue.pause_s)
            await connection.send(message)

    async def _serve(self, current: ClientConnection) -> None:
        """Read until the connection is lost, going over to the next one where there is one."""
        while True:
            watch = asyncio.create_task(self._watch(current), name=f"{self.venue.name} watch")
            try:
                closed = await self._read(current)
            except BaseException:
                self.connected = False
                await _cancel(watch)
                await _close(current, self._next)
                raise
            await _cancel(watch)
            successor, self._next = self._next, None
            if successor is None:
                self.connected = False
                self._feed.lost(self, *self._cause(closed))
                return
            current = successor

    async def _read(self, connection: ClientConnection) -> ConnectionClosed:
        """Hand on what comes until the connection is closed; return how it was."""
        while True:
            try:
                message = await connection.recv(decode=False)
            except ConnectionClosed as closed:
                return closed
            self._heard_s = time.monotonic()
            for event in self._feed.take(message):
                await self._obey(connection, event)
            # Whoever waits for Kafka does not listen, and must not take that for silence.
            self._heard_s = math.inf
            await self._feed.room()
            self._heard_s = time.monotonic()

    async def _obey(self, connection: ClientConnection, event: Refused | Confirmed | Ending) -> None:
        match event:
            case Ending():
                self._ending = event.why
            case Confirmed():
                self._feed.subscription(self)
            case Refused():
                new = set(event.symbols) - self.refused.keys()
                self.refused |= dict.fromkeys(event.symbols or ("",), event.why)
                self._feed.subscription(self)
                if new:
                    with contextlib.suppress(ConnectionClosed):  # `_read` sees it too
                        await self._subscribe(connection)

    async def _watch(self, current: ClientConnection) -> None:
        """Close the connection when it is silent; have another one in its place before it ends."""
        while True:
            await asyncio.sleep(min(_WATCH_S, self._silence_s / 4, self._max_age_s / 4))
            now_s = time.monotonic()
            if now_s - self._heard_s > self._silence_s:
                self._silent = True
                await current.close()
                return
            if self._ending is None and now_s - self._opened_s > self._max_age_s:
                self._ending = f"it is {now_s - self._opened_s:.0f} s old"
            if self._ending is not None:
                await self._hand_over(current, self._ending)

    async def _hand_over(self, current: ClientConnection, why: str) -> None:
        try:
            self._next = await self._open()
        except (OSError, WebSocketException) as error:
            logger.warning("%s: no connection yet to replace one that ends: %s", self.venue.name, _said(error))
            await asyncio.sleep(_HANDOVER_RETRY_S)
            return
        await asyncio.sleep(self._patience.overlap_s)
        self._feed.replaced(self, why)
        await current.close()  # `_read` ends, and `_serve` goes on with the next

    def _cause(self, closed: ConnectionClosed) -> tuple[str, str]:
        if self._silent:
            return "silence", f"no message for {self._silence_s:g} s"
        if closed.rcvd is not None:
            return "closed", f"closed by the exchange: {closed.rcvd}"
        if closed.sent is not None and "ping timeout" in closed.sent.reason:
            return "no_pong", f"no answer to a ping for {self._patience.pong_s:g} s"
        if closed.sent is not None:
            return "protocol", f"closed by us: {closed.sent}"
        return "dropped", "the connection broke off"


def _said(error: Exception) -> str:
    return str(error) or repr(error)


def _retry_after_s(error: Exception) -> float:
    """Return the wait that an HTTP refusal asks for, 0 where it asks for none."""
    if not isinstance(error, InvalidStatus):
        return 0.0
    asked = error.response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_RETRY_AFTER_S) if asked.isdecimal() else 0.0


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _close(*connections: ClientConnection | None) -> None:
    for connection in connections:
        if connection is not None:
            await connection.close()
