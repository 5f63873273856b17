"""One worker through real Kafka, on a topic that is full when it starts: how fast, and where the time goes.

From the first tick consumed to the last prediction handed to the producer (wall), and to the commit of the last
offset (CPU). The stages come from the stamps of the predictions themselves, which are read when all is done.
"""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.preload import create, is_committed, load_blocks, read_all
from bench.processor_time import ProcessorTime
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.embedded.process import Child, Command
from stream.errors import ServerError
from stream.records import PREDICTION, Records, decode_block
from stream.settings import PREFIX, Settings, to_environment
from stream.topics import APP_ID, PREDICTIONS, TICKS, create_topics

ROOT = Path(__file__).resolve().parents[1]
# Libraries must not start a pool of threads each: what is measured is one core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
_POLL_S = 1.0  # rarely: an answer costs the worker a millisecond
_STAMPS = ("consumed_ns", "features_ns", "inferred_ns", "published_ns")
_STAGES = ("windows_and_features", "inference", "to_publish")


@dataclass(frozen=True)
class Case:
    """What to run a worker on."""

    name: str
    ticks: Records
    symbols: int
    with_model: bool
    block_ticks: int
    partitions: int
    patience_s: float


def start(settings: Settings, root: Path, with_model: bool) -> tuple[Child, str]:
    """Start a worker; return its process and where it tells its health."""
    port = free_port()
    module = "stream" if with_model else "bench.no_model"
    environment = to_environment(settings) | {f"{PREFIX}WORKER_PORT": str(port)} | ONE_THREAD
    command = Command([sys.executable, "-m", module, "worker"], ROOT, environment)
    with Path("/dev/null").open("rb") as nothing:
        child = Child("worker", command, root / "logs" / "worker.log", nothing.fileno())
    return child, f"http://127.0.0.1:{port}/health"


def health(url: str) -> dict[str, Any]:
    """Return what the worker tells about itself; nothing while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310  (our own child's address)
            return json.load(answer)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        return json.load(error)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


def run(case: Case, directory: Path) -> dict[str, Any]:
    """Run a worker on ``case`` and return the figures.

    Raises:
        ServerError: there is no Apache Kafka here; or the worker ended, did not finish in time, or did not predict
            once per tick.
    """
    root = directory / case.name
    with EmbeddedKafka(root) as kafka:
        if kafka.degraded_reason is not None:
            raise ServerError(f"not with this broker: {kafka.degraded_reason}")
        settings = Settings(kafka=kafka.bootstrap, data_dir=root, partitions=case.partitions)
        create(kafka.bootstrap, (TICKS, PREDICTIONS), case.partitions)
        asyncio.run(create_topics(kafka.bootstrap, case.partitions, 1, 24.0))
        load_blocks(kafka.bootstrap, TICKS, case.ticks, case.partitions, case.block_ticks)
        child, url = start(settings, root, case.with_model)
        try:
            with ProcessorTime(child.pid) as cpu:
                _await_end(case, child, url, kafka.bootstrap)
                done_ns = time.time_ns()
                rss_mb = _peak_rss_mb(child.pid)
            figures = _read_back(case, kafka.bootstrap)
        finally:
            child.stop(20.0)
    wall_s = (figures["last_ns"] - figures["first_ns"]) / 1e9
    cpu_s = cpu.between(figures["first_ns"], done_ns)
    stages = figures["ns_per_tick"]
    stages["between_calls"] = wall_s * 1e9 / len(case.ticks) - sum(stages.values())
    return {
        "ticks": len(case.ticks),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "ticks_per_s": len(case.ticks) / wall_s,
        "ticks_per_cpu_s": len(case.ticks) / cpu_s,
        "peak_rss_mb": rss_mb,
        # Of the wall clock. Between calls are Kafka's clients, Faust, encoding, checkpoints, and whoever else runs.
        "wall_ns_per_tick": stages,
        "cpu_ns_per_tick": cpu_s * 1e9 / len(case.ticks),
        "ticks_per_call": figures["ticks_per_call"],
    }


def _await_end(case: Case, child: Child, url: str, bootstrap: str) -> None:
    deadline_s = time.monotonic() + case.patience_s
    made = 0
    while made < len(case.ticks) or not is_committed(bootstrap, APP_ID, TICKS, case.partitions):
        if not child.alive():
            raise ServerError(f"the worker ended with code {child.returncode}:\n{child.last_lines()}")
        if time.monotonic() > deadline_s:
            raise ServerError(f"{made} of {len(case.ticks)} predictions within {case.patience_s:.0f} s")
        time.sleep(_POLL_S)
        made = health(url).get("predictions", made)


def _peak_rss_mb(pid: int) -> float | None:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # not Linux
        return None
    line = next(each for each in status.read_text("utf-8").splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _read_back(case: Case, bootstrap: str) -> dict[str, Any]:
    """Return when the first call of a lane began and the last ended, and the mean of the stages between."""
    calls: dict[tuple[int, int], tuple[int, int, int]] = {}
    count = 0
    for partition, raw in read_all(bootstrap, PREDICTIONS, case.partitions):
        predictions = decode_block(raw, PREDICTION)
        count += len(predictions)
        # The stamps of a call are the same in all of its predictions, which may fill several blocks.
        consumed, *later = (int(predictions[name][-1]) for name in _STAMPS)
        calls[partition, consumed] = (later[0], later[1], later[2])
    if count != len(case.ticks):
        raise ServerError(f"{count} predictions for {len(case.ticks)} ticks")
    stamps = np.array([(consumed, *later) for (_, consumed), later in calls.items()], np.int64)
    return {
        "first_ns": int(stamps[:, 0].min()),
        "last_ns": int(stamps[:, 3].max()),
        "ticks_per_call": count / len(stamps),
        "ns_per_tick": dict(zip(_STAGES, np.diff(stamps).sum(axis=0) / count, strict=True)),
    }
