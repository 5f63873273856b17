"""The WebSocket feed and its page: sockets and tasks around the pure `hub`.

    /        the page        /feed   the WebSocket feed (see ws_protocol.py)

One port serves both. Nothing is compressed: a message is encoded once and its bytes go to every client, which is
worth more than their size on a desk's network.
"""

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from exporters.client import BACKLOG_BYTES, Client
from exporters.hub import HEARTBEAT_S, Hub
from exporters.intake import Intake
from exporters.latency import FeedLatency
from exporters.metrics import IntakeMetrics
from exporters.process import OnReady, group_of
from exporters.waiting import BROKER_PATIENCE_S, pause
from exporters.ws_files import file_response, load_files, text_response
from exporters.ws_metrics import FeedMetrics
from exporters.ws_protocol import (
    CLOSE_GOING_AWAY,
    CLOSE_NOT_AUTHORISED,
    CLOSE_TOO_MANY,
    MAX_MESSAGE_BYTES,
    Auth,
    ProtocolError,
    encode,
    encode_error,
    parse,
)
from exporters.ws_tail import Tail
from stream.clock import NS_PER_S, wall_ns
from stream.errors import SettingsError
from stream.records import Records
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import PREDICTIONS

logger = logging.getLogger(__name__)

FEED_PATH: Final = "/feed"
MAX_CLIENTS: Final = 2_000  # each may hold megabytes while it is slow
_PUMP_S: Final = 0.005
_INBOUND_PER_S: Final = 10.0
_INBOUND_BURST: Final = 50.0
_GOING_AWAY_S: Final = 0.5  # between the notice of a planned stop and the close: time to connect elsewhere
_SINKS: Final = ("redis", "clickhouse")


class _SocketWire:
    """A `Wire` over one connection. Frames are made already, so they go past `Connection.send` to its transport."""

    def __init__(self, connection: ServerConnection, closing: set[asyncio.Task[None]]) -> None:
        self._connection, self._closing = connection, closing

    def write(self, data: bytes) -> None:
        if self._connection.protocol.state is State.OPEN:
            self._connection.transport.write(data)

    def backlog_bytes(self) -> int:
        return self._connection.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        task = asyncio.create_task(self._connection.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Allowance:
    """How many requests a client may still make: some at once, then so many a second."""

    def __init__(self) -> None:
        self._left, self._at_s = _INBOUND_BURST, time.monotonic()

    def take(self) -> bool:
        now_s = time.monotonic()
        self._left = min(_INBOUND_BURST, self._left + (now_s - self._at_s) * _INBOUND_PER_S)
        self._at_s = now_s
        self._left -= 1
        return self._left >= 0


class Gateway:
    """One gateway: reads the predictions, serves the clients."""

    def __init__(self, settings: Settings, topic: str = PREDICTIONS, idle_s: float = 10.0) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            topic: where the blocks of PREDICTION are.
            idle_s: a client that wants nothing for this long is sent away.
        """
        self.settings, self.topic = settings, topic
        self.health = Health("gateway")
        self.registry = CollectorRegistry()
        self.metrics = FeedMetrics(self.registry)
        self.intake_metrics = IntakeMetrics(self.registry)
        self.latency = FeedLatency()
        self.registry.register(self.latency.stages)
        self.hub = Hub(settings.gateway_queue, self.metrics, wall_ns, idle_s)
        self.sink_lag_blocks: dict[str, int | None] = dict.fromkeys(_SINKS)
        self.per_s = 0
        self._files = load_files()
        self._token = settings.feed_token.get_secret_value().encode() if settings.feed_token else None
        self._closing: set[asyncio.Task[None]] = set()

    def figures(self) -> dict[str, Any]:
        """Return what /health and the channel ``status`` show."""
        return {
            "clients": len(self.hub.clients),
            "symbols": self.hub.symbols,
            "predictions": self.metrics.published,
            "predictions_per_s": self.per_s,
            "duplicates": self.intake_metrics.duplicates,
            "missing": self.intake_metrics.missing,
            "sink_lag_blocks": self.sink_lag_blocks,
            "stages_us": self.latency.recent_us(),
        }

    async def run(self, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
        """Serve until ``stop`` is set; then tell the clients and close.

        Args:
            stop: ends it.
            on_ready: told the URL of the page once it is served; the feed is at the same address.

        Raises:
            OSError: the port is taken.
        """
        quiet = logging.getLogger(f"{__name__}.handshakes")
        quiet.setLevel(logging.CRITICAL)  # one traceback for each port scan otherwise
        server = await serve(
            self._serve_client,
            self.settings.host,
            self.settings.gateway_port,
            process_request=self._admit,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            close_timeout=5,
            server_header=None,
            logger=quiet,
        )
        try:
            if on_ready is not None:
                on_ready(f"http://{_url_host(self.settings.host)}:{server.sockets[0].getsockname()[1]}/")
            async with asyncio.TaskGroup() as tasks:
                for role in (self._tail().run, self._pump, self._beat, self._measure_sinks):
                    tasks.create_task(role(stop))
            self.hub.going_away(wall_ns() + int(_GOING_AWAY_S * NS_PER_S))
            await asyncio.sleep(_GOING_AWAY_S if self.hub.clients else 0)
        finally:
            await _close(server)
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _tail(self) -> Tail:
        return Tail(
            self.settings,
            self.topic,
            Intake(self.intake_metrics),
            self.health,
            wall_ns,
            on_epoch=self.hub.new_epoch,
            on_history=self.hub.restore,
            on_rows=self._publish,
            on_ends=self.metrics.on_ends,
        )

    def _publish(self, rows: Records, gateway_ns: int) -> None:
        self.latency.record(rows, gateway_ns)
        self.hub.publish(rows, gateway_ns)

    async def _pump(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(_PUMP_S)
            if self.hub.waiting:
                self.hub.pump()

    async def _beat(self, stop: asyncio.Event) -> None:
        before, at_s = self.metrics.published, time.monotonic()
        while not stop.is_set():
            await pause(stop, HEARTBEAT_S)
            now_s = time.monotonic()
            self.per_s = round((self.metrics.published - before) / (now_s - at_s))
            before, at_s = self.metrics.published, now_s
            self.latency.tick()
            self.hub.heartbeat(lambda: {**self.figures(), "problems": self.health.problems})

    async def _measure_sinks(self, stop: asyncio.Event) -> None:
        """Ask Kafka every other second how far the other exporters are."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(self._ask_sinks(stop), 2 * BROKER_PATIENCE_S)
            except (KafkaError, TimeoutError):
                self.sink_lag_blocks = dict.fromkeys(_SINKS)  # not known; `tail` says what is wrong with Kafka
            await pause(stop, 2.0)

    async def _ask_sinks(self, stop: asyncio.Event) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
        try:
            await admin.start()
            ends = self.metrics.ends
            for sink in _SINKS if ends and not stop.is_set() else ():
                partitions = [TopicPartition(self.topic, number) for number in ends]
                offsets = await admin.list_consumer_group_offsets(group_of(sink), partitions=partitions)
                at = {partition.partition: meta.offset for partition, meta in offsets.items() if meta.offset >= 0}
                behind = sum(max(0, end - at.get(number, 0)) for number, end in ends.items())
                self.sink_lag_blocks[sink] = behind if at else None
                if at:
                    self.metrics.on_sink_lag(sink, behind)
        finally:
            await admin.close()

    def _admit(self, _: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer plain HTTP, refuse what may not connect, let the rest through."""
        path = urlsplit(request.path).path
        host = request.headers.get("Host", "")
        if not self._is_our_name(host):
            return self._turn_away(403, "Forbidden", f"this gateway is not called {host!r}")
        if path != FEED_PATH:
            if path in self._files:
                return file_response(*self._files[path])
            return text_response(404, "Not Found", f"here are / and {FEED_PATH}")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return self._turn_away(403, "Forbidden", "pages of other sites may not use this feed")
        if "Authorization" in request.headers and not self._has_token(request):
            return self._turn_away(401, "Unauthorized", "the token is not the right one")
        if len(self.hub.clients) >= MAX_CLIENTS:
            return self._turn_away(503, "Service Unavailable", f"{MAX_CLIENTS} clients are connected; try another")
        return None

    def _is_our_name(self, host: str) -> bool:
        """Whether a browser means us: a foreign name that points to the loopback is an attack (DNS rebinding)."""
        if self.settings.host not in ("127.0.0.1", "localhost", "::1"):
            return True  # then a token is needed anyway
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _turn_away(self, status: int, reason: str, text: str) -> Response:
        self.metrics.on_turned_away(status)
        return text_response(status, reason, text)

    def _has_token(self, request: HttpRequest) -> bool:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return self._token is None or (kind.lower() == "bearer" and self._is_token(token))

    def _is_token(self, token: str) -> bool:
        return self._token is None or hmac.compare_digest(token.strip().encode(), self._token)

    async def _serve_client(self, connection: ServerConnection) -> None:
        client = Client(_SocketWire(connection, self._closing), wall_ns())
        request = connection.request
        shown = request is not None and "Authorization" in request.headers
        self.hub.join(client, token_needed=self._token is not None and not shown)
        allowance = _Allowance()
        try:
            async for message in connection:
                # Who does not read the answers may not ask for more of them.
                while client.wire.backlog_bytes() > BACKLOG_BYTES:
                    await asyncio.sleep(0.01)
                if not allowance.take():
                    client.wire.close(CLOSE_TOO_MANY, f"more than {_INBOUND_PER_S:g} requests a second")
                    self.metrics.on_refused("too_many_requests")
                    return
                self._handle(client, message)
        except ConnectionClosed:
            pass
        finally:
            self.hub.leave(client)

    def _handle(self, client: Client, message: str | bytes) -> None:
        try:
            request = parse(message)
            if isinstance(request, Auth):
                self._authorise(client, request)
            elif not client.authorised:
                raise ProtocolError("not_authorised", "show the token first: op auth", request.id)
            else:
                self.hub.handle(client, request)
        except ProtocolError as error:
            self.metrics.on_refused(error.code)
            self.hub.answer(client, encode_error(error))
            if error.code == "not_authorised":
                client.wire.close(CLOSE_NOT_AUTHORISED, str(error))

    def _authorise(self, client: Client, request: Auth) -> None:
        if not self._is_token(request.token):
            raise ProtocolError("not_authorised", "the token is not the right one", request.id)
        client.authorised = True
        self.hub.answer(client, encode("authorised", id=request.id))


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _close(server: Server) -> None:
    server.close(code=CLOSE_GOING_AWAY, reason="planned stop")
    await server.wait_closed()


async def run_gateway(
    settings: Settings, stop: asyncio.Event, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve the feed and its page until ``stop`` is set.

    Args:
        settings: ``kafka`` must be set.
        stop: ends it.
        on_ready: told the URL of the page.

    Raises:
        SettingsError: ``kafka`` is not set.
        OSError: the port is taken.
    """
    if settings.kafka is None:
        raise SettingsError("the gateway needs the setting `kafka`")
    gateway = Gateway(settings)
    async with TelemetryServer(
        gateway.health, gateway.registry, gateway.figures, settings.host, settings.exporter_port
    ):
        await gateway.run(stop, on_ready)
