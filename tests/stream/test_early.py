"""Copies of blocks that go past Kafka, over real sockets: what arrives, what is refused, and what is counted."""

import asyncio
import logging
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from stream.cluster import cluster_id
from stream.early import MAX_BLOCK_BYTES, EarlyReceiver, EarlySender, Seal
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.errors import SettingsError

SECRET = SecretStr("what workers and gateways share")


@given(block=st.binary(max_size=3000), bit=st.integers(0, 7), data=st.data())
def test_a_seal_opens_what_it_closed_and_nothing_that_was_changed(
    block: bytes, bit: int, data: st.DataObject
) -> None:
    seal = Seal(SECRET, "a cluster")
    datagram = seal.close(block)
    assert Seal(SECRET, "a cluster").open(datagram) == block
    place = data.draw(st.integers(0, len(datagram) - 1))
    changed = bytearray(datagram)
    changed[place] ^= 1 << bit
    assert seal.open(bytes(changed)) is None
    assert seal.open(datagram[: data.draw(st.integers(0, len(datagram) - 1))]) is None


@pytest.mark.parametrize(
    "other",
    [Seal(None, "a cluster"), Seal(SecretStr("another"), "a cluster"), Seal(SECRET, "another cluster")],
    ids=["no secret", "another secret", "another cluster"],
)
def test_a_seal_opens_nothing_of_others(other: Seal) -> None:
    assert Seal(SECRET, "a cluster").open(other.close(b"a block")) is None


class Ear:
    """A receiver, and what it took."""

    def __init__(self, seal: Callable[[], Seal | None], port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.blocks: list[bytes] = []
        self.turns = 0
        self.receiver = EarlyReceiver(("127.0.0.1", self.port), seal, self.blocks.append, self._on_taken)
        self.registry = CollectorRegistry()
        self.registry.register(self.receiver)

    def _on_taken(self) -> None:
        self.turns += 1

    def counted(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("tickloom_early_copies_total", {"outcome": outcome})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_gateway_gets_every_copy_and_one_that_is_not_there_keeps_nobody(kafka: EmbeddedKafka) -> None:
    seal = Seal(SECRET, await cluster_id(kafka.bootstrap))
    one, other = Ear(lambda: seal), Ear(lambda: seal)
    nobody = free_port()
    addresses = [("127.0.0.1", one.port), ("localhost", other.port), ("127.0.0.1", nobody)]
    blocks = [bytes([number]) * 500 for number in range(20)]
    sender = EarlySender(addresses, SECRET, kafka.bootstrap)
    sender.send(b"before it began")
    async with sender:
        for block in blocks:
            sender.send(block)
            await asyncio.sleep(0.001)
        sender.send(b"x" * (MAX_BLOCK_BYTES + 1))  # of a backlog
        sender.send(b"the last")
        await until(lambda: one.blocks[-1:] == other.blocks[-1:] == [b"the last"])
    assert one.blocks == other.blocks == [*blocks, b"the last"]
    assert sender.unsent > 0
    assert sender.backlog >= 3
    registry = CollectorRegistry()
    registry.register(sender)
    assert registry.get_sample_value("tickloom_early_copies_total", {"outcome": "unsent"}) == sender.unsent
    one.receiver.close()
    other.receiver.close()


async def test_a_name_that_is_not_known_yet_is_said_and_keeps_nobody(
    kafka: EmbeddedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        seal = Seal(None, await cluster_id(kafka.bootstrap))
        ear = Ear(lambda: seal)
        addresses = [("no.such.host.invalid", 1), ("127.0.0.1", ear.port)]
        async with EarlySender(addresses, None, kafka.bootstrap) as sender:
            sender.send(b"a block")
            await until(lambda: ear.blocks == [b"a block"])
            await sender._look_up()
            sender.send(b"another")
            await until(lambda: ear.blocks == [b"a block", b"another"])
    assert caplog.text.count("no.such.host.invalid is not known") == 1
    assert (sender.sent, sender.unsent) == (2, 0)
    ear.receiver.close()


async def test_what_is_not_of_this_engine_is_dropped_and_counted() -> None:
    seals: list[Seal | None] = [None]
    ear = Ear(lambda: seals[0])
    ours, foreign = Seal(SECRET, "ours"), Seal(None, "ours")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", ear.port))
        sender.send(ours.close(b"before we know which Kafka it is"))
        await until(lambda: ear.receiver.received == 1)
        seals[0] = ours
        for datagram in (b"", b"noise", foreign.close(b"a block"), ours.close(b"a block")):
            sender.send(datagram)
        await until(lambda: ear.receiver.received == 5)
    assert ear.blocks == [b"a block"]
    assert (ear.counted("received"), ear.counted("foreign"), ear.counted("overrun")) == (5, 4, 0)
    assert ear.turns >= 1
    ear.receiver.close()


async def test_copies_that_come_faster_than_they_are_taken_are_counted_by_the_kernel() -> None:
    seal = Seal(None, "ours")
    ear = Ear(lambda: seal)
    sent = 5000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", ear.port))
        for _ in range(sent):  # the loop has no turn
            sender.send(seal.close(b"x" * 4000))
    overrun = ear.counted("overrun")
    assert overrun
    await until(lambda: ear.receiver.received == sent - overrun)
    ear.receiver.close()


async def test_an_address_that_is_taken_is_a_clear_error() -> None:
    ear = Ear(lambda: None)
    with pytest.raises(SettingsError, match=rf"cannot take early copies at 127\.0\.0\.1:{ear.port}: .*early_at"):
        Ear(lambda: None, ear.port)
    ear.receiver.close()
