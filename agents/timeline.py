"""Which model each symbol of one lane is for, tick after tick: the swaps of a partition, carried out.

The rule, from which everything follows: at the first block whose offset is at or past a symbol's due offset of a
swap, and before any tick of that block, the symbol's h and c are rebuilt by the new model from the feature rows
that its `STATE` row has. That depends on nothing but the row, so that it does not matter whether the symbol ticks
there, how blocks were put together, or which worker does it. A row that has ticked since it was due has it behind
itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.inference import Predictor
from agents.swaps import Swap, due_offsets
from agents.windows import Windows
from stream.errors import InvariantError
from stream.records import Records

NO_MODEL: Final = 0  # of a row without predictions: its ticks were all refused
Blocks = Sequence[tuple[int, Records]]


@dataclass(frozen=True)
class _Flight:
    """A swap that has not reached all symbols."""

    swap: Swap
    predictor: Predictor
    due: NDArray[np.int64]  # [max symbols], by row; right for the rows that are known


class Timeline:
    """The models of one lane: the one that serves, and those that are to come."""

    def __init__(self, serving: Predictor, windows: Windows) -> None:
        """Let all symbols be for ``serving`` until the first swap."""
        self.serving = serving
        self._windows = windows
        self._flights: list[_Flight] = []
        self._known = 0  # rows whose due offsets are computed
        # By row: the flight that it was last looked at for. Only saves looking again.
        self._handled: NDArray[np.int64] = np.full(len(windows.states), -1, np.int64)

    @property
    def newest(self) -> Predictor:
        """The model that serves once all swaps are done."""
        return self._flights[-1].predictor if self._flights else self.serving

    @property
    def next_offset(self) -> int:
        """The first offset that a swap to come may have."""
        return self._flights[-1].swap.offset + 1 if self._flights else 0

    def add(self, swap: Swap, predictor: Predictor) -> None:
        """Add a swap. It may begin before the one before it is done, which then loses its symbols one by one.

        Raises:
            InvariantError: it does not come after the others.
        """
        if swap.offset < self.next_offset:
            raise InvariantError(f"lane {swap.partition}: {swap} does not come after {self._flights[-1].swap}")
        due = np.zeros(len(self._windows.states), np.int64)
        due[: self._known] = due_offsets(self._windows.words(0, self._known), swap)
        self._flights.append(_Flight(swap, predictor, due))

    def is_quiet(self, offset: int) -> bool:
        """Return whether every tick up to and with this block is for `serving`."""
        return not self._flights or offset < self._flights[0].swap.offset

    def groups(self, blocks: Blocks) -> Iterator[Blocks]:
        """Cut blocks so that in each group a symbol has one model: one by one while symbols switch."""
        if not blocks:
            return
        if self.is_quiet(blocks[-1][0]):
            yield blocks
            return
        first = self._flights[0].swap.offset
        end = max(flight.swap.end for flight in self._flights)
        before = [block for block in blocks if block[0] < first]
        after = [block for block in blocks if block[0] >= end]
        if before:
            yield before
        for block in blocks[len(before) : len(blocks) - len(after)]:
            yield [block]
        if after:
            yield after

    def take_due(self, offset: int) -> list[tuple[int, Predictor]]:
        """Return the rows that switch before the block at ``offset``, with their new models; count them done."""
        self._meet_new_rows()
        target = self._targets(self._known, offset)
        due = [
            (row, predictor)
            for row in np.flatnonzero(target > self._handled[: self._known]).tolist()
            if (predictor := self._successor(row, offset)) is not None
        ]
        np.maximum(self._handled[: self._known], target, out=self._handled[: self._known])
        self._settle(offset)
        return due

    def give_a_model(self, rows: NDArray[np.int64], offset: int) -> None:
        """Set the model of those ``rows`` that had no prediction before the block at ``offset``."""
        self._meet_new_rows()
        ids = self._windows.states["model_id"]
        new = rows[ids[rows] == NO_MODEL]
        if len(new):
            targets = self._targets(self._known, offset)[new]
            for row, target in zip(new.tolist(), targets.tolist(), strict=True):
                ids[row] = (self.serving if target < 0 else self._flights[target].predictor).model_id
                self._handled[row] = target

    def models(self) -> dict[int, Predictor]:
        """Return every model that a row may have now, by id."""
        every = [self.serving, *(flight.predictor for flight in self._flights)]
        return {predictor.model_id: predictor for predictor in every}

    def model_of(self, row: int) -> Predictor:
        """Return the model that made, or would have made, a row's last prediction."""
        self._meet_new_rows()
        seen = int(self._windows.states[row]["offset"])
        target = int(self._targets(row + 1, seen)[row])
        return self.serving if target < 0 else self._flights[target].predictor

    def _targets(self, count: int, offset: int) -> NDArray[np.int64]:
        """Return the newest flight that is due for each row at ``offset``, ``int64[count]``; -1 for none."""
        target = np.full(count, -1, np.int64)
        for number, flight in enumerate(self._flights):
            target[flight.due[:count] <= offset] = number
        return target

    def _successor(self, row: int, offset: int) -> Predictor | None:
        """Return the model that a row switches to, if it does: after those that it passed since its last tick."""
        state = self._windows.states[row]
        seen, model_id = int(state["offset"]), int(state["model_id"])
        if model_id == NO_MODEL:
            return None
        passed: list[_Flight] = []
        superseded_from = np.iinfo(np.int64).max  # when a later flight takes the row over
        for flight in reversed(self._flights):
            due = int(flight.due[row])
            if seen < due <= offset and due < superseded_from:
                passed.append(flight)
            superseded_from = min(superseded_from, due)
        if all(flight.predictor.model_id == model_id for flight in passed):
            return None
        return passed[0].predictor

    def _settle(self, offset: int) -> None:
        """Forget the flights that have reached all rows."""
        done = [number for number, flight in enumerate(self._flights) if flight.swap.end <= offset]
        if done:
            self.serving = self._flights[done[-1]].predictor
            del self._flights[: done[-1] + 1]
            self._handled = np.maximum(self._handled - done[-1] - 1, -1)

    def _meet_new_rows(self) -> None:
        if self._known < self._windows.count:
            words = self._windows.words(self._known, self._windows.count)
            for flight in self._flights:
                flight.due[self._known : self._windows.count] = due_offsets(words, flight.swap)
            self._known = self._windows.count
