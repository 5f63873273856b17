"""Runs the peers, each in a process of its own, and checks that what they computed is what the engine computes."""

import importlib.util
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import quix_environment
from bench.markets import reference, save
from bench.peers.indicators import INDICATORS
from bench.peers.meter import Job
from bench.preload import create, load_blocks, load_messages
from bench.worker_run import ONE_THREAD, ROOT
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.process import Child, Command
from stream.records import Records

# Beyond its limit of time a peer may start, recover, flush and commit.
_PATIENCE_S: Final = 120.0
# Values are compared once an EMA of 26 ticks has forgotten how it began: (25/27)**500 is 1e-17.
WARM_TICKS: Final = 500
# A difference counts relative to the value, or to this where the value is smaller (bps, percent, 1).
_FLOOR: Final = 0.01
# Our features are float32: 6e-8 is what rounding gives.
TOLERANCE: Final = 1e-5
_WITHOUT_QUOTES: Final = len(INDICATORS) - 2


@dataclass(frozen=True)
class Peer:
    """One of `bench.peers`."""

    module: str
    title: str
    needs: str  # the package that must be installed
    reads: str  # "messages", "blocks", or "memory"
    state: str  # where it keeps its windows
    indicators: int = len(INDICATORS)

    @property
    def is_kafka(self) -> bool:
        """Whether it reads and writes Kafka."""
        return self.reads != "memory"


FAUST: Final = "faust_agent"
QUIX: Final = "quix_streams"
TALIPP: Final = "talipp_indicators"
IN_MEMORY: Final = "memory, lost with the process"

PEERS: Final = (
    Peer(FAUST, "Faust agent, Record and table", "faust", "messages", "table, changelog at each tick"),
    Peer(QUIX, "Quix Streams", "", "messages", "RocksDB, changelog at checkpoints"),
    Peer("aiokafka_loop", "aiokafka, plain Python", "aiokafka", "messages", IN_MEMORY),
    Peer("confluent_loop", "confluent-kafka, plain Python", "confluent_kafka", "messages", IN_MEMORY),
    Peer("confluent_blocks", "confluent-kafka, our blocks, plain Python", "confluent_kafka", "blocks", IN_MEMORY),
    Peer("confluent_kernel", "confluent-kafka, our blocks, our lanes", "confluent_kafka", "blocks", IN_MEMORY),
    Peer("plain_python", "plain Python", "numpy", "memory", IN_MEMORY),
    Peer(TALIPP, "talipp", "talipp", "memory", IN_MEMORY, _WITHOUT_QUOTES),
    Peer("talib_streams", "TA-Lib streaming", "talib", "memory", IN_MEMORY, _WITHOUT_QUOTES),
    Peer("pandas_windows", "pandas at each tick", "pandas", "memory", IN_MEMORY, _WITHOUT_QUOTES),
    Peer("pandas_batch", "pandas, whole day at once (no stream)", "pandas", "memory", IN_MEMORY, _WITHOUT_QUOTES),
)


@dataclass(frozen=True)
class Market:
    """What all peers run on, and what the engine has after each tick of it."""

    ticks: Records
    path: Path  # as `bench.markets.save` wrote it
    expected: dict[str, NDArray[np.float64]]
    rows: dict[str, NDArray[np.int64]]  # the ticks of each symbol

    @classmethod
    def make(cls, ticks: Records, path: Path) -> "Market":
        """Compute what is expected, and write the file."""
        expected = reference(ticks, _FEATURES)
        save(path, ticks, expected["ref"])
        names = np.unique(ticks["symbol"])
        rows = {name.decode(): np.flatnonzero(ticks["symbol"] == name) for name in names}
        return cls(ticks, path, expected, rows)


@dataclass(frozen=True)
class Limits:
    """How much a peer may do."""

    seconds: float
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
    order = [each.module for each in peers]
    return sorted(rows, key=lambda row: order.index(row["name"]))


def _fill(bootstrap: str, peers: Sequence[Peer], market: Market, limits: Limits, say: Any) -> None:
    ticks = market.ticks[: limits.messages]
    names = [_out(each) for each in peers]
    names += [f"{each.module}-windows-changelog" for each in peers if each.module == FAUST]
    create(bootstrap, [*names, "messages", "blocks"], limits.partitions)
    say(f"filling topics with {len(ticks):,} ticks as messages, {len(market.ticks):,} in blocks")
    load_messages(bootstrap, "messages", ticks, limits.partitions)
    load_blocks(bootstrap, "blocks", market.ticks, limits.partitions, limits.block_ticks)


def _out(peer: Peer) -> str:
    return f"{peer.module}-rows"


def _measure(
    peer: Peer, market: Market, limits: Limits, directory: Path, bootstrap: str, say: Any
) -> dict[str, Any]:
    say(f"peer: {peer.title}")
    row: dict[str, Any] = {"name": peer.module, "title": peer.title, "reads": peer.reads, "state": peer.state}
    row["indicators"] = peer.indicators
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
    scratch, result = directory / peer.module, directory / f"{peer.module}.json"
    scratch.mkdir()
    limit_ticks = len(market.ticks) if peer.reads != "messages" else min(limits.messages, len(market.ticks))
    job = Job(
        name=peer.module,
        result=str(result),
        scratch=str(scratch),
        limit_ticks=limit_ticks,
        limit_s=limits.seconds,
        market=str(market.path),
        bootstrap=bootstrap,
        topic=peer.reads,
        out_topic=_out(peer),
        partitions=limits.partitions,
    )
    job_path = directory / f"{peer.module}.job"
    job.write(job_path)
    command = Command([python, "-m", f"bench.peers.{peer.module}", str(job_path)], ROOT, ONE_THREAD)
    with Path("/dev/null").open("rb") as nothing:
        child = Child(peer.module, command, directory / "logs" / f"{peer.module}.log", nothing.fileno())
    deadline_s = time.monotonic() + limits.seconds + _PATIENCE_S
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


# Our features, and how a peer's values make each of them.
_FEATURES: Final = (
    "sma_32_gap_bps",
    "ema_12_gap_bps",
    "rsi_14",
    "macd_bps",
    "macd_histogram_bps",
    "bollinger_20_percent_b",
    "bollinger_20_width_bps",
    "volatility_64_bps",
    "spread_bps",
    "book_imbalance",
)


def as_features(values: Mapping[str, float]) -> dict[str, float]:
    """Return a peer's values in the units of our features (see agents/features.py)."""
    ref, lower, upper = values["ref"], values["bollinger_lower"], values["bollinger_upper"]
    is_flat = upper - lower <= ref * 1e-7
    features = {
        "ref": ref,
        "sma_32_gap_bps": (ref / values["sma_32"] - 1.0) * 1e4,
        "ema_12_gap_bps": (ref / values["ema_12"] - 1.0) * 1e4,
        "rsi_14": values["rsi_14"],
        "macd_bps": values["macd"] / ref * 1e4,
        "macd_histogram_bps": values["macd_histogram"] / ref * 1e4,
        "bollinger_20_percent_b": 0.5 if is_flat else (ref - lower) / (upper - lower),
        "bollinger_20_width_bps": 0.0 if is_flat else (upper - lower) / (0.5 * (upper + lower)) * 1e4,
        "volatility_64_bps": values["volatility_64_bps"],
    }
    if "spread_bps" in values:
        features |= {"spread_bps": values["spread_bps"], "book_imbalance": values["imbalance"]}
    return features


def compare(values: Mapping[str, Mapping[str, Any]], market: Market) -> dict[str, Any]:
    """Return the greatest difference between a peer's last values and ours at the same ticks, and where it is."""
    worst, where, compared = 0.0, "", 0
    for symbol, theirs in values.items():
        count = theirs.get("ticks", 0)
        if count < WARM_TICKS:
            continue
        row = market.rows[symbol][count - 1]
        for name, value in as_features(theirs).items():
            ours = float(market.expected[name][row])
            difference = abs(value - ours) / max(abs(value), abs(ours), _FLOOR)
            compared += 1
            if not difference <= worst:  # NaN too
                worst, where = difference if math.isfinite(difference) else math.inf, f"{symbol} {name}"
    if compared == 0:
        return {"compared": 0, "max_relative_difference": None, "where": ""}
    return {"compared": compared, "max_relative_difference": worst, "where": where}
