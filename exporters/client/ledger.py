"""What all connections of a `Feed` share: what is wanted, what has come, and the queue to the reader."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from exporters.client.continuity import Continuity, Stream
from exporters.client.items import Batch, Connected, Item, Position, Reset, Stats
from exporters.client.wants import Ask, Wants
from exporters.feed_channels import CHANNELS
from exporters.protocol import Mode
from stream.errors import FeedRefused


class Asked(Protocol):
    """A connection, as the books see it."""

    is_in: bool

    def ask(self, ask: Ask) -> None:
        """Ask for something to follow."""
        ...

    def unsubscribe(self, channel: str, symbols: tuple[str, ...]) -> None:
        """Ask for something no more."""
        ...

    def wants_changed(self) -> None:
        """Take note that the reader wants something else."""
        ...


class Ledger:
    """The books of one `Feed`."""

    def __init__(self, queue_records: int) -> None:
        """Open them.

        Args:
            queue_records: connections wait while more than this is waiting for the reader.
        """
        self.wants = Wants()
        self.stats = Stats()
        self.wanted = asyncio.Event()  # anything is followed
        self._continuities: dict[str, Continuity] = {}
        self._queue_records = queue_records
        self._items: deque[Item] = deque()
        self._waiting = 0  # records in there
        self._filled, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._answers: dict[Ask, asyncio.Future[None]] = {}

    # ---- what is wanted ------------------------------------------------------------------------------------------

    def want(self, ask: Ask, sessions: Iterable[Asked]) -> "asyncio.Future[None]":
        """Want something more, of all connections; the future is done when a gateway has confirmed it.

        Raises:
            FeedRefused: no gateway would do that.
        """
        self.wants.add(ask)
        books = self.continuity(ask.channel)
        books.forget(ask.names.cover)
        if ask.after and books.epoch not in (None, ask.epoch):
            self._put(self.lost(ask.channel, tuple(symbol.decode() for symbol in ask.after), "epoch"))
            ask = replace(ask, after={})
        elif ask.after:
            books.epoch = ask.epoch
            books.had.update(ask.after)
        answer = self._answers[ask] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._answers.pop(ask, None))
        self.wanted.set()
        self._room.set()  # an answer may be behind what waits for room
        for session in sessions:
            session.wants_changed()
            if session.is_in:  # others ask when they are
                session.ask(ask)
        return answer

    def want_no_more(self, channel: str, symbols: tuple[str, ...], sessions: Iterable[Asked]) -> None:
        """Want something no more.

        Raises:
            FeedRefused: these are no names.
        """
        self.wants.remove(channel, symbols)
        self.continuity(channel).forget(lambda name: self.wants.mode_of(channel, name.encode()) is Mode.NONE)
        if not self.wants:
            self.wanted.clear()
        for session in sessions:
            session.wants_changed()
            if session.is_in:
                session.unsubscribe(channel, symbols)

    def position(self, channel: str) -> Position | None:
        """Return where the reader is in what it follows with mode ``full``."""
        books = self.continuity(channel)
        full = {
            symbol.decode(): had.seq
            for symbol, had in books.had.items()
            if self.wants.mode_of(channel, symbol) is Mode.FULL
        }
        return Position(books.epoch, full) if books.epoch is not None and full else None

    def asks(self, channel: str | None = None) -> Iterator[Ask]:
        """Yield what to ask a connection for, so that a channel, or all, goes on after what came."""
        for name in [*self.wants.channels] if channel is None else [channel]:
            books = self.continuity(name)
            for ask in self.wants.asks(name, books.epoch, books.had, books.newest_ns):
                self.stats.resumes += bool(ask.after)
                yield ask

    def confirmed(self, ask: Ask) -> None:
        """Take note that a gateway does what it was asked."""
        for answer in self._waiting_for(ask).values():
            answer.set_result(None)

    def refused(self, ask: Ask, error: FeedRefused) -> bool:
        """Tell whoever asked that a gateway refuses; return whether there was anybody."""
        waiting = self._waiting_for(ask)
        for wanted, answer in waiting.items():
            self.want_no_more(wanted.channel, wanted.symbols, ())
            answer.set_exception(error)
        return bool(waiting)

    def fail(self, error: BaseException | None) -> None:
        """Tell everybody that no gateway will ever answer."""
        for answer in list(self._answers.values()):
            if not answer.done() and error is not None:
                answer.set_exception(error)
        self.wake()

    def _waiting_for(self, ask: Ask) -> "dict[Ask, asyncio.Future[None]]":
        return {
            wanted: answer
            for wanted, answer in self._answers.items()
            if wanted.channel == ask.channel and not answer.done() and all(map(ask.names.cover, wanted.symbols))
        }

    # ---- what comes ----------------------------------------------------------------------------------------------

    def continuity(self, channel: str) -> Continuity:
        """Return what has come of a channel."""
        if channel not in self._continuities:
            self._continuities[channel] = Continuity(CHANNELS[channel], self.stats)
        return self._continuities[channel]

    def begin(self, channel: str, stream: Stream) -> None:
        """Take in a connection's stream."""
        self.continuity(channel).streams.append(stream)

    def end(self, channel: str, stream: Stream) -> None:
        """Let a connection's stream go."""
        self._put(self.continuity(channel).end(stream))

    def take(self, stream: Stream, batch: Batch) -> list[Item]:
        """Return what is new in a batch."""
        return self.continuity(batch.channel).take(stream, batch)

    def lost(self, channel: str, symbols: tuple[str, ...], reason: str) -> list[Item]:
        """Return what to tell of a replay that cannot be had."""
        self.stats.resets += len(symbols)
        return [Reset(channel, symbols, reason)]

    def connected(self, url: str) -> list[Item]:
        """Return what to tell of a connection."""
        self.stats.connections += 1
        return [Connected(url)]

    # ---- the queue -----------------------------------------------------------------------------------------------

    async def give(self, items: Sequence[Item]) -> None:
        """Hand items to the reader; wait while too much is waiting for it. Cancelling it is safe."""
        self._put(items)
        while self._waiting > self._queue_records and not self._answers:
            self._room.clear()
            await self._room.wait()

    def tell(self, item: Item) -> None:
        """Hand an item to the reader without waiting."""
        self._put([item])

    def next(self) -> Item | None:
        """Return the next item, or None where there is none."""
        if not self._items:
            self._filled.clear()
            return None
        item = self._items.popleft()
        self._waiting -= _weight(item)
        if self._waiting <= self._queue_records // 2:
            self._room.set()
        return item

    def wake(self) -> None:
        """Let the reader look, though there may be nothing."""
        self._filled.set()

    async def filled(self) -> None:
        """Wait until there is an item. Cancelling it is safe."""
        await self._filled.wait()

    def _put(self, items: Sequence[Item]) -> None:
        if items:
            self._items.extend(items)
            self._waiting += sum(map(_weight, items))
            self._filled.set()


def _weight(item: Item) -> int:
    return len(item) if isinstance(item, Batch) else 1
