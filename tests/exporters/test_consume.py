"""The loop of an exporter, on a real broker: no commit before the sink has it, nothing lost, nothing stuck."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry

from exporters.batch import Batch
from exporters.consume import Consumption
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics, SinkMetrics
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SinkRejected, SinkUnavailable
from stream.records import Records
from stream.settings import Settings
from stream.telemetry import Health

SYMBOLS = ["AIG", "BAC", "GC201312", "XAUUSD", "BTCUSDT"]


class RecordingSink:
    """Keeps every row that it was given, and fails when it is told to."""

    def __init__(self) -> None:
        self.name = "recording"
        self.batches: list[Batch] = []
        self.tried: list[Batch] = []
        self.away = False
        self.poison: tuple[bytes, int] | None = None
        self.aside: list[tuple[bytes, int]] = []
        self.reasons: list[str] = []
        self.hold: asyncio.Event | None = None

    async def write(self, batch: Batch) -> None:
        self.tried.append(batch)
        if self.hold is not None:
            await self.hold.wait()
        await self.check()
        if self.poison is not None and self.poison in pairs(batch.rows):
            raise SinkRejected("it holds the poison")
        self.batches.append(batch)

    async def settle(self) -> None:
        """Nothing follows."""

    async def put_aside(self, batch: Batch, reason: str) -> None:
        await self.check()
        self.aside += pairs(batch.rows)
        self.reasons.append(reason)

    async def check(self) -> None:
        if self.away:
            raise SinkUnavailable("the recording sink is away")

    async def close(self) -> None:
        pass

    def pairs(self) -> list[tuple[bytes, int]]:
        return [pair for batch in self.batches for pair in pairs(batch.rows)]


def pairs(rows: Records) -> list[tuple[bytes, int]]:
    return list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))


class Exporter:
    """One running consumption."""

    def __init__(self, bootstrap: str, topic: str, group: str, sink: RecordingSink, **limits: Any) -> None:
        self.registry = CollectorRegistry()
        self.health = Health("test")
        self.metrics = SinkMetrics(self.registry)
        self.intake_metrics = IntakeMetrics(self.registry)
        self.stop = asyncio.Event()
        settings = Settings(kafka=bootstrap, session_timeout_s=6.0)
        self.consumption = Consumption(
            settings,
            topic=topic,
            group=group,
            sink=sink,
            intake=Intake(self.intake_metrics),
            metrics=self.metrics,
            health=self.health,
            max_rows=limits.get("max_rows", 1),
            max_age_s=limits.get("max_age_s", 0.0),
        )
        self.task = asyncio.create_task(self.consumption.run(self.stop))

    async def finish(self) -> None:
        self.stop.set()
        await self.task

    async def crash(self) -> None:
        """End without draining and without a last commit, as kill -9 does."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


Start = Callable[..., Exporter]


@pytest.fixture
async def start(kafka: EmbeddedKafka, topic: str, fresh_name: Callable[[str], str]) -> AsyncIterator[Start]:
    group = fresh_name("group")
    running: list[Exporter] = []

    def begin(sink: RecordingSink, **limits: Any) -> Exporter:
        running.append(Exporter(kafka.bootstrap, topic, group, sink, **limits))
        return running[-1]

    begin.group = group  # type: ignore[attr-defined]
    yield begin
    for exporter in running:
        exporter.task.cancel()
    await asyncio.gather(*(exporter.task for exporter in running), return_exceptions=True)


@asynccontextmanager
async def admin_of(kafka: EmbeddedKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def committed(kafka: EmbeddedKafka, topic: str, group: str) -> dict[int, int]:
    async with admin_of(kafka) as admin:
        offsets = await admin.list_consumer_group_offsets(
            group, partitions=[TopicPartition(topic, 0), TopicPartition(topic, 1)]
        )
    return {partition.partition: meta.offset for partition, meta in offsets.items()}


async def test_every_prediction_reaches_the_sink_once_although_the_engine_repeats_itself(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    exporter = start(sink)
    rows = make_rows(SYMBOLS, 100)
    await publish(rows[:300], block_rows=7)
    await publish(rows[200:], block_rows=11)
    await eventually(lambda: len(sink.pairs()) >= 500)
    await exporter.finish()
    assert sorted(sink.pairs()) == sorted(pairs(rows))
    assert exporter.intake_metrics.duplicates == 100
    assert exporter.intake_metrics.missing == 0


async def test_bad_blocks_and_rows_are_counted_and_left_out(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    exporter = start(sink)
    await publish.bytes(b"garbage")
    await publish.bytes(b"")
    good = make_rows(SYMBOLS, 3)
    good["spread_bps"][:2] = (np.nan, 0.0)  # not known, and a locked book
    spoiled = make_rows(SYMBOLS, 1, first=4)
    spoiled["p_up"][0] = np.nan
    spoiled["seq"][1] = 0
    spoiled["ref_price"][2] = np.inf
    spoiled["spread_bps"][3:] = (np.inf, -1.0)
    await publish(good)
    await publish(spoiled)
    await eventually(lambda: len(sink.pairs()) >= 15)
    assert sorted(sink.pairs()) == sorted(pairs(good))
    assert exporter.intake_metrics.bad == 7
    assert exporter.registry.get_sample_value("tickloom_bad_blocks_total", {"reason": "BadBlock"}) == 2
    assert exporter.registry.get_sample_value("tickloom_bad_predictions_total") == 5


async def test_a_gap_in_the_predictions_is_counted(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    exporter = start(sink)
    await publish(make_rows(["AIG"], 2))
    await publish(make_rows(["AIG"], 2, first=6))
    await eventually(lambda: len(sink.pairs()) == 4)
    assert exporter.registry.get_sample_value("tickloom_prediction_gaps_total") == 3


async def test_nothing_is_committed_while_the_sink_is_away_and_the_same_batch_is_tried_until_it_is_back(
    kafka: EmbeddedKafka, topic: str, start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    sink.away = True
    exporter = start(sink)
    rows = make_rows(SYMBOLS, 20)
    await publish(rows[:10])
    await eventually(lambda: len(sink.tried) >= 3)
    await publish(rows[10:])
    await asyncio.sleep(0.5)
    assert "the recording sink is away" in exporter.health.problems["recording"]
    assert len({batch.token() for batch in sink.tried}) == 1
    assert set((await committed(kafka, topic, start.group)).values()) == {-1}  # type: ignore[attr-defined]
    sink.away = False
    await eventually(lambda: len(sink.pairs()) == 100)
    await eventually(lambda: "recording" not in exporter.health.problems)
    await exporter.finish()
    assert sorted(sink.pairs()) == sorted(pairs(rows))
    assert min((await committed(kafka, topic, start.group)).values()) >= 1  # type: ignore[attr-defined]


async def test_a_crash_between_the_sink_and_the_commit_repeats_and_never_loses(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    rows = make_rows(SYMBOLS, 200)
    seen: list[tuple[bytes, int]] = []
    for attempt in range(4):
        sink = RecordingSink()
        if attempt % 2:
            sink.hold = asyncio.Event()  # the crash comes while a batch is on its way
        exporter = start(sink, max_rows=50, max_age_s=0.05)
        await publish(rows[attempt * 250 : (attempt + 1) * 250], block_rows=5)
        await eventually(lambda sink=sink: sink.tried)  # type: ignore[misc]
        await exporter.crash()
        seen += sink.pairs()
    last = RecordingSink()
    start(last)
    await eventually(lambda: set(seen + last.pairs()) == set(pairs(rows)))


async def test_rows_that_the_sink_will_never_take_are_put_aside_alone(
    start: Start, publish: Any, make_rows: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sink = RecordingSink()
    sink.poison = (b"AIG", 7)
    exporter = start(sink, max_rows=40, max_age_s=0.2)
    rows = make_rows(SYMBOLS, 20)
    await publish(rows)
    await eventually(lambda: len(sink.pairs()) == 99)
    await exporter.finish()
    assert sorted(sink.pairs()) == sorted(set(pairs(rows)) - {(b"AIG", 7)})
    assert exporter.metrics.refused == 1
    assert sink.aside == [(b"AIG", 7)]
    assert sink.reasons == ["it holds the poison"]
    assert "'symbol': b'AIG', 'seq': 7" in caplog.text


async def test_a_smaller_batch_is_written_at_its_age_and_a_larger_one_at_its_size(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    start(sink, max_rows=100, max_age_s=0.8)
    await publish(make_rows(SYMBOLS, 1))
    await eventually(lambda: sink.batches)
    assert len(sink.batches[0].rows) == 5
    sink.batches.clear()
    await publish(make_rows(SYMBOLS, 200, first=2), block_rows=10)
    await eventually(lambda: len(sink.pairs()) == 1000)
    assert max(len(batch.rows) for batch in sink.batches) >= 100


async def test_two_members_share_the_work_and_a_dead_one_is_replaced(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    first, second = RecordingSink(), RecordingSink()
    one = start(first)
    rows = make_rows(SYMBOLS, 300)
    await publish(rows[:500], block_rows=5)
    await eventually(lambda: len(first.pairs()) >= 500)
    start(second)
    await eventually(lambda: len(one.consumption._owned) == 1)
    await publish(rows[500:1000], block_rows=5)
    await eventually(lambda: second.batches)
    await one.crash()
    await publish(rows[1000:], block_rows=5)
    await eventually(lambda: set(first.pairs() + second.pairs()) == set(pairs(rows)))


async def test_stopping_writes_and_commits_what_was_read(
    kafka: EmbeddedKafka, topic: str, start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    sink = RecordingSink()
    exporter = start(sink, max_rows=1_000_000, max_age_s=60.0)
    rows = make_rows(SYMBOLS, 10)
    await publish(rows, block_rows=1)
    await eventually(lambda: exporter.intake_metrics.received == 50)
    assert sink.batches == []
    await exporter.finish()
    assert sorted(sink.pairs()) == sorted(pairs(rows))
    assert sum((await committed(kafka, topic, start.group)).values()) == 50  # type: ignore[attr-defined]


async def test_a_broker_that_is_away_is_waited_for(
    tmp_path: Any, make_rows: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    from aiokafka import AIOKafkaProducer

    from stream.records import encode_block

    server = EmbeddedKafka(tmp_path)
    sink = RecordingSink()
    exporter = Exporter(server.bootstrap, "predictions", "group", sink)
    try:
        await eventually(lambda: "kafka" in exporter.health.problems)
        await asyncio.to_thread(server.start)
        async with admin_of(server) as admin:
            from aiokafka.admin import NewTopic

            await admin.create_topics([NewTopic("predictions", 1, 1)])
        rows = make_rows(["AIG"], 30)
        async with AIOKafkaProducer(bootstrap_servers=server.bootstrap) as producer:
            await producer.send_and_wait("predictions", encode_block(rows[:10]))
        await eventually(lambda: len(sink.pairs()) == 10)
        await eventually(lambda: "kafka" not in exporter.health.problems)
        await asyncio.to_thread(server.kill)
        await eventually(lambda: "kafka" in exporter.health.problems)
        await asyncio.to_thread(server.start)
        async with AIOKafkaProducer(bootstrap_servers=server.bootstrap) as producer:
            await producer.send_and_wait("predictions", encode_block(rows[10:]))
        await eventually(lambda: len(sink.pairs()) == 30)
        await eventually(lambda: "kafka" not in exporter.health.problems)
        assert pairs(rows) == sink.pairs()
        await exporter.finish()
    finally:
        exporter.task.cancel()
        await asyncio.gather(exporter.task, return_exceptions=True)
        await asyncio.to_thread(server.stop)
