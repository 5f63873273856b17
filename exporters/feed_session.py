"""One connection to the feed from its opening to its end: who may come in, and what is answered to whom."""

import asyncio
import contextlib
import hmac
import logging
import time
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest

from exporters.feed_client import FeedClient, Held
from exporters.feed_hub import Hub
from exporters.feed_metrics import FeedMetrics
from exporters.feed_wire import message_frame
from exporters.protocol import (
    MAX_INBOUND_PER_S,
    SCHEMA_VERSION,
    Auth,
    BadMessage,
    Close,
    Code,
    InboundRate,
    ListSubscriptions,
    Ping,
    Request,
    Subscribe,
    Unsubscribe,
    parse_request,
)
from stream.clock import Clock

logger = logging.getLogger(__name__)

# Exchanges give 3 to 5 s; ten suit a person at a command line. Without it, connections that were forgotten pile up.
FIRST_STEP_WITHIN_S: Final = 10.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_CHECK: Final = 'send {"op":"auth","token":...} first, or the header Authorization: Bearer TOKEN'


class Sessions:
    """Serves every connection of one gateway."""

    def __init__(
        self,
        hub: Hub,
        metrics: FeedMetrics,
        clock: Clock,
        queue_items: int,
        token: str | None,
        first_step_within_s: float = FIRST_STEP_WITHIN_S,
    ) -> None:
        """Make the rules.

        Args:
            hub: what clients join.
            metrics: told of refusals and bad messages.
            clock: gives ``server_ns``.
            queue_items: predictions held for a slow client.
            token: what clients must show; None lets everybody in.
            first_step_within_s: in which a client must show the token, and then subscribe.
        """
        self._hub, self._metrics, self._clock = hub, metrics, clock
        self._queue_items = queue_items
        self._token = None if token is None else token.encode()
        self._first_step_within_s = first_step_within_s

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends; whatever a client does, it can only end its own."""
        client = FeedClient(connection, self._queue_items, self._metrics)
        session = _Session(client, self._hub, self._metrics, self._clock)
        try:
            with contextlib.suppress(ConnectionClosed):
                if await self._admit(connection, client):
                    self._hub.add(client)
                    session.hello()
                    late = asyncio.get_running_loop().call_later(self._first_step_within_s, self._expect, client)
                    try:
                        await session.run(connection)
                    finally:
                        late.cancel()
        except Exception:  # the boundary: a fault of ours in one session must not end the others
            logger.exception("feed client %s: a fault of the gateway", connection.remote_address)
            client.close(Close.INTERNAL, "a fault of the gateway; it is logged there")
        finally:
            self._hub.remove(client)
            await client.closed()

    async def _admit(self, connection: ServerConnection, client: FeedClient) -> bool:
        if self._token is None:
            return True
        request = connection.request
        header = None if request is None else request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() == "bearer" and self._matches(token.strip()):
                return True
            return self._refuse(client, "the token in the header Authorization is not the right one")
        within_ms = int(self._first_step_within_s * 1000)
        client.post(Held(message_frame({"type": "auth_required", "message": _CHECK, "within_ms": within_ms})))
        try:
            raw = await asyncio.wait_for(connection.recv(), self._first_step_within_s)
            first = parse_request(raw)
        except TimeoutError:
            return self._refuse(client, f"no token within {self._first_step_within_s:g} s; {_CHECK}")
        except BadMessage as error:
            self._metrics.bad_messages[error.code] += 1
            return self._refuse(client, _CHECK)
        if not isinstance(first, Auth):
            return self._refuse(client, _CHECK, first.message_id)
        if not self._matches(first.token):
            return self._refuse(client, "this is not the right token", first.message_id)
        client.post(Held(message_frame({"type": "authenticated", "id": first.message_id})))
        return True

    def _matches(self, token: str) -> bool:
        # In constant time: how long it takes must not tell how much of a guess was right.
        return self._token is not None and hmac.compare_digest(token.encode(), self._token)

    def _refuse(self, client: FeedClient, why: str, message_id: int | str | None = None) -> bool:
        self._metrics.refused["unauthorised"] += 1
        client.post(Held(message_frame(BadMessage(Code.UNAUTHORISED, why, message_id).reply())))
        client.close(Close.UNAUTHORISED, why)
        return False

    def _expect(self, client: FeedClient) -> None:
        if client.open and not client.subscriptions:
            self._metrics.refused["no_subscription"] += 1
            client.close(Close.NO_SUBSCRIPTION, f"no subscription within {self._first_step_within_s:g} s")


class _Session:
    def __init__(self, client: FeedClient, hub: Hub, metrics: FeedMetrics, clock: Clock) -> None:
        self._client, self._hub, self._metrics, self._clock = client, hub, metrics, clock
        self._rate = InboundRate(time.monotonic())

    def hello(self) -> None:
        self._say(
            {
                "type": "hello",
                "schema_version": SCHEMA_VERSION,
                "epoch": self._hub.epoch,
                "server_ns": self._clock(),
            }
        )

    async def run(self, connection: ServerConnection) -> None:
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

    def _answer(self, request: Request) -> None:
        client, common = self._client, {"id": request.message_id}
        match request:
            case Subscribe():
                client.subscriptions.subscribe(request)
                named = [symbol for symbol in request.symbols if symbol != "*"]
                unseen = [symbol for symbol in named if self._hub.board.find(symbol.encode()) is None]
                mode = request.mode.name.lower()
                more = {"channel": "prediction", "symbols": request.symbols, "mode": mode, "not_seen": unseen}
                self._say({"type": "subscribed", **common, **more})
                self._hub.greet(client, request)
            case Unsubscribe():
                client.subscriptions.unsubscribe(request)
                self._say({"type": "unsubscribed", **common, "channel": "prediction", "symbols": request.symbols})
                self._hub.narrow(client)
            case ListSubscriptions():
                listing = client.subscriptions.listing()
                self._say({"type": "subscriptions", **common, "channel": "prediction", "symbols": listing})
            case Ping():
                self._say({"type": "pong", **common, "server_ns": self._clock()})
            case Auth():
                self._say({"type": "authenticated", **common})

    def _say(self, message: dict[str, Any]) -> None:
        self._client.post(Held(message_frame(message)))


def origin_is_ours(request: HttpRequest, has_token: bool) -> bool:
    """Return whether a browser on this page may connect; a client that is no browser sends no Origin.

    A page from this machine may, and one from the gateway itself. What the gateway itself is called comes from the
    client (the Host header), and a name of somebody else can be made to point here. So that counts only where a
    token is needed as well; without one we listen on loopback only.
    """
    origins = request.headers.get_all("Origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    try:
        origin = urlsplit(origins[0])
        if origin.hostname in _LOOPBACK:
            return True
    except ValueError:
        return False
    return has_token and bool(origin.netloc) and request.headers.get_all("Host") == [origin.netloc]
