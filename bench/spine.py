"""How many ticks a second go through the whole engine, and how long does a tick take to its prediction?

    python -m bench.spine --ticks ../shared/data/ticks/us_equity --day 2013-10-07 [--seconds 20] [--json FILE]

One run, one machine, embedded Apache Kafka, every role a process of its own as in production:

* throughput: a recorded day is sent as fast as it goes; from the first tick sent to the last prediction read back
  from Kafka, one prediction for each accepted tick (left out without ``--ticks``);
* latency: an open loop, the simulator's own schedule that never waits for answers, at several rates; from the
  source's receive stamp to the prediction in the hands of a consumer, with the stage stamps of each prediction;
* baseline: a plain Faust worker (`bench/plain_faust.py`) at the same broker, afterwards.

Absolute figures belong to the machine and to what else runs on it; compare the ratios.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from numpy.typing import NDArray

from stream.demo.parts import Part, Role
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.process import Child, Command
from stream.records import PREDICTION, decode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

PARTITIONS = 4
RATES_PER_S = (100, 1_000, 10_000)
QUANTILES = (50, 90, 99, 99.9, 99.99)
BASELINE_TICKS = 20_000
_PATIENCE_S = 300.0


@dataclass
class Reading:
    """What the bench's consumer has read: predictions, and when."""

    blocks: list[tuple[int, NDArray[np.void]]]
    predictions: int = 0
    last_ns: int = 0


async def follow(bootstrap: str, reading: Reading) -> None:
    """Read every prediction from the end of the topic on. Cancelling it is safe."""
    consumer = AIOKafkaConsumer(PREDICTIONS, bootstrap_servers=bootstrap, fetch_max_wait_ms=20)
    await consumer.start()
    try:
        async for message in consumer:
            records = decode_block(message.value, PREDICTION)
            reading.last_ns = time.time_ns()
            reading.blocks.append((reading.last_ns, records))
            reading.predictions += len(records)
    finally:
        await consumer.stop()


async def healthy(part: Part, session: aiohttp.ClientSession) -> None:
    """Wait until a part works or its work is done."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not part.healthy and not part.finished:
        part.check_started()
        await part.poll(session)
        part.restart_if_dead()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{part.role.name} is not ready: {part.last_lines()}")
        await asyncio.sleep(0.1)


async def throughput(settings: Settings, root: Path, role: Role) -> dict[str, Any]:
    """Send a day as fast as it goes; return ticks, seconds and ticks a second."""
    reading = Reading([])
    follower = asyncio.create_task(follow(str(settings.kafka), reading))
    worker = Part(Role("worker", ["worker"], {}), settings, root)
    source = Part(role, settings, root)
    try:
        async with aiohttp.ClientSession() as session:
            worker.start()
            await healthy(worker, session)
            source.start()
            while not source.finished:
                await source.poll(session)
                source.restart_if_dead()
                await asyncio.sleep(0.05)
            await settled(worker, reading, session)
        first_ns = min(int(records["recv_ns"].min()) for _, records in reading.blocks)
        seconds = (reading.last_ns - first_ns) / 1e9
        return {
            "predictions": reading.predictions,
            "accepted_ticks": worker.health["ticks"]["accepted"],
            "seconds": round(seconds, 2),
            "predictions_per_s": round(reading.predictions / seconds),
            "stages_us": worker.health["stages_us"],
        }
    finally:
        source.stop()
        worker.stop()
        follower.cancel()


async def settled(worker: Part, reading: Reading, session: aiohttp.ClientSession) -> None:
    """Wait until the bench has read all that the worker made, and the worker makes no more."""
    before = -1
    while True:
        await worker.poll(session)
        made = worker.health.get("predictions", 0)
        if made == before and reading.predictions >= made > 0:
            return
        before = made
        await asyncio.sleep(1.0)


async def latency(settings: Settings, root: Path, seconds: float) -> list[dict[str, Any]]:
    """Return percentiles in ms at each rate, in all and for each stage."""
    worker = Part(Role("worker", ["worker"], {}), settings, root)
    rows = []
    try:
        async with aiohttp.ClientSession() as session:
            worker.start()
            await healthy(worker, session)
            for rate in RATES_PER_S:
                reading = Reading([])
                follower = asyncio.create_task(follow(str(settings.kafka), reading))
                role = Role(f"source-{rate}", ["ingest", "simulator", "--rate", str(rate), "--seed", str(rate)], {})
                source = Part(role, settings, root)
                await asyncio.sleep(1.0)
                source.start()
                await healthy(source, session)
                await asyncio.sleep(seconds)
                source.stop()
                await asyncio.sleep(1.0)
                follower.cancel()
                rows.append(percentiles(rate, reading))
    finally:
        worker.stop()
    return rows


def percentiles(rate: int, reading: Reading) -> dict[str, Any]:
    """Summarise what was read at one rate, without its first fifth: the ramp-up of the processes."""
    blocks = reading.blocks[len(reading.blocks) // 5 :]
    read_ns = np.concatenate([np.full(len(records), at_ns) for at_ns, records in blocks])
    records = np.concatenate([records for _, records in blocks])
    spans = {
        "total": read_ns - records["recv_ns"],
        "source_to_lane": records["consumed_ns"] - records["recv_ns"],
        "features": records["features_ns"] - records["consumed_ns"],
        "inference": records["inferred_ns"] - records["features_ns"],
        "publish": records["published_ns"] - records["inferred_ns"],
        "lane_to_reader": read_ns - records["published_ns"],
    }
    ms = {
        name: {f"p{q}": round(float(np.percentile(span, q)) / 1e6, 3) for q in QUANTILES}
        for name, span in spans.items()
    }
    return {"ticks_per_s": rate, "predictions": len(records), "ms": ms}


async def baseline(bootstrap: str, root: Path) -> dict[str, Any]:
    """Return what a plain Faust worker reaches with one message per tick."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = ("plain-ticks", "plain-predictions", "plain-plain-windows-changelog")
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await producer.start()
    for number in range(BASELINE_TICKS):
        symbol = f"S{number % 3}"
        value = json.dumps({"symbol": symbol, "price": 100.0 + number % 7}).encode()
        await producer.send("plain-ticks", value, key=symbol.encode())
    await producer.stop()
    consumer = AIOKafkaConsumer("plain-predictions", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    argv = [sys.executable, "-m", "bench.plain_faust", bootstrap, str(PARTITIONS), str(root / "plain")]
    with Path("/dev/null").open("rb") as nothing:
        child = Child("plain-faust", Command(argv, Path.cwd()), root / "plain-faust.log", nothing.fileno())
    try:
        await asyncio.wait_for(consumer.getone(), _PATIENCE_S)
        begun_s, seen = time.monotonic(), 1
        while seen < BASELINE_TICKS:
            seen += sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
        seconds = time.monotonic() - begun_s
        return {"predictions": seen, "seconds": round(seconds, 2), "predictions_per_s": round(seen / seconds)}
    finally:
        child.stop(10.0)
        await consumer.stop()


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all three parts on one broker and return the report."""
    root = Path(tempfile.mkdtemp(prefix="tickloom-bench-"))
    with EmbeddedKafka(root) as kafka:
        settings = Settings(kafka=kafka.bootstrap, data_dir=root, partitions=PARTITIONS)
        await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
        machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
        report: dict[str, Any] = {"bench": "spine", "machine": machine}
        say("latency")
        report["latency"] = await latency(settings, root, arguments.seconds)
        if arguments.ticks is not None:
            say("throughput")
            flags = ["replay", str(arguments.ticks), "--speed", "max", "--day", arguments.day]
            report["throughput"] = await throughput(settings, root, Role("source", flags, {}, ends_by_itself=True))
            say("baseline: plain Faust")
            report["baseline"] = await baseline(kafka.bootstrap, root)
            ratio = report["throughput"]["predictions_per_s"] / report["baseline"]["predictions_per_s"]
            report["times_plain_faust"] = round(ratio, 1)
    return report


def say(line: str, bench: str = "spine") -> None:
    """Show progress, apart from the result."""
    print(f"bench.{bench}: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="directory of recorded ticks, for the throughput")
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate of the latency part")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    report = json.dumps(asyncio.run(run(arguments)), indent=2)
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
