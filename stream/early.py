"""Early copies: what a worker predicts goes to Kafka, and a copy straight to the gateways, as a datagram.

By way of Kafka a prediction waits for the broker's turn, and the gateway for its fetch. Nothing depends on a copy:
what is lost, late or refused comes by Kafka all the same. What a copy says comes there too, whatever dies in
between: a prediction is a function of the ticks, and which model makes it is on record before it does.

A copy is sealed with a keyed hash (BLAKE2b, RFC 7693) of the secret that workers and gateways share and of the id
of the Kafka cluster, so that strangers and other engines are not heard.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

from prometheus_client.core import CounterMetricFamily, Metric
from pydantic import SecretStr

from stream.addresses import Address
from stream.cluster import cluster_id
from stream.errors import SettingsError

logger = logging.getLogger(__name__)

# What a datagram takes is 65,507 bytes. A larger block is one of a backlog, for which nobody is in a hurry.
MAX_BLOCK_BYTES: Final = 60_000
_SEAL_BYTES: Final = 16
_DATAGRAM_BYTES: Final = 1 << 16
_AT_ONCE: Final = 64  # datagrams, before others have their turn
_BUFFER_BYTES: Final = 4 << 20  # if the system lets us
_SO_MEMINFO: Final = 55  # of Linux
_MEMORY: Final = struct.Struct("9I")
_DROPS: Final = 8
_LOOK_UP_EVERY_S: Final = 10.0

_Peer = tuple[socket.AddressFamily, Any]  # and an address of that family


class Seal:
    """What tells copies of this engine from all else that may arrive at a port."""

    def __init__(self, secret: SecretStr | None, epoch: str) -> None:
        """Make it.

        Args:
            secret: what workers and gateways share; None where nobody else can reach the port.
            epoch: the id of the Kafka cluster.
        """
        shared = b"" if secret is None else hashlib.blake2b(secret.get_secret_value().encode()).digest()
        self._key = hashlib.blake2b(epoch.encode(), key=shared, person=b"tickloom early").digest()

    def close(self, block: bytes) -> bytes:
        """Return the datagram of a block."""
        return self._of(block) + block

    def open(self, datagram: bytes) -> bytes | None:
        """Return the block of a datagram, or None where it is none of ours."""
        block = datagram[_SEAL_BYTES:]
        return block if hmac.compare_digest(self._of(block), datagram[:_SEAL_BYTES]) else None

    def _of(self, block: bytes) -> bytes:
        return hashlib.blake2b(block, digest_size=_SEAL_BYTES, key=self._key).digest()


class EarlySender:
    """Sends copies to some gateways, and never waits for any of them."""

    def __init__(self, addresses: Sequence[Address], secret: SecretStr | None, bootstrap: str) -> None:
        """Make it; within ``async with`` it sends.

        Args:
            addresses: of the gateways. A name may stand for several; all get all.
            secret: as for `Seal`.
            bootstrap: ``HOST:PORT`` of Kafka, which must be there when the context begins.
        """
        self.sent = self.unsent = self.backlog = 0  # copies
        self._addresses, self._secret, self._bootstrap = addresses, secret, bootstrap
        self._seal: Seal | None = None
        self._sockets: dict[_Peer, socket.socket] = {}
        self._unknown = ""  # what was wrong with an address when we looked
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._addresses:
            self._seal = Seal(self._secret, await cluster_id(self._bootstrap))
            await self._look_up()
            self._looking = asyncio.create_task(self._look_up_for_ever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        for each in self._sockets.values():
            each.close()
        self._sockets = {}

    def send(self, block: bytes) -> None:
        """Send a block, as its bytes stand in Kafka."""
        if not self._sockets or self._seal is None:
            return
        if len(block) > MAX_BLOCK_BYTES:
            self.backlog += len(self._sockets)
            return
        datagram = self._seal.close(block)
        for each in self._sockets.values():
            try:
                each.send(datagram)
            except OSError:  # nobody there, or its buffer is full
                self.unsent += 1
            else:
                self.sent += 1

    async def _look_up_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_UP_EVERY_S)
            await self._look_up()

    async def _look_up(self) -> None:
        """Find out where the gateways are now; one whose name is not known for a while keeps its place."""
        found: set[_Peer] = set()
        unknown = ""
        for host, port in self._addresses:
            try:
                answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            except OSError as error:
                unknown = f"{host} is not known ({error.strerror})"
            else:
                found |= {(family, address) for family, _, _, _, address in answers}
        for peer in found - self._sockets.keys():
            each = socket.socket(peer[0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                each.connect(peer[1])
            except OSError as error:
                each.close()
                unknown = f"there is no way to {peer[1][0]} ({error.strerror})"
            else:
                self._sockets[peer] = each
        for gone in () if unknown else self._sockets.keys() - found:
            self._sockets.pop(gone).close()
        if unknown and unknown != self._unknown:
            logger.warning("early copies: %s; a gateway there has predictions from Kafka only", unknown)
        self._unknown = unknown

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        yield _copies(sent=self.sent, unsent=self.unsent, backlog=self.backlog)


class EarlyReceiver:
    """Takes copies where workers send them."""

    def __init__(
        self,
        address: Address,
        seal: Callable[[], Seal | None],
        take: Callable[[bytes], None],
        taken: Callable[[], None],
    ) -> None:
        """Listen, within an event loop that runs.

        Args:
            address: where.
            seal: gives the one that copies have; None while that is not known, and all are dropped.
            take: called with each block.
            taken: called after some.

        Raises:
            SettingsError: nobody can listen there.
        """
        self.received = self.foreign = 0  # datagrams
        self._seal, self._take, self._taken = seal, take, taken
        self._buffer = bytearray(_DATAGRAM_BYTES)
        try:
            family, kind, _, _, where = socket.getaddrinfo(
                *address, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind(where)
        except OSError as error:
            host, port = address
            raise SettingsError(
                f"cannot take early copies at {host}:{port}: {error.strerror}; set another early_at, or none"
            ) from None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _on_readable(self) -> None:
        seal, view = self._seal(), memoryview(self._buffer)
        for _ in range(_AT_ONCE):
            try:
                size = self._socket.recv_into(self._buffer)
            except OSError:  # there are no more
                break
            self.received += 1
            block = None if seal is None else seal.open(bytes(view[:size]))
            if block is None:
                self.foreign += 1
            else:
                self._take(block)
        self._taken()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        yield _copies(received=self.received, foreign=self.foreign, overrun=self._overrun())

    def _overrun(self) -> int:
        """Return how many the kernel dropped because we did not take them soon enough."""
        if self._socket.fileno() < 0:
            return 0
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        return int(_MEMORY.unpack(memory)[_DROPS])


def _copies(**counts: int) -> Metric:
    family = CounterMetricFamily(
        "tickloom_early_copies", "Copies of blocks that go past Kafka, by outcome", labels=["outcome"]
    )
    for outcome, count in counts.items():
        family.add_metric([outcome], count)
    return family
