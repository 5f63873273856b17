"""What a lane starts with: the rows of the Faust table, once it is certain that none is missing or old."""

import logging
from typing import Any

import numpy as np

from agents.checkpoint import LastBlock, Recovered, is_marker, is_newer, newest_of
from agents.metrics import LaneMetrics
from stream.app import StateTable, TickloomApp
from stream.errors import InvariantError
from stream.records import PREDICTION, partition_of
from stream.topics import STATE_CHANGELOG, TICKS

logger = logging.getLogger(__name__)


def made_anew(partition: int, seen: str) -> InvariantError:
    """Return the error of a lane whose topic is not the one that its state has seen."""
    return InvariantError(
        f"lane {partition}: {seen}: {TICKS} was deleted and made anew, or its end was lost. To start over with the "
        "ticks that there are now, see `Ticks made anew` in docs/operations.md"
    )


class Recovery:
    """Gets the rows of lanes out of the table, or where they are not whole, out of its changelog."""

    def __init__(self, app: TickloomApp, table: StateTable, partitions: int, metrics: LaneMetrics) -> None:
        table.is_newer = is_newer
        self._app = app
        self._table = table
        self._partitions = partitions
        self._metrics = metrics

    async def rows_of(self, tp: Any) -> Recovered:
        """Return what a lane starts with.

        Args:
            tp: the partition of the ticks.

        Raises:
            InvariantError: the changelog is not whole, or not of these ticks; the message says what to do.
            UnknownVersion: a row of a version that this tickloom does not read.
        """
        committed = self._app.consumer.committed(tp)
        recovered = Recovered(tp.partition, self._table_rows(tp.partition))
        missing = recovered.why_not_whole(committed)
        if missing is not None:
            logger.warning("lane %d: the table is not whole (%s); reading its changelog", tp.partition, missing)
            self._metrics.blocks["changelog_read_again"] += 1
            recovered = await self._read_changelog(tp)
            missing = recovered.why_not_whole(committed)
        if missing is not None:
            raise InvariantError(
                f"lane {tp.partition}: the changelog {STATE_CHANGELOG} is not whole: {missing}. It must be "
                "compacted, never deleted by age. To start from the oldest ticks that there are, stop all workers "
                "and run `tickloom topics --forget-state`"
            )
        await self._check_topic(tp, recovered)
        return recovered

    async def _read_changelog(self, tp: Any) -> Recovered:
        changelog = type(tp)(STATE_CHANGELOG, tp.partition)
        end = await self._app.end_offset(changelog)
        rows = newest_of([(row.key, row.value) async for row in self._app.read(changelog, 0, end)])
        for key, value in rows.items():
            self._table.data[key] = value
        return Recovered(tp.partition, rows)

    async def _check_topic(self, tp: Any, recovered: Recovered) -> None:
        last = recovered.last_block()
        seen, end = max(recovered.newest_offset(), last.offset), await self._app.end_offset(tp)
        if seen >= end:
            raise made_anew(tp.partition, f"its state has seen block {seen}, and the topic ends before {end}")
        if last.offset >= 0:  # what retention has taken cannot be compared, nor can it be another topic's
            async for message in self._app.read(tp, last.offset, last.offset + 1):
                if LastBlock.of(message.offset, message.value) != last:
                    raise made_anew(tp.partition, f"block {last.offset} is not the one that its state has seen")

    async def check_end(self, tp: Any, seen: int) -> None:
        """Ask the brokers whether a partition has the blocks before ``seen``, as it must.

        Raises:
            InvariantError: it ends before them.
            KafkaError: the brokers do not tell.
        """
        end = await self._app.end_offset(tp)
        if end < seen:
            raise made_anew(tp.partition, f"it has seen the blocks before {seen}, and the topic ends before {end}")

    def _table_rows(self, partition: int) -> dict[bytes, bytes]:
        rows = dict(self._table.data.items())
        symbols = [key for key in rows if not is_marker(key)]
        owners = partition_of(np.array(symbols, PREDICTION["symbol"]), self._partitions)
        others = {key for key, owner in zip(symbols, owners, strict=True) if owner != partition}
        return {key: value for key, value in rows.items() if key not in others}
