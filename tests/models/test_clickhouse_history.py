"""Ticks out of ClickHouse: in the order in which lanes had them, whatever was sent twice, over clusters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporters.batch import Batch
from exporters.clickhouse.sink import ClickHouseSink
from exporters.intake import TickIntake
from exporters.metrics import IntakeMetrics
from models.clickhouse_history import clickhouse_ticks
from models.dataset import HistoryRows, by_symbol, history
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.ports import free_port
from stream.errors import SettingsError, SourceError
from stream.records import Records, TickKind, encode_block, partition_of

PARTITIONS = 3
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Message:
    """A block of ticks, as Kafka has it."""

    partition: int
    offset: int
    value: bytes


async def store(url: str, ticks: Records, epoch: str, block_ticks: int = 150) -> None:
    """Send ticks through the door and the sink of the exporter, as blocks of a cluster's topic."""
    sink, door, offsets = ClickHouseSink(url), TickIntake(IntakeMetrics(CollectorRegistry())), [0] * PARTITIONS
    for block in np.array_split(ticks, max(1, len(ticks) // block_ticks)):
        homes = partition_of(block["symbol"], PARTITIONS)
        for number in np.unique(homes).tolist():
            message = Message(number, offsets[number], encode_block(block[homes == number]))
            offsets[number] += 1
            rows = door.read(number, [message]).rows
            await sink.write(Batch(rows, ((number, message.offset, message.offset),), epoch))
    await sink.close()


def rows_by_symbol(rows: HistoryRows) -> dict[str, tuple[bytes, bytes, bytes]]:
    return {
        rows.symbols[rows.symbol_row[where[0]]]: (
            rows.features[where].tobytes(),
            rows.event_ns[where].tobytes(),
            rows.ref_price[where].tobytes(),
        )
        for where in by_symbol(rows.symbol_row)
    }


@pytest.fixture
def url(clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]) -> str:
    return clickhouse.url.rsplit("/", 1)[0] + f"/{fresh_name('history')}"


def market(make_ticks: Callable[..., Any], count: int) -> Records:
    """Ticks of three days with all that is odd: halts, garbage, ticks out of order, copies."""
    ticks = make_ticks(count, symbols=4, seed=2)
    ticks["event_ns"] += np.arange(count) * (3 * DAY_NS // count)
    ticks["recv_ns"] = ticks["event_ns"] + 1000
    ticks["event_ns"][5::40] -= 400_000_000
    ticks["price"][7::90] = np.nan
    ticks["kind"][11::200] = TickKind.HALT
    ticks["kind"][12::200] = TickKind.RESUME
    copies = ticks[3::60].copy()  # sent again at once, as a source does that was killed
    copies["recv_ns"] += 77
    return np.insert(ticks, np.arange(4, 4 + 60 * len(copies), 60)[: len(copies)], copies)


async def test_the_features_are_those_of_the_ticks_themselves(url: str, make_ticks: Callable[..., Any]) -> None:
    ticks = market(make_ticks, 1500)
    await store(url, ticks, "one")
    walked: list[tuple[int, int]] = []
    read = clickhouse_ticks(url, 0, 1 << 62, lambda *at: walked.append(at), page_rows=150)
    stored = history(read, 5_000_000_000)
    direct = history(ticks, 5_000_000_000)
    assert len(stored.event_ns) == len(direct.event_ns) > 700
    assert rows_by_symbol(stored) == rows_by_symbol(direct)
    assert walked[-1][0] == walked[-1][1] < len(ticks), "copies are stored once"
    assert sorted(walked) == walked


async def test_clusters_follow_each_other_and_what_the_newer_has_again_counts_there(
    url: str, make_ticks: Callable[..., Any]
) -> None:
    ticks = market(make_ticks, 1200)
    # The names of clusters say nothing of their order. The second has a part of the first once more.
    await store(url, ticks[:800], "zzz")
    await store(url, ticks[600:], "aaa", block_ticks=131)
    stored = history(clickhouse_ticks(url, 0, 1 << 62, lambda *_: None), 5_000_000_000)
    assert rows_by_symbol(stored) == rows_by_symbol(history(ticks, 5_000_000_000))


async def test_only_ticks_between_the_two_moments_come(url: str, make_ticks: Callable[..., Any]) -> None:
    ticks = make_ticks(300, symbols=2, seed=3)
    await store(url, ticks, "one")
    from_ns, to_ns = (int(np.sort(ticks["event_ns"])[place]) for place in (100, 200))
    some = np.concatenate(list(clickhouse_ticks(url, from_ns, to_ns, lambda *_: None)))
    inside = ticks[(ticks["event_ns"] >= from_ns) & (ticks["event_ns"] < to_ns)]
    key = ["symbol", "source_seq"]
    assert np.sort(some, order=key).tobytes() == np.sort(inside, order=key).tobytes()
    with pytest.raises(SourceError, match="no ticks of that time"):
        list(clickhouse_ticks(url, 0, 1, lambda *_: None))


def test_what_cannot_be_read_is_said(url: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be read: .*does not exist"):
        list(clickhouse_ticks(url, 0, 1, lambda *_: None))
    with pytest.raises(SourceError, match="cannot be read"):
        list(clickhouse_ticks(f"clickhouse://127.0.0.1:{free_port()}/db", 0, 1, lambda *_: None))
    with pytest.raises(SettingsError, match="not a ClickHouse URL"):
        list(clickhouse_ticks("clickhouse://127.0.0.1:port/db", 0, 1, lambda *_: None))
