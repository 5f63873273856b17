"""A request for what a broker has for us, as it is sent again and again, and what comes of it, decoded."""

import struct
import time
from typing import Any, Final

from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.kafka_connection import encode_fetch

_OFFSET: Final = struct.Struct(">q")

Fetches = dict[TopicPartition, "Fetched"]


class _Place:
    """A partition in a request."""

    __slots__ = ("asked", "at", "state", "tp")

    def __init__(self, tp: TopicPartition, state: Any, at: int) -> None:
        self.tp, self.state, self.at = tp, state, at
        self.asked: int = state.position


class Fetch:
    """A request for partitions of one node: the same bytes each time, but for the offsets."""

    def __init__(self, node: int, built: Any, assignment: Any) -> None:
        """Take over a request.

        Args:
            node: who is asked.
            built: a ``FetchRequest_v11``.
            assignment: aiokafka's; knows where we are in each partition.
        """
        self.node, self.built = node, built
        body, places = encode_fetch(built)
        self.body = bytearray(body)
        self._assignment = assignment
        self._places: dict[tuple[str, int], _Place] = {}
        for (topic, number), at in places.items():
            tp = TopicPartition(topic, number)
            self._places[topic, number] = _Place(tp, assignment.state_value(tp), at)
        self.partitions = frozenset(place.tp for place in self._places.values())

    @property
    def topics(self) -> list[tuple[str, list[tuple[int, int, int]]]]:
        """What was asked for, as aiokafka's handlers look for it in a request."""
        by_topic: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, number), place in self._places.items():
            by_topic.setdefault(topic, []).append((number, place.asked, 0))
        return list(by_topic.items())

    def turn(self) -> bool:
        """Ask for what comes next; return False where a partition is paused, or we do not know where we are."""
        body = self.body
        for place in self._places.values():
            state = place.state
            if not state.has_valid_position or state.paused:
                return False
            place.asked = state.position
            _OFFSET.pack_into(body, place.at, place.asked)
        return True

    def read(self, answer: Any, check_crcs: bool, backoff_s: float) -> Fetches | None:
        """Return what came, by partition; None where anything in the answer is out of the ordinary.

        Args:
            answer: a ``FetchResponse_v11``.
            check_crcs: whether to.
            backoff_s: so long other partitions of the node wait for these records to be taken.
        """
        if not self._assignment.active:
            return {}
        found: Fetches = {}
        now_ms = int(time.time() * 1000)
        for topic, partitions in answer.topics:
            for number, error, highwater, stable, _, _, _, batches in partitions:
                place = self._places.get((topic, number))
                if error or place is None or batches is None:
                    return None
                state = place.state
                if not state.has_valid_position or state.position != place.asked:
                    continue  # it was moved meanwhile
                state.highwater, state.lso, state.timestamp = highwater, stable, now_ms
                if batches:
                    decoded = _decode(place, batches, check_crcs)
                    if decoded is None:
                        return None
                    found[place.tp] = Fetched(self._assignment, place, *decoded, backoff_s)
        return found


class Fetched:
    """Records of a partition that nobody has taken: aiokafka's ``FetchResult``, but they are decoded."""

    def __init__(
        self, assignment: Any, place: _Place, records: list[Any], next_offset: int, backoff_s: float
    ) -> None:
        """Hold records that were asked for, in order; ``next_offset`` is behind the last and what is no record."""
        self._assignment, self._state, self._position = assignment, place.state, place.asked
        self._records: list[Any] | None = records
        self._next_offset = next_offset
        self._free_s = time.monotonic() + backoff_s

    def calculate_backoff(self) -> float:
        """Return for how many seconds other partitions of the node still wait for these to be taken."""
        return max(0.0, self._free_s - time.monotonic())

    def has_more(self) -> bool:
        """Whether there are records left."""
        return self._records is not None

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records, and be behind them; none of what was paused, or moved to another position."""
        records, state = self._records, self._state
        if records is None or not self._assignment.active or state.paused or state.position != self._position:
            self._records = None
            return []
        if max_records is None or len(records) <= max_records:
            self._records = None
            state.consumed_to(self._next_offset)
            return records
        self._records = records[max_records:]
        self._position = records[max_records - 1].offset + 1
        state.consumed_to(self._position)
        return records[:max_records]


def _decode(place: _Place, batches: bytes, check_crcs: bool) -> tuple[list[Any], int] | None:
    """Return the records of a partition and the offset behind them; None where they cannot be read."""
    topic, number = place.tp
    next_offset = place.asked
    records: list[Any] = []
    try:
        memory = MemoryRecords(batches)
        if not memory.has_next():
            return None
        while memory.has_next():
            batch: Any = memory.next_batch()
            if check_crcs and not batch.validate_crc():
                return None
            if not batch.is_control_batch:
                # A broker sends whole batches, also where we are in the middle of one.
                records += [_record(topic, number, record) for record in batch if record.offset >= next_offset]
            next_offset = batch.next_offset
    except Exception:  # noqa: BLE001  (aiokafka reads it again, and tells who reads)
        return None
    return records, next_offset


def _record(topic: str, partition: int, record: Any) -> Any:
    key, value = record.key, record.value
    return ConsumerRecord(
        topic,
        partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        key,
        value,
        record.checksum,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        tuple(record.headers),
    )
