"""What a sink is given: rows, and where they came from."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from stream.records import Records


@dataclass(frozen=True)
class Batch:
    """New predictions in order of arrival, and the blocks that they came in."""

    rows: Records  # PREDICTION[N], N >= 1; each (symbol, seq) once
    spans: tuple[tuple[int, int, int], ...]  # partition, first and last offset of the blocks
    epoch: str  # the Kafka cluster that numbered them: after it was wiped, seq and offsets start again
    fresh: frozenset[bytes] = frozenset()  # symbols of which an exporter saw nothing before: the sink may know them

    def token(self) -> str:
        """Return a name that only the same rows of the same blocks have, however often they are read.

        The epoch and the offsets alone would not do: offsets start again at 0 when the topic is made anew.
        """
        spans = " ".join(f"{partition}:{first}-{last}" for partition, first, last in self.spans)
        content = hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()
        return f"{self.epoch} {spans} {content}"

    def halves(self) -> Iterator["Batch"]:
        """Yield the first and the second half of the rows; there must be two at least."""
        middle = len(self.rows) // 2
        yield replace(self, rows=self.rows[:middle])
        yield replace(self, rows=self.rows[middle:])


class Sink(Protocol):
    """A way out that keeps what it is given. Writing the same batch twice leaves it as writing it once does."""

    name: str  # what messages and /health call it

    async def write(self, batch: Batch) -> None:
        """Return once the sink has the rows for good.

        Raises:
            SinkUnavailable: it is away, full or slow; some of the rows may be there or not.
            SinkRejected: it will never take these rows together; fewer of them it may take.
        """
        ...

    async def settle(self) -> None:
        """Do what follows from the rows that were written; their offsets are committed after it.

        Raises:
            SinkUnavailable: not now.
        """
        ...

    async def put_aside(self, batch: Batch, reason: str) -> None:
        """Keep rows that the sink will never take where somebody finds them, if there is such a place.

        Raises:
            SinkUnavailable: not now.
            SinkRejected: it will not take them there either.
        """
        ...

    async def check(self) -> None:
        """Ask for a sign of life; called when there is nothing to write.

        Raises:
            SinkUnavailable: there was none.
        """
        ...

    async def close(self) -> None:
        """Give up the connection."""
        ...
