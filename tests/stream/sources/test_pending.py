"""The queues of pending ticks."""

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.records import MAX_BLOCK_RECORDS, TICK, Records, empty_ticks, partition_of
from stream.sources.pending import PendingTicks


def some_ticks(first_seq: int, count: int) -> Records:
    ticks = empty_ticks(count)
    ticks["source_seq"] = np.arange(first_seq, first_seq + count)
    ticks["symbol"] = np.array([f"S{number}".encode() for number in range(11)], TICK["symbol"])[
        (ticks["source_seq"] % 11).astype(np.int64)
    ]
    return ticks


@given(
    st.lists(st.sampled_from([1, 2, 7, 300, 5_000]), max_size=12),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([4, 1 << 16]),
)
def test_every_partition_gives_its_ticks_in_order_in_blocks_of_the_most(
    counts: list[int], partitions: int, taken_early: int, known_symbols: int
) -> None:
    with patch("stream.sources.pending._KNOWN_SYMBOLS", known_symbols):
        check(counts, partitions, taken_early)


def check(counts: list[int], partitions: int, taken_early: int) -> None:
    pending = PendingTicks(partitions)
    taken: list[list[Records]] = [[] for _ in range(partitions)]
    first_seq = 1
    for count in counts:
        pending.add(some_ticks(first_seq, count))
        first_seq += count
        for partition in range(min(taken_early, partitions)):
            if pending.is_full(partition):
                taken[partition].append(pending.take(partition))
                assert len(taken[partition][-1]) == MAX_BLOCK_RECORDS
    assert pending.count == first_seq - 1 - sum(len(block) for blocks in taken for block in blocks)
    for partition in range(partitions):
        while not pending.is_empty(partition):
            taken[partition].append(pending.take(partition))
            assert 1 <= len(taken[partition][-1]) <= MAX_BLOCK_RECORDS
    assert pending.count == 0
    whole = some_ticks(1, first_seq - 1)
    owners = partition_of(whole["symbol"], partitions)
    for partition, blocks in enumerate(taken):
        assert b"".join(block.tobytes() for block in blocks) == whole[owners == partition].tobytes()
