"""What was read from Kafka and not yet given to the sink."""

import time
from collections.abc import Sequence

from aiokafka import TopicPartition

from exporters.batch import Batch
from exporters.intake import Message
from exporters.sequence import Accepted
from stream.records import Records, join_records


class Pending:
    """Rows that wait until there are enough of them, and the offsets that they stand for."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.next_offsets: dict[TopicPartition, int] = {}  # what to commit once the rows are in the sink
        self.first_offsets: dict[TopicPartition, int] = {}
        self._last_offsets: dict[TopicPartition, int] = {}
        self._rows: list[Records] = []
        self._count = 0
        self._fresh: set[bytes] = set()
        self._since_s: float | None = None

    def add(
        self, generation: int, partition: TopicPartition, messages: Sequence[Message], accepted: Accepted
    ) -> None:
        """Add what was new in some messages of a partition.

        Args:
            generation: of the group's membership. When it has changed, offsets from before are no longer ours: the
                partitions that we kept are read again from their committed offset.
            partition: where the messages were.
            messages: in order, at least one.
            accepted: what was new in them; may be nothing.
        """
        if generation != self.generation:
            self.generation, self.next_offsets = generation, {}
        first, last = messages[0].offset, messages[-1].offset
        self.next_offsets[partition] = last + 1
        self.first_offsets[partition] = min(first, self.first_offsets.get(partition, first))
        self._last_offsets[partition] = max(last, self._last_offsets.get(partition, last))
        self._fresh |= accepted.fresh
        if len(accepted.rows):
            self._rows.append(accepted.rows)
            self._count += len(accepted.rows)
        if self._since_s is None:
            self._since_s = time.monotonic()

    def due_in_s(self, max_age_s: float) -> float:
        """Return how long until the rows are due by their age, in s; infinite while there are none."""
        if self._since_s is None:
            return float("inf")
        return max(0.0, self._since_s + max_age_s - time.monotonic())

    def is_due(self, max_rows: int, max_age_s: float) -> bool:
        """Return whether to write now."""
        return self._count >= max_rows or self.due_in_s(max_age_s) == 0.0

    def batch(self, epoch: str) -> Batch | None:
        """Return everything as a batch of ``epoch``; None when there is no row."""
        if not self._rows:
            return None
        rows = join_records(self._rows)
        spans = sorted((p.partition, first, self._last_offsets[p]) for p, first in self.first_offsets.items())
        return Batch(rows, tuple(spans), epoch, frozenset(self._fresh))
