"""What was lost on the way, by the client or by the brokers, is found, or told."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from lane_kafka import Kafka, NewWorker, identities, trades, undisturbed, until
from lane_worker import PARTITIONS
from markets import Feed

from agents.state_reader import read_state
from stream.app import StateTable
from stream.errors import InvariantError
from stream.records import TICK, partition_of
from stream.topics import STATE_CHANGELOG, TICKS

pytestmark = pytest.mark.timeout(300)


async def test_blocks_that_do_not_come_are_read_again(kafka_io: Kafka, new_worker: NewWorker) -> None:
    # Whatever the client loses on the way, the lane counts offsets; the last block has no successor to tell of it.
    feed, generator = Feed(), np.random.default_rng(5)
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "HOLE", 1))
        await until(lambda: worker.metrics.predictions >= 8, "the first ticks are predicted")
        deliver = worker.app.consumer._deliver

        async def forgetful(records: dict[Any, list[Any]], is_positioned: bool) -> None:
            await deliver({tp: batch for tp, batch in records.items() if generator.random() < 0.5}, is_positioned)

        async def forgotten(records: dict[Any, list[Any]], is_positioned: bool) -> None:
            await deliver({tp: batch for tp, batch in records.items() if tp.topic != TICKS}, is_positioned)

        worker.app.consumer._deliver = forgetful
        for _ in range(40):
            await kafka_io.send(trades(feed, "HOLE", 1))
        worker.app.consumer._deliver = forgotten
        await kafka_io.send(trades(feed, "HOLE", 1))
        await until(lambda: worker.metrics.predictions >= 42 * 8, "all ticks are predicted")
        assert worker.metrics.blocks["read_again"] > 0
        assert worker.lanes.failure is None
    got = identities(await kafka_io.predictions("HOLE"))
    assert got == undisturbed(await kafka_io.ticks("HOLE"))


async def test_a_table_that_was_not_recovered_whole_is_not_believed(
    kafka_io: Kafka, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "PART", 20))
        await until(lambda: worker.metrics.predictions >= 160, "all ticks are predicted")
    apply = StateTable.apply_changelog_batch

    def apply_some(table: StateTable, batch: Any) -> None:
        apply(table, [event for event in batch if event.message.key != b"PART3"])

    monkeypatch.setattr(StateTable, "apply_changelog_batch", apply_some)
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "PART", 20))
        await until(lambda: worker.metrics.predictions >= 160, "all ticks are predicted")
        assert worker.metrics.blocks["changelog_read_again"] == 1
    got = identities(await kafka_io.predictions("PART"))
    assert got == undisturbed(await kafka_io.ticks("PART"))


async def test_an_older_row_that_is_written_later_does_not_count(kafka_io: Kafka, new_worker: NewWorker) -> None:
    # A worker that was cut off and comes back writes the state that it had, after its successor has gone on.
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "LATE", 10))
        await until(lambda: worker.metrics.predictions >= 80, "all ticks are predicted")
    old = [message for message in await kafka_io.read(STATE_CHANGELOG) if (message.key or b"").startswith(b"LATE")]
    async with new_worker("w2") as worker:
        await kafka_io.send(trades(feed, "LATE", 10))
        await until(lambda: worker.metrics.predictions >= 80, "all ticks are predicted")
    for message in old:
        await kafka_io.producer.send_and_wait(
            STATE_CHANGELOG, message.value, key=message.key, partition=message.partition
        )
    async with new_worker("w2") as worker:
        await kafka_io.send(trades(feed, "LATE", 10))
        await until(lambda: worker.metrics.predictions >= 80, "all ticks are predicted")
    got = identities(await kafka_io.predictions("LATE"))
    assert got == undisturbed(await kafka_io.ticks("LATE"))
    row = await read_state(kafka_io.bootstrap, "LATE3")
    assert row is not None
    assert row["seq"] == 30


async def test_ticks_that_the_brokers_deleted_before_they_were_applied_are_counted(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "GONE", 5))
        await until(lambda: worker.metrics.predictions >= 40, "all ticks are predicted")
    for _ in range(3):
        await kafka_io.send(feed.trade("GONE0", 100.0))
    number = int(partition_of(np.array([b"GONE0"], TICK["symbol"]), PARTITIONS)[0])
    where = TopicPartition(TICKS, number)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_io.bootstrap)
    await admin.start()
    try:
        end = max(message.offset for message in await kafka_io.read(TICKS) if message.partition == number)
        await admin.delete_records({where: RecordsToDelete(before_offset=end)})
    finally:
        await admin.close()
    async with new_worker("w1") as worker:
        await until(lambda: worker.metrics.predictions >= 1, "the tick that is left is predicted")
        assert worker.metrics.blocks["lost_to_retention"] == 2


STUCK_WORKER = """
import asyncio, logging, sys
import lane_worker
from stream.app import TickloomApp
from stream.consumer import StreamConsumer

async def deliver_nothing(consumer, records, is_ours):
    pass

StreamConsumer._deliver = deliver_nothing
TickloomApp.recovery_patience_s = 3.0
logging.basicConfig()
asyncio.run(lane_worker.serve(*sys.argv[1:]))
"""


async def test_a_recovery_that_does_not_get_on_ends_the_worker(
    kafka_io: Kafka, new_worker: NewWorker, tmp_path: Path
) -> None:
    # Faust would wait for ever for rows that the client has lost.
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "STUCK", 5))
        await until(lambda: worker.metrics.predictions >= 40, "all ticks are predicted")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUCK_WORKER, kafka_io.bootstrap, str(tmp_path), "stuck"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])},
        stderr=PIPE,
    )
    try:
        _, said = await asyncio.wait_for(child.communicate(), 60)
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == InvariantError.exit_code
    assert b"the tables do not get on" in said


async def test_a_log_that_begins_again_or_ends_before_what_was_seen_stops_the_worker(
    kafka_io: Kafka, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A leader that had lost the end of its log, or a new topic of the same name, without any rebalance: the client
    # reads from the start, and what comes at the offsets that were seen before would pass for repetitions.
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "END", 5))
        await until(lambda: worker.metrics.predictions >= 40, "all ticks are predicted")
        lanes, app = worker.lanes, worker.app
        owned = next(iter(lanes.owned.values()))
        blocks = {(row.partition, row.offset): row.value for row in await kafka_io.read(TICKS)}
        same = blocks[owned.tp.partition, owned.last.offset]
        await lanes._take(owned, [SimpleNamespace(offset=owned.last.offset, value=same)])
        with pytest.raises(InvariantError, match="came again, and it is another one"):
            await lanes._take(owned, [SimpleNamespace(offset=owned.last.offset, value=same[:-1] + b"?")])

        async def earlier(tp: Any) -> int:
            return lanes.owned[tp.partition].next_offset - 1

        await lanes.read_what_does_not_come()
        assert lanes.failure is None
        monkeypatch.setattr(app, "end_offset", earlier)
        monkeypatch.setattr(app.consumer, "highwater", lambda tp: 0)
        await lanes.read_what_does_not_come()
        assert "the topic ends before" in str(lanes.failure)
