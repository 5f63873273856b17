"""How many sockets may be open that are no clients yet: who opens many and says nothing takes no client's place."""

import functools
from asyncio import BaseTransport, Transport
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection

_ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Handshakes:
    """The sockets of a gateway, clients included."""

    def __init__(self, limit: int, on_refused: Callable[[], None]) -> None:
        """Count from nothing.

        Args:
            limit: how many may be open.
            on_refused: told of each that is one too many.
        """
        self._limit, self._on_refused = limit, on_refused
        self._open: set[ServerConnection] = set()
        # What `websockets` makes of a socket, and only calls; one too many is closed before anything is read of it.
        self.connection = cast("type[ServerConnection]", functools.partial(_Connection, self))

    def enter(self, connection: ServerConnection) -> bool:
        """Return whether there is room for a socket."""
        if len(self._open) >= self._limit:
            self._on_refused()
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: ServerConnection) -> None:
        """Take note that a socket is closed."""
        self._open.discard(connection)


class _Connection(ServerConnection):
    def __init__(self, handshakes: Handshakes, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._handshakes = handshakes
        self._is_in = False

    def connection_made(self, transport: BaseTransport) -> None:
        self._is_in = self._handshakes.enter(self)
        if self._is_in:
            super().connection_made(transport)
        else:
            cast(Transport, transport).write(_ANSWER)
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            super().data_received(data)

    def eof_received(self) -> None:
        if self._is_in:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handshakes.leave(self)
        if self._is_in:
            super().connection_lost(exc)
