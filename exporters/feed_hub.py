"""From rows of predictions to frames in the clients' queues: the fan-out. No awaits, so nobody can hold it up.

`full` goes out in `publish`, row by row in order: each prediction is made into JSON once, and clients with the same
subscriptions share the frames. `latest` goes out in `flush`, which the caller paces: per client only the symbols
that moved, their newest row made into JSON once for all clients. Nothing is encoded that nobody follows.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporters.feed_board import Board, Int64s
from exporters.feed_client import FeedClient, Held
from exporters.feed_metrics import FeedMetrics
from exporters.feed_wire import items_frames, message_frame
from exporters.protocol import EVERYTHING, Subscribe
from stream.clock import Clock
from stream.records import Records

SNAPSHOT: Final = b"snapshot"
PREDICTION: Final = b"prediction"
# Of a heartbeat: 1,000 symbols with their seq are about 20 KiB a second and client.
_MAX_HEARTBEAT_SEQS: Final = 1000


class Hub:
    """The board and the clients that follow it."""

    def __init__(self, metrics: FeedMetrics, clock: Clock) -> None:
        """Make an empty hub.

        Args:
            metrics: told what became of predictions.
            clock: gives ``send_ns``.
        """
        self.board = Board()
        self.epoch: str | None = None
        self.clients: set[FeedClient] = set()
        self._metrics, self._clock = metrics, clock
        self._filling = False

    def add(self, client: FeedClient) -> None:
        """Take a client in."""
        client.follow(self.board)
        self.clients.add(client)
        self._metrics.clients = len(self.clients)

    def remove(self, client: FeedClient) -> None:
        """Let a client go."""
        self.clients.discard(client)
        self._metrics.clients = len(self.clients)

    def begin(self, epoch: str) -> None:
        """Forget everything: another Kafka cluster or topic numbers the predictions from here on.

        What comes first is the past: `fill`, then `show_all`.
        """
        self.board = Board()
        self.epoch = epoch
        self._filling = True
        self._metrics.symbols = 0
        held = Held(message_frame({"type": "epoch", "epoch": epoch, "server_ns": self._clock()}))
        for client in self.clients:
            client.forget()
            client.post(held)

    def fill(self, rows: Records) -> None:
        """Take ``PREDICTION[N]`` of the past; nobody gets them, see `show_all`."""
        self._put(rows)

    def show_all(self) -> None:
        """Send everybody a snapshot of what he follows: the board was filled behind their backs."""
        self._filling = False
        for client in list(self.clients):
            self._snapshot(client, np.flatnonzero(client.latest | client.full))

    def publish(self, rows: Records) -> None:
        """Take new ``PREDICTION[N]`` in order, and send them to the clients of `full`."""
        known = len(self.board)
        slots = self._put(rows)
        groups: dict[bytes, list[FeedClient]] = {}
        for client in self.clients:
            if client.full_key:
                groups.setdefault(client.full_key, []).append(client)
        if not groups:
            return
        masks = [group[0].full for group in groups.values()]
        chosen = np.flatnonzero(np.logical_or.reduce(masks)[slots])
        if len(chosen) == 0:
            return
        slots, rows = slots[chosen], rows[chosen]
        items = [item + b"}" for item in self.board.items(rows, slots)]
        first = _firsts(slots, known)
        for mask, group in zip(masks, groups.values(), strict=True):
            ours = mask[slots]
            for kind, wanted in ((SNAPSHOT, ours & first), (PREDICTION, ours & ~first)):
                self._send(group, kind, items, rows, np.flatnonzero(wanted))

    def flush(self) -> bool:
        """Send to clients of `latest` what has moved, and to all what they have room for again.

        Returns:
            Whether there is somebody who could not take everything: call again soon.
        """
        frames: dict[tuple[bytes, bytes, bytes], list[Held]] = {}
        more = False
        for client in list(self.clients):
            client.pump()
            if not client.drained:
                more |= client.holding or client.follows_latest
            elif client.follows_latest and not self._filling:
                self._flush_client(client, frames)
        return more

    def greet(self, client: FeedClient, request: Subscribe) -> None:
        """Send the newest prediction of every symbol that a request covers; it has just been subscribed to."""
        client.follow(self.board)
        if EVERYTHING in request.symbols:
            slots = np.flatnonzero(client.latest | client.full)
        else:
            found = [self.board.find(symbol.encode()) for symbol in request.symbols]
            slots = np.array([slot for slot in found if slot is not None], np.int64)
        self._snapshot(client, slots)

    def narrow(self, client: FeedClient) -> None:
        """Take note that a client has unsubscribed; a symbol that now comes under ``*`` begins with a snapshot."""
        latest, full = client.latest, client.full
        client.follow(self.board)
        self._snapshot(client, np.flatnonzero((client.latest & ~latest) | (client.full & ~full)))

    def beat(self, figures: dict[str, Any]) -> None:
        """Send a heartbeat to every client that is not behind; those have other things to read."""
        frames: dict[bytes, Held] = {}
        for client in list(self.clients):
            if client.holding:
                continue
            followed = client.latest | client.full
            key = followed.tobytes()
            if key not in frames:
                slots = np.flatnonzero(followed)[:_MAX_HEARTBEAT_SEQS]
                names = [self.board.symbols[slot].decode() for slot in slots.tolist()]
                seqs = dict(zip(names, self.board.seqs[slots].tolist(), strict=True))
                message = {"type": "heartbeat", "server_ns": self._clock(), "epoch": self.epoch, "seqs": seqs}
                frames[key] = Held(message_frame(message | figures))
            client.post(frames[key])

    def tell_all(self, message: dict[str, Any]) -> None:
        """Send a message to every client."""
        held = Held(message_frame(message))
        for client in list(self.clients):
            client.post(held)

    def _put(self, rows: Records) -> Int64s:
        known = len(self.board)
        slots = self.board.put(rows)
        if len(self.board) > known:
            self._metrics.symbols = len(self.board)
            for client in self.clients:
                client.follow(self.board)
        return slots

    def _send(
        self, group: list[FeedClient], kind: bytes, items: list[bytes], rows: Records, wanted: Int64s
    ) -> None:
        if len(wanted) == 0:
            return
        ours = items if len(wanted) == len(items) else [items[index] for index in wanted.tolist()]
        stop = 0
        for frame, count in items_frames(kind, ours, self._clock()):
            stop += count
            last = rows[wanted[stop - 1]]
            held = Held(frame, count, (bytes(last["symbol"]), int(last["seq"])))
            for client in group:
                client.post(held)

    def _flush_client(self, client: FeedClient, frames: dict[tuple[bytes, bytes, bytes], list[Held]]) -> None:
        counts = self.board.counts
        due = np.flatnonzero(client.latest & (counts > client.had))
        if len(due) == 0:
            return
        had = client.had[due]
        skipped = counts[due] - had - 1
        client.had[due] = counts[due]
        self._metrics.skipped += int(skipped.sum())
        for kind, wanted in ((SNAPSHOT, had == 0), (PREDICTION, had > 0)):
            if wanted.any():
                key = (kind, due[wanted].tobytes(), skipped[wanted].tobytes())
                if key not in frames:
                    frames[key] = self._newest(kind, due[wanted], skipped[wanted])
                for held in frames[key]:
                    client.post(held)

    def _snapshot(self, client: FeedClient, slots: Int64s) -> None:
        if len(slots) == 0:
            return
        client.had[slots] = self.board.counts[slots]
        client.allow_snapshot(len(slots))
        for held in self._newest(SNAPSHOT, slots, np.zeros(len(slots), np.int64)):
            client.post(held)

    def _newest(self, kind: bytes, slots: Int64s, skipped: Int64s) -> list[Held]:
        texts = self.board.newest_items(slots)
        items = [b'%b,"skipped":%d}' % pair for pair in zip(texts, skipped.tolist(), strict=True)]
        return [Held(frame, count) for frame, count in items_frames(kind, items, self._clock())]


def _firsts(slots: Int64s, known: int) -> NDArray[np.bool_]:
    """Which rows are the first of a symbol that the board did not have: ``bool[N]``."""
    first = np.zeros(len(slots), bool)
    if len(slots) and slots.max() >= known:
        _, indices = np.unique(slots, return_index=True)
        first[indices] = True
        first &= slots >= known
    return first
