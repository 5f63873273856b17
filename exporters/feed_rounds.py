"""In which order clients of `full` get their messages: part by part, each part all that is there by then.

To write to a socket costs about 8 us whatever the size. If all got the same messages, the last of 1,000 clients
would have them 8 ms after the first, and what comes meanwhile would wait as long again. So a round goes over parts
of some hundred clients; between two parts the event loop takes what has come, and whose turn is late gets that too.
After a round in which messages gathered it rests for as long as the round took, so that a gateway that could be
busy all the time is busy half of it; but on its account rounds never begin more than FLUSH_EVERY_S apart. With few
clients there are few writes to save, and no rest.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.feed_board import Int64s
from exporters.feed_client import FeedClient
from exporters.feed_following import Following
from exporters.feed_pacer import FLUSH_EVERY_S
from exporters.feed_wire import Held
from stream.records import Records

_PART_CLIENTS: Final = 128  # about 1 ms
# Fewer in a round, or for fewer: whoever rests then makes the next messages wait that would have gone out at once.
_WORTH_A_REST: Final = 4
_CLIENTS_WORTH_A_REST: Final = 32
# uvloop's timers count milliseconds.
_SHORTEST_REST_S: Final = 0.0005


class Chunk(NamedTuple):
    """Rows as they came; of each its slot, whether it is the first there, and its place in the history."""

    rows: Records
    slots: Int64s
    is_first: NDArray[np.bool_] | None  # None: none of them
    positions: Int64s
    before: list[int]  # seq of the row before each, of its symbol


MakeFrames = Callable[[bool, Records, Int64s, bool], Iterator[Held]]


@dataclass
class _Group:
    """Clients that get the same messages in the same form."""

    full: NDArray[np.bool_]  # by slot
    binary: bool
    clients: list[FeedClient]

    def __post_init__(self) -> None:
        self.gets_all = bool(self.full.all())


@dataclass
class _Part:
    groups: list[_Group] = field(default_factory=list)
    had: int = 0  # how many chunks


class Rounds:
    """The clients of `full` of one channel, and what they have not been sent yet."""

    def __init__(self, has_binary: bool, frames: MakeFrames, note_sent: Callable[[Records], None]) -> None:
        """Begin without clients.

        Args:
            has_binary: whether the channel has a binary form.
            frames: makes frames of rows: whether they are a snapshot, the rows, their positions, whether binary.
            note_sent: told of rows that went out to a part.
        """
        self._has_binary, self._frames, self._note_sent = has_binary, frames, note_sent
        self.known = False  # whether these are the parts of the followers as they are
        self._parts: list[_Part] = []
        self._chunks: deque[Chunk] = deque()
        self._dropped = 0  # chunks that all have had
        self._turn = 0  # of a part
        self._next: asyncio.Handle | None = None
        self._began_s = self._free_s = 0.0
        self._messages = 0  # at the most, to one part of this round
        self._few = True  # clients

    @property
    def backlog(self) -> int:
        """How many rows somebody has not been sent."""
        return sum(len(chunk.rows) for chunk in self._chunks)

    def before_unsent(self) -> dict[int, int]:
        """Return the seq before the first row that somebody has not been sent, of each slot that has one."""
        found: dict[int, int] = {}
        for chunk in self._chunks:
            for slot, before in zip(chunk.slots.tolist(), chunk.before, strict=True):
                found.setdefault(slot, before)
        return found

    @property
    def busy(self) -> bool:
        """Whether a round is under way, or what comes now has to wait for the next."""
        return self._next is not None or time.monotonic() < self._free_s

    def set_clients(self, followers: Mapping[FeedClient, Following]) -> None:
        """Serve these from now on; before, `forget` was called."""
        self._parts = [_Part(groups, self._had) for groups in _in_parts(self._grouped(followers))]
        clients = sum(len(group.clients) for part in self._parts for group in part.groups)
        self._few = clients < _CLIENTS_WORTH_A_REST
        self._turn, self.known = 0, True

    def forget(self) -> None:
        """Send all that is there to those it is for; who follows what changes now."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._chunks:
            for part in self._parts:
                self._send(part)
            self._drop()
        self._parts, self.known = [], False

    def put(self, chunk: Chunk) -> None:
        """Send some more rows, at once where nothing keeps us."""
        if not self._parts:
            return
        self._chunks.append(chunk)
        if self._next is None:
            self._begin()

    @property
    def _had(self) -> int:
        return self._dropped + len(self._chunks)

    def _begin(self) -> None:
        wait_s = self._free_s - time.monotonic()
        if wait_s > 0:
            self._next = asyncio.get_running_loop().call_later(wait_s, self._step)
        else:
            self._step()

    def _step(self) -> None:
        self._next = None
        if self._turn == 0:
            self._began_s, self._messages = time.monotonic(), 0
        self._messages = max(self._messages, self._send(self._parts[self._turn]))
        self._turn = (self._turn + 1) % len(self._parts)
        if self._turn:
            self._next = asyncio.get_running_loop().call_soon(self._step)
            return
        self._drop()
        if self._chunks or self._is_worth_a_rest:
            # The sockets are written to before that.
            self._next = asyncio.get_running_loop().call_soon(self._end)

    @property
    def _is_worth_a_rest(self) -> bool:
        return self._messages >= _WORTH_A_REST and not self._few

    def _end(self) -> None:
        self._next = None
        now_s = time.monotonic()
        self._free_s = now_s + (rest_after(now_s - self._began_s) if self._is_worth_a_rest else 0.0)
        if self._chunks:
            self._begin()

    def _send(self, part: _Part) -> int:
        chunks = [self._chunks[place] for place in range(part.had - self._dropped, len(self._chunks))]
        part.had = self._had
        if not chunks:
            return 0
        rows, slots, is_first, positions, _ = chunks[0] if len(chunks) == 1 else _join(chunks)
        if is_first is None and part.groups[0].gets_all and len(part.groups) == 1:
            for held in self._frames(False, rows, positions, part.groups[0].binary):
                for client in part.groups[0].clients:
                    client.post(held)
            self._note_sent(rows)
            return len(rows)
        sent = np.zeros(len(rows), bool)
        for group in part.groups:
            ours = group.full[slots]
            sent |= ours
            for is_snapshot, chosen in _kinds(ours, is_first):
                count = np.count_nonzero(chosen)
                if count:
                    some = (rows, positions) if count == len(rows) else (rows[chosen], positions[chosen])
                    for held in self._frames(is_snapshot, *some, group.binary):
                        for client in group.clients:
                            client.post(held)
        self._note_sent(rows if np.count_nonzero(sent) == len(rows) else rows[sent])
        return len(rows)

    def _drop(self) -> None:
        all_had = min(part.had for part in self._parts)
        while self._dropped < all_had:
            self._chunks.popleft()
            self._dropped += 1

    def _grouped(self, followers: Mapping[FeedClient, Following]) -> Iterable[_Group]:
        groups: dict[tuple[bytes, bool], _Group] = {}
        for client, following in followers.items():
            if following.full_key:
                key = following.full_key, client.is_binary and self._has_binary
                groups.setdefault(key, _Group(following.full, key[1], [])).clients.append(client)
        return groups.values()


def rest_after(worked_s: float) -> float:
    """Return for how many seconds to rest after a round that took so many."""
    rest_s = min(worked_s, FLUSH_EVERY_S - worked_s)
    return rest_s if rest_s > _SHORTEST_REST_S else 0.0


def _in_parts(groups: Iterable[_Group]) -> Iterator[list[_Group]]:
    """Cut groups, and put them together, so that each part has about _PART_CLIENTS clients."""
    part: list[_Group] = []
    room = _PART_CLIENTS
    for group in groups:
        for start in range(0, len(group.clients), _PART_CLIENTS):
            clients = group.clients[start : start + _PART_CLIENTS]
            if part and len(clients) > room:
                yield part
                part, room = [], _PART_CLIENTS
            part.append(_Group(group.full, group.binary, clients))
            room -= len(clients)
    if part:
        yield part


def _kinds(ours: NDArray[np.bool_], is_first: NDArray[np.bool_] | None) -> Iterable[tuple[bool, NDArray[np.bool_]]]:
    """Return which of ours go as a snapshot, and which not."""
    return [(False, ours)] if is_first is None else [(True, ours & is_first), (False, ours & ~is_first)]


def _join(chunks: list[Chunk]) -> Chunk:
    rows, slots, positions = (
        np.concatenate(column)
        for column in zip(*((chunk.rows, chunk.slots, chunk.positions) for chunk in chunks), strict=True)
    )
    firsts = [np.zeros(len(chunk.rows), bool) if chunk.is_first is None else chunk.is_first for chunk in chunks]
    return Chunk(rows, slots, np.concatenate(firsts), positions, [seq for chunk in chunks for seq in chunk.before])
