"""The topics, and how each must be created. Faust must never auto-create one: a source topic of one
partition would crash-loop the worker with PartitionsMismatch."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CommitFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream.ending import end_consumer
from stream.errors import ServerError, SettingsError
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

APP_ID = "tickloom"
TICKS = "ticks"
REJECTED_TICKS = "ticks.rejected"
PREDICTIONS = "predictions"
SHADOW_PREDICTIONS = "predictions.shadow"  # of challengers: stored, not served
FEATURES = "features"  # feature rows, where the setting features_every_ms asks for them
FEATURE_NAMES = "features.names"  # what their values are called: see agents/feature_names.py
MODELS = "models"  # promotions, swaps and what workers serve: see models/promotion.py
OUTCOMES = "outcomes"  # what came of predictions, served and shadow ones
OUTCOME_STATE = "outcomes.state"  # what a restart of `tickloom outcomes` goes on from
MODEL_SCORES = "model.scores"  # JSON for each model, every few seconds: see exporters/outcome_board.py
MODEL_EVENTS = "model.events"  # promotions, trips, rollbacks and drift: blocks of MODEL_EVENT
STATE_TABLE = "windows"
STATE_CHANGELOG = f"{APP_ID}-{STATE_TABLE}-changelog"

_RETRY_S = 2.0
_DELETED_WITHIN_S = 30.0
_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we want it: a partition for each lane, and how long it keeps what it has."""

    name: str
    config: dict[str, str] = field(default_factory=dict)
    partitions: int | None = None  # None: one for each lane


def topic_specs(retention_hours: float) -> tuple[TopicSpec, ...]:
    """Return every topic of tickloom. All but four have a partition for each lane: lane i reads and writes i."""
    keep = {"cleanup.policy": "delete", "retention.ms": str(int(retention_hours * 3600 * 1000))}
    return (
        TopicSpec(TICKS, keep),
        TopicSpec(REJECTED_TICKS, {**keep, "retention.ms": str(7 * _DAY_MS)}),
        TopicSpec(PREDICTIONS, keep),
        # Compacted: the last row of each symbol stays for ever. Small segments, so that the compactor (which
        # never touches the active one) keeps recovery short.
        TopicSpec(
            STATE_CHANGELOG,
            {
                "cleanup.policy": "compact",
                "segment.bytes": str(32 << 20),
                "min.cleanable.dirty.ratio": "0.1",
                "max.message.bytes": str(4 << 20),
            },
        ),
        TopicSpec(SHADOW_PREDICTIONS, keep),
        TopicSpec(FEATURES, keep),
        TopicSpec(FEATURE_NAMES, {"cleanup.policy": "compact"}, partitions=1),
        TopicSpec(OUTCOMES, keep),
        TopicSpec(OUTCOME_STATE, {"cleanup.policy": "compact", "max.message.bytes": str(8 << 20)}),
        TopicSpec(MODEL_SCORES, {"cleanup.policy": "compact"}, partitions=1),
        TopicSpec(MODEL_EVENTS, {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS)}, partitions=1),
        # One partition: all workers must agree on the order. Every swap has a key of its own, and stays.
        TopicSpec(MODELS, {"cleanup.policy": "compact"}, partitions=1),
    )


async def create_topics(bootstrap: str, partitions: int, replication: int, retention_hours: float) -> list[str]:
    """Create the topics that do not exist yet; return their names.

    Raises:
        ServerError: the broker refused, or an existing topic has another number of partitions.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id=f"{APP_ID}-topics")
    await admin.start()
    try:
        specs = topic_specs(retention_hours)
        existing = {info["topic"]: len(info["partitions"]) for info in await admin.describe_topics()}
        for spec in specs:
            seen = existing.get(spec.name)
            wanted = spec.partitions or partitions
            if seen is not None and seen != wanted:
                raise ServerError(
                    f"topic {spec.name} has {seen} partitions and the setting `partitions` says {wanted}; "
                    "set it to what the topic has, or delete the topic (its symbols would change lanes)"
                )
        missing = [spec for spec in specs if spec.name not in existing]
        if missing:
            new = [
                NewTopic(spec.name, spec.partitions or partitions, replication, topic_configs=spec.config)
                for spec in missing
            ]
            reply = await admin.create_topics(new)
            for name, code, *rest in reply.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise ServerError(f"the broker did not create topic {name}: {error.__name__} {rest}")
            logger.info("created topics %s", ", ".join(spec.name for spec in missing))
        return [spec.name for spec in missing]
    finally:
        await admin.close()


async def forget_state(settings: Settings) -> None:
    """Make workers start over with the oldest ticks that there are, as if none had ever run.

    First they lose their place in the ticks, then their state. Where this is cut off in between they read all ticks
    again and skip those that their state has seen; run it again.

    Raises:
        SettingsError: ``settings.kafka`` is not set.
        ServerError: a worker is running, or the broker refused.
    """
    address = broker(settings)
    wanted = address, settings.partitions, settings.replication, settings.retention_hours
    await create_topics(*wanted)
    await _go_to_the_start(address, settings.partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=address, client_id=f"{APP_ID}-topics")
    await admin.start()
    try:
        reply = await admin.delete_topics([STATE_CHANGELOG])
        for name, code in reply.topic_error_codes:
            if code and for_code(code) is not UnknownTopicOrPartitionError:
                raise ServerError(f"the broker did not delete topic {name}: {for_code(code).__name__}")
        deadline_s = time.monotonic() + _DELETED_WITHIN_S
        while any(info["topic"] == STATE_CHANGELOG for info in await admin.describe_topics()):
            if time.monotonic() > deadline_s:
                raise ServerError(f"topic {STATE_CHANGELOG} was deleted and is still there; try again later")
            await asyncio.sleep(0.1)
    finally:
        await admin.close()
    await create_topics(*wanted)
    logger.info("the state is forgotten; workers start with the oldest ticks that there are")


async def _go_to_the_start(address: str, partitions: int) -> None:
    # Only somebody who is not in the group, and only while nobody is, may commit like this: the broker sees to it.
    # Offset 0 is as good as none: `stream/consumer.py` goes on with the oldest message then.
    consumer = AIOKafkaConsumer(bootstrap_servers=address, group_id=APP_ID, enable_auto_commit=False)
    await consumer.start()
    try:
        parts = [TopicPartition(TICKS, number) for number in range(partitions)]
        consumer.assign(parts)
        await consumer.commit(dict.fromkeys(parts, 0))
    except CommitFailedError:
        raise ServerError(
            f"the group {APP_ID} has members: stop all workers first; one that was killed counts as one until its "
            "session is over"
        ) from None
    finally:
        await end_consumer(consumer)


def broker(settings: Settings) -> str:
    """Return the address of Kafka.

    Raises:
        SettingsError: it is not set.
    """
    if settings.kafka is None:
        raise SettingsError(
            "no Kafka is configured: set TICKLOOM_KAFKA=HOST:PORT or give --kafka; "
            "`tickloom demo` starts one of its own and shows its address"
        )
    return settings.kafka


async def await_topics(settings: Settings, health: Health, stop: asyncio.Event) -> bool:
    """Create the topics, and wait for the broker while it is away; return False where ``stop`` came first.

    Raises:
        SettingsError: ``settings.kafka`` is not set.
        ServerError: as `create_topics`.
    """
    address = broker(settings)
    while not stop.is_set():
        try:
            await create_topics(address, settings.partitions, settings.replication, settings.retention_hours)
        except (KafkaError, OSError) as error:
            health.fail("kafka", f"no broker answers at {address}: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _RETRY_S)
        else:
            health.recover("kafka")
            return True
    return False
