"""What was read of a partition and is not archived yet, and how it becomes a range of the archive."""

import time
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from exporters.archive.columns import RECORDS, Block, is_storable, to_parquet, to_table
from exporters.archive.vault import Chain, File, Range, data_path, day_name, digest_of
from stream.errors import RecordError
from stream.records import decode_block, version_of

MOST_ROWS: Final = 131_072  # of a range; some 3 MB as Parquet, and 25 MB of memory of a partition


class OpenRange:
    """Messages of one partition, in order, until there are enough."""

    def __init__(self, chain: Chain, first: int, missing: int = 0) -> None:
        """Begin a range.

        Args:
            chain: whose.
            first: the offset that it begins with.
            missing: how many offsets before that are not archived, and gone.
        """
        self.chain, self.first, self.next, self.missing = chain, first, first, missing
        self.rows = 0
        self.others: list[dict[str, Any]] = []
        self._raw: list[tuple[int, int, bytes]] = []
        self._blocks: list[Block] = []
        self._since_s: float | None = None

    def add(self, messages: Iterable[Any]) -> None:
        """Take messages of Kafka; what is no block that we read is kept as it came."""
        dtype = RECORDS[self.chain.topic]
        for message in messages:
            value = message.value or b""
            try:
                rows = decode_block(value, dtype)
                if not is_storable(rows):
                    raise RecordError("a text in it is not ASCII")
            except RecordError as error:
                self._keep_other(message, value, str(error))
            else:
                version = version_of(value)
                self._blocks.append(Block(message.offset, message.timestamp, rows, version))
                self.rows += len(rows)
            self.next = message.offset + 1
        if self._since_s is None and self.next > self.first:
            self._since_s = time.monotonic()

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return self.next == self.first

    def is_due(self, after_s: float) -> bool:
        """Return whether it is time to archive it."""
        old = self._since_s is not None and time.monotonic() - self._since_s >= after_s
        return old or self.rows >= MOST_ROWS

    def close(self, writer: str) -> tuple[Range, dict[str, bytes]]:
        """Return it as a range of the archive, and its Parquet files by path; this takes some 100 ms."""
        files, data = [], {}
        if self._blocks:
            table, days = to_table(self.chain.topic, self.chain.epoch, self.chain.partition, self._blocks)
            for day in np.unique(days):
                of_day = table.filter(days == day) if len(days) != (days == day).sum() else table
                path = data_path(self.chain, day_name(int(day)), self.first, self.next, writer)
                data[path] = to_parquet(of_day)
                files.append(File(path, day_name(int(day)), of_day.num_rows, len(data[path])))
        digest = digest_of(self._blocks, self._raw)
        fixed = (self.first, self.next, self.rows, digest)
        return Range(*fixed, tuple(files), self.missing, tuple(self.others)), data

    def _keep_other(self, message: Any, value: bytes, why: str) -> None:
        self._raw.append((message.offset, message.timestamp, value))
        self.others.append(
            {
                "offset": message.offset,
                "timestamp_ms": message.timestamp,
                "value_base64": b64encode(value).decode(),
                "headers": [[name, b64encode(header).decode()] for name, header in message.headers],
                "why": why,
            }
        )
