"""How long is a worker away that is killed and started again, by the number of symbols that it remembers?

    python -m bench.recovery [--symbols 100,1000,10000] [--rounds 20] [--json FILE]

For each number of symbols: a worker sees every symbol ``--rounds`` times and keeps its state, is killed
(SIGKILL) and started again at once, and one more tick of every symbol is sent. Timed from the start of the
process: until it has joined the group (Faust has read the changelog by then), and until the predictions of all
those ticks are in Kafka, which needs every row of every lane. The killed worker's place in the group is kept by
the broker until its session is over, so the time to join has that session in it (6 s here); ``--stop`` asks it
to stop instead (SIGTERM).
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from prometheus_client import CollectorRegistry

from agents.state import STATE
from bench.spine import PARTITIONS, Reading, follow, healthy, say
from stream.demo.parts import Part, Role
from stream.embedded.kafka import EmbeddedKafka
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import Records, TickKind, empty_ticks
from stream.settings import Settings
from stream.topics import create_topics

_PATIENCE_S = 180.0


def ticks_of(symbols: int, turn: int, prefix: str) -> Records:
    """Return one trade of each symbol: ``TICK[symbols]``."""
    ticks = empty_ticks(symbols)
    ticks["symbol"] = [f"{prefix}{number}".encode() for number in range(symbols)]
    ticks["kind"], ticks["side"] = TickKind.TRADE, 1
    ticks["price"], ticks["size"] = 100.0 + turn % 3, 10.0
    ticks["source_seq"] = turn * symbols + np.arange(1, symbols + 1)
    ticks["recv_ns"] = ticks["event_ns"] = time.time_ns()
    return ticks


async def until(reached: Any, what: str) -> None:
    """Wait until ``reached()``."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not reached():
        if time.monotonic() > deadline_s:
            raise TimeoutError(what)
        await asyncio.sleep(0.01)


async def measure(settings: Settings, root: Path, symbols: int, rounds: int, kill: bool) -> dict[str, Any]:
    """Return the times of one recovery."""
    reading = Reading([])
    follower = asyncio.create_task(follow(str(settings.kafka), reading))
    worker = Part(Role("worker", ["worker"], {}), settings, root)
    metrics = PublisherMetrics(CollectorRegistry())
    try:
        async with (
            aiohttp.ClientSession() as session,
            TickPublisher(str(settings.kafka), PARTITIONS, 1.0, metrics) as publisher,
        ):
            worker.start()
            await healthy(worker, session)
            for turn in range(rounds):
                await publisher.publish(ticks_of(symbols, turn, f"R{symbols}."))
            await publisher.flush()
            await until(lambda: reading.predictions >= rounds * symbols, "all ticks are predicted")
            await asyncio.sleep(3.0 + symbols / 2_000)  # two checkpoints
            os.kill(worker.pid, signal.SIGKILL if kill else signal.SIGTERM)
            worker.stop()
            before = reading.predictions
            begun_s = time.monotonic()
            worker.start()
            await publisher.publish(ticks_of(symbols, rounds, f"R{symbols}."))
            await publisher.flush()
            await healthy(worker, session)
            joined_s = time.monotonic() - begun_s
            await until(lambda: reading.predictions >= before + symbols, "every symbol is predicted again")
            return {
                "symbols": symbols,
                "state_mb": round(symbols * STATE.itemsize / 1e6, 1),
                "joined_s": round(joined_s, 2),
                "all_predicted_s": round(time.monotonic() - begun_s, 2),
                "ended_by": "SIGKILL" if kill else "SIGTERM",
            }
    finally:
        worker.stop()
        follower.cancel()


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every number of symbols, each with topics of its own."""
    machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
    report: dict[str, Any] = {"bench": "recovery", "machine": machine, "recoveries": []}
    for symbols in (int(text) for text in arguments.symbols.split(",")):
        say(f"{symbols:,} symbols", "recovery")
        root = Path(tempfile.mkdtemp(prefix="tickloom-recovery-"))
        with EmbeddedKafka(root) as kafka:
            settings = Settings(kafka=kafka.bootstrap, data_dir=root, partitions=PARTITIONS, session_timeout_s=6.0)
            await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
            row = await measure(settings, root, symbols, arguments.rounds, not arguments.stop)
        report["recoveries"].append(row)
    return report


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", default="100,1000,10000", help="how many, with commas between")
    parser.add_argument("--rounds", type=int, default=20, help="ticks of each symbol before the kill")
    parser.add_argument("--stop", action="store_true", help="ask the worker to stop instead of killing it")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    report = json.dumps(asyncio.run(run(arguments)), indent=2)
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
