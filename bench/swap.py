"""What does a tick feel of it when the model is swapped?

    python -m bench.swap [--rate 50000] [--seconds 30] [--symbols 8] [--json FILE]

The open loop of `bench.latency`: a sender, embedded Apache Kafka, a worker, a reader. After a third of the time
another model is promoted, after two thirds it is rolled back, each as `tickloom models` does it. The latencies of
ticks are told apart by when they were due: before, while models were loaded and lanes swapped (from the promotion
until a second after the last symbol has switched), and after. Then every prediction is checked: none is missing or
there twice, and each symbol went from one model to the other and back, once.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import uvloop
from numpy.typing import NDArray

from agents import features
from bench.latency import Reading, read_kafka, summary
from bench.other_model import write_other_model
from bench.spine import healthy, say
from models.promotion import promote, read_models, rollback
from models.registry import Registry
from stream.demo.parts import Part, Role
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.process import Child, Command
from stream.errors import InvariantError, ServerError
from stream.garbage import freeze_garbage
from stream.settings import Settings
from stream.topics import create_topics

_PATIENCE_S = 60.0
_SETTLED_NS = 1_000_000_000


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, and return the report."""
    root = Path(tempfile.mkdtemp(prefix="tickloom-swap-"))
    with EmbeddedKafka(root) as kafka:
        settings = Settings(kafka=kafka.bootstrap, data_dir=root)
        await create_topics(kafka.bootstrap, settings.partitions, 1, 24.0)
        registry = Registry(settings.registry_url)
        other = root / "other" / "model.onnx"
        write_other_model(settings.model, other, seed=1)
        version = registry.publish(other, by="bench")
        worker = Part(Role("worker", ["worker"], {}), settings, root)
        reading, moments = Reading(), list[int]()
        try:
            worker.start()
            async with aiohttp.ClientSession() as session:
                await healthy(worker, session)
            freeze_garbage()
            await _swap_under_load(settings, registry, version, root, arguments, reading, moments)
            metrics = _metrics(worker.port)
        finally:
            worker.stop()
    return _report(reading, moments, arguments, metrics)


async def _swap_under_load(
    settings: Settings,
    registry: Registry,
    version: str,
    root: Path,
    arguments: argparse.Namespace,
    reading: Reading,
    moments: list[int],
) -> None:
    bootstrap = str(settings.kafka)
    told: dict[str, Any] = {"by": "bench", "available": features.NAMES}
    reader = asyncio.create_task(read_kafka(bootstrap, settings.partitions, reading))
    await asyncio.sleep(1.0)
    rate, seconds, symbols = arguments.rate, arguments.seconds, arguments.symbols
    values = bootstrap, settings.partitions, rate, seconds, symbols, settings.linger_ms
    argv = [sys.executable, "-m", "bench.latency", "--send", *map(str, values)]
    with Path("/dev/null").open("rb") as nothing:
        sender = Child("sender", Command(argv, Path.cwd()), root / "sender.log", nothing.fileno())
    try:
        while reading.count == 0:
            if not sender.alive():
                raise ServerError(f"the sender ended with code {sender.returncode}:\n{sender.last_lines()}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(arguments.seconds / 3)
        say("promoting", "swap")
        moments.append(time.time_ns())
        await promote(registry, bootstrap, version, reason="bench", base=settings.model, **told)
        await asyncio.sleep(arguments.seconds / 3)
        say("rolling back", "swap")
        moments.append(time.time_ns())
        await rollback(registry, bootstrap, reason="bench", **told)
        deadline_s = time.monotonic() + arguments.seconds / 3 + _PATIENCE_S
        while reading.count < int(arguments.rate * arguments.seconds) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.2)
        swaps = (await read_models(bootstrap)).swaps.values()
        for swap in sorted(swaps, key=lambda each: each.at_ns):
            say(
                f"partition {swap.partition}: {swap.model_id:016x} from {swap.offset} on, {swap.spread_blocks}",
                "swap",
            )
    finally:
        sender.stop(10.0)
        reader.cancel()


def _metrics(port: int) -> dict[str, float]:
    """Return what the worker tells about swaps."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5.0) as answer:
        lines = answer.read().decode().splitlines()
    wanted = ("tickloom_model_swap_wait_seconds", "tickloom_model_swap_seconds", "tickloom_model_load_seconds")
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith(wanted) and "_created" not in line]
    return {name: float(value) for name, value in pairs if "_bucket" not in name}


def _report(
    reading: Reading, moments: list[int], arguments: argparse.Namespace, metrics: dict[str, float]
) -> dict[str, Any]:
    records = np.concatenate([part for _, part in reading.parts])
    read_ns = np.concatenate([np.full(len(part), at_ns) for at_ns, part in reading.parts])
    order = np.lexsort((records["seq"], records["symbol"]))
    due_ns, latency_ns = records["recv_ns"], read_ns - records["recv_ns"]
    switches = _check(records[order], int(arguments.rate * arguments.seconds), arguments.symbols)
    begun_ns = due_ns.min() + (moments[0] - due_ns.min()) // 3
    spans: dict[str, NDArray[np.bool_]] = {"before": (due_ns >= begun_ns) & (due_ns < moments[0])}
    ends = [int(switched.max()) + _SETTLED_NS for switched in switches]
    spans["promotion"] = (due_ns >= moments[0]) & (due_ns < ends[0])
    spans["between"] = (due_ns >= ends[0]) & (due_ns < moments[1])
    spans["rollback"] = (due_ns >= moments[1]) & (due_ns < ends[1])
    spans["after"] = due_ns >= ends[1]
    return {
        "bench": "swap",
        "machine": {"cpu_count": os.cpu_count(), "python": platform.python_version()},
        "ticks_per_s": arguments.rate,
        "symbols": arguments.symbols,
        "predictions": len(records),
        "ms": {name: summary(latency_ns[span]) for name, span in spans.items() if span.any()},
        "first_switch_after_s": [
            round((int(switched.min()) - moment) / 1e9, 3)
            for switched, moment in zip(switches, moments, strict=True)
        ],
        "last_switch_after_s": [
            round((int(switched.max()) - moment) / 1e9, 3)
            for switched, moment in zip(switches, moments, strict=True)
        ],
        "worker": metrics,
    }


def _check(records: NDArray[np.void], ticks: int, symbols: int) -> list[NDArray[np.int64]]:
    """Return when each symbol switched, in ns, for each of the two swaps; of predictions by symbol and seq.

    Raises:
        InvariantError: a prediction is missing or there twice, or a symbol did not go there and back once.
    """
    same = records["symbol"][1:] == records["symbol"][:-1]
    if len(records) != ticks or not (np.diff(records["seq"].astype(np.int64))[same] == 1).all():
        raise InvariantError(f"{len(records)} predictions of {ticks} ticks, or one is missing or there twice")
    changed = np.flatnonzero(same & (records["model_id"][1:] != records["model_id"][:-1])) + 1
    if len(changed) != 2 * symbols or len(np.unique(records["model_id"])) != 2:
        raise InvariantError(f"{len(changed)} changes of the model for {symbols} symbols and two swaps")
    times_ns = records["recv_ns"][changed].astype(np.int64)
    return [times_ns[0::2], times_ns[1::2]]


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50_000.0, help="ticks a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="in all")
    parser.add_argument("--symbols", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    report = json.dumps(uvloop.run(run(arguments)), indent=2)
    print(report)
    if arguments.json is not None:
        arguments.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
