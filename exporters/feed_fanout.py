"""From rows of one channel to frames in the clients' queues. No awaits, so nobody can hold it up.

`full` goes out row by row in order, in rounds (`exporters.feed_rounds`): each row is made into JSON once, and those
with the same subscriptions share the frames. `latest` goes out in `flush`, which the caller paces: only the symbols
that moved since the client had them, their newest row made into JSON once for all. What clients at the same point
get is worked out once: of 1,000 that keep up, each costs 2 us and its write. Nothing is encoded that nobody wants.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from exporters.feed_board import Board, Int64s, Placed
from exporters.feed_channels import Channel
from exporters.feed_client import FeedClient
from exporters.feed_encode import encode_symbol_name
from exporters.feed_following import Following
from exporters.feed_history import History, Segment
from exporters.feed_messages import EpochMessage
from exporters.feed_metrics import FeedMetrics
from exporters.feed_requests import Subscribe
from exporters.feed_rounds import Chunk, Rounds
from exporters.feed_wire import Held, items_frames, message_frame, records_frames
from stream.clock import NS_PER_S, Clock
from stream.records import Records

Frames = dict[tuple[bool, bool, bytes, bytes], list[Held]]

_NEVER_S: Final = float("inf")


@dataclass(frozen=True)
class _Step:
    """What clients of `latest` at one point get, and the point that brings them to."""

    before: tuple[Int64s, Int64s]  # kept: steps are told apart by which arrays these are
    had: Int64s
    due_ns: Int64s
    frames: list[Held]
    skipped: int
    wait_s: float


class Fanout:
    """The board, the history and the followers of one channel."""

    def __init__(self, channel: Channel, metrics: FeedMetrics, clock: Clock, memory: int) -> None:
        """Make an empty one.

        Args:
            channel: which.
            metrics: told what became of messages.
            clock: gives ``send_ns``.
            memory: rows that clients can resume from at once.
        """
        self.channel = channel
        self.board = Board(channel)
        self.history = History(channel, memory)
        self.epoch: str | None = None
        self.filling = False
        self.followers: dict[FeedClient, Following] = {}
        self._told_first: list[Held] = []
        self.rounds = Rounds(channel.has_binary, self.frames, self._note_sent)
        self._latest: list[tuple[FeedClient, Following]] | None = None  # who follows with `latest`; None: not known
        self._zeros: Int64s = np.zeros(0, np.int64)
        self._metrics, self._clock, self._memory = metrics, clock, memory

    def join(self, client: FeedClient) -> None:
        """Take a client in that subscribes to something of this channel."""
        self.followers[client] = client.followings[self.channel.name]

    def leave(self, client: FeedClient) -> None:
        """Let a client go."""
        self._will_change()
        self.followers.pop(client, None)

    def tell_first(self, held: Held) -> None:
        """Send a message to all followers, and to each to come before its first row."""
        self._will_change()
        self._told_first.append(held)
        for client, following in list(self.followers.items()):
            self._tell(client, following)

    def _tell(self, client: FeedClient, following: Following) -> None:
        for held in self._told_first[following.told :]:
            client.post(held)
        following.told = len(self._told_first)

    def refresh(self, following: Following) -> None:
        """Take note that a client's subscriptions or catch-ups changed."""
        self._will_change()
        following.refresh(self.board)

    def begin(self, epoch: str, offsets: dict[int, int]) -> None:
        """Forget everything: another Kafka cluster or topic numbers the rows from here on.

        What comes first is the past: `fill`, then `show_all`.
        """
        self._will_change()
        self.board = Board(self.channel)
        self.history = History(self.channel, self._memory)
        self.history.begin(offsets)
        self.epoch = epoch
        self.filling = True
        message: EpochMessage = {
            "type": "epoch",
            "channel": self.channel.name,
            "epoch": epoch,
            "server_ns": self._clock(),
        }
        held = Held(message_frame(message))
        for client, following in list(self.followers.items()):
            following.forget()
            client.post(held)

    def fill(self, rows: Records, segments: Sequence[Segment]) -> Int64s:
        """Take rows of the past; nobody gets them, see `show_all`. Return the slot of each."""
        return self._put(rows, segments)[0].slots

    def show_all(self) -> None:
        """Send everybody a snapshot of what he follows: the board was filled behind their backs."""
        self._will_change()
        self.filling = False
        for client, following in list(self.followers.items()):
            self.snapshot(client, following, np.flatnonzero(following.followed))

    def publish(self, rows: Records, segments: Sequence[Segment]) -> Int64s:
        """Take new rows in order, and send them to the clients of `full`, in rounds. Return the slot of each."""
        (slots, before, first), positions = self._put(rows, segments)
        if not self.rounds.known:
            self.rounds.set_clients(self.followers)
        is_first = None
        if first:
            is_first = np.zeros(len(rows), bool)
            is_first[first] = True
        self.rounds.put(Chunk(rows, slots, is_first, positions, before))
        return slots

    def sent_seqs(self) -> Int64s:
        """Return up to which seq all followers have been sent each slot: ``int64[slots]``, 0 for none."""
        before = self.rounds.before_unsent()
        seqs = self.board.seqs
        if before:
            seqs = seqs.copy()
            seqs[list(before)] = list(before.values())
        return seqs

    def _will_change(self) -> None:
        """Who follows what changes: what is there goes to those who followed it until now."""
        self.rounds.forget()
        self._latest = None

    def _note_sent(self, rows: Records) -> None:
        if len(rows) and self.channel.name == "prediction":
            self._metrics.on_sent(rows, self._clock())

    def flush(self) -> float:
        """Send to clients of `latest` and `throttle` what has moved.

        Returns:
            In how many seconds to call again, even if nothing comes until then: infinite for never.
        """
        if self.filling:
            return _NEVER_S
        if self._latest is None:
            self._latest = [pair for pair in self.followers.items() if pair[1].follows_latest]
        if not self._latest:
            return _NEVER_S
        steps: dict[tuple[bytes, int, int, bool], _Step] = {}
        frames: Frames = {}
        wait_s, now_ns, all_had = _NEVER_S, self._clock(), self.board.counts.copy()
        for client, following in self._latest:
            if not client.drained:
                wait_s = 0.0
                continue
            key = following.latest_key, id(following.had), id(following.due_ns), client.is_binary
            step = steps.get(key)
            if step is None:
                step = steps[key] = self._step(client.is_binary, following, all_had, frames, now_ns)
            following.had, following.due_ns = step.had, step.due_ns
            wait_s = min(wait_s, step.wait_s)
            self._metrics.skipped += step.skipped
            for held in step.frames:
                client.post(held)
        return wait_s

    def greet(self, client: FeedClient, request: Subscribe) -> None:
        """Send the newest of every symbol that a request covers; it has just been subscribed to."""
        following = client.followings[self.channel.name]
        self._tell(client, following)
        self.refresh(following)
        slots = np.flatnonzero(following.followed)
        if not any(symbol.endswith("*") for symbol in request.symbols):
            found = [self.board.find(symbol.encode()) for symbol in request.symbols]
            slots = np.intersect1d(slots, np.array([slot for slot in found if slot is not None], np.int64))
        self.snapshot(client, following, slots)

    def narrow(self, client: FeedClient) -> None:
        """Take note that a client has unsubscribed; what now comes under a prefix begins with a snapshot."""
        following = client.followings[self.channel.name]
        latest, full = following.latest, following.full
        self.refresh(following)
        fresh = (following.latest & ~latest) | (following.full & ~full)
        self.snapshot(client, following, np.flatnonzero(fresh))

    def snapshot(self, client: FeedClient, following: Following, slots: Int64s) -> None:
        """Send the newest of some slots."""
        counts = self.board.counts
        slots = slots[counts[slots] > 0] if len(slots) else slots
        if len(slots) == 0:
            return
        following.advance(slots, counts, self._clock())
        client.allow_snapshot(len(slots))
        binary = client.is_binary and self.channel.has_binary
        for held in self._newest(True, binary, slots, np.zeros(len(slots), np.int64)):
            client.post(held)

    def frames(self, is_snapshot: bool, rows: Records, positions: Int64s | None, binary: bool) -> Iterator[Held]:
        """Yield frames of rows.

        Args:
            is_snapshot: whether the client is to forget what it knew of these symbols.
            rows: in order.
            positions: theirs in the history; None for rows that are not there.
            binary: as records.
        """
        now_ns, stop = self._clock(), 0
        if binary:
            frames = records_frames(self.channel, is_snapshot, rows, None, self.epoch, now_ns)
        else:
            frames = items_frames(self.channel, is_snapshot, self._items(rows, positions), self.epoch, now_ns)
        for frame, count in frames:
            stop += count
            yield Held(frame, count, (rows["symbol"][stop - 1], int(rows["seq"][stop - 1])))

    def _items(self, rows: Records, positions: Int64s | None) -> list[bytes]:
        if positions is not None and positions[0] >= self.history.start:
            return self.history.items(positions, rows, self.board)
        names = {symbol: encode_symbol_name(symbol) for symbol in set(rows["symbol"].tolist())}
        return self.channel.encode(rows, [names[symbol] for symbol in rows["symbol"].tolist()])

    def _put(self, rows: Records, segments: Sequence[Segment]) -> tuple[Placed, Int64s]:
        known = len(self.board)
        placed = self.board.put(rows)
        positions = self.history.append(rows, placed, segments)
        if len(self.board) > known:
            self._metrics.symbols[self.channel.name] = len(self.board)
            for following in self.followers.values():
                following.extend(self.board)
            self._will_change()
        return placed, positions

    def _step(self, is_binary: bool, following: Following, all_had: Int64s, frames: Frames, now_ns: int) -> _Step:
        before = following.had, following.due_ns
        moved = following.latest & (all_had > following.had)
        due = np.flatnonzero(moved if not following.throttles else moved & (following.due_ns <= now_ns))
        had = following.had[due]
        skipped = all_had[due] - had - 1
        posts: list[Held] = []
        binary = is_binary and self.channel.has_binary
        for is_snapshot, wanted in ((True, had == 0), (False, had > 0)):
            if wanted.any():
                key = is_snapshot, binary, due[wanted].tobytes(), skipped[wanted].tobytes()
                if key not in frames:
                    frames[key] = self._newest(is_snapshot, binary, due[wanted], skipped[wanted])
                posts += frames[key]
        if not following.throttles:
            # Whatever they had before: from here on it is the same as all others that follow these.
            return _Step(before, all_had, self._no_dues(), posts, int(skipped.sum()), _NEVER_S)
        following.advance(due, all_had, now_ns)
        later = following.due_ns[moved & (following.due_ns > now_ns)]
        wait_s = (int(later.min()) - now_ns) / NS_PER_S if len(later) else _NEVER_S
        return _Step(before, following.had, following.due_ns, posts, int(skipped.sum()), wait_s)

    def _no_dues(self) -> Int64s:
        if len(self._zeros) != len(self.board):
            self._zeros = np.zeros(len(self.board), np.int64)
        return self._zeros

    def _newest(self, is_snapshot: bool, binary: bool, slots: Int64s, skipped: Int64s) -> list[Held]:
        now_ns, rows = self._clock(), self.board.newest(slots)
        if not is_snapshot:
            self._note_sent(rows)
        frames: Any
        if binary:
            frames = records_frames(self.channel, is_snapshot, rows, skipped, self.epoch, now_ns)
        else:
            texts = self.board.newest_items(slots)
            items = [b'%b,"skipped":%d' % pair for pair in zip(texts, skipped.tolist(), strict=True)]
            frames = items_frames(self.channel, is_snapshot, items, self.epoch, now_ns)
        return [Held(frame, count) for frame, count in frames]
