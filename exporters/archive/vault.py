"""Where an archive's files lie, and which of them count.

    ticks/date=2013-10-07/0003-000000000000-000000004711-9f2c01aa.parquet   partition, offsets [first, next), writer
    _log/ticks/EPOCH/0003/000000000000.json                                 one *range*: written last, once
    _log/ticks/EPOCH/0003/000000000000.json.plan-9f2c01aa                   what a writer is about to write
    _log/ticks/EPOCH/0003/2013-10-07.1.compact                              a day's files in place of its ranges'

Exactly once, whatever dies: ranges of a partition are a chain. A range is made by creating a file that is named
for its first offset, which only one of several writers can do; the next writer goes on at its end. The files of a
writer that did not get there are listed in its plan, and are deleted once somebody else's range stands in their
place. Folders that begin with ``_`` are not seen by readers of Parquet.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from exporters.archive.columns import Block, block_bytes
from models.store import Store, open_store
from stream.errors import ArchiveError, RegistryError, SettingsError

_LOG: Final = "_log"
_DAY: Final = "%Y-%m-%d"


@dataclass(frozen=True)
class Chain:
    """One partition of one topic of one Kafka cluster."""

    topic: str
    epoch: str
    partition: int

    @property
    def folder(self) -> str:
        """Return where its ranges are noted."""
        return f"{_LOG}/{self.topic}/{self.epoch}/{self.partition:04d}"


@dataclass(frozen=True)
class File:
    """A Parquet file of one day of a chain; its name says from which offset to which."""

    path: str
    day: str  # YYYY-MM-DD, UTC, by event time
    rows: int
    size_bytes: int

    @property
    def span(self) -> tuple[int, int]:
        """Return the offset of its first row at the earliest, and the one after its last at the latest."""
        _, first, after, _ = self.path.rpartition("/")[2].split("-")
        return int(first), int(after)


@dataclass(frozen=True)
class Range:
    """What a chain holds from one offset up to another."""

    first: int  # offset
    next: int  # the offset after its last
    rows: int
    digest: str  # of every message, see `Digest`
    files: tuple[File, ...]  # one for each day, by event time
    missing: int = 0  # offsets before `first` that Kafka had dropped before they were archived
    others: tuple[dict[str, Any], ...] = ()  # messages that are no blocks that we read, as they came


@dataclass(frozen=True)
class Compacted:
    """A day of a chain in few files: in place of the files that its ranges say."""

    day: str
    next: int  # it holds the day's rows of every range before this offset
    number: int  # 1, 2, ... the newest counts
    files: tuple[File, ...]


class Digest:
    """The fingerprint of messages: offset, time and bytes, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, offset: int, timestamp_ms: int, value: bytes) -> None:
        """Add a message."""
        self._hash.update(offset.to_bytes(8, "little") + timestamp_ms.to_bytes(8, "little", signed=True))
        self._hash.update(len(value).to_bytes(8, "little") + value)

    def text(self) -> str:
        """Return it in hexadecimal."""
        return self._hash.hexdigest()


@dataclass
class History:
    """What is known of a chain: its ranges in order, and its compacted days."""

    ranges: list[Range] = field(default_factory=list)
    compacted: dict[str, Compacted] = field(default_factory=dict)  # the newest of each day
    older: list[Compacted] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)

    @property
    def next(self) -> int | None:
        """Return the offset to go on with; None where nothing is archived."""
        return self.ranges[-1].next if self.ranges else None

    def files(self) -> list[File]:
        """Return every file that counts, by day and offset."""
        found = [file for day in self.compacted.values() for file in day.files]
        found += [file for each in self.ranges for file in each.files if not self._is_compacted(each, file)]
        return sorted(found, key=lambda file: (file.day, file.span))

    def replaced(self) -> list[File]:
        """Return the files that a compacted day stands for."""
        kept = {file.path for day in self.compacted.values() for file in day.files}
        files = [file for each in self.ranges for file in each.files if self._is_compacted(each, file)]
        files += [file for day in self.older for file in day.files]
        return [file for file in files if file.path not in kept]

    def _is_compacted(self, each: Range, file: File) -> bool:
        newer = self.compacted.get(file.day)
        return newer is not None and each.first < newer.next


class Vault:
    """An archive in a directory or an object store."""

    def __init__(self, url: str) -> None:
        """Open it; nothing is made before something is written.

        Args:
            url: a directory, or a URL that fsspec has a driver for, such as ``s3://BUCKET/PREFIX``.

        Raises:
            SettingsError: no driver for such a URL is installed.
        """
        self.url = url
        try:
            self._store: Store = open_store(url)
        except SettingsError as error:
            raise SettingsError(str(error).replace("registry", "archive", 1)) from None

    def chains(self, topics: Iterable[str]) -> list[Chain]:
        """Return every chain that there is of some topics.

        Raises:
            ArchiveError: it cannot be listed.
        """
        return [
            Chain(topic, epoch, int(partition))
            for topic in topics
            for epoch in self._names(f"{_LOG}/{topic}")
            for partition in self._names(f"{_LOG}/{topic}/{epoch}")
        ]

    def history(self, chain: Chain) -> History:
        """Return what a chain holds.

        Raises:
            ArchiveError: it cannot be read, or its ranges do not follow one another.
        """
        history = History()
        for name in self._names(chain.folder):
            path = f"{chain.folder}/{name}"
            if ".plan-" in name:
                history.plans.append(path)
            elif name.endswith(".json"):
                history.ranges.append(_range(path, self._read(path)))
            else:
                history.older.append(_compacted(path, self._read(path)))
        for day in sorted(history.older, key=lambda day: day.number):
            history.compacted[day.day] = day
        history.older = [day for day in history.older if history.compacted[day.day] is not day]
        for before, after in zip(history.ranges, history.ranges[1:], strict=False):
            if after.first - after.missing != before.next:
                raise ArchiveError(
                    f"{self.url}: after offset {before.next} of {chain.folder} comes {after.first}; "
                    "a range was deleted, or the archive is not ours"
                )
        return history

    def add_range(self, chain: Chain, each: Range, data: Mapping[str, bytes], writer: str) -> bool:
        """Write the files of a range, then the range. Return False where another writer was there before us.

        Raises:
            ArchiveError: it cannot be written; nothing of it counts.
        """
        return self._add(f"{chain.folder}/{each.first:012d}.json", each, data, writer)

    def add_compacted(self, chain: Chain, day: Compacted, data: Mapping[str, bytes], writer: str) -> bool:
        """Write a day's files, then that they count. Return False where somebody else did so first.

        Raises:
            ArchiveError: it cannot be written; nothing of it counts.
        """
        return self._add(f"{chain.folder}/{day.day}.{day.number}.compact", day, data, writer)

    def _add(self, path: str, what: Range | Compacted, data: Mapping[str, bytes], writer: str) -> bool:
        plan = f"{path}.plan-{writer}"
        self._create(plan, orjson.dumps({"files": list(data)}))
        for file, content in data.items():
            self._create(file, content)
        if not self._create(path, orjson.dumps(what)):
            self._remove([*data, plan])
            return False
        self._remove([plan])
        return True

    def sweep(self, chain: Chain) -> int:
        """Delete what writers left that were cut off, and files that a compacted day stands for; return how many.

        A plan is only touched where what it was for stands: its writer, should it live, cannot win any more.
        """
        history = self.history(chain)
        counts = {file.path for file in history.files()}
        stands = {f"{each.first:012d}.json" for each in history.ranges}
        stands |= {f"{day.day}.{n}.compact" for day in history.compacted.values() for n in range(day.number + 1)}
        swept = 0
        for plan in history.plans:
            if plan.rpartition("/")[2].partition(".plan-")[0] in stands:
                left = [path for path in orjson.loads(self._read(plan))["files"] if path not in counts]
                self._remove([*left, plan])
                swept += len(left)
        replaced = {file.path for file in history.replaced()}
        for folder in {path.rpartition("/")[0] for path in replaced}:
            there = replaced & {f"{folder}/{name}" for name in self._names(folder)}
            self._remove(there)
            swept += len(there)
        return swept

    def read(self, path: str) -> bytes:
        """Return a file.

        Raises:
            ArchiveError: there is none, or it cannot be read.
        """
        return self._read(path)

    def _names(self, folder: str) -> list[str]:
        try:
            return self._store.names(folder)
        except RegistryError as error:
            raise ArchiveError(str(error)) from error

    def _read(self, path: str) -> bytes:
        try:
            return self._store.read(path)
        except FileNotFoundError:
            raise ArchiveError(f"{self.url}/{path} is gone, and the archive says that it has it") from None
        except RegistryError as error:
            raise ArchiveError(str(error)) from error

    def _create(self, path: str, data: bytes) -> bool:
        try:
            return self._store.create(path, data)
        except RegistryError as error:
            raise ArchiveError(str(error)) from error

    def _remove(self, paths: Iterable[str]) -> None:
        try:
            for path in paths:
                self._store.remove_file(path)
        except RegistryError as error:
            raise ArchiveError(str(error)) from error


def data_path(chain: Chain, day: str, first: int, after: int, writer: str) -> str:
    """Return where the rows of one day of a range go."""
    name = f"{chain.partition:04d}-{first:012d}-{after:012d}-{writer}.parquet"
    return f"{chain.topic}/date={day}/{name}"


def day_name(day: int) -> str:
    """Return days since 1970 as YYYY-MM-DD: whatever an ``int64`` of ns tells is between 1677 and 2262."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime(_DAY)


def digest_of(blocks: Iterable[Block], others: Iterable[tuple[int, int, bytes]]) -> str:
    """Return the fingerprint of a range's messages.

    Args:
        blocks: in order.
        others: offset, time in ms and bytes of those that are no blocks.
    """
    digest = Digest()
    messages = [(block.offset, block.timestamp_ms, block_bytes(block)) for block in blocks]
    for message in sorted([*messages, *others]):
        digest.add(*message)
    return digest.text()


def _range(path: str, data: bytes) -> Range:
    try:
        fields = orjson.loads(data)
        return Range(**{**fields, "files": _files(fields), "others": tuple(fields["others"])})
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ArchiveError(f"{path} is not a range that this tickloom reads: {error!r}") from None


def _compacted(path: str, data: bytes) -> Compacted:
    try:
        fields = orjson.loads(data)
        return Compacted(**{**fields, "files": _files(fields)})
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ArchiveError(f"{path} is not a compacted day that this tickloom reads: {error!r}") from None


def _files(fields: dict[str, Any]) -> tuple[File, ...]:
    return tuple(File(**each) for each in fields["files"])
