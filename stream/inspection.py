"""What `tickloom topics`, `state`, `settings` and `version` show."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.table import Table

from agents.periods import Periods
from agents.state_reader import describe_state, read_state
from stream.ending import end_consumer
from stream.settings import Settings
from stream.topics import broker, create_topics, topic_specs

_LIBRARIES = (
    "faust-streaming",
    "aiokafka",
    "numpy",
    "numba",
    "onnxruntime",
    "redis",
    "websockets",
    "clickhouse-driver",
)


async def topics(settings: Settings) -> list[dict[str, Any]]:
    """Create the missing topics and return a row for each: name, partitions, messages held, whether new."""
    address = broker(settings)
    made = await create_topics(address, settings.partitions, settings.replication, settings.retention_hours)
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        rows = []
        for spec in topic_specs(settings.retention_hours):
            where = [TopicPartition(spec.name, number) for number in range(spec.partitions or settings.partitions)]
            first, last = await consumer.beginning_offsets(where), await consumer.end_offsets(where)
            held = sum(last[part] - first[part] for part in where)
            rows.append(
                {"topic": spec.name, "partitions": len(where), "messages": held, "created": spec.name in made}
            )
        return rows
    finally:
        await end_consumer(consumer)


async def state(settings: Settings, symbol: str) -> dict[str, Any] | None:
    """Return the checkpointed state of a symbol as plain values, or None."""
    row = await read_state(broker(settings), symbol)
    return None if row is None else describe_state(row, Periods.of(settings))


def versions() -> dict[str, str]:
    """Return our version and those of the libraries that matter."""
    own = {"tickloom": metadata.version("tickloom"), "python": platform.python_version()}
    return own | {name: metadata.version(name) for name in _LIBRARIES}


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows with the same keys as a table for a terminal."""
    out = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        out.add_column(name, overflow="fold")
    for row in rows:
        out.add_row(*(str(value) for value in row.values()))
    return out


def record_table(title: str, record: Mapping[str, Any]) -> Table:
    """Return one record as a table of names and values; a record inside is opened."""
    out = Table(title=title, title_justify="left", show_header=False)
    for name, value in record.items():
        if isinstance(value, Mapping):
            for inner, number in value.items():
                out.add_row(f"{name}.{inner}", f"{number:.6g}" if isinstance(number, float) else str(number))
        else:
            out.add_row(name, str(value))
    return out
