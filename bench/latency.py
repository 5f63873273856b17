"""How long does a tick take from the hands of its source to a prediction in the hands of a reader?

    python -m bench.latency [--rates 100,1000,10000,50000] [--seconds 20] [--symbols 8] [--websocket] [--json FILE]
                            [--partitions 4] [--warm-seconds 75]

An open loop: ticks are due by a schedule that never waits for anything, and a tick's latency counts from the moment
it was due, so that a stall is seen by every tick that it delays (no coordinated omission). Every role is a process
of its own on one machine: embedded Apache Kafka, a sender with the sources' own publisher, a worker, and a reader:
one that consumes predictions, or with ``--websocket`` a gateway and a client of its feed. Percentiles are exact,
over all ticks, and so is the sum of the stages. The first quarter of each run warms up and does not count. Brokers
of production run for weeks: this one has their compiler and collector, and compiles itself to the end before the
first run, for which it is given ``--warm-seconds`` of ticks. Linux only.

Stages: to_lane (due at the source, to the lane that consumed it), features, inference, publish, to_reader (handed
to the producer, to the reader). With ``--websocket`` the last are to_gateway (handed to the producer, to the
message of the feed that has it) and to_client.
"""

import argparse
import asyncio
import ctypes
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect

from bench.spine import healthy, say
from stream.clock import NS_PER_S
from stream.demo.parts import Part, Role
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.embedded.process import Child, Command
from stream.garbage import freeze_garbage
from stream.kafka_loops import use_lean_clients
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import PREDICTION, TickKind, decode_block, empty_ticks, encode_symbol
from stream.scheduling import yield_to_no_waker
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

# Ticks are due at multiples of this.
GRID_NS = 1_000_000
_TIMER_ABSTIME = 1  # of timerfd_settime
# The embedded broker stops at the first compiler and has a small heap, to start quickly. Here it runs as Kafka's
# own scripts start one, but for two: what survives a collection is copied once and not fifteen times, for which the
# broker stands 8 ms instead of 18; and the heap is touched at the start, as one is that has run for weeks. Of this
# variable Java takes the last word.
_JAVA_OPTIONS = {
    "_JAVA_OPTIONS": "-XX:TieredStopAtLevel=4 -Xms1g -Xmx1g -XX:-UseShenandoahGC -XX:+UseG1GC "
    "-XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent "
    "-XX:MaxTenuringThreshold=1 -XX:+AlwaysPreTouch"
}
# Of the warm-up. Each new client takes ways through the broker that its compiler left out while none came, and much
# is compiled anew: that is to have happened before.
_WARM_SENDERS = 5
_WARM_RATE_PER_S = 10_000.0
QUANTILES = (50, 90, 99, 99.9, 99.99)
# By the stamp that ends it; it begins with the one before, the first with recv_ns: when the tick was due.
_STAGES = {
    "consumed_ns": "to_lane",
    "features_ns": "features",
    "inferred_ns": "inference",
    "published_ns": "publish",
    "send_ns": "to_gateway",
    "client_ns": "to_client",
    "read_ns": "to_reader",
}
_PREDICTIONS = b'{"type":"prediction",'  # a message of the feed begins with, but for snapshots
_SEQ = b'"seq":'  # once in each prediction of a message of the feed
_PATIENCE_S = 120.0
_QUIET_S = 1.0  # nothing has come for so long, and the sender has ended: that was all

Int64s = NDArray[np.int64]


async def send(
    bootstrap: str, partitions: int, rate_per_s: float, seconds: float, symbols: int, linger_ms: float
) -> None:
    """The sender's process: quotes at an even rate, the symbols in turn, stamped with when they were due."""
    total = int(rate_per_s * seconds)
    ticks = empty_ticks(total)
    ticks["symbol"] = np.resize([encode_symbol(f"LAT.{number:04d}") for number in range(symbols)], total)
    ticks["kind"], ticks["source_seq"] = TickKind.QUOTE, np.arange(1, total + 1)
    ticks["stream_id"] = time.time_ns() & 0xFFFFFFFF
    walk = np.cumsum(np.random.default_rng(1).choice([-0.01, 0.0, 0.01], total)) + 1_000.0
    ticks["bid"], ticks["ask"] = walk, walk + 0.01
    ticks["bid_size"] = ticks["ask_size"] = 100.0
    metrics = PublisherMetrics(CollectorRegistry())
    async with TickPublisher(bootstrap, partitions, linger_ms, metrics) as publisher:
        freeze_garbage()
        grid = Grid()
        first_ns = grid.next_ns() + 100 * GRID_NS
        due_ns = first_ns + (np.arange(total) / rate_per_s * 1e9).astype(np.int64) // GRID_NS * GRID_NS
        ticks["recv_ns"] = ticks["event_ns"] = due_ns
        sent = 0
        while sent < total:
            now_ns = await grid.wait()
            until = int(np.searchsorted(due_ns, now_ns, side="right"))
            if until > sent:
                await publisher.publish(ticks[sent:until])
                sent = until
        await publisher.flush()


class Grid:
    """Wakes an event loop at every multiple of `GRID_NS`: its own timers are right to a millisecond only."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.timerfd_create is there from Python 3.13 on
        self._fd = libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        interval_and_first = (ctypes.c_long * 4)(*divmod(GRID_NS, NS_PER_S), *divmod(self.next_ns(), NS_PER_S))
        if self._fd < 0 or libc.timerfd_settime(self._fd, _TIMER_ABSTIME, interval_and_first, None) != 0:
            raise OSError(ctypes.get_errno(), "the kernel gives no timer")
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._on_point)

    def next_ns(self) -> int:
        """Return the next point of the grid."""
        return (time.time_ns() // GRID_NS + 1) * GRID_NS

    async def wait(self) -> int:
        """Wait for the next point, or for none if it has passed already; return what time it is."""
        await self._event.wait()
        self._event.clear()
        return time.time_ns()

    def _on_point(self) -> None:
        os.read(self._fd, 8)
        self._event.set()


class Reading:
    """Predictions as they arrive, with the time when they did."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, NDArray[np.void]]] = []
        self.count = 0

    def add(self, records: NDArray[np.void]) -> None:
        """Note records that have arrived now."""
        self.parts.append((time.time_ns(), records))
        self.count += len(records)

    def stamps(self) -> dict[str, Int64s]:
        """Return when each tick was due, and the end of each stage, in ns."""
        records = np.concatenate([records for _, records in self.parts])
        stamps = {name: records[name] for name in ("recv_ns", *_STAGES) if name in (PREDICTION.names or ())}
        return stamps | {"read_ns": np.concatenate([np.full(len(part), at_ns) for at_ns, part in self.parts])}


class FeedReading:
    """Messages of the feed as they arrive, with the time when they did: what they say is looked at afterwards."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.count = 0

    def add(self, message: bytes) -> None:
        """Note a message that has arrived now."""
        self.parts.append((time.time_ns(), message))
        self.count += message.count(_SEQ)

    def stamps(self) -> dict[str, Int64s]:
        """Return when each tick was due, and the end of each stage, in ns."""
        rows = [
            {**prediction, "send_ns": message["send_ns"], "client_ns": at_ns}
            for at_ns, message in ((at_ns, orjson.loads(raw)) for at_ns, raw in self.parts)
            for prediction in message["predictions"]
        ]
        names = [name for name in ("recv_ns", *_STAGES) if name in rows[0]]
        return {name: np.array([row[name] for row in rows], np.int64) for name in names}


async def read_kafka(bootstrap: str, partitions: int, reading: Reading) -> None:
    """Read every prediction from now on. Cancelling it is safe."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=100, auto_offset_reset="latest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(PREDICTIONS, number) for number in range(partitions)])
        async for message in consumer:
            reading.add(decode_block(message.value, PREDICTION))
    finally:
        await consumer.stop()


async def read_feed(port: int, reading: FeedReading) -> None:
    """Read every prediction that the feed sends from now on. Cancelling it is safe."""
    async with connect(f"ws://127.0.0.1:{port}/feed", max_size=None, compression=None) as feed:
        ask = {"op": "subscribe", "channel": "prediction", "symbols": ["*"], "mode": "full"}
        await feed.send(json.dumps(ask))
        while True:
            message = await feed.recv(decode=False)
            if message.startswith(_PREDICTIONS):
                reading.add(message)


async def run_rate(
    settings: Settings,
    root: Path,
    rate_per_s: float,
    seconds: float,
    arguments: argparse.Namespace,
    pids: dict[str, int],
) -> dict[str, Any]:
    """Measure one rate; return its percentiles, and how much of a core each process took that ``pids`` names."""
    reading: Reading | FeedReading
    if arguments.websocket:
        reading = FeedReading()
        task = asyncio.create_task(read_feed(settings.gateway_port, reading))
    else:
        reading = Reading()
        task = asyncio.create_task(read_kafka(str(settings.kafka), settings.partitions, reading))
    await asyncio.sleep(1.0)
    values = settings.kafka, settings.partitions, rate_per_s, seconds, arguments.symbols, arguments.linger_ms
    argv = [sys.executable, "-m", "bench.latency", "--send", *map(str, values)]
    cpu_before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    with Path("/dev/null").open("rb") as nothing:
        sender = Child("sender", Command(argv, Path.cwd()), root / "sender.log", nothing.fileno())
    total, deadline_s = int(rate_per_s * seconds), time.monotonic() + seconds + _PATIENCE_S
    try:
        count = -1
        while (sender.alive() or reading.count > count) and time.monotonic() < deadline_s:
            count = reading.count
            await asyncio.sleep(_QUIET_S)
        cores = {name: round((cpu_s(pid) - cpu_before_s[name]) / seconds, 3) for name, pid in pids.items()}
    finally:
        sender.stop(10.0)
        task.cancel()
    if reading.count < total - arguments.symbols:  # of a new symbol the feed sends the first as a snapshot
        raise SystemExit(f"{total} ticks were sent, {reading.count} predictions came")
    row = percentiles(reading.stamps())
    row |= {"ticks_per_s": rate_per_s, "ticks": total, "cores": cores}
    row["ticks_a_block"] = round(reading.count / max(len(reading.parts), 1), 2)
    return row


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentiles(stamps: dict[str, Int64s]) -> dict[str, Any]:
    """Return percentiles in ms, in all and for each stage."""
    due_ns = stamps["recv_ns"]
    counts = due_ns >= due_ns.min() + (due_ns.max() - due_ns.min()) // 4
    stamps = {name: stamp[counts] for name, stamp in stamps.items()}
    spans = {"total": list(stamps.values())[-1] - stamps["recv_ns"]}
    for before, end in itertools.pairwise(stamps):
        spans[_STAGES[end]] = stamps[end] - stamps[before]
    return {"predictions": int(counts.sum()), "ms": {name: summary(span) for name, span in spans.items()}}


def summary(span_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return exact percentiles and the maximum in ms."""
    values = {f"p{q}": round(float(np.percentile(span_ns, q)) / 1e6, 3) for q in QUANTILES}
    return values | {"max": round(float(span_ns.max()) / 1e6, 3)}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every rate on one broker and return the report."""
    root = Path(tempfile.mkdtemp(prefix="tickloom-latency-"))
    rates = [float(text) for text in arguments.rates.split(",")]
    machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
    report: dict[str, Any] = {"bench": "latency", "machine": machine, "symbols": arguments.symbols, "rates": []}
    report["partitions"] = arguments.partitions
    os.environ.update(_JAVA_OPTIONS)
    with EmbeddedKafka(root) as kafka:
        early = f"127.0.0.1:{free_port()}" if arguments.websocket and not arguments.no_early else None
        settings = Settings(
            kafka=kafka.bootstrap,
            data_dir=root,
            partitions=arguments.partitions,
            gateway_port=free_port(),
            early_to=early,
            early_at=early,
        )
        await create_topics(kafka.bootstrap, settings.partitions, 1, 24.0)
        parts = [Part(Role("worker", ["worker"], {}), settings, root)]
        if arguments.websocket:
            parts.append(Part(Role("gateway", ["gateway"], {}), settings, root))
        try:
            async with aiohttp.ClientSession() as session:
                for part in parts:
                    part.start()
                for part in parts:
                    await healthy(part, session)
                freeze_garbage()
                pids = {"broker": kafka.pid, "reader": os.getpid()} | {part.role.name: part.pid for part in parts}
                if arguments.warm_seconds:
                    say(f"warming up for {arguments.warm_seconds:.0f} s", "latency")
                    for _ in range(_WARM_SENDERS):
                        seconds = arguments.warm_seconds / _WARM_SENDERS
                        await run_rate(settings, root, _WARM_RATE_PER_S, seconds, arguments, pids)
                for rate_per_s in rates:
                    say(f"{rate_per_s:,.0f} ticks/s", "latency")
                    row = await run_rate(settings, root, rate_per_s, arguments.seconds, arguments, pids)
                    report["rates"].append(row)
        finally:
            for part in reversed(parts):
                part.stop()
    return report


def main() -> None:
    """Parse the command line, run, print the report."""
    use_lean_clients()
    yield_to_no_waker()
    if sys.argv[1:2] == ["--send"]:
        bootstrap, partitions, rate, seconds, symbols, linger_ms = sys.argv[2:]
        uvloop.run(send(bootstrap, int(partitions), float(rate), float(seconds), int(symbols), float(linger_ms)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="100,1000,10000,50000", help="ticks a second, with commas between")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate")
    parser.add_argument("--symbols", type=int, default=8)
    parser.add_argument("--linger-ms", type=float, default=Settings().linger_ms, help="of the source's publisher")
    parser.add_argument("--partitions", type=int, default=Settings().partitions, help="of all topics: lanes")
    parser.add_argument("--warm-seconds", type=float, default=75.0, help="of ticks before the first rate")
    parser.add_argument("--websocket", action="store_true", help="read through a gateway, as a client of its feed")
    parser.add_argument("--no-early", action="store_true", help="the gateway has predictions from Kafka only")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    report = json.dumps(uvloop.run(run(arguments)), indent=2)
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
