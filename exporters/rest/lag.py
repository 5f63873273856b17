"""How far each consumer group is behind, by partition: Kafka is asked once a second at the most."""

import asyncio
import time
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from exporters.rest.problems import UNAVAILABLE, Problem
from stream.ending import end_consumer
from stream.topics import APP_ID

_HELD_FOR_S: Final = 1.0
_PATIENCE_MS: Final = 3000


class Lag:
    """Asks one cluster."""

    def __init__(self, bootstrap: str) -> None:
        """Make it; it connects when it is first asked."""
        self._bootstrap = bootstrap
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        # One question at a time, whoever waits for it. It is never cancelled: aiokafka leaks a connection that is.
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._asked_s = float("-inf")

    async def now(self) -> dict[str, Any]:
        """Return how far our groups are behind, by group, topic and partition. Cancelling it is safe.

        Raises:
            Problem: Kafka does not answer.
        """
        is_old = self._asking is None or (self._asking.done() and time.monotonic() - self._asked_s >= _HELD_FOR_S)
        if self._asking is None or is_old:
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._ask_or_close())
            self._asking.add_done_callback(lambda done: done.exception())  # whoever asked may be gone
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Close the connections, after the question that is asked now."""
        if self._asking is not None:
            await asyncio.wait([self._asking])
        await self._disconnect()

    async def _ask_or_close(self) -> dict[str, Any]:
        try:
            return await self._ask()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._disconnect()
            words = f"Kafka at {self._bootstrap} does not answer: {error!r}"[:300]
            raise Problem(UNAVAILABLE, words, {"Retry-After": "2"}) from error

    async def _ask(self) -> dict[str, Any]:
        admin, consumer = await self._connected()
        at = np.datetime64(time.time_ns(), "ns")
        names = sorted(name for name, *_ in await admin.list_consumer_groups() if name.startswith(APP_ID))
        committed = {name: await admin.list_consumer_group_offsets(name) for name in names}
        wanted = sorted({partition for offsets in committed.values() for partition in offsets})
        ends = await consumer.end_offsets(wanted) if wanted else {}
        rows = [
            _row(name, partition, offset.offset, ends[partition])
            for name, offsets in committed.items()
            for partition, offset in sorted(offsets.items())
        ]
        return {"time": f"{at}Z", "data": rows}

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None or self._consumer is None:
            named = {"bootstrap_servers": self._bootstrap, "client_id": f"{APP_ID}-api"}
            self._admin = AIOKafkaAdminClient(**named, request_timeout_ms=_PATIENCE_MS)
            await self._admin.start()
            self._consumer = AIOKafkaConsumer(**named, request_timeout_ms=_PATIENCE_MS)
            await self._consumer.start()
        return self._admin, self._consumer

    async def _disconnect(self) -> None:
        admin, consumer = self._admin, self._consumer
        self._admin = self._consumer = None
        if admin is not None:
            await admin.close()
        if consumer is not None:
            await end_consumer(consumer)


def _row(group: str, partition: TopicPartition, committed: int, end: int) -> dict[str, Any]:
    return {
        "group": group,
        "topic": partition.topic,
        "partition": partition.partition,
        "committed": committed,
        "end": end,
        "lag_blocks": max(0, end - max(committed, 0)),
    }
