"""The archiver on a real broker: killed, rivalled, and read by others."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from exporters.archive.archiver import run_archiver
from exporters.archive.restore import chosen, messages, restore_to_kafka
from exporters.archive.vault import Vault
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ArchiveError
from stream.records import TICK, encode_block
from stream.settings import Settings
from stream.sources.replay import Replay
from stream.topics import TICKS, create_topics

PARTITIONS = 2
BLOCK_TICKS = 200
Log = dict[int, list[tuple[int, bytes]]]  # by partition: time in ms and bytes, in order


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two brokers of our own: the archiver's group and topics have fixed names."""
    with (
        EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as one,
        EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as other,
    ):
        for each in (one, other):
            asyncio.run(create_topics(each.bootstrap, PARTITIONS, 1, 24))
        yield [one.bootstrap, other.bootstrap]


@pytest.fixture(scope="module")
def blocks(shared_data: Path) -> list[bytes]:
    """Real ticks, as blocks."""
    day = next(iter(Replay([shared_data / "ticks" / "us_equity"], symbols=["AIG"]).days()))[:40_000]
    return [encode_block(day[start : start + BLOCK_TICKS]) for start in range(0, len(day), BLOCK_TICKS)]


async def send(bootstrap: str, sent: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=2) as producer:
        for at, value in enumerate(sent):
            await producer.send(TICKS, value, partition=at % PARTITIONS)


async def log_of(bootstrap: str) -> Log:
    """What Kafka holds of ticks."""
    parts = [TopicPartition(TICKS, number) for number in range(PARTITIONS)]
    found: Log = {number: [] for number in range(PARTITIONS)}
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for part, read in (await consumer.getmany(timeout_ms=200)).items():
                found[part.partition] += [(each.timestamp, each.value) for each in read]
    return found


def archived(url: str) -> Log:
    vault = Vault(url)
    return {
        chain.partition: [(m.timestamp_ms, m.value) for _, found in messages(vault, chain, h) for m in found]
        for chain, h in chosen(vault, (TICKS,), None)
    }


async def archive_now(bootstrap: str, url: str) -> dict[str, Any]:
    settings = Settings(kafka=bootstrap, partitions=PARTITIONS, session_timeout_s=2)
    return await asyncio.wait_for(run_archiver(settings, url, [TICKS], asyncio.Event(), once=True), 60)


async def test_nothing_is_lost_or_doubled_by_kills_and_it_comes_back_to_another_cluster(
    brokers: list[str], blocks: list[bytes], tmp_path: Path
) -> None:
    url, (bootstrap, other) = str(tmp_path / "archive"), brokers
    sending = asyncio.create_task(send(bootstrap, [*blocks[:50], b"not a block", *blocks[50:100]]))
    variables = {**os.environ, "TICKLOOM_ARCHIVE_EVERY_S": "1", "TICKLOOM_SESSION_TIMEOUT_S": "2"}
    command = [sys.executable, "-m", "stream", "archive", "run", url, "--topics", TICKS, "--kafka", bootstrap]
    command += ["--port", "0"]
    variables |= {"TICKLOOM_PARTITIONS": str(PARTITIONS)}
    for turn in range(2):
        before = set(tmp_path.rglob("*.parquet"))  # one that a kill left unlisted is swept by the next writer
        process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            deadline_s = time.monotonic() + 90
            while len(set(tmp_path.rglob("*.parquet")) - before) < PARTITIONS:
                assert time.monotonic() < deadline_s
                assert process.poll() is None
                await asyncio.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        await sending
        sending = asyncio.create_task(send(bootstrap, blocks[100 + 40 * turn : 140 + 40 * turn]))
    await sending
    done = await archive_now(bootstrap, url)
    assert done["missing"] == 0
    kafka = await log_of(bootstrap)
    assert archived(url) == kafka
    ticks = np.concatenate([np.frombuffer(block[16:], TICK) for block in blocks[:180]])
    _read_by_others(tmp_path / "archive", ticks)

    vault = Vault(url)
    for _ in range(2):  # a second time there is nothing left to do
        for chain, history in chosen(vault, (TICKS,), None):
            await restore_to_kafka(other, vault, chain, history, lambda rows: None)
        assert await log_of(other) == kafka
    async with AIOKafkaProducer(bootstrap_servers=other) as producer:
        await producer.send_and_wait(TICKS, blocks[0], partition=0)
    chain, history = chosen(vault, (TICKS,), None)[0]
    with pytest.raises(ArchiveError, match="already holds messages"):
        await restore_to_kafka(other, vault, chain, history, lambda rows: None)


def _read_by_others(root: Path, ticks: Any) -> None:
    files = f"{root}/ticks/*/*.parquet"
    archive = duckdb.read_parquet(files, hive_partitioning=True).filter("date < '2100-01-01'")
    found = archive.aggregate("count(*), sum(size) FILTER (NOT isnan(size)), max(event_ns)").fetchall()
    assert found == [(len(ticks), pytest.approx(np.nansum(ticks["size"])), ticks["event_ns"].max())]
    frame = pd.read_parquet(root / "ticks")
    assert len(frame) == len(ticks)
    assert sorted(frame["event_ns"]) == sorted(ticks["event_ns"])
    assert set(frame["symbol"]) == {"AIG"}
    assert str(frame["date"].iloc[0]) == str(frame["event_time"].iloc[0].date())


async def test_what_kafka_dropped_before_it_was_archived_is_told(
    brokers: list[str], blocks: list[bytes], tmp_path: Path
) -> None:
    url, bootstrap = str(tmp_path), brokers[0]
    await send(bootstrap, blocks[:20])
    await archive_now(bootstrap, url)
    await send(bootstrap, blocks[20:40])
    part = TopicPartition(TICKS, 0)
    end = len((await log_of(bootstrap))[0])
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_records({part: RecordsToDelete(before_offset=end - 4)})
    await admin.close()
    assert (await archive_now(bootstrap, url))["missing"] == 6
    vault = Vault(url)
    _, history = chosen(vault, (TICKS,), None)[0]
    assert [each.missing for each in history.ranges] == [0, 6]
    assert history.next == end


def test_the_command_line_lists_verifies_and_compacts(tmp_path: Path, make_messages: Any) -> None:
    from exporters.archive.ranges import OpenRange
    from exporters.archive.vault import Chain

    vault, chain = Vault(str(tmp_path)), Chain(TICKS, "epoch", 0)
    for first in (0, 10):
        each = OpenRange(chain, first)
        each.add(make_messages(10, first))
        closed, data = each.close(f"{first:08x}")
        assert vault.add_range(chain, closed, data, f"{first:08x}")

    def tickloom(*arguments: str) -> Any:
        command = [sys.executable, "-m", "stream", "archive", *arguments, str(tmp_path), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    assert [(row["next offset"], row["files"]) for row in tickloom("list")] == [(20, 4)]
    assert tickloom("verify")["ranges"] == 2
    assert tickloom("compact") == {"files_fewer": 2}
    assert tickloom("verify")["rows"] == closed.rows + vault.history(chain).ranges[0].rows
