"""Runs the peers of `bench.lanes`, each in a process of its own."""

import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agents.features import COUNT
from bench import quix_environment
from bench.agreement import Market, compare
from bench.peers.meter import WALL_FACTOR, Job
from bench.peers.work import ALL, TEN
from bench.preload import create, load_blocks, load_messages
from bench.worker_run import ONE_THREAD, ROOT
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.process import Child, Command

# Beyond its limit of time a peer may start, recover, flush and commit.
_PATIENCE_S: Final = 120.0


@dataclass(frozen=True)
class Peer:
    """One of `bench.peers`, on one of its jobs."""

    module: str
    title: str
    needs: str  # the package that must be installed
    reads: str  # "messages", "blocks", or "memory"
    state: str  # where it keeps its windows
    features: int  # of ours, that its values give
    work: str = ALL

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return self.module if self.work == ALL else f"{self.module}_{self.work}"

    @property
    def is_kafka(self) -> bool:
        """Whether it reads and writes Kafka."""
        return self.reads != "memory"

    def on_ten(self) -> "Peer":
        """Return the same peer on the ten indicators."""
        return replace(self, title=f"{self.title}, ten indicators", features=_OF_TEN, work=TEN)


FAUST: Final = "faust_agent"
QUIX: Final = "quix_streams"
TALIPP: Final = "talipp_indicators"
IN_MEMORY: Final = "memory, lost with the process"
_OF_TEN: Final = 11  # each band of Bollinger's is one of ours
_OF_PACKAGES: Final = 38  # see `bench.peers.talipp_indicators`
_OF_TICKS: Final = 14  # of these, those by count of ticks

_FAUST: Final = Peer(
    FAUST, "Faust agent, Record and table", "faust", "messages", "table, changelog at each tick", COUNT
)
_QUIX: Final = Peer(QUIX, "Quix Streams", "", "messages", "RocksDB, changelog at checkpoints", COUNT)
_AIOKAFKA: Final = Peer("aiokafka_loop", "aiokafka, plain Python", "aiokafka", "messages", IN_MEMORY, COUNT)
_CONFLUENT: Final = Peer(
    "confluent_loop", "confluent-kafka, plain Python", "confluent_kafka", "messages", IN_MEMORY, COUNT
)
_PLAIN: Final = Peer("plain_python", "plain Python", "numpy", "memory", IN_MEMORY, COUNT)
PEERS: Final = (
    *(each for peer in (_FAUST, _QUIX, _AIOKAFKA, _CONFLUENT) for each in (peer, peer.on_ten())),
    Peer(
        "confluent_blocks",
        "confluent-kafka, our blocks, plain Python",
        "confluent_kafka",
        "blocks",
        IN_MEMORY,
        COUNT,
    ),
    Peer(
        "confluent_kernel", "confluent-kafka, our blocks, our lanes", "confluent_kafka", "blocks", IN_MEMORY, COUNT
    ),
    *(_PLAIN, _PLAIN.on_ten()),
    Peer(TALIPP, "talipp", "talipp", "memory", IN_MEMORY, _OF_PACKAGES),
    Peer("talib_streams", "TA-Lib streaming", "talib", "memory", IN_MEMORY, _OF_PACKAGES),
    Peer("pandas_windows", "pandas at each tick", "pandas", "memory", IN_MEMORY, _OF_TICKS),
    Peer("pandas_batch", "pandas, whole day at once (no stream)", "pandas", "memory", IN_MEMORY, _OF_TICKS),
)


@dataclass(frozen=True)
class Limits:
    """How much a peer may do."""

    seconds: float  # of CPU time
    messages: int  # that its topic holds
    partitions: int
    block_ticks: int


def run(peers: Sequence[Peer], market: Market, limits: Limits, directory: Path, say: Any) -> list[dict[str, Any]]:
    """Measure peers, one after another; a peer that cannot be measured has an ``error`` in its row."""
    directory.mkdir()
    rows = [_measure(each, market, limits, directory, "", say) for each in peers if not each.is_kafka]
    reading = [each for each in peers if each.is_kafka]
    if reading:
        with EmbeddedKafka(directory) as kafka:
            _fill(kafka.bootstrap, reading, market, limits, say)
            rows += [_measure(each, market, limits, directory, kafka.bootstrap, say) for each in reading]
    order = [each.name for each in peers]
    return sorted(rows, key=lambda row: order.index(row["name"]))


def _fill(bootstrap: str, peers: Sequence[Peer], market: Market, limits: Limits, say: Any) -> None:
    ticks = market.ticks[: limits.messages]
    names = [_out(each) for each in peers]
    names += [f"{each.name}-windows-changelog" for each in peers if each.module == FAUST]
    create(bootstrap, [*names, "messages", "blocks"], limits.partitions)
    say(f"filling topics with {len(ticks):,} ticks as messages, {len(market.ticks):,} in blocks")
    load_messages(bootstrap, "messages", ticks, limits.partitions)
    load_blocks(bootstrap, "blocks", market.ticks, limits.partitions, limits.block_ticks)


def _out(peer: Peer) -> str:
    return f"{peer.name}-rows"


def _measure(
    peer: Peer, market: Market, limits: Limits, directory: Path, bootstrap: str, say: Any
) -> dict[str, Any]:
    say(f"peer: {peer.title}")
    row: dict[str, Any] = {"name": peer.name, "title": peer.title, "reads": peer.reads, "state": peer.state}
    row["features"] = peer.features
    try:
        answer = _run_child(peer, market, limits, directory, bootstrap)
    except (quix_environment.NoEnvironment, _NotMeasured) as error:
        return row | {"error": str(error)}
    values = answer.pop("values")
    row |= answer
    row["ticks_per_s"] = answer["ticks"] / answer["wall_s"]
    row["ticks_per_cpu_s"] = answer["ticks"] / answer["cpu_s"]
    return row | compare(values, market)


class _NotMeasured(Exception):
    """A peer is not installed, failed, or did not end; the message says which."""


def _run_child(peer: Peer, market: Market, limits: Limits, directory: Path, bootstrap: str) -> dict[str, Any]:
    if peer.needs and importlib.util.find_spec(peer.needs) is None:
        raise _NotMeasured(f"{peer.needs} is not installed; `uv sync --group bench` does that")
    python = str(quix_environment.python()) if peer.module == QUIX else sys.executable
    scratch, result = directory / peer.name, directory / f"{peer.name}.json"
    scratch.mkdir()
    limit_ticks = len(market.ticks) if peer.reads != "messages" else min(limits.messages, len(market.ticks))
    job = Job(
        name=peer.name,
        result=str(result),
        scratch=str(scratch),
        limit_ticks=limit_ticks,
        limit_s=limits.seconds,
        market=str(market.path),
        bootstrap=bootstrap,
        topic=peer.reads,
        out_topic=_out(peer),
        partitions=limits.partitions,
        work=peer.work,
    )
    job_path = directory / f"{peer.name}.job"
    job.write(job_path)
    command = Command([python, "-m", f"bench.peers.{peer.module}", str(job_path)], ROOT, ONE_THREAD)
    with Path("/dev/null").open("rb") as nothing:
        child = Child(peer.name, command, directory / "logs" / f"{peer.name}.log", nothing.fileno())
    deadline_s = time.monotonic() + WALL_FACTOR * limits.seconds + _PATIENCE_S
    try:
        while not result.exists():
            if not child.alive() and not result.exists():
                raise _NotMeasured(f"it ended with code {child.returncode}: {child.last_lines(3).strip()}")
            if time.monotonic() > deadline_s:
                raise _NotMeasured(f"it did not end: {child.last_lines(3).strip()}")
            time.sleep(0.05)
        return json.loads(result.read_text("utf-8"))  # type: ignore[no-any-return]
    finally:
        child.stop(10.0)
