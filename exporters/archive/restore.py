"""From an archive back to Kafka: the same messages in the same partitions and order.

Offsets begin at 0 in a new topic; each message carries the old one in the header ``tickloom-restored``. Killed and
started again it goes on after the last one that Kafka has, so nothing is there twice.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from exporters.archive.reading import Message, Reader
from exporters.archive.vault import Chain, History, Range, Vault
from stream.errors import ArchiveError

HEADER: Final = "tickloom-restored"
_MOST_WAITING: Final = 512
_POLL_MS: Final = 5_000

Progress = Callable[[int], None]  # told how many more rows are done


def chosen(vault: Vault, topics: tuple[str, ...], epoch: str | None) -> list[tuple[Chain, History]]:
    """Return the chains of an archive to read, with what they hold, of one Kafka cluster.

    Raises:
        ArchiveError: there are none, or they are of several clusters and ``epoch`` does not say of which.
    """
    chains = vault.chains(topics)
    epochs = sorted({chain.epoch for chain in chains})
    if not chains:
        raise ArchiveError(f"{vault.url} has nothing of {', '.join(topics)}")
    if epoch is None and len(epochs) > 1:
        raise ArchiveError(f"{vault.url} is of several Kafka clusters, {', '.join(epochs)}: say which by --epoch")
    if epoch is not None and epoch not in epochs:
        raise ArchiveError(f"{vault.url} has nothing of the Kafka cluster {epoch}, only of {', '.join(epochs)}")
    return [(chain, vault.history(chain)) for chain in chains if epoch in (None, chain.epoch)]


def messages(
    vault: Vault, chain: Chain, history: History, after: int = -1
) -> Iterator[tuple[Range, list[Message]]]:
    """Yield each range of a chain with its messages, those whose offset is beyond ``after``.

    Raises:
        ArchiveError: a file is gone or damaged, or holds something else than was archived.
    """
    reader = Reader(vault, chain, history)
    for each in history.ranges:
        if each.next - 1 > after:
            yield each, [message for message in reader.messages(each) if message.offset > after]


async def restore_to_kafka(bootstrap: str, vault: Vault, chain: Chain, history: History, progress: Progress) -> int:
    """Send a chain's messages to its topic and partition; return how many rows were sent.

    Raises:
        ArchiveError: the topic holds other messages already, or the archive is damaged.
        KafkaError: the broker is away, or refuses them.
    """
    part = TopicPartition(chain.topic, chain.partition)
    after = await _last_restored(bootstrap, part, chain)
    sent = 0
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, compression_type="lz4", linger_ms=5
    ) as producer:
        waiting: list[Any] = []
        for each, found in messages(vault, chain, history, after):
            for message in found:
                mark = f"{chain.epoch} {message.offset}".encode()
                headers = [*message.headers, (HEADER, mark)]
                waiting.append(
                    await producer.send(
                        chain.topic,
                        message.value,
                        partition=chain.partition,
                        timestamp_ms=message.timestamp_ms,
                        headers=headers,
                    )
                )
                if len(waiting) >= _MOST_WAITING:
                    await _acknowledged(waiting)
                if message.block is not None:
                    sent += len(message.block.rows)
            progress(each.rows)
        await _acknowledged(waiting)
    return sent


async def _acknowledged(waiting: list[Any]) -> None:
    for future in waiting:
        await future
    waiting.clear()


async def _last_restored(bootstrap: str, part: TopicPartition, chain: Chain) -> int:
    """Return the old offset of the newest message that a restore has put there; -1 where there is none."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        consumer.assign([part])
        try:
            end = (await consumer.end_offsets([part]))[part]
        except KafkaError as error:
            raise ArchiveError(f"Kafka has no partition {part.partition} of {part.topic}: {error!r}") from None
        if end == 0:
            return -1
        consumer.seek(part, end - 1)
        found = await consumer.getmany(part, timeout_ms=_POLL_MS)
        mark = dict(found[part][-1].headers).get(HEADER, b"").decode() if found.get(part) else ""
    epoch, _, offset = mark.partition(" ")
    if epoch != chain.epoch:
        raise ArchiveError(
            f"{part.topic}, partition {part.partition}, already holds messages that do not come from this archive; "
            "restore into a cluster that has none"
        )
    return int(offset)
