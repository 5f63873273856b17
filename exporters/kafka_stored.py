"""What Kafka has of one symbol: predictions, and ticks with their places."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from models.recompute import Block, Run, joined
from stream.cluster import cluster_id
from stream.ending import end_consumer
from stream.errors import RecordError, SourceError
from stream.records import PREDICTION, TICK, Records, decode_block, encode_symbol, partition_of
from stream.topics import PREDICTIONS, TICKS

_PATIENCE_MS: Final = 10_000


class InKafka:
    """What the topics hold. Not to be called from within a running event loop."""

    name: Final = "kafka"

    def __init__(self, bootstrap: str, symbol: str) -> None:
        """Look at one symbol.

        Raises:
            SourceError: no broker answers.
        """
        self._bootstrap, self._symbol = bootstrap, encode_symbol(symbol)
        self.epoch = self._run(cluster_id(bootstrap))

    def prediction(self, seq: int, epoch: str | None, partitions: int) -> tuple[Records, str] | None:
        """Return a prediction, ``PREDICTION`` scalar, and its epoch, which is that of the cluster."""
        if epoch not in (None, self.epoch):
            return None
        partition = int(partition_of(np.array([self._symbol], "S24"), partitions)[0])
        for _, records in self.records(PREDICTIONS, partition, PREDICTION):
            found = records[(records["symbol"] == self._symbol) & (records["seq"] == seq)]
            if len(found):
                return found[0].copy(), self.epoch
        return None

    def runs(self, seq: int, partition: int) -> list[Run]:
        """Return which models made the predictions up to ``seq``, as far as they are still there."""
        runs: list[Run] = []
        seen = 0
        for _, records in self.records(PREDICTIONS, partition, PREDICTION):
            mine = records[(records["symbol"] == self._symbol) & (records["seq"] > seen) & (records["seq"] <= seq)]
            for row in mine:
                if row["seq"] > seen:  # not sent again after a crash
                    seen = int(row["seq"])
                    runs.append(
                        Run(int(row["model_id"]), seen, int(row["source_offset"]), int(row["source_offset"]))
                    )
            runs = joined(runs)
            if seen == seq:
                break
        return runs

    def oldest(self, topic: str, partition: int) -> int:
        """Return the first offset that retention has left."""
        return int(self._run(_oldest(self._bootstrap, TopicPartition(topic, partition))))

    def blocks(self, partition: int) -> Iterator[Block]:
        """Yield the symbol's ticks as blocks, in the order in which they arrived."""
        for offset, ticks in self.records(TICKS, partition, TICK):
            positions = np.flatnonzero(ticks["symbol"] == self._symbol)
            if len(positions):
                yield Block(offset, ticks[positions], positions)

    def records(self, topic: str, partition: int, dtype: np.dtype[np.void]) -> Iterator[tuple[int, Records]]:
        """Yield (offset, records) of a partition, from the oldest up to the newest that there is now.

        Raises:
            SourceError: it cannot be read.
        """

        async def step() -> list[Any] | None:
            return await anext(fetches, None)

        with asyncio.Runner() as runner:
            fetches = _fetches(self._bootstrap, TopicPartition(topic, partition))
            try:
                while (messages := runner.run(step())) is not None:
                    for message in messages:
                        try:
                            yield message.offset, decode_block(message.value or b"", dtype)
                        except RecordError:
                            continue  # as lanes do: it is in the dead letters
            except (KafkaError, OSError) as error:
                raise SourceError(f"{topic} at {self._bootstrap} cannot be read: {error!r}") from None
            finally:
                runner.run(fetches.aclose())

    def _run(self, doing: Any) -> Any:
        try:
            return asyncio.run(doing)
        except (KafkaError, OSError) as error:
            raise SourceError(f"no broker answers at {self._bootstrap}: {error!r}") from None


async def _oldest(bootstrap: str, where: Any) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        return int((await consumer.beginning_offsets([where]))[where])


async def _fetches(bootstrap: str, where: Any) -> AsyncGenerator[list[Any], None]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        at = int((await consumer.beginning_offsets([where]))[where])
        end = int((await consumer.end_offsets([where]))[where])
        if at < end:  # one that has nothing is not even assigned: aiokafka may hang when it is stopped right after
            consumer.assign([where])
            consumer.seek(where, at)
        while at < end:
            found = await consumer.getmany(where, timeout_ms=_PATIENCE_MS)
            position = await consumer.position(where)
            if position == at:
                raise SourceError(f"{where.topic}[{where.partition}]: nothing came after offset {at} of {end}")
            at = position
            yield [each for each in found.get(where, ()) if each.offset < end]
    finally:
        await end_consumer(consumer)
