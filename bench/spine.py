"""How fast does a recorded day go through the whole engine, and do all ways out agree on it in the end?

    python -m bench.spine --ticks ../shared/data/ticks/us_equity --day 2013-10-07 [--json FILE]

One run, one machine, every role a process of its own as in production: embedded Kafka, ClickHouse and Valkey, a
replay as fast as it goes, a worker, both exporters, the gateway, and a WebSocket client that follows every
symbol. Timed from the first tick sent to the last prediction in Kafka, in ClickHouse and in Redis. The run
fails (exit code 1) unless every accepted tick has one prediction, ClickHouse has each once and without a gap,
and Redis and the WebSocket client have the newest of each symbol. ``--sinks none`` leaves the ways out away.

Latency is `bench/latency.py`'s question, the comparison with others `bench/lanes.py`'s.
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
from aiokafka import AIOKafkaConsumer
from numpy.typing import NDArray
from pydantic import SecretStr

from stream.demo.listener import FeedView, listen
from stream.demo.outcome import Outcome, read_outcome
from stream.demo.parts import Part, Role
from stream.embedded.ports import free_port
from stream.embedded.servers import EmbeddedServers
from stream.records import PREDICTION, decode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

PARTITIONS = 4
_PATIENCE_S = 300.0
_WAYS_OUT = (["export", "redis"], ["export", "clickhouse"], ["gateway"])


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


async def sinks_have(settings: Settings, predictions: int) -> tuple[dict[str, int], Outcome]:
    """Return when (ns) each sink was first seen to hold all predictions, and what they hold then."""
    reached: dict[str, int] = {}
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        outcome = await read_outcome(settings)
        held = {"clickhouse": outcome.clickhouse_distinct, "redis": outcome.redis_latest_seq_sum}
        for name, count in held.items():
            if count >= predictions:
                reached.setdefault(name, time.time_ns())
        if len(reached) == len(held):
            return reached, outcome
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{predictions} predictions were made; the sinks hold {outcome}")
        await asyncio.sleep(0.2)


async def measure(settings: Settings, root: Path, source: Part, with_sinks: bool) -> dict[str, Any]:
    """Send the day; return rates and what every way out holds."""
    reading, feed = Reading([]), FeedView()
    tasks = [asyncio.create_task(follow(str(settings.kafka), reading))]
    ways_out = [Part(Role(" ".join(role), role, {}), settings, root) for role in (_WAYS_OUT if with_sinks else ())]
    worker = Part(Role("worker", ["worker"], {}), settings, root)
    parts = [worker, *ways_out]
    try:
        async with aiohttp.ClientSession() as session:
            for part in parts:
                part.start()
            for part in parts:
                await healthy(part, session)
            if with_sinks:
                tasks.append(
                    asyncio.create_task(listen(f"ws://127.0.0.1:{settings.gateway_port}/feed", None, feed))
                )
            source.start()
            while not source.finished:
                await source.poll(session)
                source.restart_if_dead()
                await asyncio.sleep(0.05)
            await settled(worker, reading, session)
            report = rates(reading, worker)
            if with_sinks:
                report |= await agreement(settings, reading, feed)
            return report
    finally:
        for part in (source, *parts):
            part.stop()
        for task in tasks:
            task.cancel()


def rates(reading: Reading, worker: Part) -> dict[str, Any]:
    """Return predictions, seconds and predictions a second, as read back from Kafka."""
    first_ns = min(int(records["recv_ns"].min()) for _, records in reading.blocks)
    seconds = (reading.last_ns - first_ns) / 1e9
    return {
        "ticks": worker.health["ticks"],
        "predictions": reading.predictions,
        "seconds": round(seconds, 2),
        "predictions_per_s": round(reading.predictions / seconds),
    }


async def agreement(settings: Settings, reading: Reading, feed: FeedView) -> dict[str, Any]:
    """Return when the sinks had everything, and whether all ways out agree."""
    reached, outcome = await sinks_have(settings, reading.predictions)
    newest: dict[str, int] = {}
    for _, records in reading.blocks:
        for symbol, seq in zip(records["symbol"].tolist(), records["seq"].tolist(), strict=True):
            newest[symbol.decode()] = max(seq, newest.get(symbol.decode(), 0))
    deadline_s = time.monotonic() + 10
    while {name: item["seq"] for name, item in feed.latest.items()} != newest and time.monotonic() < deadline_s:
        await asyncio.sleep(0.1)
    websocket = {name: item["seq"] for name, item in feed.latest.items()}
    first_ns = min(int(records["recv_ns"].min()) for _, records in reading.blocks)
    total = sum(newest.values())
    exact = outcome.clickhouse_rows == outcome.clickhouse_distinct == outcome.redis_latest_seq_sum == total
    return {
        "seconds_to": {name: round((at_ns - first_ns) / 1e9, 2) for name, at_ns in reached.items()},
        "newest_seq": newest,
        "websocket_newest_seq": websocket,
        **outcome.as_dict(),
        "agree": exact and outcome.clickhouse_gaps == 0 and websocket == newest and total == reading.predictions,
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the day and return the report."""
    root = Path(tempfile.mkdtemp(prefix="tickloom-bench-"))
    with_sinks = arguments.sinks == "all"
    with EmbeddedServers(root, clickhouse=with_sinks, redis=with_sinks) as servers:
        assert servers.kafka is not None
        early = f"127.0.0.1:{free_port()}"
        settings = Settings(
            kafka=servers.kafka.bootstrap,
            clickhouse=SecretStr(servers.clickhouse.url) if servers.clickhouse else None,
            redis=SecretStr(servers.redis.url) if servers.redis else None,
            data_dir=root,
            partitions=PARTITIONS,
            gateway_port=free_port(),
            early_to=early,
            early_at=early,
        )
        await create_topics(servers.kafka.bootstrap, PARTITIONS, 1, 24.0)
        flags = ["replay", str(arguments.ticks), "--speed", "max", "--day", arguments.day]
        source = Part(Role("source", flags, {}, ends_by_itself=True), settings, root)
        say(f"{arguments.day} of {arguments.ticks}")
        machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
        report = {"bench": "spine", "machine": machine, "sinks": arguments.sinks}
        report |= await measure(settings, root, source, with_sinks)
    return report


def say(line: str, bench: str = "spine") -> None:
    """Show progress, apart from the result."""
    print(f"bench.{bench}: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, required=True, help="directory of recorded ticks")
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--sinks", choices=("all", "none"), default="all", help="with the ways out, or without")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    if not report.get("agree", True):
        sys.exit(1)


if __name__ == "__main__":
    main()
