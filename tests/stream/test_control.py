"""An operator's halts: as ticks, on a real broker."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from stream.control import control_ticks, publish_control
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import RecordError, SettingsError
from stream.records import TickKind, partition_of
from stream.settings import Settings

NOW_NS = 1_700_000_000_123_456_789


def test_a_halt_is_since_now_or_since_a_time_of_the_venue() -> None:
    ticks = control_ticks(TickKind.HALT, ["AIG", "BAC"], clock=lambda: NOW_NS)
    assert ticks["symbol"].tolist() == [b"AIG", b"BAC"]
    assert ticks["kind"].tolist() == [TickKind.HALT] * 2
    assert ticks["event_ns"].tolist() == ticks["recv_ns"].tolist() == [NOW_NS] * 2
    since = datetime(2013, 10, 7, 15, 0, 0, 250_000, UTC)
    for moment in (since, since.replace(tzinfo=None)):
        ticks = control_ticks(TickKind.RESUME, ["AIG"], moment, clock=lambda: NOW_NS)
        assert ticks["event_ns"].tolist() == [1_381_158_000_250_000_000]
        assert ticks["recv_ns"].tolist() == [NOW_NS]


def test_what_lanes_would_refuse_is_not_sent() -> None:
    for year in (1969, 2999):
        with pytest.raises(SettingsError, match="still to come, or before 1970"):
            control_ticks(TickKind.HALT, ["AIG"], datetime(year, 1, 1, tzinfo=UTC))
    with pytest.raises(RecordError, match="not 'A B'"):
        control_ticks(TickKind.HALT, ["A B"])


async def test_each_symbol_is_halted_in_its_own_partition(
    kafka: EmbeddedKafka,
    tick_topic: Callable[..., Awaitable[str]],
    read_blocks: Callable[..., Awaitable[Any]],
) -> None:
    topic = await tick_topic(kafka.bootstrap, 4)
    ticks = control_ticks(TickKind.HALT, [f"SYM{number}" for number in range(20)])
    await publish_control(Settings(kafka=kafka.bootstrap, partitions=4), ticks, topic)
    found = await read_blocks(kafka.bootstrap, topic)
    assert sum(len(block) for blocks in found for block in blocks) == 20
    for partition, blocks in enumerate(found):
        for block in blocks:
            assert (partition_of(block["symbol"], 4) == partition).all()
            assert (block["kind"] == TickKind.HALT).all()
            assert np.isnan(block["price"]).all()
