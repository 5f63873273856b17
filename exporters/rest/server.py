"""The process of the REST API and the page: a server in our own event loop, and its telemetry on another port."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry

from exporters.rest.app import Api
from stream.errors import SettingsError
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer

logger = logging.getLogger(__name__)

_LARGEST_HEAD_BYTES: Final = 32 << 10  # request line and headers
_CONNECTIONS: Final = 1000
_KEEP_ALIVE_S: Final = 15
_LAST_ANSWERS_S: Final = 5  # what is being answered when we are stopped has this long
_WAITING: Final = 256  # connections that the kernel keeps for us


@dataclass(frozen=True)
class ApiAddresses:
    """Where a running API listens."""

    api: str  # http://HOST:PORT
    telemetry: str  # http://HOST:PORT


class _Server(uvicorn.Server):
    """Leaves the signals to the role that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_api(
    settings: Settings, stop: asyncio.Event, on_ready: Callable[[ApiAddresses], None] | None = None
) -> None:
    """Serve the API and the page until ``stop`` is set; then let what is being answered finish, and close.

    Args:
        settings: a server that is not set answers 503 where it would be needed.
        stop: ends it.
        on_ready: told where it listens, once it does.

    Raises:
        SettingsError: a port cannot be listened on, or an address or a key is not one.
    """
    registry = CollectorRegistry()
    health = Health("api")
    api = Api(settings, health, registry)
    listener = _listen(settings.host, settings.api_port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server = _Server(_config(api))
    async with TelemetryServer(health, registry, api.figures, settings.host, settings.exporter_port) as telemetry:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        watching = asyncio.create_task(api.watch())
        stopped = asyncio.create_task(stop.wait())
        where = ApiAddresses(f"http://{host}:{listener.getsockname()[1]}", f"http://{host}:{telemetry.port}")
        try:
            await _started(server, serving)
            logger.info("API and page at %s/, its description at %s/docs", where.api, where.api)
            if on_ready is not None:
                on_ready(where)
            done, _ = await asyncio.wait([serving, watching, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # raises what ended it
        finally:
            server.should_exit = True
            for task in (stopped, watching):
                task.cancel()
            await asyncio.gather(serving, watching, return_exceptions=True)
            await api.close()
            listener.close()


def _config(api: Api) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        loop="none",
        http="h11",  # bounds what it reads of a request's head, which httptools does not
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # anybody can write them; a client is known by its token, or its own address
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        h11_max_incomplete_event_size=_LARGEST_HEAD_BYTES,
    )


async def _started(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}; set another api_port (--port), or 0 for any"
        ) from None
    listener.setblocking(False)
    return listener
