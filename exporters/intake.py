"""From Kafka messages to prediction rows that may be trusted: the door of every exporter.

A block that cannot be read, or a row that cannot be true, is counted, logged with where it stands, and left out; it
stays in Kafka for whoever wants to look. Nothing that comes in through here can stop an exporter.
"""

import functools
import logging
import math
import re
from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.metrics import IntakeMetrics
from exporters.sequence import Accepted, Sequencer
from stream.errors import RecordError
from stream.records import PREDICTION, TICK, Records, decode_block, join_records

logger = logging.getLogger(__name__)

# What `sequence` packs a position into: offsets below 2**47, blocks of less than 2**16 records.
_OFFSETS: Final = 1 << 47
_INDICES: Final = 1 << 16
_LAST_SEQ: Final = (1 << 53) - 1  # readers with doubles count exactly up to there
_READABLE: Final = re.compile(rb"[!-~]+")
_FINITE: Final = ("ref_price", "p_down", "p_flat", "p_up", "expected_return_bps")
_FEW: Final = 64  # rows, below which a call of numpy costs more than a look at each
_LOOKED_AT: Final = ("symbol", "seq", "source_offset", "source_index", *_FINITE, "spread_bps")
_REASONS_LOGGED: Final = 20  # lines about bad input; after that it is only counted


# A tick and where it stands in the topic `ticks`.
PLACED_TICK: Final = np.dtype(
    [("tick", TICK), ("source_index", "<u4"), ("source_partition", "<i4"), ("source_offset", "<i8")]
)


class Message(Protocol):
    """A Kafka message, as far as an exporter needs it."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes | None: ...


class Door(Protocol):
    """How a consumption gets rows out of messages."""

    def read(self, partition: int, messages: Iterable[Message]) -> Accepted:
        """Return the new rows of some messages of one partition, in order."""
        ...

    def forget(self, partition: int) -> None:
        """Know nothing of a partition: somebody else may have gone on with it."""
        ...

    def forget_everything(self) -> None:
        """Start anew: everything that comes is new."""
        ...


class PlainIntake:
    """Decodes blocks of any record. For a sink that itself drops what it has: nothing is remembered."""

    def __init__(self, dtype: np.dtype[np.void], metrics: IntakeMetrics) -> None:
        self._dtype, self._metrics = dtype, metrics

    def read(self, partition: int, messages: Iterable[Message]) -> Accepted:
        """Return every row that can be read, in order."""
        blocks = []
        for message in messages:
            try:
                blocks.append(decode_block(message.value or b"", self._dtype))
            except RecordError as error:
                self._metrics.on_bad_block(type(error).__name__)
                logger.warning("block %d of partition %d is left out: %s", message.offset, partition, error)
        return Accepted(join_records(blocks) if blocks else np.zeros(0, self._dtype))

    def forget(self, partition: int) -> None:
        """Nothing was remembered."""

    def forget_everything(self) -> None:
        """Nothing was remembered."""


class TickIntake(PlainIntake):
    """Decodes blocks of ticks, and notes where each stands."""

    def __init__(self, metrics: IntakeMetrics) -> None:
        super().__init__(TICK, metrics)

    def read(self, partition: int, messages: Iterable[Message]) -> Accepted:
        """Return every tick that can be read, in order: ``PLACED_TICK[N]``."""
        read = super().read  # within the comprehension there is no self to find it by, before Python 3.12
        parts = [(message.offset, read(partition, [message]).rows) for message in messages]
        placed = np.zeros(sum(len(ticks) for _, ticks in parts), PLACED_TICK)
        placed["source_partition"] = partition
        start = 0
        for offset, ticks in parts:
            here = placed[start : start + len(ticks)]
            here["tick"], here["source_offset"], here["source_index"] = ticks, offset, np.arange(len(ticks))
            start += len(ticks)
        return Accepted(placed)


class Intake:
    """Decodes, checks and deduplicates what comes out of the ``predictions`` topic."""

    def __init__(self, metrics: IntakeMetrics) -> None:
        self._sequencer = Sequencer()
        self._metrics = metrics
        self._logged = 0

    def read(self, partition: int, messages: Iterable[Message]) -> Accepted:
        """Return the new rows of some messages of one partition, in order."""
        rows = self.decode(messages)
        accepted = self._sequencer.accept(partition, rows)
        self._metrics.on_accepted(accepted)
        if accepted.missing:
            logger.error(
                "%d predictions are missing in partition %d: Kafka lost them before we read, or none were sent",
                accepted.missing,
                partition,
            )
        if accepted.restarts:
            logger.error("the engine numbers %d symbols of partition %d anew", accepted.restarts, partition)
        return accepted

    def follow(self, partition: int, rows: Records) -> Accepted | None:
        """Return the new ones of rows that go on where those before end, or None where something is in between.

        Rows that we already had are not counted as read again: they are another copy of what was read once.
        """
        accepted = self._sequencer.follow(partition, rows)
        if accepted is not None:
            self._metrics.on_accepted(Accepted(accepted.rows))
        return accepted

    def forget(self, partition: int) -> None:
        """Know nothing of a partition's symbols: somebody else may have gone on with them."""
        self._sequencer.forget(partition)

    def forget_everything(self) -> None:
        """Start anew: everything that comes is new."""
        self._sequencer = Sequencer()

    def decode(self, messages: Iterable[Message]) -> Records:
        """Return every row that can be read and can be true, in order: ``PREDICTION[N]``."""
        blocks = []
        for message in messages:
            try:
                rows = decode_block(message.value or b"", PREDICTION)
            except RecordError as error:
                self._metrics.on_bad_block(type(error).__name__)
                self._log("block %d of partition %d is left out: %s", message.offset, message.partition, error)
                continue
            if not are_plausible(rows):
                possible = plausible(rows)
                bad = int(len(rows) - np.count_nonzero(possible))
                self._metrics.on_bad_rows(bad)
                first = rows[~possible][0]
                self._log(
                    "%d rows of block %d of partition %d are left out; the first is %s",
                    bad,
                    message.offset,
                    message.partition,
                    first,
                )
                rows = rows[possible]
            blocks.append(rows)
        if not blocks:
            return np.zeros(0, PREDICTION)
        return join_records(blocks)

    def _log(self, text: str, *values: object) -> None:
        self._logged += 1
        if self._logged <= _REASONS_LOGGED:
            logger.warning(text, *values)
        if self._logged == _REASONS_LOGGED:
            logger.warning("from here on, bad input is only counted: see tickloom_bad_blocks_total")


def plausible(rows: Records, finite: tuple[str, ...] = _FINITE) -> NDArray[np.bool_]:
    """Return which ``PREDICTION[N]`` (or FEATURES) rows can be true: ``bool[N]``.

    A symbol is printable ASCII, a seq starts at 1, prices and probabilities are finite, a position is in bounds; a
    spread is one, or not known.
    """
    good = readable_symbols(rows["symbol"])
    good &= rows["seq"] - 1 < _LAST_SEQ  # 0 becomes the greatest
    good &= rows["source_offset"].view(np.uint64) < _OFFSETS  # so do negative ones
    good &= rows["source_index"] < _INDICES
    for name in finite:
        good &= np.isfinite(rows[name])
    if "spread_bps" in (rows.dtype.names or ()):
        spread_bps = rows["spread_bps"]
        good &= ~((spread_bps < 0.0) | (spread_bps == np.inf))
    return good


def are_plausible(rows: Records) -> bool:
    """Return whether all of ``PREDICTION[N]`` can be true, as `plausible`."""
    if len(rows) > _FEW:
        return bool(plausible(rows).all())
    column = {name: rows[name].tolist() for name in _LOOKED_AT}
    seqs, offsets = column["seq"], column["source_offset"]
    # What is not finite leaves no sum finite. Others may add up to infinity too, and are looked at again.
    total = sum(sum(column[name]) for name in _FINITE)
    return (
        math.isfinite(total)
        and min(seqs) > 0
        and max(seqs) <= _LAST_SEQ
        and min(offsets) >= 0
        and max(offsets) < _OFFSETS
        and max(column["source_index"]) < _INDICES
        and not any(spread < 0.0 or spread == math.inf for spread in column["spread_bps"])
        and all(map(_is_readable, column["symbol"]))
    ) or bool(plausible(rows).all())


@functools.lru_cache(1 << 14)
def _is_readable(symbol: bytes) -> bool:
    return _READABLE.fullmatch(symbol) is not None


def readable_symbols(symbols: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return which of ``S24[N]`` are printable ASCII, and something: ``bool[N]``."""
    names = symbols.tolist()  # without the zeros at the end
    unreadable = {name for name in set(names) if _READABLE.fullmatch(name) is None}
    if not unreadable:
        return np.ones(len(names), bool)
    return np.array([name not in unreadable for name in names], bool)
