"""One connection to the feed from its opening to its end: who may come in, and what is answered to whom."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest

from exporters.feed_archive import Archive
from exporters.feed_auth import Door, Grant, NotAdmitted, NothingGranted
from exporters.feed_catchup import CatchUp
from exporters.feed_client import FeedClient
from exporters.feed_hub import Hub
from exporters.feed_messages import (
    SCHEMA_VERSION,
    AuthExpiring,
    AuthRequired,
    Hello,
    Limits,
    MessageId,
    Said,
    Subscribed,
)
from exporters.feed_metrics import FeedMetrics
from exporters.feed_requests import Auth, ListSubscriptions, Ping, Request, Subscribe, Unsubscribe, parse_request
from exporters.feed_subscriptions import MODE_NAMES
from exporters.feed_wire import Held, message_frame
from exporters.protocol import (
    MAX_INBOUND_BYTES,
    MAX_INBOUND_PER_S,
    MAX_NAMED_SYMBOLS,
    MAX_PREFIXES,
    BadMessage,
    Close,
    Code,
    InboundRate,
)
from stream.clock import NS_PER_S, Clock

logger = logging.getLogger(__name__)

# Exchanges give 3 to 5 s; ten suit a person at a command line. Without it, connections that were forgotten pile up.
FIRST_STEP_WITHIN_S: Final = 10.0
HEARTBEAT_EVERY_S: Final = 1.0
# Whoever renews tokens does so within this.
_EXPIRES_SOON_S: Final = 60.0
# Each holds live messages of a client back, and waits for one of the few readers of Kafka.
_MAX_CATCH_UPS: Final = 8
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_CHECK: Final = 'send {"op":"auth","token":...} first, or the header Authorization: Bearer TOKEN'


@dataclass(frozen=True)
class Rules:
    """What all connections of a gateway have in common."""

    hub: Hub
    metrics: FeedMetrics
    clock: Clock
    door: Door
    archives: Mapping[str, Archive]  # by channel
    want: Callable[[str], None]  # called with a channel that somebody subscribes to
    queue_items: int  # messages held for a slow client
    first_step_within_s: float = FIRST_STEP_WITHIN_S  # to authenticate, and then to subscribe


async def serve(connection: ServerConnection, rules: Rules) -> None:
    """Serve one connection until it ends; whatever a client does, it can only end its own."""
    client = FeedClient(connection, rules.queue_items, rules.metrics, rules.hub.holding)
    session = _Session(client, rules)
    try:
        with contextlib.suppress(ConnectionClosed):
            if await session.admit(connection):
                rules.hub.add(client)
                session.hello()
                await session.run(connection)
    except Exception:  # the boundary: a fault of ours in one session must not end the others
        logger.exception("feed client %s: a fault of the gateway", connection.remote_address)
        client.close(Close.INTERNAL, "a fault of the gateway; it is logged there")
    finally:
        rules.hub.remove(client)
        await session.end()
        await client.closed()


class _Session:
    def __init__(self, client: FeedClient, rules: Rules) -> None:
        self._client, self._rules = client, rules
        self._hub, self._metrics, self._clock = rules.hub, rules.metrics, rules.clock
        self._rate = InboundRate(time.monotonic())
        self._grant = Grant()
        self._timers: list[asyncio.TimerHandle] = []
        self._catch_ups: dict[asyncio.Task[None], tuple[str, CatchUp]] = {}

    # ---- coming in -----------------------------------------------------------------------------------------------

    async def admit(self, connection: ServerConnection) -> bool:
        """Judge the token; return whether the client may come in, else it is being closed."""
        if self._rules.door.open:
            return True
        request = connection.request
        header = None if request is None else request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            return self._enter(token.strip() if scheme.lower() == "bearer" else "")
        within_s = self._rules.first_step_within_s
        required: AuthRequired = {"type": "auth_required", "message": _CHECK, "within_ms": int(within_s * 1000)}
        self._say(required)
        try:
            first = parse_request(await asyncio.wait_for(connection.recv(), within_s))
        except TimeoutError:
            return self._refuse(Close.UNAUTHORISED, f"no token within {within_s:g} s; {_CHECK}")
        except BadMessage as error:
            self._metrics.bad_messages[error.code] += 1
            return self._refuse(Close.UNAUTHORISED, _CHECK)
        if not isinstance(first, Auth):
            return self._refuse(Close.UNAUTHORISED, _CHECK, first.message_id)
        if not self._enter(first.token, first.message_id):
            return False
        self._say({"type": "authenticated", "id": first.message_id, "expires_ns": self._grant.expires_ns})
        return True

    def _enter(self, token: str, message_id: MessageId = None) -> bool:
        try:
            self._take(self._rules.door.judge(token))
        except NotAdmitted as error:
            return self._refuse(Close.UNAUTHORISED, str(error), message_id)
        except NothingGranted as error:
            return self._refuse(Close.FORBIDDEN, str(error), message_id)
        return True

    def _take(self, grant: Grant) -> None:
        self._grant = grant
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        if grant.expires_ns is not None:
            loop, left_s = asyncio.get_running_loop(), (grant.expires_ns - self._clock()) / NS_PER_S
            soon_s = max(left_s - _EXPIRES_SOON_S, left_s / 2)
            self._timers = [loop.call_later(soon_s, self._expires_soon), loop.call_later(left_s, self._expired)]

    def _expires_soon(self) -> None:
        expires_ns = self._grant.expires_ns or 0
        within_ms = max(0, expires_ns - self._clock()) // 1_000_000
        message: AuthExpiring = {"type": "auth_expiring", "expires_ns": expires_ns, "within_ms": within_ms}
        self._say(message)

    def _expired(self) -> None:
        self._metrics.refused["expired"] += 1
        self._client.close(Close.UNAUTHORISED, "the token's time is over")

    def _refuse(self, close: Close, why: str, message_id: MessageId = None) -> bool:
        code = Code.FORBIDDEN if close is Close.FORBIDDEN else Code.UNAUTHORISED
        self._metrics.refused[code.value] += 1
        self._say(BadMessage(code, why, message_id).reply())
        self._client.close(close, why)
        return False

    def hello(self) -> None:
        """Begin the conversation."""
        within_s = self._rules.first_step_within_s
        limits: Limits = {
            "inbound_bytes": MAX_INBOUND_BYTES,
            "inbound_per_s": MAX_INBOUND_PER_S,
            "named_symbols": MAX_NAMED_SYMBOLS,
            "prefixes": MAX_PREFIXES,
            "queue_items": self._rules.queue_items,
            "first_step_within_ms": int(within_s * 1000),
        }
        hello: Hello = {
            "type": "hello",
            "schema_version": SCHEMA_VERSION,
            "epoch": self._hub.epoch,
            "server_ns": self._clock(),
            "channels": [name for name in self._hub.channels if self._grant.refusal(name, ()) is None],
            "heartbeat_ms": int(HEARTBEAT_EVERY_S * 1000),
            "limits": limits,
            "expires_ns": self._grant.expires_ns,
        }
        self._say(hello)
        self._expect(within_s)

    def _expect(self, within_s: float) -> None:
        self._idle = asyncio.get_running_loop().call_later(within_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._client.open and not self._client.subscribed:
            self._metrics.refused["no_subscription"] += 1
            why = f"no subscription within {self._rules.first_step_within_s:g} s"
            self._client.close(Close.NO_SUBSCRIPTION, why)

    # ---- the conversation ----------------------------------------------------------------------------------------

    async def run(self, connection: ServerConnection) -> None:
        """Answer until the connection ends."""
        async for raw in connection:
            if not self._rate.allows(time.monotonic()):
                why = f"more than {MAX_INBOUND_PER_S} messages a second"
                self._metrics.bad_messages[Code.TOO_MANY_MESSAGES] += 1
                self._say(BadMessage(Code.TOO_MANY_MESSAGES, why).reply())
                self._client.close(Close.TOO_MANY_MESSAGES, why)
                return
            try:
                self._answer(parse_request(raw))
            except BadMessage as error:
                self._metrics.bad_messages[error.code] += 1
                self._say(error.reply())

    async def end(self) -> None:
        """Leave nothing behind."""
        for timer in self._timers:
            timer.cancel()
        if self._idle is not None:
            self._idle.cancel()
        tasks = list(self._catch_ups)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    _idle: asyncio.TimerHandle | None = None

    def _answer(self, request: Request) -> None:
        message_id = request.message_id
        match request:
            case Subscribe():
                self._subscribe(request)
            case Unsubscribe():
                self._drop(request)
                self._client.followings[request.channel].subscriptions.unsubscribe(request)
                symbols = list(request.symbols)
                self._say(
                    {"type": "unsubscribed", "id": message_id, "channel": request.channel, "symbols": symbols}
                )
                self._hub.channels[request.channel].narrow(self._client)
                if not self._client.subscribed:
                    self._expect(self._rules.first_step_within_s)
            case ListSubscriptions():
                listing = {
                    name: following.subscriptions.listing()
                    for name, following in self._client.followings.items()
                    if following.subscriptions
                }
                self._say({"type": "subscriptions", "id": message_id, "channels": listing})
            case Ping():
                self._say({"type": "pong", "id": message_id, "server_ns": self._clock()})
            case Auth():
                self._renew(request)

    def _subscribe(self, request: Subscribe) -> None:
        refusal = self._grant.refusal(request.channel, request.symbols)
        if refusal is not None:
            raise BadMessage(Code.FORBIDDEN, refusal, request.message_id)
        has_past = request.resume is not None or request.replay_from_ns is not None
        if has_past and len(self._catch_ups) >= _MAX_CATCH_UPS:
            text = f"{_MAX_CATCH_UPS} resumes and replays of this client are not done yet; wait for one"
            raise BadMessage(Code.TOO_MANY_CATCH_UPS, text, request.message_id)
        client, fanout = self._client, self._hub.channels[request.channel]
        client.followings[request.channel].subscriptions.subscribe(request)
        fanout.join(client)
        self._drop(request)
        named = [symbol for symbol in request.symbols if not symbol.endswith("*")]
        subscribed: Subscribed = {
            "type": "subscribed",
            "id": request.message_id,
            "channel": request.channel,
            "symbols": list(request.symbols),
            "mode": MODE_NAMES[request.mode],
            "throttle_ms": request.throttle_ms,
            "not_seen": [symbol for symbol in named if fanout.board.find(symbol.encode()) is None],
        }
        self._say(subscribed)
        if has_past:
            archive = self._rules.archives.get(request.channel)
            self._begin(request.channel, CatchUp(client, fanout, request, archive, self._metrics))
        fanout.greet(client, request)
        self._rules.want(request.channel)

    def _begin(self, channel: str, catch_up: CatchUp) -> None:
        task = asyncio.create_task(catch_up.run())
        self._catch_ups[task] = channel, catch_up
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._catch_ups.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("feed client %s: a fault of the gateway", self._client.peer, exc_info=task.exception())
            self._client.close(Close.INTERNAL, "a fault of the gateway; it is logged there")

    def _drop(self, request: Subscribe | Unsubscribe) -> None:
        for channel, catch_up in self._catch_ups.values():
            if channel == request.channel:
                catch_up.drop(request.symbols)

    def _renew(self, request: Auth) -> None:
        if self._rules.door.open:
            self._say({"type": "authenticated", "id": request.message_id, "expires_ns": None})
            return
        try:
            grant = self._rules.door.judge(request.token)
        except NotAdmitted as error:
            raise BadMessage(Code.UNAUTHORISED, str(error), request.message_id) from None
        except NothingGranted as error:
            raise BadMessage(Code.FORBIDDEN, str(error), request.message_id) from None
        for channel, following in self._client.followings.items():
            refusal = grant.refusal(channel, tuple(following.subscriptions.names()))
            if following.subscriptions and refusal is not None:
                self._refuse(Close.FORBIDDEN, refusal, request.message_id)
                return
        self._take(grant)
        self._say({"type": "authenticated", "id": request.message_id, "expires_ns": grant.expires_ns})

    def _say(self, message: Said) -> None:
        # A type of message is all that mypy needs to know here.
        plain: Mapping[str, Any] = message
        self._client.post(Held(message_frame(plain)))


def origin_is_ours(request: HttpRequest, has_token: bool, others: Set[str] = frozenset()) -> bool:
    """Return whether a browser on this page may connect; a client that is no browser sends no Origin.

    A page from this machine may, and one from the gateway's host: the API serves it, on another port. What that
    host is called comes from the client (the Host header), and a name of somebody else can be made to point here.
    So that counts only where a token is needed as well; without one we listen on loopback only.

    Args:
        request: with ``Origin`` and ``Host``.
        has_token: a token is needed.
        others: origins that may besides, as ``https://desk.example``.
    """
    origins = request.headers.get_all("Origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    hosts = request.headers.get_all("Host")
    try:
        origin = urlsplit(origins[0]).hostname
        host = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
    except ValueError:
        return False
    if origin in _LOOPBACK or origins[0] in others:
        return True
    return has_token and origin is not None and origin == host
