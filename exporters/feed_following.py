"""What one client gets of one channel, slot by slot, in arrays: the fan-out looks at nothing else.

Arrays are never written to, only replaced: clients that are at the same point share them (`Fanout.flush`).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from exporters.feed_board import Board, Int64s
from exporters.feed_subscriptions import Subscriptions
from exporters.protocol import Mode

HoldsBack = Callable[[bytes], bool]


class Following:
    """A client's subscriptions to a channel, and what it has had."""

    def __init__(self) -> None:
        """Follow nothing."""
        self.subscriptions = Subscriptions()
        # By catch-up: whether it still brings the past of a symbol, which must come before what is new.
        self.held_back: list[HoldsBack] = []
        self.told = 0  # messages that come before the first row
        self.forget()

    def forget(self) -> None:
        """The board was emptied: know of no symbol."""
        self.latest: NDArray[np.bool_] = np.zeros(0, bool)  # followed with `latest` or `throttle`
        self.full: NDArray[np.bool_] = np.zeros(0, bool)  # followed with `full`
        self.waits: NDArray[np.bool_] = np.zeros(0, bool)  # followed, and behind a catch-up
        self.had: Int64s = np.zeros(0, np.int64)  # how many there were when it got the newest (`latest`)
        self.due_ns: Int64s = np.zeros(0, np.int64)  # when `throttle` allows the next
        self.intervals_ns: Int64s = np.zeros(0, np.int64)  # of `throttle`
        self._note()

    def refresh(self, board: Board) -> None:
        """Bring all up to date after the subscriptions or the catch-ups changed."""
        self.latest = self.full = self.waits = np.zeros(0, bool)
        self.intervals_ns = np.zeros(0, np.int64)
        self.extend(board)

    def extend(self, board: Board) -> None:
        """Bring all up to date after symbols have come to the board."""
        symbols = board.symbols[len(self.full) :]
        choices = self.subscriptions.choices_of(symbols)
        modes = np.array([choice.mode for choice in choices], np.uint8)
        waits = np.array([any(holds(symbol) for holds in self.held_back) for symbol in symbols], bool)
        latest = (modes == Mode.LATEST) | (modes == Mode.THROTTLE)
        self.latest = np.concatenate([self.latest, latest])
        self.full = np.concatenate([self.full, (modes == Mode.FULL) & ~waits])
        self.waits = np.concatenate([self.waits, (modes == Mode.FULL) & waits])
        intervals_ns = np.array([choice.interval_ns for choice in choices], np.int64)
        self.intervals_ns = np.concatenate([self.intervals_ns, intervals_ns])
        more = np.zeros(len(board) - len(self.had), np.int64)
        self.had = np.concatenate([self.had, more])
        self.due_ns = np.concatenate([self.due_ns, more])
        self._note()

    def advance(self, slots: Int64s, counts: Int64s, now_ns: int) -> None:
        """Take note that the newest of some slots is sent at ``now_ns``; ``counts`` is of all slots."""
        self.had, self.due_ns = self.had.copy(), self.due_ns.copy()
        self.had[slots] = counts[slots]
        self.due_ns[slots] = now_ns + self.intervals_ns[slots]

    @property
    def followed(self) -> NDArray[np.bool_]:
        """What comes now: ``bool[slots]``."""
        return self.latest | self.full

    def _note(self) -> None:
        # The same for clients that get the same `full` messages; empty for none.
        self.full_key = self.full.tobytes() if self.full.any() else b""
        self.follows_latest = bool(self.latest.any())
        self.latest_key = self.latest.tobytes() if self.follows_latest else b""
        self.throttles = bool(self.intervals_ns.any())
