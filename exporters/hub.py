"""Who gets what: takes new predictions in, hands each to the clients that want it. Pure: no sockets, no Kafka.

A burst is encoded once and every client gets all of it that it wants in one write. Nothing here waits for a client:
one that does not read keeps its own backlog, and is the only one to notice.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from exporters.burst import Burst
from exporters.client import Client
from exporters.fields import prediction_fields
from exporters.newest import Newest
from exporters.ws_metrics import FeedMetrics
from exporters.ws_protocol import (
    ALL,
    CLOSE_IDLE,
    CLOSE_NOT_AUTHORISED,
    CLOSE_SLOW,
    PREDICTION_CHANNEL,
    SCHEMA_VERSION,
    SNAPSHOT_PREDICTIONS,
    STATUS_CHANNEL,
    ListSubscriptions,
    Ping,
    ProtocolError,
    Request,
    Subscribe,
    Unsubscribe,
    encode,
)
from stream.clock import NS_PER_MS, NS_PER_S, Clock
from stream.records import Records

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1


class Hub:
    """The clients, and the newest prediction of every symbol."""

    def __init__(self, queue_limit: int, metrics: FeedMetrics, clock: Clock, idle_s: float = 10.0) -> None:
        """Make a hub without clients.

        Args:
            queue_limit: predictions that may wait for a client of mode full.
            metrics: counts.
            clock: the time in ns.
            idle_s: a client that wants nothing for this long is sent away.
        """
        self.epoch: str | None = None
        self.clients: set[Client] = set()
        self._queue_limit, self._metrics, self._clock = queue_limit, metrics, clock
        self._idle_ns = int(idle_s * NS_PER_S)
        self._newest = Newest()
        self._seqs: dict[str, int] = {}
        self._waiting: set[Client] = set()

    @property
    def symbols(self) -> int:
        """How many symbols there are."""
        return len(self._seqs)

    @property
    def waiting(self) -> bool:
        """Whether somebody has something left to be written."""
        return bool(self._waiting)

    def restore(self, rows: Records) -> None:
        """Take ``PREDICTION[N]`` rows from before we started as what is newest, without telling anybody."""
        self._newest.put(rows)
        self._seqs.update(zip(rows["symbol"].astype("U").tolist(), rows["seq"].tolist(), strict=True))

    def new_epoch(self, epoch: str) -> None:
        """Begin anew: the cluster that numbered what we know is gone."""
        if self.epoch is not None:
            logger.error("the Kafka cluster was replaced: %s follows %s", epoch, self.epoch)
            self._newest, self._seqs = Newest(), {}
            for client in self.clients:
                client.tell(encode("reset", channel=PREDICTION_CHANNEL, reason="epoch", epoch=epoch))
                client.forget_everything()
        self.epoch = epoch

    def publish(self, rows: Records, gateway_ns: int) -> None:
        """Hand new ``PREDICTION[N]`` rows, N >= 1, read at ``gateway_ns``, to everybody who wants them."""
        burst = Burst(rows, gateway_ns, self._clock)
        burst.mark_breaks(self._seqs)
        self._newest.put(rows)
        now_ns = self._clock()
        for client in list(self.clients):
            if client.offer(burst):
                self._flush(client, now_ns)
        self._metrics.on_published(len(rows), self.symbols)

    def pump(self) -> None:
        """Write what was left, for clients whose sockets took something since."""
        now_ns = self._clock()
        for client in list(self._waiting):
            self._flush(client, now_ns)

    def join(self, client: Client, token_needed: bool) -> None:
        """Greet a client."""
        self.clients.add(client)
        self._metrics.clients.set(len(self.clients))
        client.authorised = not token_needed
        client.tell(
            encode(
                "hello",
                schema_version=SCHEMA_VERSION,
                epoch=self.epoch,
                server_ns=self._clock(),
                heartbeat_s=HEARTBEAT_S,
                token_needed=token_needed,
            )
        )
        self._flush(client, self._clock())

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self.clients.discard(client)
        self._waiting.discard(client)
        self._metrics.clients.set(len(self.clients))

    def answer(self, client: Client, payload: bytes) -> None:
        """Send a message to one client."""
        client.tell(payload)
        self._flush(client, self._clock())

    def handle(self, client: Client, request: Request) -> None:
        """Do what a client asks.

        Raises:
            ProtocolError: it cannot be done.
        """
        match request:
            case Subscribe():
                self._subscribe(client, request)
            case Unsubscribe():
                self._unsubscribe(client, request)
            case ListSubscriptions():
                client.tell(self._subscriptions(client, request))
            case Ping():
                client.tell(encode("pong", id=request.id, server_ns=self._clock()))
        self._flush(client, self._clock())

    def heartbeat(self, status: Callable[[], dict[str, Any]]) -> None:
        """Tell every client the time and the last seq of each symbol it wants; called once a second.

        A client that is behind gets none: it has enough to read. ``status`` is asked when somebody wants it.
        """
        now_ns = self._clock()
        everything, state = b"", b""
        for client in list(self.clients):
            if not client.subscribed:
                self._send_away_if_idle(client, now_ns)
                continue
            if client in self._waiting:
                client.settle()
                if client.mode != "latest":
                    continue
            if client.status:
                state = state or encode("status", server_ns=now_ns, **status())
                client.tell(state)
            if ALL in client.symbols:
                everything = everything or self._heartbeat(self._seqs, now_ns)
                client.tell(everything)
            else:
                seqs = {symbol: self._seqs[symbol] for symbol in client.symbols if symbol in self._seqs}
                client.tell(self._heartbeat(seqs, now_ns))
            self._flush(client, now_ns)

    def going_away(self, deadline_ns: int) -> None:
        """Tell every client that this gateway stops."""
        for client in list(self.clients):
            self.answer(client, encode("going_away", deadline_ns=deadline_ns, reason="planned stop"))

    def _heartbeat(self, seqs: dict[str, int], now_ns: int) -> bytes:
        return encode("heartbeat", server_ns=now_ns, epoch=self.epoch, seqs=seqs)

    def _flush(self, client: Client, now_ns: int) -> None:
        delivered = client.delivered
        done = client.flush(now_ns)
        self._metrics.messages.inc(client.delivered - delivered)
        if done:
            self._waiting.discard(client)
            client.warned = False
            return
        self._waiting.add(client)
        if client.queued > self._queue_limit:
            self._evict(client)
        elif client.queued > self._queue_limit // 2 and not client.warned:
            client.warned = True
            client.tell_first(
                encode("warning", code="falling_behind", queued=client.queued, limit=self._queue_limit)
            )

    def _evict(self, client: Client) -> None:
        given = client.up_to(self._seqs)
        message = f"{client.queued} predictions wait and {self._queue_limit} may; use mode latest, or read faster"
        client.say_last(encode("error", id=None, code="slow_consumer", message=message, delivered=given))
        last = max(given, key=lambda symbol: given[symbol], default="")
        client.wire.close(CLOSE_SLOW, f"slow consumer; last delivered: {last} {given.get(last, 0)}"[:120])
        self._metrics.slow_disconnects.inc()
        self.leave(client)

    def _send_away_if_idle(self, client: Client, now_ns: int) -> None:
        if now_ns - client.idle_since_ns < self._idle_ns:
            return
        if client.authorised:
            client.wire.close(CLOSE_IDLE, "nothing subscribed for too long")
        else:
            client.wire.close(CLOSE_NOT_AUTHORISED, "no token was shown")
        self.leave(client)

    def _subscribe(self, client: Client, request: Subscribe) -> None:
        if request.channel == STATUS_CHANNEL:
            client.status = True
            client.tell(encode("subscribed", id=request.id, channel=STATUS_CHANNEL))
            return
        if client.symbols and client.mode != request.mode:
            text = f"this connection has mode {client.mode}; unsubscribe first, or open another connection"
            raise ProtocolError("mode_conflict", text, request.id)
        unknown = [symbol for symbol in request.symbols if symbol != ALL and symbol not in self._seqs]
        client.mode, client.every_ns = request.mode, request.every_ms * NS_PER_MS
        client.symbols.update(request.symbols)
        client.tell(
            encode(
                "subscribed",
                id=request.id,
                channel=PREDICTION_CHANNEL,
                mode=request.mode,
                every_ms=request.every_ms,
                symbols=request.symbols,
                unknown=unknown,  # nothing was predicted for them yet
            )
        )
        self._snapshot(client, request)

    def _snapshot(self, client: Client, request: Subscribe) -> None:
        rows = self._newest.rows() if ALL in request.symbols else self._newest.of(request.symbols)
        now_ns = self._clock()
        for start in range(0, max(1, len(rows)), SNAPSHOT_PREDICTIONS):
            part = prediction_fields(rows[start : start + SNAPSHOT_PREDICTIONS])
            client.begin_at({fields["symbol"]: fields["seq"] for fields in part})
            client.tell(
                encode(
                    "snapshot",
                    id=request.id,
                    channel=PREDICTION_CHANNEL,
                    epoch=self.epoch,
                    server_ns=now_ns,
                    predictions=part,
                    more=start + SNAPSHOT_PREDICTIONS < len(rows),
                )
            )

    def _unsubscribe(self, client: Client, request: Unsubscribe) -> None:
        if request.channel == STATUS_CHANNEL:
            has, gone = client.status, []
            client.status = False
        else:
            gone = sorted(client.symbols & set(request.symbols) if request.symbols else client.symbols)
            has = bool(gone)
            client.symbols.difference_update(gone)
            client.forget_unwanted()
        if not has:
            text = "there is no such subscription; list tells what there is"
            raise ProtocolError("not_subscribed", text, request.id)
        if not client.subscribed:
            client.idle_since_ns = self._clock()
        client.tell(encode("unsubscribed", id=request.id, channel=request.channel, symbols=gone))

    def _subscriptions(self, client: Client, request: ListSubscriptions) -> bytes:
        subscriptions: list[dict[str, Any]] = []
        if client.symbols:
            subscriptions.append(
                {
                    "channel": PREDICTION_CHANNEL,
                    "mode": client.mode,
                    "every_ms": client.every_ns // NS_PER_MS,
                    "symbols": sorted(client.symbols),
                }
            )
        if client.status:
            subscriptions.append({"channel": STATUS_CHANNEL})
        return encode("subscriptions", id=request.id, subscriptions=subscriptions, available=sorted(self._seqs))
