"""Lanes in Faust, on a real broker: what goes in comes out, once, in order, however workers come and go."""

import asyncio
import itertools
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError
from lane_kafka import (
    Kafka,
    NewWorker,
    feature_contents,
    identities,
    trades,
    undisturbed,
    undisturbed_features,
    until,
)
from lane_worker import PARTITIONS
from markets import Feed

from agents.checkpoint import is_marker
from agents.state import decode_state
from agents.state_reader import describe_state, read_state
from stream.records import HEADER, REJECTED, TICK, Reject, decode_block, encode_block, partition_of
from stream.topics import PREDICTIONS, REJECTED_TICKS, STATE_CHANGELOG, TICKS

pytestmark = pytest.mark.timeout(300)


async def test_each_accepted_tick_is_predicted_and_its_state_can_be_read(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "PLAIN", 50))
        await until(lambda: worker.metrics.predictions >= 400, "all ticks are predicted")
    got = identities(await kafka_io.predictions("PLAIN"))
    assert got == undisturbed(await kafka_io.ticks("PLAIN"))
    assert len(got) == 400
    row = await read_state(kafka_io.bootstrap, "PLAIN3")
    assert row is not None
    described = describe_state(row)
    assert (described["symbol"], described["seq"], described["last_price"]) == ("PLAIN3", 50, 100.0 + 49 % 4)
    assert await read_state(kafka_io.bootstrap, "NEVER-SEEN") is None


async def test_what_is_not_a_block_is_put_aside_and_nothing_stops(kafka_io: Kafka, new_worker: NewWorker) -> None:
    feed = Feed()
    tick = feed.trade("BAD0", 1.0)
    number = int(partition_of(tick["symbol"], PARTITIONS)[0])
    later = bytearray(encode_block(tick))
    later[HEADER.fields["version"][1]] = 9
    async with new_worker("w1") as worker:
        garbage = await kafka_io.producer.send_and_wait(
            TICKS, b"garbage that is no block of BAD0", partition=number
        )
        await kafka_io.producer.send_and_wait(TICKS, bytes(later), partition=number)
        await kafka_io.producer.send_and_wait(TICKS, None, key=b"BAD0", partition=number)
        await kafka_io.send(np.concatenate([tick, feed.trade("BAD0", np.nan)]))
        await until(lambda: worker.metrics.predictions >= 1, "the good tick is predicted")
        assert worker.metrics.blocks["BadBlock"] == 2
        assert worker.metrics.blocks["UnknownVersion"] == 1
        assert worker.health.problems == {}
    rejected = [message for message in await kafka_io.read(REJECTED_TICKS) if message.partition == number]
    raw = {message.value: dict(message.headers) for message in rejected if message.headers}
    told = raw[b"garbage that is no block of BAD0"]
    assert told["tickloom-source"] == f"{TICKS}[{number}]@{garbage.offset}".encode()
    assert b"these bytes start with b'garb'" in told["tickloom-error"]
    assert b"TICK block of version 9; this tickloom reads version 1" in raw[bytes(later)]["tickloom-error"]
    [record] = [
        record
        for message in rejected
        if not message.headers
        for record in decode_block(message.value, REJECTED)
        if record["tick"]["symbol"] == b"BAD0"
    ]
    assert record["reason"] == Reject.NOT_FINITE
    assert record["source_index"] == 1


async def test_a_partition_that_looks_for_where_it_goes_on_stops_nobody(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(trades(feed, "LOOK", 5))
        await until(lambda: worker.metrics.predictions >= 40, "all ticks are predicted")
        consumer = worker.app.consumer
        subscription = consumer._thread._consumer._subscription.subscription
        for tp in consumer.assignment():
            state = subscription.assignment.state_value(tp)
            position = state.position
            state.await_reset(-2)
            consumer.verify_event_path(time.monotonic(), tp)
            state.seek(position)
        consumer.verify_event_path(time.monotonic(), TopicPartition("taken-away", 0))


async def test_after_the_first_message_ticks_go_past_faust_and_an_agent_that_is_started_anew_goes_on(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    async with new_worker("w1") as worker:
        consumer, (agent,) = worker.app.consumer, worker.app.agents.values()
        await kafka_io.send(trades(feed, "BELL", 10))
        await until(lambda: worker.metrics.predictions >= 80, "the first ticks are predicted")
        (before,) = agent._actors
        hand_over, handed_over = consumer.callback, list[Any]()

        def noted(message: Any) -> Any:
            handed_over.append(message.topic)
            return hand_over(message)

        consumer.callback = noted
        since = time.monotonic()
        for count in range(2, 8):
            await kafka_io.send(trades(feed, "BELL", 10))
            await until(lambda count=count: worker.metrics.predictions >= 80 * count, "later ticks are predicted")
        assert handed_over.count(TICKS) == 0
        inbound = worker.app.monitor.stream_inbound_time
        assert {tp.partition for tp in consumer.starts if inbound[tp] > since} == set(range(PARTITIONS))
        before.actor_task.cancel()
        await until(lambda: set(agent._actors) - {before}, "Faust has started the agent anew")
        await kafka_io.send(trades(feed, "BELL", 10))
        await until(lambda: worker.metrics.predictions >= 640, "ticks after it are predicted")
        assert handed_over.count(TICKS) >= 1
    assert identities(await kafka_io.predictions("BELL")) == undisturbed(await kafka_io.ticks("BELL"))


async def test_an_offset_is_committed_only_once_the_state_that_saw_it_is_kept(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    feed = Feed()
    order: list[tuple[str, int]] = []
    async with new_worker("w1") as worker:
        write, send = worker.lanes.table.write, worker.app.producer.send

        async def slow_write(partition: int, rows: list[tuple[bytes, bytes]]) -> Any:
            sent = await write(partition, rows)
            ours = [(row[1], future) for row, future in zip(rows, sent, strict=True) if row[0] == b"ORDER0"]
            for value, acknowledged in ours:
                seen = int(decode_state(value)["offset"][0])
                acknowledged.add_done_callback(lambda _, seen=seen: order.append(("kept", seen)))
                await asyncio.sleep(0.05)
            return sent

        async def noted_send(topic: str, *arguments: Any) -> Any:
            acknowledged = await send(topic, *arguments)
            if topic == PREDICTIONS:
                acknowledged.add_done_callback(lambda _: order.append(("predicted", -1)))
            return acknowledged

        worker.lanes.table.write, worker.app.producer.send = slow_write, noted_send
        commit = worker.app.consumer._commit

        async def noted_commit(offsets: Any) -> Any:
            order.extend(("committed", offset) for tp, offset in offsets.items() if tp.topic == TICKS)
            return await commit(offsets)

        worker.app.consumer._commit = noted_commit
        for _ in range(30):
            await kafka_io.send(feed.trade("ORDER0", 1.0))
            await asyncio.sleep(0.02)
        await until(lambda: worker.metrics.predictions >= 30, "all ticks are predicted")
        await until(lambda: any(what == "committed" for what, _ in order), "a checkpoint was committed")
    kept = -1
    for what, offset in order:
        if what == "kept":
            kept = offset
        elif what == "committed":
            assert offset <= kept + 1, f"{offset} was committed when the state had seen {kept}"
    first = {name: next(at for at, (what, _) in enumerate(order) if what == name) for name in ("predicted", "kept")}
    assert first["predicted"] < first["kept"]


@asynccontextmanager
async def load(kafka_io: Kafka, prefix: str) -> AsyncIterator[None]:
    """Send ticks all the time."""
    feed = Feed()
    running = True

    async def run() -> None:
        for turn in itertools.count():
            if not running:
                return
            await kafka_io.send(
                np.concatenate([feed.trade(f"{prefix}{number}", 100.0 + turn % 4) for number in range(8)])
            )
            await asyncio.sleep(0.004)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        running = False
        await task


async def finish(kafka_io: Kafka, new_worker: NewWorker, prefix: str) -> None:
    """Let a last worker take up what is left; compare all that was sent with that of an undisturbed run."""
    ticks = await kafka_io.ticks(prefix)
    expected = undisturbed(ticks)
    async with new_worker("last"):

        async def complete() -> bool:
            return set(identities(await kafka_io.predictions(prefix))) >= set(expected)

        await until(complete, "every tick is predicted")
    assert identities(await kafka_io.predictions(prefix)) == expected
    features = feature_contents(await kafka_io.features(prefix))
    assert features == undisturbed_features(ticks)
    assert 0 < len(features) < len(expected)


async def test_stopping_and_starting_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    async with load(kafka_io, "STOP"):
        for _ in range(4):
            async with new_worker("w1") as worker:
                await until(lambda made=worker.metrics: made.predictions > 100, "the worker predicts")
                assert worker.lanes.failure is None
    await finish(kafka_io, new_worker, "STOP")


async def test_a_worker_that_joins_and_leaves_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    async with load(kafka_io, "JOIN"), new_worker("w1") as first:
        await until(lambda: first.metrics.predictions > 100, "the first predicts")
        async with new_worker("w2") as second:
            await until(lambda: second.metrics.predictions > 50, "the second predicts")
            assert not set(first.lanes.owned) & set(second.lanes.owned)
        before = first.metrics.predictions
        await until(lambda: len(first.lanes.owned) >= 3, "the first has all partitions that tick")
        await until(lambda: first.metrics.predictions > before + 100, "the first goes on")
        assert first.lanes.failure is None
        assert second.lanes.failure is None
    await finish(kafka_io, new_worker, "JOIN")


async def test_a_worker_that_is_killed_under_load_loses_and_changes_nothing(
    kafka_io: Kafka, new_worker: NewWorker, tmp_path: Path
) -> None:
    async def count() -> int:
        return len(await kafka_io.predictions("KILL"))

    script = Path(__file__).with_name("lane_worker.py")
    async with load(kafka_io, "KILL"):
        for _ in range(2):
            before = await count()
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(script),
                kafka_io.bootstrap,
                str(tmp_path),
                "killed",
                stderr=DEVNULL,
                stdout=DEVNULL,
            )
            try:

                async def predicts(before: int = before) -> bool:
                    return await count() > before + 300

                await until(predicts, "the worker predicts")
            finally:
                child.kill()
                await child.wait()
    await finish(kafka_io, new_worker, "KILL")


async def test_a_send_that_fails_stops_the_worker_and_keeps_no_state_ahead_of_its_predictions(
    kafka_io: Kafka, new_worker: NewWorker
) -> None:
    # Faust once started the agent anew: the state had the block, its predictions were never sent.
    feed = Feed()
    async with new_worker("w1") as worker:
        await kafka_io.send(feed.trade("FAIL0", 1.0))
        await until(lambda: worker.metrics.predictions >= 1, "the first tick is predicted")
        send = worker.app.producer.send

        async def failing(topic: str, *arguments: Any) -> Any:
            if topic == PREDICTIONS:
                raise KafkaTimeoutError
            return await send(topic, *arguments)

        worker.app.producer.send = failing
        await kafka_io.send(feed.trade("FAIL0", 1.01))
        await until(lambda: worker.lanes.failure is not None, "the worker says that it failed")
        assert "lanes" in worker.health.problems
        worker.app.producer.send = send
        await kafka_io.send(feed.trade("FAIL0", 1.02))
        await asyncio.sleep(0.5)
    await finish(kafka_io, new_worker, "FAIL")


async def test_a_changelog_keeps_rows_in_the_partition_of_their_symbol(kafka_io: Kafka) -> None:
    messages = [message for message in await kafka_io.read(STATE_CHANGELOG) if message.value is not None]
    rows = [message for message in messages if not is_marker(message.key)]
    assert 0 < len(rows) < len(messages)
    for message in rows:
        assert message.partition == int(partition_of(np.array([message.key], TICK["symbol"]), PARTITIONS)[0])
        assert decode_state(message.value)["symbol"][0] == message.key
