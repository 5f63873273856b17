"""Gateways that are killed while many clients listen: what each client got, and what it was told.

Predictions are made here and sent to Kafka as lanes do, so that it is known to the last one what there is. Some
clients listen to one gateway and come back to it, some to both as one feed. A `Witness` holds each to the promises.
"""

import asyncio
import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from exporters.client import Batch, Feed, Gap, Item, Reset
from stream.demo.parts import Part, Role
from stream.early import EarlySender
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.records import PREDICTION, Records, encode_block, partition_of
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

PARTITIONS: Final = 2
SYMBOLS: Final = tuple(f"S{number}" for number in range(8))
_EVERY_S: Final = 0.1  # one prediction of each symbol
_PATIENCE_S: Final = 240.0  # also on a machine that others use
_MORE_CLIENTS: Final = 500  # than there are: those that are gone are noticed a little later


class Blow(StrEnum):
    """What happens to the gateways."""

    ONE_KILLED = "one gateway killed"
    OTHER_KILLED = "the other gateway killed"
    BOTH_KILLED = "both gateways killed"
    ONE_STOPPED = "one gateway asked to stop"
    BROKER_KILLED = "broker killed, restarted"
    ALL_CUT_OFF = "all clients cut off at once"
    VISITED = "1,000 visitors misbehave and go"


SHORT: Final = (Blow.ONE_KILLED, Blow.OTHER_KILLED)
# The visitors last: what gateways hold must not grow with them.
LONG: Final = (*list(Blow)[:-1] * 2, Blow.ONE_KILLED, Blow.OTHER_KILLED, Blow.BOTH_KILLED, *[Blow.VISITED] * 4)
_VISITORS: Final = 1000
_AT_ONCE: Final = 50


class Witness:
    """What one client has seen."""

    def __init__(self, *urls: str) -> None:
        """Listen to one gateway, or to several as one."""
        self.feed = Feed(*urls)
        self.last: dict[str, int] = {}
        self.records = 0
        self.lost: list[str] = []  # what was missing, twice or out of order, and not told
        self.told: list[Item] = []
        self._began: set[str] = set()

    async def run(self) -> None:
        """Listen for ever. Cancelling it is safe."""
        async with self.feed as feed:
            await feed.subscribe("*", mode="full")
            async for item in feed:
                self.take(item)

    def take(self, item: Item) -> None:
        """Account for one item."""
        match item:
            case Batch():
                self.records += len(item)
                names = item.records["symbol"].tolist()
                for name, seq in zip(names, item.records["seq"].tolist(), strict=True):
                    self._follow(name.decode(), seq)
            case Gap():
                self.lost.append(f"{item}, and the engine has none")
                self.last[item.symbol] = item.before_seq - 1
            case Reset():
                self.told.append(item)
                self._began.difference_update(item.symbols)

    def _follow(self, symbol: str, seq: int) -> None:
        if symbol in self._began and seq != self.last[symbol] + 1:
            self.lost.append(f"{symbol}: {seq} came after {self.last[symbol]}")
        self._began.add(symbol)
        self.last[symbol] = seq


class Source:
    """Sends predictions, each once or again until Kafka has it."""

    def __init__(self, bootstrap: str, early: EarlySender, chance: random.Random) -> None:
        """Send nothing yet; of two blocks out of three the gateways get a copy before Kafka has them."""
        self.seq = 0  # of every symbol, that Kafka has
        self.stopped = False  # aiokafka may swallow a cancellation
        self._bootstrap, self._early, self._chance = bootstrap, early, chance

    async def run(self) -> None:
        """Send for ever. Cancelling it is safe."""
        async with self._early:
            await self._run()

    async def _run(self) -> None:
        while not self.stopped:
            producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, request_timeout_ms=3000)
            try:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await producer.start()
                    while not self.stopped:
                        await self._send(producer, rows_of(self.seq + 1))
                        self.seq += 1
                        await asyncio.sleep(_EVERY_S)
            finally:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(producer.stop(), 5)
            await asyncio.sleep(0.2)

    async def _send(self, producer: AIOKafkaProducer, rows: Records) -> None:
        partitions = partition_of(rows["symbol"], PARTITIONS)
        for partition in range(PARTITIONS):
            ours = rows[partitions == partition]
            if len(ours):
                block = encode_block(ours)
                if self._chance.random() < 2 / 3:
                    self._early.send(block)
                await producer.send_and_wait(PREDICTIONS, block, partition=partition)


def rows_of(seq: int) -> Records:
    """Return the prediction of this number of every symbol."""
    rows = np.zeros(len(SYMBOLS), PREDICTION)
    rows["symbol"], rows["seq"] = SYMBOLS, seq
    rows["source_offset"], rows["source_index"] = seq, np.arange(len(SYMBOLS))
    rows["source_partition"] = partition_of(rows["symbol"], PARTITIONS)
    rows["p_flat"], rows["ref_price"], rows["horizon_ns"], rows["model_id"] = 1.0, 100.0, 10**9, 7
    for stage in ("event_ns", "recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns"):
        rows[stage] = time.time_ns()
    return rows


@dataclass
class Report:
    """What came of a storm."""

    clients: int
    of_two: int  # clients of both gateways
    records: int = 0
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    told: int = 0
    told_of_two: int = 0
    connections: int = 0
    caught_up_s: dict[str, list[float]] = field(default_factory=dict)  # by blow, from when it fell
    rss_mib: list[float] = field(default_factory=list)  # of the larger gateway, after each blow


class FeedStorm:
    """One run."""

    def __init__(self, root: Path, clients: int, of_two: int, seed: int, tell: Callable[[str], None]) -> None:
        """Start a broker; `run` does the rest.

        Args:
            root: where everything is kept.
            clients: of one gateway each, half of them of either.
            of_two: of both gateways.
            seed: decides when blows fall.
            tell: is told what happens.
        """
        self.kafka = EmbeddedKafka(root)
        self._root, self._tell, self._chance = root, tell, random.Random(seed)  # noqa: S311
        self._report = Report(clients, of_two)
        self._parts: list[Part] = []

    async def run(self, blows: Sequence[Blow]) -> Report:
        """Let all blows fall; return what came of it."""
        _allow_files(4 * (self._report.clients + 2 * self._report.of_two) + 1000)
        await asyncio.to_thread(self.kafka.start)
        await create_topics(self.kafka.bootstrap, PARTITIONS, 1, 24.0)
        tasks: list[asyncio.Task[None]] = []
        self._ports, self._early_ports = [free_port(), free_port()], [free_port(), free_port()]
        early = EarlySender([("127.0.0.1", port) for port in self._early_ports], None, self.kafka.bootstrap)
        source = Source(self.kafka.bootstrap, early, self._chance)
        try:
            self._parts = [self._gateway(number, port) for number, port in enumerate(self._ports)]
            for part in self._parts:
                part.start()
            await self._serving()
            tasks.append(asyncio.create_task(source.run()))
            self._urls = [f"ws://127.0.0.1:{port}/feed" for port in self._ports]
            alone = [Witness(self._urls[number % 2]) for number in range(self._report.clients)]
            of_two = [Witness(*self._urls) for _ in range(self._report.of_two)]
            self._witnesses = [*alone, *of_two]
            tasks += [asyncio.create_task(witness.run()) for witness in self._witnesses]
            await self._caught_up(source, tasks)
            for blow in blows:
                await self._strike(blow, source, tasks)
            return self._judge(alone, of_two)
        finally:
            source.stopped = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for part in self._parts:
                await asyncio.to_thread(part.stop)
            await asyncio.to_thread(self.kafka.stop)

    def _gateway(self, number: int, port: int) -> Part:
        settings = Settings(
            kafka=self.kafka.bootstrap,
            data_dir=self._root,
            partitions=PARTITIONS,
            gateway_port=port,
            early_at=f"127.0.0.1:{self._early_ports[number]}",
            gateway_clients=self._report.clients + self._report.of_two + _MORE_CLIENTS,
        )
        return Part(Role(f"gateway-{number}", ["gateway"], {}), settings, self._root)

    async def _strike(self, blow: Blow, source: Source, tasks: "Sequence[asyncio.Task[None]]") -> None:
        await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        blows: dict[Blow, Callable[[], Awaitable[None]]] = {
            Blow.ONE_KILLED: lambda: self._signal(signal.SIGKILL, 0),
            Blow.OTHER_KILLED: lambda: self._signal(signal.SIGKILL, 1),
            Blow.BOTH_KILLED: lambda: self._signal(signal.SIGKILL, 0, 1),
            Blow.ONE_STOPPED: lambda: self._signal(signal.SIGTERM, 0),
            Blow.BROKER_KILLED: self._restart_broker,
            Blow.ALL_CUT_OFF: self._cut_off,
            Blow.VISITED: self._visit,
        }
        begun_s = time.monotonic()
        await blows[blow]()
        await self._serving()
        await self._caught_up(source, tasks)
        caught_up_s = time.monotonic() - begun_s
        self._report.caught_up_s.setdefault(blow.value, []).append(round(caught_up_s, 2))
        self._report.rss_mib.append(max(_rss_mib(part.pid) for part in self._parts))
        self._tell(f"{blow}: all have everything {caught_up_s:.1f} s later; RSS {self._report.rss_mib[-1]:.0f} MiB")

    async def _signal(self, number: signal.Signals, *which: int) -> None:
        for index in which:
            pid = self._parts[index].pid
            os.kill(pid, number)
            self._report.kills += number is signal.SIGKILL
        for index in which:
            await self._until(lambda index=index: not self._parts[index].alive, "it has ended")  # type: ignore[misc]

    async def _restart_broker(self) -> None:
        await asyncio.to_thread(self.kafka.kill)
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        await asyncio.to_thread(self.kafka.start)

    async def _cut_off(self) -> None:
        """End every connection without a word, all at once."""
        for witness in self._witnesses:
            for session in witness.feed._sessions():
                session._socket.transport.abort()

    async def _visit(self) -> None:
        """Come in great numbers, say what is wrong, ask for everything, and go without a word."""
        for first in range(0, _VISITORS, _AT_ONCE):
            await asyncio.gather(*(self._visitor(number) for number in range(first, first + _AT_ONCE)))

    async def _visitor(self, number: int) -> None:
        url, chance = self._urls[number % 2], self._chance
        if chance.random() < 0.2:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
            writer.write(chance.randbytes(200))
            writer.transport.abort()
            return
        with contextlib.suppress(OSError, WebSocketException):
            async with connect(url, open_timeout=60) as socket:
                ask = {"op": "subscribe", "symbols": ["*"], "mode": "full", "replay_from_ns": 0}
                await socket.send(orjson.dumps(ask).decode())
                await socket.send(chance.choice([b"\x00", "{", '{"op":"list"}', "x" * 70_000]))
                if chance.random() < 0.5:
                    await socket.recv()
                    socket.transport.abort()

    async def _serving(self) -> None:
        """Wait until both gateways can be connected to; start those anew that have died."""
        deadline_s = time.monotonic() + _PATIENCE_S
        for part, port in zip(self._parts, self._ports, strict=True):
            # Not by its health, for which a loop with a thousand clients may have no time.
            while not await _answers(port):
                part.restart_if_dead()
                assert time.monotonic() < deadline_s, part.last_lines()
                await asyncio.sleep(0.05)

    async def _caught_up(self, source: Source, tasks: "Sequence[asyncio.Task[None]]") -> None:
        """Wait until every client has what Kafka has now, and one more."""
        seq = source.seq + 1

        def have_all() -> bool:
            for task in tasks:
                if task.done():
                    task.result()  # a client that gave up
            return all(
                len(witness.last) == len(SYMBOLS) and min(witness.last.values()) >= seq
                for witness in self._witnesses
            )

        await self._until(have_all, f"every client has seq {seq}")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s, f"not within {_PATIENCE_S:.0f} s: {what}"
            await asyncio.sleep(0.05)

    def _judge(self, alone: Sequence[Witness], of_two: Sequence[Witness]) -> Report:
        report = self._report
        for witness in (*alone, *of_two):
            report.lost += witness.lost
            report.records += witness.records
            report.connections += witness.feed.stats.connections
        report.told = sum(len(witness.told) for witness in alone)
        report.told_of_two = sum(len(witness.told) for witness in of_two)
        return report


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _rss_mib(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return round(int(fields["VmRSS"].split()[0]) / 1024, 1)


def _allow_files(wanted: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def as_figures(report: Report) -> dict[str, Any]:
    """Return a report as plain values, with figures of the losses instead of all of them."""
    return {**report.__dict__, "lost": len(report.lost), "lost_examples": report.lost[:3]}
