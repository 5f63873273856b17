"""Live ticks of an exchange: public market data over websockets, into Kafka.

The parts: a `Venue` (`binance`, `coinbase`) reads messages, a `Session` keeps a connection, `ExchangeFeed` numbers
the ticks, counts, and tells. What cannot be read is counted and logged, what may be missing is counted as a gap.

A run numbers its ticks from 1 (``source_seq``) under a ``stream_id`` of its own, so a lane drops what an uncertain
send made twice, and a restarted source, which begins another stream, loses nothing to that rule. Exchanges do not
repeat what a process that is not running has missed: a restart is a gap that the figures do not show.

While Kafka is away ticks wait in memory. When too many wait, the source stops reading; the exchange then closes the
connection, and the trade ids tell after the reconnect how much is missing.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from stream.clock import Clock, wall_ns
from stream.errors import SettingsError
from stream.records import TICK, TickKind
from stream.settings import Settings
from stream.sources.binance import Binance
from stream.sources.coinbase import Coinbase
from stream.sources.delivery import Delivery, Progress
from stream.sources.session import Patience, Session
from stream.sources.tally import SparseLog, Tally
from stream.sources.venue import Bad, Confirmed, Ending, Gap, Ignored, Quote, Refused, Trade, Venue, sample
from stream.topics import TICKS, broker

logger = logging.getLogger(__name__)

_VENUES: Final[dict[str, Callable[[Sequence[str], str | None], Venue]]] = {
    "binance": Binance,
    "coinbase": Coinbase,
}
# Ticks that wait in memory while Kafka is away, some 40 MB; the publisher holds as many again.
_MAX_WAITING: Final = 100_000
_NAN: Final = float("nan")

_Row = tuple[bytes, int, int, int, float, float, float, float, float, float, int, int, int]


async def run_exchange(
    settings: Settings,
    stop: asyncio.Event,
    venue: str,
    symbols: list[str],
    url: str | None = None,
    *,
    patience: Patience | None = None,
    progress: Progress | None = None,
    topic: str = TICKS,
) -> dict[str, Any]:
    """Publish live ticks until ``stop`` is set; return the last figures.

    Args:
        settings: Kafka, partitions, linger, host, port of a source.
        stop: ends it; what was accepted is acknowledged before it returns.
        venue: "binance" or "coinbase".
        symbols: in the exchange's spelling; see `binance` and `coinbase`.
        url: scheme and host of another server than the exchange's own, as ``ws://127.0.0.1:9000``.
        patience: how long to wait for what.
        progress: called with the figures about once a second, and at the end.
        topic: that ticks go to.

    Raises:
        SettingsError: an unknown venue, unusable symbols or URL, or no Kafka.
        RecordError: a symbol does not fit into a record.
        SinkUnavailable: stopped while Kafka was away.
        SinkRejected: Kafka will never take the ticks.
    """
    if venue not in _VENUES:
        raise SettingsError(f"no exchange {venue!r}; there are {', '.join(_VENUES)}")
    if url is not None and not url.startswith(("ws://", "wss://")):
        raise SettingsError(f"the URL {url!r}; right would be ws://HOST:PORT or wss://HOST:PORT")
    exchange = _VENUES[venue](symbols, None if url is None else url.rstrip("/"))
    delivery = Delivery(
        settings, broker(settings), venue, stop, port=settings.source_port, progress=progress, topic=topic
    )
    feed = ExchangeFeed(exchange, delivery, Patience() if patience is None else patience)
    delivery.details = feed.figures
    async with delivery:
        await feed.run()
        await delivery.finish("stopped")
        return delivery.figures()


class ExchangeFeed:
    """What comes from one venue on its way to a `Delivery`; the `Feed` of its sessions."""

    def __init__(self, venue: Venue, delivery: Delivery, patience: Patience, clock: Clock = wall_ns) -> None:
        self.stream_id = zlib.crc32(f"{venue.name} {clock()}".encode())
        self._venue = venue
        self._delivery = delivery
        self._patience = patience
        self._clock = clock
        self._log = SparseLog()
        self._tally = Tally(delivery.registry, list(venue.symbols.values()))
        self._sessions = [Session(venue, route, self, patience) for route in venue.routes]
        self._been_connected: set[str] = set()
        self._lost_s: dict[str, float] = {}
        self._source_seq = 0
        self._rows: list[_Row] = []
        self._fresh = asyncio.Event()
        self._taken = asyncio.Event()
        self._closing = False

    async def run(self) -> None:
        """Receive and send until the delivery's stop event; then send what has been received.

        Raises:
            SinkUnavailable: stopped while Kafka was away.
            SinkRejected: Kafka will never take the ticks.
        """
        sender = asyncio.create_task(self._send_for_ever(), name=f"{self._venue.name} sender")
        stopping = asyncio.create_task(self._delivery.stop.wait(), name=f"{self._venue.name} stop")
        others = [asyncio.create_task(session.run()) for session in self._sessions]
        others.append(asyncio.create_task(self._name_the_quiet()))
        try:
            await asyncio.wait([sender, stopping, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, *others):
                task.cancel()
            ended = await asyncio.gather(stopping, *others, return_exceptions=True)
            self._closing = True
            self._fresh.set()
            await sender
        for result in ended:
            if isinstance(result, Exception):
                raise result

    def figures(self) -> dict[str, Any]:
        """Return the totals, the state and the symbols that nothing has come for."""
        figures = {**self._tally.figures(), "waiting_ticks": len(self._rows), "quiet_symbols": self._tally.quiet()}
        if self._delivery.state == "running":
            connected = all(session.connected for session in self._sessions)
            waiting = "reconnecting" if self._been_connected else "connecting"
            figures["state"] = "streaming" if connected else waiting
        return figures

    def take(self, message: bytes) -> Iterable[Refused | Confirmed | Ending]:
        """Number and queue the ticks of a message, count what else it says; return what concerns the session."""
        recv_ns = self._clock()
        self._tally.message()
        control: list[Refused | Confirmed | Ending] = []
        for event in self._venue.parse(message, recv_ns):
            match event:
                case Trade() | Quote():
                    self._add(event, recv_ns)
                case Ignored():
                    self._tally.count("ignored_messages", event.symbol, event.reason)
                case Gap():
                    self._gap(event)
                case Bad():
                    self._tally.count("bad_messages", event.symbol, event.reason)
                    seen = f"{self._venue.name}: {event.reason}: {event.detail}; the message: {sample(message)}"
                    self._log.tell((event.reason, event.symbol), seen)
                case _:
                    control.append(event)
        return control

    async def room(self) -> None:
        """Wait while too much is waiting for Kafka. Cancelling it is safe."""
        while len(self._rows) >= _MAX_WAITING:
            self._log.tell(("full",), f"{len(self._rows)} ticks wait for Kafka: {self._venue.name} is not read")
            self._taken.clear()
            await self._taken.wait()

    def established(self, session: Session) -> None:
        """Note that a session is connected."""
        label = session.route.label
        if label in self._been_connected:
            self._tally.connection("reconnects", "lost")
            down_s = time.monotonic() - self._lost_s[label]
            logger.warning("%s: connected again after %.1f s", _named(session), down_s)
        else:
            logger.info("%s: connected to %s", _named(session), session.route.url)
        self._been_connected.add(label)
        self._tally.connected.labels(label).set(1)
        self._delivery.health.recover(_named(session))

    def replaced(self, session: Session, why: str) -> None:
        """Note a change of connections without a gap."""
        self._tally.connection("reconnects", "replaced")
        logger.info("%s: went over to a new connection without a gap: %s", _named(session), why)

    def lost(self, session: Session, reason: str, why: str) -> None:
        """Count a gap for each symbol: what happens until the next connection is missing."""
        self._lost_s[session.route.label] = time.monotonic()
        self._tally.connected.labels(session.route.label).set(0)
        self._tally.connection("disconnects", reason)
        for symbol in self._venue.symbols.values():
            self._tally.count("gaps", symbol, "reconnect")
        self._delivery.health.fail(_named(session), f"connection lost, a gap for each symbol: {why}")

    def unreachable(self, session: Session, why: str) -> None:
        """Tell that there is no connection."""
        self._delivery.health.fail(_named(session), why)

    def subscription(self, session: Session) -> None:
        """Tell what the exchange has refused, if anything."""
        part = f"{_named(session)} subscription"
        if not session.refused:
            self._delivery.health.recover(part)
            return
        told = "; ".join(f"{symbol or 'all symbols'}: {why}" for symbol, why in session.refused.items())
        self._delivery.health.fail(part, f"refused by {self._venue.name}: {told}")

    def _add(self, event: Trade | Quote, recv_ns: int) -> None:
        self._source_seq += 1
        if isinstance(event, Trade):
            told = (event.price, event.size, _NAN, _NAN, _NAN, _NAN)
            kind, side = int(TickKind.TRADE), event.side
        else:
            told = (_NAN, _NAN, event.bid, event.ask, event.bid_size, event.ask_size)
            kind, side = int(TickKind.QUOTE), 0
        head = (event.symbol, event.event_ns, recv_ns, self._source_seq)
        self._rows.append((*head, *told, self.stream_id, kind, side))
        self._tally.tick(event.symbol)
        self._fresh.set()

    def _gap(self, gap: Gap) -> None:
        self._tally.count("gaps", gap.symbol, gap.reason)
        self._tally.missed(gap.symbol, gap.missed)
        told = f"{gap.symbol.decode()}: gap ({gap.reason}), {gap.missed} trades missing: {gap.detail}"
        self._log.tell(("gap", gap.symbol), told)

    async def _send_for_ever(self) -> None:
        """Send what is queued, all of it at once; while that waits for Kafka more gathers."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            rows, self._rows = self._rows, []
            self._taken.set()
            if rows:
                await self._delivery.send(np.array(rows, TICK))
            elif self._closing:
                return
            if self._closing:
                self._fresh.set()

    async def _name_the_quiet(self) -> None:
        named: list[str] = []
        while True:
            await asyncio.sleep(self._patience.quiet_s)
            quiet = self._tally.quiet() if self._been_connected else []
            if quiet and quiet != named:
                logger.warning(
                    "nothing has come for %s; are they symbols of %s?", ", ".join(quiet), self._venue.name
                )
            named = quiet


def _named(session: Session) -> str:
    return f"{session.venue.name} {session.route.label}".strip()
