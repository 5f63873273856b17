"""What cannot be repaired stops the worker, says why and what to do; and after doing that it runs again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from lane_kafka import Kafka, until
from live_oracle import contents, real_ticks, undisturbed

from agents.checkpoint import is_marker
from agents.state import STATE_VERSION
from stream.compose import run_worker
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import InvariantError, UnknownVersion
from stream.records import Records
from stream.settings import Settings
from stream.topics import PREDICTIONS, REJECTED_TICKS, STATE_CHANGELOG, TICKS, create_topics, forget_state

pytestmark = pytest.mark.timeout(300)
_STOPS_WITHIN_S = 90.0


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings with a broker of our own: what is done to its topics is not to be undone."""
    server = EmbeddedKafka(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        if server.degraded_reason is not None:
            pytest.skip(server.degraded_reason)
        settings = Settings(kafka=server.bootstrap, data_dir=tmp_path, checkpoint_s=0.2, session_timeout_s=6.0)
        await create_topics(server.bootstrap, settings.partitions, 1, 24.0)
        yield settings
    finally:
        await asyncio.to_thread(server.stop)


@pytest.fixture
async def kafka_io(settings: Settings) -> AsyncIterator[Kafka]:
    """Sends to and reads from the broker."""
    io = Kafka(str(settings.kafka))
    async with io.producer:
        yield io


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Does what an operator, or an accident, does to topics."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def ticks(shared_data: Path) -> Records:
    """Some thousand real ticks of two symbols that live in two lanes."""
    return real_ticks(sorted((shared_data / "ticks" / "crypto").glob("*_spot_*.parquet")))[:6000]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker, as the command line runs it."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def stops(settings: Settings) -> None:
    """Run a worker until it stops by itself, soon."""
    async with asyncio.timeout(_STOPS_WITHIN_S):
        await run_worker(settings, asyncio.Event())


async def are_predicted(kafka_io: Kafka, settings: Settings, ticks: Records) -> None:
    """Wait until there is exactly what an undisturbed run makes of ``ticks``."""
    expected = set(contents(undisturbed(settings, ticks).predictions))
    assert expected

    async def found() -> bool:
        return set(contents(await kafka_io.predictions(""))) >= expected

    await until(found, "every tick is predicted")
    assert set(contents(await kafka_io.predictions(""))) == expected


async def send(kafka_io: Kafka, ticks: Records, block: int = 100) -> None:
    """Send ticks in small blocks."""
    for start in range(0, len(ticks), block):
        await kafka_io.send(ticks[start : start + block])


async def work(kafka_io: Kafka, settings: Settings, ticks: Records) -> None:
    """Let a worker predict ticks and stop."""
    await send(kafka_io, ticks)
    async with running(settings):
        await are_predicted(kafka_io, settings, ticks)


async def make_anew(admin: AIOKafkaAdminClient, settings: Settings, *names: str) -> None:
    """Delete topics, and create them without anything in them."""
    await admin.delete_topics(list(names))

    async def all_are_made() -> bool:
        await create_topics(str(settings.kafka), settings.partitions, 1, 24.0)
        return set(names) <= {info["topic"] for info in await admin.describe_topics()}

    await until(all_are_made, "the topics are there again")


async def test_a_state_row_of_another_version_stops_the_worker_until_the_state_is_forgotten(
    settings: Settings, kafka_io: Kafka, ticks: Records
) -> None:
    await work(kafka_io, settings, ticks[:3000])
    row = next(row for row in await kafka_io.read(STATE_CHANGELOG) if not is_marker(row.key))
    other = (STATE_VERSION + 1).to_bytes(8, "little") + row.value[8:]
    await kafka_io.producer.send_and_wait(STATE_CHANGELOG, other, key=row.key, partition=row.partition)
    await send(kafka_io, ticks[3000:])
    with pytest.raises(
        UnknownVersion, match=f"state row of version {STATE_VERSION + 1}.*--forget-state"
    ) as stopped:
        await stops(settings)
    assert stopped.value.exit_code == 1

    await forget_state(settings)
    async with running(settings):
        await are_predicted(kafka_io, settings, ticks)


async def cut(admin: AIOKafkaAdminClient, kafka_io: Kafka) -> None:
    """Delete the older part of the changelog, as a policy of `delete` does in time."""
    resource = ConfigResource(ConfigResourceType.TOPIC, STATE_CHANGELOG, {"cleanup.policy": "delete"})
    await admin.alter_configs([resource])
    ends = {row.partition: row.offset for row in await kafka_io.read(STATE_CHANGELOG)}
    records = {TopicPartition(STATE_CHANGELOG, number): RecordsToDelete(end) for number, end in ends.items()}
    await admin.delete_records(records)
    assert all(is_marker(row.key) for row in await kafka_io.read(STATE_CHANGELOG))


@pytest.mark.parametrize("whole", [True, False], ids=["deleted", "cut by retention"])
async def test_a_changelog_that_lost_rows_stops_the_worker_until_the_state_is_forgotten(
    settings: Settings, kafka_io: Kafka, admin: AIOKafkaAdminClient, ticks: Records, whole: bool
) -> None:
    await work(kafka_io, settings, ticks[:3000])
    await (make_anew(admin, settings, STATE_CHANGELOG) if whole else cut(admin, kafka_io))
    await send(kafka_io, ticks[3000:])
    with pytest.raises(InvariantError, match=r"is not whole.*--forget-state") as stopped:
        await stops(settings)
    assert stopped.value.exit_code == 70

    await forget_state(settings)
    async with running(settings):
        await are_predicted(kafka_io, settings, ticks)


async def start_over(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Do what docs/operations.md says."""
    await forget_state(settings)
    await make_anew(admin, settings, PREDICTIONS, REJECTED_TICKS)


@pytest.mark.parametrize("blocks", [10, 300], ids=["shorter", "longer"])
async def test_ticks_that_were_made_anew_stop_the_worker_until_it_starts_over(
    settings: Settings, kafka_io: Kafka, admin: AIOKafkaAdminClient, ticks: Records, blocks: int
) -> None:
    await work(kafka_io, settings, ticks[:3000])
    await make_anew(admin, settings, TICKS)
    later = ticks[3000:]
    await send(kafka_io, later, len(later) // blocks)
    with pytest.raises(InvariantError, match=r"deleted and made anew.*docs/operations\.md") as stopped:
        await stops(settings)
    assert stopped.value.exit_code == 70

    await start_over(admin, settings)
    async with running(settings):
        await are_predicted(kafka_io, settings, later)


async def test_ticks_that_are_made_anew_under_a_running_worker_stop_it(
    settings: Settings, kafka_io: Kafka, admin: AIOKafkaAdminClient, ticks: Records
) -> None:
    await send(kafka_io, ticks[:3000])
    task = asyncio.create_task(run_worker(settings, asyncio.Event()))
    await are_predicted(kafka_io, settings, ticks[:3000])
    await make_anew(admin, settings, TICKS)
    sending = asyncio.create_task(send(kafka_io, ticks[3000:], 10))
    with pytest.raises(InvariantError, match="deleted and made anew"):
        await asyncio.wait_for(task, _STOPS_WITHIN_S)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


def test_the_operators_manual_has_what_the_errors_refer_to() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    assert "## Ticks made anew" in manual
    assert "tickloom topics --forget-state --yes" in manual
