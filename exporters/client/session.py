"""One connection to a gateway, from its first message to its close."""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from exporters.client.continuity import Stream
from exporters.client.frames import decode_events, decode_records
from exporters.client.items import FeatureNames, Item, ReplayCompleted, Resumed
from exporters.client.ledger import Ledger
from exporters.client.wants import Ask, Names
from exporters.feed_encode import name_features
from exporters.feed_messages import SCHEMA_VERSION
from exporters.feed_requests import Unsubscribe
from exporters.feed_subscriptions import Subscriptions
from exporters.protocol import MAX_INBOUND_PER_S, Code, Mode
from stream.errors import FeedError, FeedRefused

logger = logging.getLogger(__name__)

# A gateway closes a connection that sends more than MAX_INBOUND_PER_S; a network may bunch what we send.
_SENDS_PER_S: Final = MAX_INBOUND_PER_S // 2
_ASK_AGAIN_S: Final = 0.5  # after `too_many_catch_ups`

Token = Callable[[], Awaitable[str | None]]


@dataclass
class _Past:
    """A past that is coming."""

    ask: Ask
    left: set[str]  # symbols, or names of a replay, whose past it still is


class Session:
    """What is said on one connection."""

    def __init__(
        self, socket: ClientConnection, url: str, ledger: Ledger, token: Token | None, silence_s: float
    ) -> None:
        """Take over a connection that is open.

        Args:
            socket: speaks the binary subprotocol; nobody else reads or writes it.
            url: of the gateway.
            ledger: what is wanted and what has come.
            token: gives a newer token, where that is known.
            silence_s: a gateway that says nothing for so long is gone.
        """
        self.leaving = asyncio.Event()  # the gateway will stop
        self.settled = asyncio.Event()  # all that was wanted when it began is subscribed to, or it has ended
        self.is_in = False  # the gateway has said hello
        self._heard_s = time.monotonic()
        self._socket, self._url, self._ledger, self._token = socket, url, ledger, token
        self._ids = itertools.count(1)
        self._asked: dict[int, Ask] = {}  # not answered yet
        self._pasts: dict[int, _Past] = {}
        self._streams: dict[str, Stream] = {}
        self._tables: dict[str, Subscriptions] = {}  # as the gateway has confirmed them
        self._outbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[Mapping[str, Any]], Sequence[Item] | None]] = {
            "hello": self._begin,
            "auth_required": self._no_token,
            "auth_expiring": self._renew_soon,
            "subscribed": self._subscribed,
            "unsubscribed": self._unsubscribed,
            "reset": self._reset,
            "resumed": self._caught_up,
            "replay_completed": self._caught_up,
            "heartbeat": self._beat,
            "error": self._refused,
            "warning": self._warned,
            "feature_names": self._named,
            "going_away": lambda _: self.leaving.set(),
        }
        # Ends when the connection does. Cancelling it is safe and closes the connection. Raises FeedRefused where
        # the gateway refuses what was asked for when the connection began, FeedError where we do not understand it.
        self.task = asyncio.create_task(self._run(silence_s))

    async def _run(self, silence_s: float) -> None:
        self._spawn(self._write())
        self._spawn(self._watch(silence_s))
        try:
            with contextlib.suppress(ConnectionClosed):
                async for raw in self._socket:
                    self._heard_s = time.monotonic()
                    items = self._take_records(raw) if isinstance(raw, bytes) else self._take(_parsed(raw))
                    if items:
                        # Who waits for the reader does not listen, and must not take that for silence.
                        self._heard_s = math.inf
                        await self._ledger.give(items)
                        self._heard_s = time.monotonic()
        finally:
            self.settled.set()
            for task in self._tasks:
                task.cancel()
            for channel, stream in self._streams.items():
                self._ledger.end(channel, stream)
            await self._socket.close()

    @property
    def close_code(self) -> int:
        """Why it was closed."""
        return self._socket.close_code or 1006

    @property
    def close_reason(self) -> str:
        """The same in words."""
        return self._socket.close_reason or "the connection broke off"

    async def close(self) -> None:
        """Close the connection; `task` ends."""
        await self._socket.close()

    def ask(self, ask: Ask) -> None:
        """Ask for something to follow."""
        number = next(self._ids)
        self._asked[number] = ask
        self._outbox.put_nowait(ask.message(number))

    def _say(self, message: Mapping[str, Any]) -> None:
        self._outbox.put_nowait({"id": next(self._ids), **message})

    def unsubscribe(self, channel: str, symbols: tuple[str, ...]) -> None:
        """Ask for something no more."""
        self._say({"op": "unsubscribe", "channel": channel, "symbols": symbols})

    async def _write(self) -> None:
        sent_s: deque[float] = deque(maxlen=_SENDS_PER_S)
        while True:
            message = await self._outbox.get()
            if len(sent_s) == _SENDS_PER_S:
                await asyncio.sleep(sent_s[0] + 1.0 - time.monotonic())
            sent_s.append(time.monotonic())
            try:
                await self._socket.send(orjson.dumps(message).decode())
            except ConnectionClosed:
                return

    async def _watch(self, silence_s: float) -> None:
        while True:
            await asyncio.sleep(silence_s / 4)
            if time.monotonic() - self._heard_s > silence_s:
                logger.warning("feed %s: no message for %g s", self._url, silence_s)
                self._socket.transport.abort()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what comes ----------------------------------------------------------------------------------------------

    def _take_records(self, raw: bytes) -> Sequence[Item]:
        batch = decode_records(raw, self._url)
        if batch is None:
            return []
        stream = self._stream(batch.channel)
        items = self._ledger.take(stream, batch)
        self._catch_up(batch.channel, stream)
        return items

    def _take(self, message: Mapping[str, Any]) -> Sequence[Item]:
        # What a client does not know it leaves alone.
        handler: Callable[[Mapping[str, Any]], Sequence[Item] | None]
        handler = self._handlers.get(message["type"], self._take_events)
        return handler(message) or ()

    def _take_events(self, message: Mapping[str, Any]) -> list[Item]:
        batch = decode_events(message, self._url)
        if batch is None:
            return []
        stream = self._stream(batch.channel)
        items = self._ledger.take(stream, batch)
        self._catch_up(batch.channel, stream)
        return items

    def _named(self, message: Mapping[str, Any]) -> Sequence[Item]:
        names_id, features = int(message["names_id"], 16), message["features"]
        columns = [tuple(feature[name] for feature in features) for name in ("name", "unit", "formula")]
        name_features(names_id, columns[0])  # for rows as JSON
        return [FeatureNames(names_id, *columns)]

    def _begin(self, message: Mapping[str, Any]) -> list[Item]:
        if message["schema_version"] != SCHEMA_VERSION:
            raise FeedRefused(
                f"the gateway speaks version {message['schema_version']} of the feed; this client {SCHEMA_VERSION}",
                "schema_version",
            )
        self.is_in = True
        asks = list(self._ledger.asks())
        for ask in asks:
            self.ask(ask)
        if not asks:
            self.settled.set()
        return self._ledger.connected(self._url)

    def _stream(self, channel: str) -> Stream:
        if channel not in self._streams:
            table = self._tables.setdefault(channel, Subscriptions())

            def choose(symbol: bytes) -> Mode:
                wanted = self._ledger.wants.mode_of(channel, symbol)
                return table.choice_of(symbol).mode if wanted is not Mode.NONE else Mode.NONE

            self._streams[channel] = Stream(choose)
            self._ledger.begin(channel, self._streams[channel])
        return self._streams[channel]

    def wants_changed(self) -> None:
        """Take note that the reader wants something else."""
        for stream in self._streams.values():
            stream.modes.clear()

    def _catch_up(self, channel: str, stream: Stream) -> None:
        """Ask again where the stream is ahead of what came."""
        if stream.is_ahead and not any(ask.channel == channel for ask in self._asked.values()):
            stream.is_ahead = False
            for ask in self._ledger.asks(channel):
                self.ask(ask)

    def _is_asking(self, channel: str) -> bool:
        asks = itertools.chain(self._asked.values(), (past.ask for past in self._pasts.values()))
        return any(ask.channel == channel for ask in asks)

    # ---- answers -------------------------------------------------------------------------------------------------

    def _subscribed(self, message: Mapping[str, Any]) -> None:
        ask = self._asked.pop(message["id"], None)
        if ask is None:
            return
        stream = self._stream(ask.channel)
        self._tables[ask.channel].subscribe(ask.request)
        stream.modes.clear()
        self._let_go(ask.channel, ask.names)
        self._ledger.continuity(ask.channel).begin(stream, ask.after)
        if ask.after or ask.replay_from_ns is not None:
            self._pasts[message["id"]] = _Past(ask, {symbol.decode() for symbol in ask.after} or set(ask.symbols))
            stream.replays += ask.replay_from_ns is not None
        self._ledger.confirmed(ask)
        if not self._asked:
            self.settled.set()

    def _unsubscribed(self, message: Mapping[str, Any]) -> None:
        channel, symbols = message["channel"], tuple(message["symbols"])
        stream = self._stream(channel)
        self._tables[channel].unsubscribe(Unsubscribe(None, symbols, channel))
        stream.modes.clear()
        self._let_go(channel, Names(symbols))

    def _caught_up(self, message: Mapping[str, Any]) -> list[Item]:
        past = self._end_past(message["id"])
        if past is None:
            return []
        channel, symbols = past.ask.channel, past.ask.symbols
        if message["type"] == "resumed":
            return [Resumed(channel, tuple(message["seqs"]), self._url)]
        if not past.ask.is_wanted:
            return [Resumed(channel, symbols, self._url)]
        # Of two connections that replay the same, the first has given all.
        wanted = past.ask.origin or past.ask
        return [ReplayCompleted(channel, wanted.symbols)] if self._ledger.wants.replayed(wanted) else []

    def _reset(self, message: Mapping[str, Any]) -> list[Item]:
        channel, symbols, reason = message["channel"], tuple(message["symbols"]), message["reason"]
        past = self._pasts.get(message["id"])
        if past is not None and past.ask.replay_from_ns is not None:
            return self._ledger.lost(channel, symbols, reason)
        if past is not None:
            past.left.difference_update(symbols)
            if not past.left:
                self._end_past(message["id"])
        return self._ledger.continuity(channel).reset(self._stream(channel), symbols, reason)

    def _let_go(self, channel: str, names: Names) -> None:
        """Wait no more for the past of what was asked for anew: a gateway does not bring it."""
        for number, past in list(self._pasts.items()):
            if past.ask.channel == channel:
                past.left = {name for name in past.left if not names.cover(name)}
                if not past.left:
                    self._end_past(number)

    def _end_past(self, number: int) -> "_Past | None":
        past = self._pasts.pop(number, None)
        if past is not None and past.ask.replay_from_ns is not None:
            self._stream(past.ask.channel).replays -= 1
        return past

    def _beat(self, message: Mapping[str, Any]) -> None:
        for channel, seqs in {"prediction": message["seqs"], **message["channels"]}.items():
            if channel not in self._streams or self._is_asking(channel):
                continue
            stream, continuity = self._streams[channel], self._ledger.continuity(channel)
            if any(continuity.is_behind(stream, symbol, seq) for symbol, seq in seqs.items()):
                logger.warning("feed %s: something of %s did not come; asking for it", self._url, channel)
                stream.is_ahead = True
                self._catch_up(channel, stream)

    def _refused(self, message: Mapping[str, Any]) -> None:
        ask = self._asked.pop(message["id"], None)
        if ask is None:
            logger.warning("feed %s: %s (%s)", self._url, message["message"], message["code"])
        elif message["code"] == Code.TOO_MANY_CATCH_UPS:
            asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self.ask, ask)
        elif not self._ledger.refused(ask, FeedRefused(message["message"], message["code"])):
            raise FeedRefused(f"{self._url}: {message['message']}", message["code"])

    def _warned(self, message: Mapping[str, Any]) -> None:
        logger.warning("feed %s: %s", self._url, message["message"])

    def _no_token(self, message: Mapping[str, Any]) -> None:
        raise FeedRefused(f"{self._url}: there is no token, and the gateway asks for one", Code.UNAUTHORISED)

    def _renew_soon(self, _: Mapping[str, Any]) -> None:
        self._spawn(self._renew())

    async def _renew(self) -> None:
        token = None if self._token is None else await self._token()
        if token is None:
            logger.warning("feed %s: the token will end soon, and there is no other", self._url)
        else:
            self._say({"op": "auth", "token": token})


def _parsed(raw: str) -> Mapping[str, Any]:
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict) or "type" not in message:
        raise FeedError(f'a message of the feed is an object with "type"; not {raw[:80]!r}')
    return message
