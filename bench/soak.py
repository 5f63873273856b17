"""Does a worker grow, in memory or in latency, when it runs for an hour at a steady rate?

    python -m bench.soak --minutes 60 --rate 50000 [--ticks DIRECTORY --day 2013-10-07] [--json FILE]

A source in a process of its own (`bench/steady_source.py`) sends a recorded day's ticks (or the simulator's)
round and round by a schedule that waits for nothing, stamped with the time at which each was due; a worker predicts
through embedded Apache Kafka; this process reads every prediction. Samples at equal intervals, 60 in all: memory
and CPU of the worker, ticks sent and not yet predicted, latency from the due time to the prediction read. The
embedded Kafka keeps 256 MB of each partition, 2 GB in all.

The report says growth per hour: the slope of a straight line through the samples, without the first tenth, with its
standard error. Samples follow one another, so that the true error may be larger; an hour tells, a minute does not.

Exit code 1: predictions are missing, or the source or the worker ended.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import worker_run
from bench.trend import growth
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.process import Child, Command
from stream.errors import ServerError
from stream.kafka_loops import use_lean_clients
from stream.records import PREDICTION, decode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

PARTITIONS: Final = 4
SAMPLES: Final = 60
_PATIENCE_S: Final = 120.0
_SERIES: Final = ("rss_mb", "cpu_percent", "lag_ticks", "p50_ms", "p99_ms")


class Reading:
    """What was read since the last sample: how many predictions, and how old each was."""

    def __init__(self) -> None:
        self.predictions = 0
        self._latency_ns: list[NDArray[np.int64]] = []  # 24 MB for a minute at 50,000/s

    def add(self, recv_ns: NDArray[np.int64], now_ns: int) -> None:
        """Take the predictions of a block."""
        self.predictions += len(recv_ns)
        self._latency_ns.append(now_ns - recv_ns)

    def take(self) -> dict[str, float]:
        """Return the number of predictions, and what their age was where there are any; then start anew."""
        count, latency_ns = self.predictions, self._latency_ns
        self.predictions, self._latency_ns = 0, []
        found = {"predictions": float(count)}
        if count:
            ms = np.percentile(np.concatenate(latency_ns), (50, 99, 100)) / 1e6
            found |= dict(zip(("p50_ms", "p99_ms", "max_ms"), ms.tolist(), strict=True))
        return found


async def follow(bootstrap: str, reading: Reading) -> None:
    """Read predictions until cancelled."""
    consumer = AIOKafkaConsumer(
        PREDICTIONS, bootstrap_servers=bootstrap, fetch_max_wait_ms=20, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async for message in consumer:
            reading.add(decode_block(message.value, PREDICTION)["recv_ns"], time.time_ns())
    finally:
        await consumer.stop()


def start_source(arguments: argparse.Namespace, bootstrap: str, root: Path) -> Child:
    """Start the process that sends; it writes how many ticks it has sent into a file."""
    argv = [sys.executable, "-m", "bench.steady_source", bootstrap, str(PARTITIONS), str(arguments.rate)]
    argv += [str(arguments.minutes * 60.0), str(root / "sent")]
    if arguments.ticks is not None:
        argv += [str(arguments.ticks), arguments.day]
    command = Command(argv, worker_run.ROOT, worker_run.ONE_THREAD)
    with Path("/dev/null").open("rb") as nothing:
        return Child("source", command, root / "logs" / "source.log", nothing.fileno())


def sent_so_far(root: Path) -> int:
    """Return how many ticks the source has sent; 0 before the first."""
    try:
        return int((root / "sent").read_text("utf-8"))
    except FileNotFoundError:
        return 0


async def sample(arguments: argparse.Namespace, bootstrap: str, root: Path, worker: Child) -> dict[str, Any]:
    """Run the source to its end, sampling; return the samples, and how many ticks and predictions there were."""
    total, reading = 0, Reading()
    follower = asyncio.create_task(follow(bootstrap, reading))
    source = start_source(arguments, bootstrap, root)
    process = psutil.Process(worker.pid)
    samples: list[dict[str, float]] = []
    every_s = arguments.minutes * 60.0 / SAMPLES
    try:
        while sent_so_far(root) == 0:
            check(source, worker)
            await asyncio.sleep(0.05)
        begun_s = time.monotonic()
        process.cpu_percent()
        for number in range(1, SAMPLES + 1):
            while (now_s := time.monotonic()) < begun_s + number * every_s:
                check(source, worker)
                if follower.done():
                    follower.result()
                await asyncio.sleep(min(1.0, begun_s + number * every_s - now_s))
            lag_ticks = sent_so_far(root) - total - reading.predictions
            samples.append(figures(now_s - begun_s, reading, lag_ticks, process))
            total += int(samples[-1]["predictions"])
            say(f"{number}/{SAMPLES}: " + ", ".join(f"{name} {samples[-1].get(name, 0):,.1f}" for name in _SERIES))
        deadline_s = time.monotonic() + _PATIENCE_S
        while source.alive() or total + reading.predictions < sent_so_far(root):
            check(source, worker)
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.1)
        total += reading.predictions
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        source.stop(10.0)
    return {"samples": samples, "ticks": sent_so_far(root), "predictions": total}


def check(source: Child, worker: Child) -> None:
    """Complain where a process ended that should not have.

    Raises:
        ServerError: with the end of its log.
    """
    if not worker.alive() or source.returncode:
        ended = source if worker.alive() else worker
        raise ServerError(f"{ended.name} ended with code {ended.returncode}:\n{ended.last_lines()}")


def figures(at_s: float, reading: Reading, lag_ticks: int, worker: psutil.Process) -> dict[str, float]:
    """Return one sample."""
    return reading.take() | {
        "at_s": at_s,
        "rss_mb": worker.memory_info().rss / 2**20,
        "cpu_percent": worker.cpu_percent(),
        "lag_ticks": max(lag_ticks, 0),
    }


def run(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Run all, and return the report."""
    with EmbeddedKafka(root) as kafka:
        if kafka.degraded_reason is not None:
            raise ServerError(f"not with this broker: {kafka.degraded_reason}")
        settings = Settings(kafka=kafka.bootstrap, data_dir=root, partitions=PARTITIONS)
        asyncio.run(create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0))
        worker, url = worker_run.start(settings, root, with_model=True)
        try:
            deadline_s = time.monotonic() + _PATIENCE_S
            while worker_run.health(url).get("status") != "ok":
                if not worker.alive() or time.monotonic() > deadline_s:
                    raise ServerError(f"the worker is not ready:\n{worker.last_lines()}")
                time.sleep(0.2)
            found = asyncio.run(sample(arguments, kafka.bootstrap, root, worker))
            ticks = worker_run.health(url)["ticks"]
        finally:
            worker.stop(20.0)
    settled = found["samples"][SAMPLES // 10 :]
    series = {name: [(each["at_s"], each[name]) for each in settled if name in each] for name in _SERIES}
    return {
        "bench": "soak",
        "machine": {"cpu_count": os.cpu_count(), "python": platform.python_version()},
        "minutes": arguments.minutes,
        "rate_per_s": arguments.rate,
        "growth": {name: growth(*zip(*points, strict=True)) for name, points in series.items()},
        "ticks": found["ticks"],
        "predictions": found["predictions"],
        "outcomes": ticks,
        "missing": ticks["accepted"] - found["predictions"],
        "samples": found["samples"],
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the report as a table."""
    title = f"{report['minutes']:g} minutes at {report['rate_per_s']:,.0f} ticks/s: {report['ticks']:,} ticks"
    table = Table("worker", title=title, title_justify="left")
    for name in ("mean", "growth per hour", "standard error"):
        table.add_column(name, justify="right")
    for name, row in report["growth"].items():
        table.add_row(name, *(f"{row[key]:,.3f}" for key in ("mean", "per_hour", "standard_error")))
    console.print(table)
    console.print(f"outcomes: {report['outcomes']}; predictions read: {report['predictions']:,}")
    if report["missing"]:
        console.print(f"TROUBLE: {report['missing']:,} predictions are missing")


def say(line: str) -> None:
    """Show progress, apart from the result."""
    print(f"bench.soak: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Run, print the report; SIGTERM leaves in good order, as Ctrl-C does."""
    use_lean_clients()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=50_000.0, help="ticks a second")
    parser.add_argument("--ticks", type=Path, help="directory of recorded ticks; else the simulator, 100 symbols")
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tickloom-soak-") as root:
        report = run(arguments, Path(root))
    show(report, Console(width=None if sys.stdout.isatty() else 120))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    sys.exit(1 if report["missing"] else 0)


if __name__ == "__main__":
    main()
