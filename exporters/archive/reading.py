"""An archive read back: the messages of a chain, each proven to be what Kafka had."""

import io
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.archive.columns import Block, block_bytes, to_blocks
from exporters.archive.vault import Chain, File, History, Range, Vault, digest_of
from stream.errors import ArchiveError

_KEPT_FILES: Final = 4


@dataclass(frozen=True)
class Message:
    """What Kafka had at an offset."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    block: Block | None  # None: it was no block that we read
    headers: tuple[tuple[str, bytes], ...] = ()


class Reader:
    """Reads the ranges of a chain in order."""

    def __init__(self, vault: Vault, chain: Chain, history: History) -> None:
        self._vault, self._chain, self._history = vault, chain, history
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._by_day: dict[str, list[File]] = {}
        for file in history.files():
            self._by_day.setdefault(file.day, []).append(file)

    def messages(self, each: Range) -> list[Message]:
        """Return the messages of a range.

        Raises:
            ArchiveError: a file is gone or damaged, or they are not those that were archived.
        """
        parts = [part for part in self._parts(each) if part.num_rows]
        blocks = list(to_blocks(self._chain.topic, join_tables(parts))) if parts else []
        number = self._chain.partition
        raw = [_other(number, other) for other in each.others]
        found = digest_of(blocks, [(other.offset, other.timestamp_ms, other.value) for other in raw])
        if found != each.digest:
            rows = sum(len(block.rows) for block in blocks)
            raise ArchiveError(
                f"offsets {each.first} to {each.next} of {self._chain.folder} are not what was archived: "
                f"{rows} rows with the fingerprint {found}; right would be {each.rows} with {each.digest}"
            )
        good = [Message(number, block.offset, block.timestamp_ms, block_bytes(block), block) for block in blocks]
        return sorted([*good, *raw], key=lambda message: message.offset)

    def _parts(self, each: Range) -> Iterator[pa.Table]:
        for day in sorted({file.day for file in each.files}):
            for file in self._by_day[day]:
                first, after = file.span
                if first < each.next and after > each.first:
                    table = self._table(file.path)
                    if (first, after) != (each.first, each.next):
                        offset = table["kafka_offset"].to_numpy()
                        table = table.filter((offset >= each.first) & (offset < each.next))
                    yield table

    def _table(self, path: str) -> pa.Table:
        if path not in self._tables:
            self._tables[path] = read_table(self._vault, path)
            while len(self._tables) > _KEPT_FILES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(path)
        return self._tables[path]


def join_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of several files; a column that some do not have yet is null there."""
    return pa.concat_tables(tables, promote_options="default")


def read_table(vault: Vault, path: str) -> pa.Table:
    """Return a file of the archive.

    Raises:
        ArchiveError: it is gone or damaged.
    """
    try:
        # Without threads: beside the lanes an archive has one core at the most.
        return pq.read_table(io.BytesIO(vault.read(path)), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise ArchiveError(f"{vault.url}/{path} is damaged: {error}") from None


def _other(partition: int, fields: dict[str, Any]) -> Message:
    headers = tuple((name, b64decode(value)) for name, value in fields["headers"])
    return Message(
        partition, fields["offset"], fields["timestamp_ms"], b64decode(fields["value_base64"]), None, headers
    )
