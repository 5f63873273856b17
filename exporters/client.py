"""One client of the feed: what it wants, and what waits for it. Pure: the socket is a `Wire`.

In mode ``full`` a client gets every prediction in order or is told to go: what waits is bounded, half full brings a
warning, full brings the end, with the last seq that it was given. In mode ``latest`` what waits is replaced by what
is newer, and every message says how many predictions it skips.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from exporters.burst import Burst, Item, reset_message
from exporters.ws_protocol import ALL, Mode, frame

# Above this many bytes that the socket did not take yet, messages wait here, where they can be counted, replaced or
# given up. It is what a healthy client takes in milliseconds.
BACKLOG_BYTES: Final = 256 * 1024
_WRITE_BYTES: Final = 1024 * 1024  # of one write, roughly


class Wire(Protocol):
    """A connection that takes bytes and does not block."""

    def write(self, data: bytes) -> None:
        """Send frames."""
        ...

    def backlog_bytes(self) -> int:
        """Return how many bytes the other side has not taken yet."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin to close the connection."""
        ...


class _Waiting(NamedTuple):
    data: bytes
    predictions: int
    firsts: Mapping[str, int]  # first seq of each symbol in it


class Client:
    """The state of one connection."""

    def __init__(self, wire: Wire, since_ns: int) -> None:
        """Make a client that wants nothing yet.

        Args:
            wire: its connection.
            since_ns: when it connected.
        """
        self.wire = wire
        self.authorised = False
        self.mode: Mode | None = None
        self.symbols: set[str] = set()
        self.status = False
        self.every_ns = 0
        self.idle_since_ns = since_ns
        self.queued = 0  # predictions that wait, mode full
        self.warned = False
        self.delivered = 0
        self.skipped = 0
        self._queue: deque[_Waiting] = deque()
        self._pending: dict[str, Item] = {}  # newest of each symbol, mode latest
        self._sent: dict[str, int] = {}  # last seq of each symbol, mode latest
        self._due_ns = 0

    @property
    def subscribed(self) -> bool:
        """Whether it wants anything."""
        return bool(self.symbols) or self.status

    def wants(self, symbol: str) -> bool:
        """Return whether it is subscribed to a symbol."""
        return ALL in self.symbols or symbol in self.symbols

    def tell(self, payload: bytes) -> None:
        """Queue a message that is not a prediction."""
        self._queue.append(_Waiting(frame(payload), 0, {}))

    def tell_first(self, payload: bytes) -> None:
        """Queue a message before everything that waits."""
        self._queue.appendleft(_Waiting(frame(payload), 0, {}))

    def begin_at(self, seqs: Mapping[str, int]) -> None:
        """Remember what a snapshot told, mode latest."""
        self._sent.update(seqs)

    def forget_unwanted(self) -> None:
        """Drop what waits of symbols that it no longer wants, mode latest."""
        self._pending = {symbol: item for symbol, item in self._pending.items() if self.wants(symbol)}
        self._sent = {symbol: seq for symbol, seq in self._sent.items() if self.wants(symbol)}

    def forget_everything(self) -> None:
        """Drop what waits and what was sent, mode latest: the numbering begins anew."""
        self._pending, self._sent = {}, {}

    def say_last(self, payload: bytes) -> None:
        """Drop what waits and write a message at once, however far behind the socket is."""
        self._queue.clear()
        self._pending.clear()
        self.wire.write(frame(payload))

    def offer(self, burst: Burst) -> bool:
        """Queue what it wants of a burst; return whether there was anything."""
        every = ALL in self.symbols
        names = burst.symbols if every else self.symbols & burst.symbols
        if not names:
            return False
        if self.mode == "latest":
            if every:
                self._pending.update(burst.newest)
            else:
                for name in names:
                    self._pending[name] = burst.newest[name]
            return True
        if every:
            data, count = burst.blob, len(burst.items)
        else:
            data = b"".join([burst.blob_of(name) for name in names])
            count = sum(len(burst.by_symbol[name]) for name in names)
        self._queue.append(_Waiting(data, count, burst.firsts))
        self.queued += count
        return True

    def flush(self, now_ns: int) -> bool:
        """Write what is due in one go, unless the socket is behind; return whether nothing is left to do."""
        if self.wire.backlog_bytes() > BACKLOG_BYTES:
            return False
        chunks: list[bytes] = []
        size = 0
        while self._queue and size < _WRITE_BYTES:
            waiting = self._queue.popleft()
            chunks.append(waiting.data)
            size += len(waiting.data)
            self.queued -= waiting.predictions
            self.delivered += waiting.predictions
        if self._pending and now_ns >= self._due_ns and not self._queue:
            self._due_ns = now_ns + self.every_ns
            chunks += [self._latest(symbol, item) for symbol, item in self._pending.items()]
            self.delivered += len(self._pending)
            self._pending.clear()
        if chunks:
            self.wire.write(b"".join(chunks) if len(chunks) > 1 else chunks[0])
        return not self._queue and not self._pending

    def settle(self) -> None:
        """Encode what waits: until then it holds the whole burst that it came in."""
        for item in self._pending.values():
            item.body()

    def up_to(self, seqs: Mapping[str, int]) -> dict[str, int]:
        """Return the last seq of each symbol that went to the socket, given the last of the feed; mode full."""
        given = {symbol: seq for symbol, seq in seqs.items() if self.wants(symbol)}
        for waiting in reversed(self._queue):
            given.update({symbol: seq - 1 for symbol, seq in waiting.firsts.items() if symbol in given})
        return given

    def _latest(self, symbol: str, item: Item) -> bytes:
        last = self._sent.get(symbol)
        self._sent[symbol] = item.seq
        if last is not None and item.seq <= last:
            return frame(reset_message(symbol, last, item.seq)) + item.latest(0)
        skipped = 0 if last is None else item.seq - last - 1
        self.skipped += skipped
        return item.latest(skipped)
