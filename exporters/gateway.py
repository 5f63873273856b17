"""The gateway: the WebSocket feed at ``/feed``.

    workers ─▶ feed_early ──▼
    topics  ─▶ feed_tail ─▶ feed_inlets ─▶ feed_fanout, one per channel ─▶ feed_client ─▶ desks, browsers
    (Kafka)                 rows, bars     JSON once, history in memory    queue          feed_session answers them
       └─────▶ feed_archive ─▶ feed_catchup: resume and replay ───────────────▲

Any number of gateways give the same symbol, seq and epoch for the same prediction, so a client may listen to two
and take whichever is first, and resume at any. The messages are in `exporters.feed_messages` and docs/feed.md.
"""

import asyncio
import contextlib
import itertools
import logging
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from exporters.feed_archive import Archive, make_readers
from exporters.feed_asyncapi import as_json
from exporters.feed_auth import Door
from exporters.feed_channels import BAR_NS
from exporters.feed_early import EarlyCopies
from exporters.feed_feature_inlet import FeatureInlet
from exporters.feed_handshakes import Handshakes
from exporters.feed_http import http_response
from exporters.feed_hub import BEAT_TURNS, Hub
from exporters.feed_inlets import (
    Inlet,
    PredictionInlet,
    RejectedInlet,
    TickInlet,
    decode_predictions,
    decode_ticks,
)
from exporters.feed_messages import GoingAway
from exporters.feed_metrics import FeedMetrics
from exporters.feed_model_inlet import MODEL_TOPICS, ModelInlet
from exporters.feed_pacer import Pacer
from exporters.feed_session import FIRST_STEP_WITHIN_S, HEARTBEAT_EVERY_S, Rules, origin_is_ours
from exporters.feed_session import serve as serve_session
from exporters.feed_tail import FEED, Prepare, Tail
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics
from exporters.protocol import BINARY_PROTOCOL, JSON_PROTOCOL, MAX_HANDSHAKES, MAX_INBOUND_BYTES, Close
from stream.addresses import parse_addresses
from stream.clock import NS_PER_S, Clock, wall_ns
from stream.early import EarlyReceiver, Seal
from stream.errors import SettingsError
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import FEATURES, MODELS, PREDICTIONS, REJECTED_TICKS, TICKS, await_topics

logger = logging.getLogger(__name__)

# What a process needs besides one file descriptor for each client: Kafka, telemetry, handshakes.
_OTHER_FILES: Final = 256
# Clients that are told have this long to go to another gateway before they are closed.
GOING_AWAY_S: Final = 1.0
_CLOSE_WITHIN_S: Final = 2.0
# A dead peer is found after 20 + 40 s; a slow one may take that long to get to the ping behind its data.
_PING_EVERY_S: Final = 20.0
_PONG_WITHIN_S: Final = 40.0
# Topics that are read once somebody follows one of their channels.
_ON_DEMAND: Final = {
    "tick": TICKS,
    "halt": TICKS,
    "status": REJECTED_TICKS,
    "model": MODELS,
    "features": FEATURES,
}
_COMPRESS: Final = "compress=deflate"  # in the query of /feed


@dataclass(frozen=True)
class Addresses:
    """Where a running gateway listens."""

    feed: str  # ws://HOST:PORT/feed
    telemetry: str  # http://HOST:PORT


OnReady = Callable[[Addresses], None]


async def run_gateway(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
    """Serve the feed until ``stop`` is set; then tell the clients and close.

    Args:
        settings: ``kafka`` must be set.
        stop: ends it.
        on_ready: told where it listens, once it does.

    Raises:
        SettingsError: no Kafka is set, or a port cannot be listened on.
        ServerError: the topics have another number of partitions than ``settings.partitions``.
    """
    if settings.kafka is None:
        raise SettingsError("the gateway needs the setting `kafka`: TICKLOOM_KAFKA=HOST:PORT, or --kafka")
    await Gateway(settings).run(stop, on_ready)


class Gateway:
    """One gateway process."""

    def __init__(
        self,
        settings: Settings,
        topic: str = PREDICTIONS,
        clock: Clock = wall_ns,
        first_step_within_s: float = FIRST_STEP_WITHIN_S,
    ) -> None:
        """Make the parts; `run` runs them.

        Args:
            settings: ``kafka`` must be set.
            topic: where the predictions are.
            clock: ns since 1970 UTC.
            first_step_within_s: a client must show its token, and subscribe, in this time.
        """
        self._settings, self._topic, self._clock = settings, topic, clock
        self._registry = CollectorRegistry()
        self._health = Health("gateway", {FEED: "the newest predictions are not read from Kafka yet"})
        self._metrics = FeedMetrics(self._registry)
        self._intake_metrics = IntakeMetrics(self._registry)
        self._hub = Hub(self._metrics, clock, settings.gateway_memory)
        self._pacer = Pacer(self._hub.flush)
        intake = Intake(self._intake_metrics)
        self._early = EarlyCopies(intake, settings.gateway_memory, self._health, clock, self._registry)
        self._seal: tuple[str, Seal] | None = None  # with the epoch that it is of
        self._inlet = PredictionInlet(self._hub, intake, self._metrics, self._early)
        self._features = FeatureInlet(self._hub, str(settings.kafka), self._intake_metrics)
        self._door = Door(settings)
        self._origins = frozenset((settings.gateway_origins or "").replace(" ", "").split(","))
        readers = make_readers()
        self._rules = Rules(
            self._hub,
            self._metrics,
            clock,
            self._door,
            {
                "prediction": Archive(settings, topic, decode_predictions, readers),
                "tick": Archive(settings, TICKS, decode_ticks, readers),
                "features": Archive(settings, FEATURES, self._features.decode_past, readers),
            },
            self._want,
            settings.gateway_queue,
            first_step_within_s,
        )
        self._wanted: dict[str, asyncio.Event] = {topic: asyncio.Event() for topic in _ON_DEMAND.values()}
        self._bars_wanted = asyncio.Event()
        self._connections = 0

    async def run(self, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
        """Serve until ``stop`` is set.

        Raises:
            SettingsError, ServerError: as `run_gateway`.
        """
        settings = self._settings
        async with TelemetryServer(
            self._health, self._registry, self.figures, settings.host, settings.exporter_port
        ) as telemetry:
            server = await self._listen()
            port = server.sockets[0].getsockname()[1]
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            where = Addresses(f"ws://{host}:{port}/feed", f"http://{host}:{telemetry.port}")
            logger.info("feed at %s", where.feed)
            if on_ready is not None:
                on_ready(where)
            ready = asyncio.Event()
            tasks = [asyncio.create_task(self._follow(stop, ready)), asyncio.create_task(self._beat())]
            tasks.append(asyncio.create_task(self._follow_bars()))
            tasks += [asyncio.create_task(self._follow_on_demand(topic, ready)) for topic in self._wanted]
            try:
                await self._until(stop, tasks)
            finally:
                await self._say_goodbye(server)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._pacer.cancel()
        logger.info("gateway: sent %d predictions", self._metrics.sent)

    def figures(self) -> dict[str, Any]:
        """Return what ``/health`` and the heartbeat show."""
        metrics, intake = self._metrics, self._intake_metrics
        return {
            "clients": metrics.clients,
            "predictions": intake.received,
            "symbols": metrics.symbols.get("prediction", 0),
            "sent": metrics.sent,
            "skipped": metrics.skipped,
            "duplicates": intake.duplicates,
            "missing": intake.missing,
            "bad": intake.bad,
            "slow_closes": metrics.slow_closes,
            "stages_us": metrics.stages.summary_us(),
            "early": dict(self._early.predictions),
            "lag_blocks": {str(partition): lag for partition, lag in sorted(metrics.lag_blocks.items())},
        }

    async def _until(self, stop: asyncio.Event, tasks: "list[asyncio.Task[None]]") -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # raises what ended it
        finally:
            stopped.cancel()

    async def _follow(self, stop: asyncio.Event, ready: asyncio.Event) -> None:
        if await await_topics(self._settings, self._health, stop):
            ready.set()
            await self._tail([self._topic], self._inlet, FEED)

    async def _follow_on_demand(self, topic: str, ready: asyncio.Event) -> None:
        await ready.wait()
        await self._wanted[topic].wait()
        match topic:
            case "ticks":
                await self._tail([TICKS], TickInlet(self._hub), topic)
            case "ticks.rejected":
                await self._tail([REJECTED_TICKS], RejectedInlet(self._hub), topic)
            case "features":
                await self._tail([FEATURES], self._features, topic, self._features.prepare)
            case _:
                await self._tail(MODEL_TOPICS, ModelInlet(self._hub), topic)

    async def _follow_bars(self) -> None:
        await self._bars_wanted.wait()
        await self._inlet.begin_bars()
        await asyncio.Event().wait()  # a task that ends ends the gateway

    async def _tail(self, topics: Sequence[str], inlet: Inlet, part: str, prepare: Prepare | None = None) -> None:
        early = self._early if part == FEED else None
        tail = Tail(self._settings, topics, inlet, self._pacer, self._health, self._clock, part, prepare, early)
        if part == FEED:
            self._metrics.lag_blocks = tail.lag_blocks
        with self._hearing(tail) if part == FEED else contextlib.nullcontext():
            # Never told to stop: clients get what comes until they are closed.
            await tail.run(asyncio.Event())

    @contextlib.contextmanager
    def _hearing(self, tail: Tail) -> Iterator[None]:
        """Let the tail have what workers send past Kafka, where the settings say at which address."""
        if self._settings.early_at is None:
            yield
            return
        address = parse_addresses(self._settings.early_at)[0]
        receiver = EarlyReceiver(address, self._seal_of_epoch, self._early.take, tail.take_early)
        self._registry.register(receiver)
        logger.info("copies of predictions are taken at %s", self._settings.early_at)
        try:
            yield
        finally:
            self._registry.unregister(receiver)
            receiver.close()

    def _seal_of_epoch(self) -> Seal | None:
        epoch = self._hub.epoch
        if epoch is None:
            return None
        if self._seal is None or self._seal[0] != epoch:
            self._seal = epoch, Seal(self._settings.early_key, epoch)
        return self._seal[1]

    def _want(self, channel: str) -> None:
        if channel in BAR_NS:
            self._bars_wanted.set()
        if channel in _ON_DEMAND:
            self._wanted[_ON_DEMAND[channel]].set()

    async def _beat(self) -> None:
        figures: dict[str, Any] = {}
        for turn in itertools.cycle(range(BEAT_TURNS)):
            await asyncio.sleep(HEARTBEAT_EVERY_S / BEAT_TURNS)
            self._early.check()
            self._hub.flush()  # so that the seqs of the heartbeat are those that a client of `latest` has
            if turn == 0:
                figures = self.figures()
                # Elsewhere in the feed "predictions" is a list of them.
                figures["received"] = figures.pop("predictions")
                figures["problems"] = self._health.problems
            self._hub.beat(figures, turn)

    async def _listen(self) -> Server:
        settings = self._settings
        _allow_files(settings.gateway_clients)
        # Handshakes that fail (port scans, health checks) are no errors of ours; our own are logged by sessions.
        quiet = logging.getLogger("exporters.gateway.websockets")
        quiet.setLevel(logging.CRITICAL)
        handshakes = Handshakes(settings.gateway_clients + MAX_HANDSHAKES, self._on_one_too_many)
        try:
            return await serve(
                self._serve,
                settings.host,
                settings.gateway_port,
                process_request=self._on_request,
                subprotocols=[Subprotocol(JSON_PROTOCOL), Subprotocol(BINARY_PROTOCOL)],
                select_subprotocol=_select_subprotocol,
                compression=None,  # for who asks for it, see `_on_request`
                create_connection=handshakes.connection,
                reuse_port=settings.gateway_shared_port or None,
                max_size=MAX_INBOUND_BYTES,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PONG_WITHIN_S,
                close_timeout=_CLOSE_WITHIN_S,
                server_header=None,
                logger=quiet,
            )
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.host}:{settings.gateway_port}: {error.strerror}; "
                "set another gateway_port, or 0 for any"
            ) from None

    def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/asyncapi.json":
            return http_response(HTTPStatus.OK, as_json(), "application/json")
        if path != "/feed":
            return http_response(HTTPStatus.NOT_FOUND, b"the feed is at /feed; the page is of `tickloom api`\n")
        if not origin_is_ours(request, not self._door.open, self._origins):
            self._metrics.refused["origin"] += 1
            return http_response(HTTPStatus.FORBIDDEN, b"the feed is not for pages of other sites (Origin)\n")
        if self._connections >= self._settings.gateway_clients:
            self._metrics.refused["full"] += 1
            text = f"there are {self._settings.gateway_clients} clients already; use another gateway\n".encode()
            return http_response(HTTPStatus.SERVICE_UNAVAILABLE, text, Retry_After="5")
        if _COMPRESS in request.path.partition("?")[2].split("&"):
            # Without context, so that a frame is compressed once for all clients that get it.
            factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True)
            connection.protocol.available_extensions = [factory]
        return None

    def _on_one_too_many(self) -> None:
        self._metrics.refused["handshakes"] += 1

    async def _serve(self, connection: ServerConnection) -> None:
        self._connections += 1
        try:
            await serve_session(connection, self._rules)
        finally:
            self._connections -= 1

    async def _say_goodbye(self, server: Server) -> None:
        server.close(close_connections=False)  # nobody new; this returns at once
        if self._hub.clients:
            going: GoingAway = {
                "type": "going_away",
                "deadline_ms": int(GOING_AWAY_S * 1000),
                "deadline_ns": self._clock() + int(GOING_AWAY_S * NS_PER_S),
            }
            self._hub.tell_all(going)
            deadline_s = asyncio.get_running_loop().time() + GOING_AWAY_S
            while self._hub.clients and asyncio.get_running_loop().time() < deadline_s:
                await asyncio.sleep(0.02)
        for client in list(self._hub.clients):
            client.close(Close.GOING_AWAY, "the gateway stops")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), _CLOSE_WITHIN_S + 5.0)


def _select_subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """JSON for who offers nothing; who offers only what we do not speak is refused with words."""
    for name in (JSON_PROTOCOL, BINARY_PROTOCOL):
        if name in offered:
            return Subprotocol(name)
    if offered:
        raise NegotiationError(
            f"the subprotocols are {JSON_PROTOCOL} and {BINARY_PROTOCOL}, not {', '.join(offered)[:100]}"
        )
    return None


def _allow_files(clients: int) -> None:
    """Raise our own limit of open files, as far as we may, to what so many clients need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            logger.warning("%d open files are allowed, and %d clients may come: raise the limit", limit, clients)
