"""`Feed`: what a reader of the feed holds in hand."""

import asyncio
import inspect
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self

from exporters.client.continuity import Had
from exporters.client.items import Batch, Disconnected, Gap, Item, Position, Reset, Stats
from exporters.client.ledger import Ledger
from exporters.client.link import Link, Patience, Token
from exporters.client.session import Session
from exporters.client.wants import Ask
from exporters.feed_messages import ChannelName, ModeName
from stream.errors import FeedError, MessagesLost

logger = logging.getLogger(__name__)

# Some 1.5 MB of predictions, and a quarter of a second of a busy feed.
QUEUE_RECORDS: Final = 16_384


class Feed:
    """A feed of one gateway, or of several as one: each message once, in order, and every loss told.

        async with Feed("ws://127.0.0.1:8765/feed") as feed:
            await feed.subscribe("*", mode="full")
            async for batch in feed.batches():
                print(batch.records["symbol"], batch.records["p_up"])

    Connections are made again for ever, and go on where they were. With several URLs the first to bring a message
    wins, and nothing is missing while one of them lives. What waits for a slow reader is bounded: then connections
    wait too, and gateways do what they do with a slow client (see docs/feed.md).

    Not for several threads; one reader at a time.
    """

    def __init__(
        self,
        *urls: str,
        token: Token = None,
        queue_records: int = QUEUE_RECORDS,
        patience: Patience = Patience(),  # noqa: B008  (frozen)
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to nothing yet: that is for ``async with``, and the first `subscribe`.

        Args:
            urls: of gateways, ws://HOST:PORT/feed or wss://...; the same messages come from each.
            token: to be let in with, or a function (it may be async) that gives a fresh one whenever it is needed.
            queue_records: messages that may wait for the reader.
            patience: how long to wait for gateways.
            context: for wss; the system's certificates count where it is None.

        Raises:
            FeedError: no URL is given.
        """
        if not urls:
            raise FeedError("a feed has one URL or more, such as ws://127.0.0.1:8765/feed")
        self._ledger = Ledger(queue_records)
        self._links = [Link(url, self._ledger, token, patience, context) for url in urls]
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._failure: BaseException | None = None  # no connection will ever come

    async def __aenter__(self) -> Self:
        """Begin to connect."""
        self._tasks = [asyncio.create_task(link.run(), name=f"feed {link.url}") for link in self._links]
        for task in self._tasks:
            task.add_done_callback(self._on_link_end)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections; what waits in the queue is dropped."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ledger.wake()

    # ---- what to follow ------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        *symbols: str,
        channel: ChannelName = "prediction",
        mode: ModeName = "latest",
        throttle_ms: int | None = None,
        replay_from_ns: int | None = None,
        resume: Position | None = None,
    ) -> None:
        """Follow symbols, and wait until a gateway has confirmed it; for one that is followed this takes its place.

        Cancelling it is safe, and leaves the symbols wanted.

        Args:
            symbols: names, prefixes such as ``BTC*``, or ``*``.
            channel: which of docs/feed.md.
            mode: ``full`` is every message, ``latest`` the newest, ``throttle`` that once in ``throttle_ms``.
            throttle_ms: 10 to 60000.
            replay_from_ns: of mode ``full``: first all since then, ns since 1970 UTC.
            resume: of mode ``full``: go on after what came to another `Feed`, see `position`.

        Raises:
            FeedRefused: a gateway refuses this, or all have refused us.
        """
        ask = Ask(
            channel,
            symbols,
            mode,
            throttle_ms,
            epoch="" if resume is None else resume.epoch,
            after={} if resume is None else {symbol.encode(): Had(seq) for symbol, seq in resume.seqs.items()},
            replay_from_ns=replay_from_ns,
            is_wanted=replay_from_ns is not None,
        )
        if self._failure is not None:
            raise self._failure
        await self._ledger.want(ask, self._sessions())

    def unsubscribe(self, *symbols: str, channel: ChannelName = "prediction") -> None:
        """Follow symbols no more, by the names that they were subscribed to by; nothing of them comes after this.

        Raises:
            FeedRefused: these are no names.
        """
        self._ledger.want_no_more(channel, symbols, self._sessions())

    def position(self, channel: ChannelName = "prediction") -> Position | None:
        """Return where the reader is in what it follows with mode ``full``; None where nothing has come.

        What waits in the queue counts as read: ask after the last item that you took in.
        """
        return self._ledger.position(channel)

    @property
    def stats(self) -> Stats:
        """What has been seen so far."""
        return self._ledger.stats

    # ---- reading -------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        """Give every item."""
        return self

    async def __anext__(self) -> Item:
        """Return the next item. Cancelling it is safe: nothing is lost.

        Raises:
            FeedRefused: no gateway will have us.
            FeedError: a gateway says what we do not understand.
        """
        while True:
            item = self._ledger.next()
            if item is not None:
                return item
            if self._closed:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            await self._ledger.filled()

    async def batches(self) -> AsyncIterator[Batch]:
        """Give messages alone.

        Raises:
            MessagesLost: some are missing; call it again to go on.
            FeedError, FeedRefused: as `__anext__`.
        """
        async for item in self:
            if isinstance(item, Gap | Reset):
                raise MessagesLost(item)
            if isinstance(item, Batch):
                yield item

    async def run(self, callback: Callable[[Item], Awaitable[None] | None]) -> None:
        """Call ``callback`` with every item, and wait for it where it is async, until the feed is closed.

        Raises:
            FeedError, FeedRefused: as `__anext__`.
        """
        async for item in self:
            result = callback(item)
            if inspect.isawaitable(result):
                await result

    def _sessions(self) -> list[Session]:
        return [session for link in self._links for session in link.sessions]

    def _on_link_end(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        if all(other.done() for other in self._tasks):
            self._failure = error
            self._ledger.fail(error)
        else:
            link = self._links[self._tasks.index(task)]
            logger.error("feed %s: given up: %s", link.url, error)
            self._ledger.tell(Disconnected(link.url, f"given up: {error}"))
