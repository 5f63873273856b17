"""Halts and resumes that an operator sends: `tickloom halt` and `tickloom resume`.

They are ticks of their own kinds in the topic of ticks, so that they stand in one order with the others of their
symbol, and a replay finds them where they were. What they do is in `agents/validate.py`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from stream.clock import Clock, wall_ns
from stream.errors import SettingsError
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import Records, TickKind, empty_ticks, encode_symbol
from stream.settings import Settings
from stream.topics import TICKS, broker


def control_ticks(
    kind: TickKind, symbols: Sequence[str], since: datetime | None = None, clock: Clock = wall_ns
) -> Records:
    """Return a tick for each symbol, ``TICK[S]``.

    Args:
        kind: HALT or RESUME.
        symbols: S symbols, at least one.
        since: when it happened, UTC where it does not say; None for now.
        clock: of now.

    Raises:
        RecordError: what is not a symbol.
        SettingsError: ``since`` is still to come, so that lanes would refuse it, or before 1970.
    """
    now_ns = clock()
    event_ns = now_ns if since is None else _as_ns(since)
    if not 0 < event_ns <= now_ns:
        raise SettingsError(f"--at {since}, which is still to come, or before 1970")
    ticks = empty_ticks(len(symbols))
    ticks["symbol"] = [encode_symbol(symbol) for symbol in symbols]
    ticks["kind"] = kind
    ticks["recv_ns"] = now_ns
    ticks["event_ns"] = event_ns
    return ticks


async def publish_control(settings: Settings, ticks: Records, topic: str = TICKS) -> None:
    """Publish them and wait until Kafka has them. Cancelling it leaves open whether they are sent; send them again.

    Raises:
        SinkUnavailable: no broker answers, or there is no topic of ticks.
        ServerError: the topic has another number of partitions than the settings say.
    """
    metrics = PublisherMetrics(CollectorRegistry())
    async with TickPublisher(
        broker(settings), settings.partitions, 0.0, metrics, topic, idempotent=settings.idempotent_producer
    ) as publisher:
        await publisher.publish(ticks)
        await publisher.flush()


def _as_ns(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 1_000_000_000 + aware.microsecond * 1000
