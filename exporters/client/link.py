"""A gateway that we are always connected to again, as long as anything is wanted of it."""

import asyncio
import inspect
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from exporters.client.items import Disconnected
from exporters.client.ledger import Ledger
from exporters.client.session import Session
from exporters.protocol import BINARY_PROTOCOL, Close
from stream.errors import FeedRefused

logger = logging.getLogger(__name__)

# A gateway's messages have some 600 KiB at the most.
_MAX_MESSAGE_BYTES: Final = 16 << 20
_CLOSE_S: Final = 1.0
_SUCCEED_EVERY_S: Final = 0.1
_FIRST_WAIT_S: Final = 0.25
# Answers of a load balancer, or of a gateway that is full, that may be another in a moment.
_PASSING: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)

Token = str | Callable[[], str | Awaitable[str]] | None


@dataclass(frozen=True)
class Patience:
    """How long a client waits, in seconds."""

    open_s: float = 10.0
    silence_s: float = 10.0  # gateways send a heartbeat each second
    longest_wait_s: float = 10.0  # between two attempts; the first wait is a quarter of a second at the most


class Link:
    """One gateway, or one address that a load balancer gives to many."""

    def __init__(
        self, url: str, ledger: Ledger, token: Token, patience: Patience, context: ssl.SSLContext | None
    ) -> None:
        """Make it; `run` runs it.

        Args:
            url: ws://HOST:PORT/feed or wss://...
            ledger: what is wanted and what has come.
            token: to be let in with, or a function that gives a fresh one.
            patience: how long to wait.
            context: for wss.
        """
        self.url = url
        self.sessions: list[Session] = []  # two while one takes the place of another
        self._ledger, self._token, self._patience, self._context = ledger, token, patience, context
        self._refused_tokens = 0

    async def run(self) -> None:
        """Keep a connection for ever. Cancelling it is safe and closes the connection.

        Raises:
            FeedRefused: the gateway will not have us, whenever we come.
            FeedError: it says what we do not understand.
        """
        attempt = 0
        try:
            while True:
                await self._ledger.wanted.wait()
                try:
                    session: Session | None = await self._open()
                except (OSError, WebSocketException) as error:
                    self._failed(error, attempt)
                else:
                    begun_s = time.monotonic()
                    while session is not None:
                        session = await self._serve(session)
                    if time.monotonic() - begun_s > self._patience.longest_wait_s:
                        attempt = 0
                # Full jitter: clients of a gateway that was restarted must not come back together.
                longest_s = min(self._patience.longest_wait_s, _FIRST_WAIT_S * 2.0 ** min(attempt, 16))
                await asyncio.sleep(random.uniform(0.0, longest_s))  # noqa: S311  (to spread, not to be secret)
                attempt += 1
        finally:
            for each in self.sessions:
                each.task.cancel()
            await asyncio.gather(*(each.task for each in self.sessions), return_exceptions=True)

    def _failed(self, error: Exception, attempt: int) -> None:
        why = f"cannot connect: {str(error) or repr(error)}"
        if isinstance(error, InvalidStatus):
            status, body = error.response.status_code, error.response.body or b""
            why = f"refused with {status}: {body.decode(errors='replace').strip()[:200]}"
            if 400 <= status < 500 and status not in _PASSING:
                raise FeedRefused(f"{self.url}: {why}", str(status)) from None
        if attempt == 0:
            self._tell(why)
        else:
            logger.info("feed %s: %s", self.url, why)

    def _tell(self, why: str) -> None:
        logger.warning("feed %s: %s; trying again", self.url, why)
        self._ledger.tell(Disconnected(self.url, why))

    async def _open(self) -> Session:
        token = await self._fresh_token()
        socket: ClientConnection = await connect(
            self.url,
            subprotocols=[Subprotocol(BINARY_PROTOCOL)],
            additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
            user_agent_header="tickloom",
            compression=None,
            open_timeout=self._patience.open_s,
            ping_interval=None,  # heartbeats tell as much, and a reader that takes its time is no dead connection
            close_timeout=_CLOSE_S,
            max_size=_MAX_MESSAGE_BYTES,
            ssl=self._context,
        )
        renew = self._fresh_token if callable(self._token) else None
        session = Session(socket, self.url, self._ledger, renew, self._patience.silence_s)
        self.sessions.append(session)
        return session

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    async def _serve(self, session: Session) -> Session | None:
        """Wait until a connection ends; return the one that has taken its place, if there is one."""
        await _first_of(session.task, session.leaving)
        successor = None
        while not session.task.done() and successor is None:
            # A gateway that stops says so before it closes: some other may answer at the same address.
            try:
                successor = await self._open()
            except (OSError, WebSocketException):
                await asyncio.sleep(_SUCCEED_EVERY_S)
        if successor is not None:
            await _first_of(session.task, successor.settled)
            await session.close()
        await asyncio.wait([session.task])
        self.sessions.remove(session)
        session.task.result()
        self._ended(session, successor)
        return successor

    def _ended(self, session: Session, successor: Session | None) -> None:
        code, reason = session.close_code, session.close_reason
        closes = self._ledger.stats.closes
        closes[code] = closes.get(code, 0) + 1
        self._refused_tokens = 0 if session.is_in else self._refused_tokens + 1
        refused = code == Close.FORBIDDEN or (code == Close.UNAUTHORISED and not callable(self._token))
        # A fresh token that is refused may have been of the minute before; a second one is not.
        if refused or (code == Close.UNAUTHORISED and self._refused_tokens > 1):
            raise FeedRefused(f"{self.url}: {reason}", str(code))
        if successor is None and self._ledger.wants:
            self._tell(f"closed with {code}: {reason}")


async def _first_of(task: "asyncio.Task[None]", event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
