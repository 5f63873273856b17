"""The servers of `bench.fanout`, each a process that sends every message to every client from when all are there.

    python -m bench.fanout_servers KIND CLIENTS RATE [PORT]

All run on uvloop and are given the same texts by the same open loop. `websockets` and `picows` write to all
clients in turn. aiohttp and starlette wait for a client that is behind, so each client has a queue and a task, as
their users do; one whose queue is full is let go. Ours is the gateway with all that it does, without Kafka.
"""

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import numpy as np
import uvloop

from bench.fanout_rows import EPOCH, SYMBOLS, messages_of, rows_of
from stream.clock import NS_PER_S
from stream.garbage import freeze_garbage
from stream.records import Records

_QUEUE: Final = 8192  # messages, as our gateway holds for a client
_LOOK_EVERY_S: Final = 0.05
_SETTLE_S: Final = 0.5
_NOBODY_FOR_S: Final = 1.5
_PAST: Final = SYMBOLS  # messages that have gone out before anybody came

Send = Callable[[str], None]


class Schedule:
    """Messages are due at an even rate from a moment on, whatever becomes of those before."""

    def __init__(self, rate_per_s: float) -> None:
        """Begin now."""
        self._rate_per_s, self._begin_ns, self._sent = rate_per_s, time.time_ns(), 0

    def take(self, limit: int) -> Records:
        """Return what is due and was not taken, ``limit`` rows at the most."""
        due = int((time.time_ns() - self._begin_ns) * self._rate_per_s / NS_PER_S) + 1
        count = min(due - self._sent, limit)
        number = np.arange(self._sent, self._sent + count)
        due_ns = self._begin_ns + (number / self._rate_per_s * NS_PER_S).astype(np.int64)
        rows = rows_of(_PAST + self._sent, count, due_ns)
        self._sent += count
        return rows

    async def wait(self) -> None:
        """Wait until something is due; give way in any case."""
        next_ns = self._begin_ns + int(self._sent / self._rate_per_s * NS_PER_S)
        await asyncio.sleep(max(0, next_ns - time.time_ns()) / NS_PER_S)


async def publish(present: Callable[[], int], clients: int, rate_per_s: float, send: Send) -> None:
    """Send messages one by one once all clients are there, for ever."""
    await gathered(present, clients)
    schedule = Schedule(rate_per_s)
    while True:
        rows = schedule.take(limit=64)
        for text in messages_of(rows) if len(rows) else ():
            send(text)
            await asyncio.sleep(0)
        await schedule.wait()


async def gathered(present: Callable[[], int], clients: int) -> None:
    """Wait until all clients are there, and have settled."""
    while present() < clients:
        await asyncio.sleep(_LOOK_EVERY_S)
    freeze_garbage()
    await asyncio.sleep(_SETTLE_S)


async def settled(present: Callable[[], int]) -> None:
    """Wait until clients are there, and no more have come for a while: nobody knows how many will be ours."""
    known, since_s = 0, time.monotonic()
    while known == 0 or time.monotonic() < since_s + _NOBODY_FOR_S:
        if present() != known:
            known, since_s = present(), time.monotonic()
        await asyncio.sleep(_LOOK_EVERY_S)
    freeze_garbage()


def say_port(port: int) -> None:
    """Tell whoever started us where we listen."""
    print(port, flush=True)


async def websockets_broadcast(clients: int, rate_per_s: float) -> None:
    """`websockets.broadcast`, as its documentation has it."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        say_port(server.sockets[0].getsockname()[1])
        await publish(lambda: len(connections), clients, rate_per_s, lambda text: broadcast(connections, text))


class Queues:
    """A queue for each client that one waits for, and a task that empties it."""

    def __init__(self) -> None:
        """Begin without clients."""
        self._queues: dict[asyncio.Queue[str], asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def send(self, text: str) -> None:
        """Give a message to all; let go of whoever is too far behind."""
        for queue, task in list(self._queues.items()):
            try:
                queue.put_nowait(text)
            except asyncio.QueueFull:
                task.cancel()
                del self._queues[queue]

    async def serve(self, write: Callable[[str], Awaitable[None]]) -> None:
        """Serve one client until it ends or is let go."""
        queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE)
        task = asyncio.create_task(self._empty(queue, write))
        self._queues[queue] = task
        try:
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
        finally:
            self._queues.pop(queue, None)

    async def _empty(self, queue: "asyncio.Queue[str]", write: Callable[[str], Awaitable[None]]) -> None:
        while True:
            await write(await queue.get())


async def aiohttp_queues(clients: int, rate_per_s: float) -> None:
    """aiohttp's WebSocketResponse."""
    from aiohttp import web

    queues = Queues()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False)
        await response.prepare(request)
        await queues.serve(response.send_str)
        return response

    app = web.Application()
    app.router.add_get("/feed", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say_port(runner.addresses[0][1])
    await publish(lambda: len(queues), clients, rate_per_s, queues.send)


async def starlette_queues(clients: int, rate_per_s: float) -> None:
    """Starlette on uvicorn."""
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    queues = Queues()

    async def handle(connection: WebSocket) -> None:
        await connection.accept()
        await queues.serve(connection.send_text)

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    app = Starlette(routes=[WebSocketRoute("/feed", handle)])
    config = uvicorn.Config(app, log_level="error", ws_per_message_deflate=False, lifespan="off")
    say_port(listener.getsockname()[1])
    serving = asyncio.create_task(uvicorn.Server(config).serve([listener]))
    await asyncio.gather(serving, publish(lambda: len(queues), clients, rate_per_s, queues.send))


async def picows_send(clients: int, rate_per_s: float) -> None:
    """picows: a WebSocket server in Cython."""
    from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    transports: set[WSTransport] = set()

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            transports.discard(transport)

    def accept(_: WSUpgradeRequest) -> WSListener:
        return Listener()

    def send(text: str) -> None:
        data = text.encode()
        for transport in transports:
            transport.send(WSMsgType.TEXT, data)

    server = await ws_create_server(accept, "127.0.0.1", 0)
    say_port(server.sockets[0].getsockname()[1])
    await publish(lambda: len(transports), clients, rate_per_s, send)


async def tickloom(clients: int, rate_per_s: float, port: int = 0) -> None:
    """Our gateway from its door to its sockets, with `Schedule` in the place of Kafka."""
    from exporters.feed_history import Segment
    from exporters.feed_tail import WHILE_BUSY_S
    from exporters.gateway import Gateway
    from stream.settings import Settings

    class Straight(Gateway):
        async def _follow(self, stop: asyncio.Event, ready: asyncio.Event) -> None:
            fanout = self._hub.channels["prediction"]
            fanout.begin(EPOCH, {0: 0})
            past = rows_of(0, _PAST, np.full(_PAST, time.time_ns()))
            self._inlet.take(past, [Segment(len(past), 0, 1)], True, time.time_ns())
            fanout.show_all()
            await (settled(self._subscribed) if port else gathered(self._subscribed, clients))
            schedule = Schedule(rate_per_s)
            while True:
                rows = schedule.take(limit=4096)
                if len(rows):
                    self._inlet.take(rows, [Segment(len(rows), 0, 1)], False, time.time_ns())
                    self._pacer.poke()
                if fanout.rounds.busy:
                    await asyncio.sleep(WHILE_BUSY_S)
                await schedule.wait()

        def _subscribed(self) -> int:
            return sum(client.subscribed for client in self._hub.clients)

    settings = Settings(
        gateway_port=port, gateway_shared_port=port > 0, gateway_clients=max(clients, 1), gateway_queue=_QUEUE
    )

    def on_ready(addresses: Any) -> None:
        say_port(int(addresses.feed.rpartition(":")[2].partition("/")[0]))

    await Straight(settings).run(asyncio.Event(), on_ready)


SERVERS: Final[dict[str, Callable[..., Coroutine[Any, Any, None]]]] = {
    "tickloom": tickloom,
    "websockets": websockets_broadcast,
    "aiohttp": aiohttp_queues,
    "starlette": starlette_queues,
    "picows": picows_send,
}

if __name__ == "__main__":
    kind, clients, rate, *shared = sys.argv[1:]
    assert math.isfinite(float(rate))
    uvloop.run(SERVERS[kind](int(clients), float(rate), *map(int, shared)))
