"""From an archive back to ClickHouse: the rows that its exporter wrote, and the bars that follow from them.

Rows keep the places that they had in Kafka, and their epoch. Whatever is there already is replaced by the same.
"""

from collections import OrderedDict
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry

from exporters.archive.columns import RECORDS
from exporters.archive.reading import Reader
from exporters.archive.restore import Progress, messages
from exporters.archive.vault import Chain, History, Range, Vault
from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.server import quiet_driver
from exporters.clickhouse.sink import ClickHouseSink
from exporters.clickhouse.source_ticks import ticks_at
from exporters.intake import Door, Intake, PlainIntake, TickIntake
from exporters.metrics import IntakeMetrics
from stream.records import Records, empty_ticks
from stream.topics import PREDICTIONS, TICKS

_KEPT_RANGES: Final = 2


class ArchivedTicks:
    """Finds the ticks of predictions in the archive."""

    def __init__(self, vault: Vault, epoch: str) -> None:
        self._vault, self._epoch = vault, epoch
        self._chains: dict[int, tuple[Reader, list[Range]]] = {}
        self._blocks: OrderedDict[tuple[int, int], dict[int, Records]] = OrderedDict()

    async def find(self, rows: Records) -> Records:
        """Return the tick of each prediction: ``TICK[N]`` for ``PREDICTION[N]``; empty where it was not archived.

        Raises:
            ArchiveError: the archive is damaged.
        """
        found = empty_ticks(len(rows))
        for number in np.unique(rows["source_partition"]).tolist():
            ours = np.flatnonzero(rows["source_partition"] == number)
            blocks: dict[int, Records] = {}
            offsets = np.unique(rows["source_offset"][ours])
            reader, ranges = self._chain(number)
            firsts = np.array([each.first for each in ranges], np.int64)
            for at in np.unique(np.searchsorted(firsts, offsets, "right") - 1).tolist():
                if at >= 0:
                    blocks |= self._range(number, reader, ranges[at])
            found[ours] = ticks_at(rows[ours], blocks)
        return found

    async def close(self) -> None:
        """Nothing is open."""

    def _chain(self, number: int) -> tuple[Reader, list[Range]]:
        if number not in self._chains:
            chain = Chain(TICKS, self._epoch, number)
            history = self._vault.history(chain)
            self._chains[number] = Reader(self._vault, chain, history), history.ranges
        return self._chains[number]

    def _range(self, number: int, reader: Reader, each: Range) -> dict[int, Records]:
        key = number, each.first
        if key not in self._blocks:
            read = reader.messages(each)
            self._blocks[key] = {message.offset: message.block.rows for message in read if message.block}
            while len(self._blocks) > _KEPT_RANGES:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]


async def restore_to_clickhouse(url: str, vault: Vault, chain: Chain, history: History, progress: Progress) -> int:
    """Write a chain's rows to their table; return how many. To do it again does no harm.

    Raises:
        ArchiveError: the archive is damaged.
        SinkUnavailable: the server is away, full, or not as it should be.
        SinkRejected: it will not take the rows.
    """
    quiet_driver()
    if chain.topic == PREDICTIONS:
        sink: ClickHouseSink = PredictionSink(url, ArchivedTicks(vault, chain.epoch))
    else:
        sink = ClickHouseSink(url)
    door, written = _door(chain.topic), 0
    try:
        for each, found in messages(vault, chain, history):
            accepted = door.read(chain.partition, [message for message in found if message.block is not None])
            if len(accepted.rows):
                span = (chain.partition, each.first, each.next - 1)
                await sink.write(Batch(accepted.rows, (span,), chain.epoch, accepted.fresh))
                await sink.settle()
                written += len(accepted.rows)
            progress(each.rows)
    finally:
        await sink.close()
    return written


def _door(topic: str) -> Door:
    metrics = IntakeMetrics(CollectorRegistry())
    if topic == TICKS:
        return TickIntake(metrics)
    return Intake(metrics) if topic == PREDICTIONS else PlainIntake(RECORDS[topic], metrics)
