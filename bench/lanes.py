"""How many ticks a second go through a lane, what does each stage cost, and how do others do on the same ticks?

    python -m bench.lanes [--ticks DIRECTORY --day 2013-10-07] [--quick] [--json FILE]

One run, one machine, the same ticks and the same job for all: every feature of `agents/features.py`.

* the kernel alone and a lane in one process, with and without the model, by stage: 3, 100 and 10,000 symbols;
* a worker process through embedded Apache Kafka with checkpoints on, from a topic that is full when it starts;
* peers, each a process of its own: Faust, Quix Streams, aiokafka and confluent-kafka read one JSON message per
  tick, which is how they are used, and write one; talipp, TA-Lib and pandas work in memory. Slow ones stop after
  ``--seconds`` of CPU time. The values of each are compared with the engine's at the last tick of each symbol.
  Those in plain Python do the whole job (`bench/peers/features.py`), and beside it ten indicators as before;
  packages of indicators do what they have indicators for. The column "features" has how many of ours that is.

3 symbols are a recorded day with ``--ticks`` (trades and quotes that the engine accepts; peers need not check),
else the simulator; 100 and 10,000 are always the simulator. Peers run on the 3 symbols. "Per CPU s" divides by the
CPU time of the measured process alone, as the broker shares the machine.

Exit code 1: a worker or a peer was not measured, or a peer computes something else. That a goal was missed is
told, and no failure.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from agents.inference import Predictor
from bench import agreement, lanes_report, markets, peer_runs, stages, worker_run
from bench.no_model import NoModel
from models.predictor import load_predictor
from stream.errors import ServerError
from stream.records import MAX_BLOCK_RECORDS, Records
from stream.settings import Settings

PARTITIONS: Final = 4
SYMBOLS: Final = (3, 100, 10_000)
_SMALL_BLOCK_TICKS: Final = 64  # what a millisecond or two of a busy feed holds


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    ticks: int | None  # of each market; None for a whole recorded day
    simulated_ticks: int
    symbols: tuple[int, ...]
    worker_markets: int  # a worker runs on so many of them
    passes: int  # of a worker over its market: one is too short, a second or two
    small_block_ticks: int  # of the worker's run on small blocks, which is slow
    peer_seconds: float
    peer_messages: int
    patience_s: float


FULL: Final = Size(None, 1_000_000, SYMBOLS, len(SYMBOLS), 4, 300_000, 6.0, 400_000, 300.0)
# A peer's values are compared from the 500th tick of a symbol on: pandas must get there on a slow machine too.
QUICK: Final = Size(20_000, 20_000, (3, 100), 1, 1, 0, 12.0, 4_000, 120.0)


def make_markets(arguments: argparse.Namespace, size: Size) -> dict[int, Records]:
    """Return the ticks by number of symbols."""
    made = {}
    for count in size.symbols:
        if count == size.symbols[0] and arguments.ticks is not None:
            made[count] = markets.recorded_day(arguments.ticks, arguments.day, size.ticks)
        else:
            made[count] = markets.simulated(count, size.simulated_ticks)
    return made


def in_process(
    ticks: dict[int, Records], predictor: Predictor
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the kernel alone, and of a lane without and with the model."""
    kernels, lanes = [], []
    for symbols, some in ticks.items():
        say(f"in one process: {symbols:,} symbols, {len(some):,} ticks")
        kernels.append(stages.kernel(some, MAX_BLOCK_RECORDS) | {"symbols": symbols})
        for with_model, each in ((False, NoModel()), (True, predictor)):
            row = stages.lane(some, MAX_BLOCK_RECORDS, each)
            lanes.append(row | {"symbols": symbols, "with_model": with_model})
    return kernels, lanes


def worker_cases(ticks: dict[int, Records], size: Size) -> Iterator[worker_run.Case]:
    """Yield what to run a worker on: each market without and with the model, and the first in small blocks too."""

    def case(name: str, symbols: int, some: Records, with_model: bool, block_ticks: int) -> worker_run.Case:
        return worker_run.Case(name, some, symbols, with_model, block_ticks, PARTITIONS, size.patience_s)

    for symbols, some in list(ticks.items())[: size.worker_markets]:
        many = markets.again(some, size.passes)
        yield case(f"{symbols}-symbols-features", symbols, many, False, MAX_BLOCK_RECORDS)
        yield case(f"{symbols}-symbols-model", symbols, many, True, MAX_BLOCK_RECORDS)
    if size.small_block_ticks:
        symbols, some = next(iter(ticks.items()))
        few = some[: size.small_block_ticks]
        yield case(f"{symbols}-symbols-model-small-blocks", symbols, few, True, _SMALL_BLOCK_TICKS)


def through_kafka(case: worker_run.Case, directory: Path) -> dict[str, Any]:
    """Return the row of a worker; it has an ``error`` where it failed: the others are worth having all the same."""
    say(f"worker through Kafka: {case.name}, {len(case.ticks):,} ticks")
    row = {
        "name": case.name,
        "symbols": case.symbols,
        "with_model": case.with_model,
        "block_ticks": case.block_ticks,
    }
    try:
        return row | worker_run.run(case, directory)
    except ServerError as error:
        return row | {"error": str(error)}
    finally:
        shutil.rmtree(directory / case.name, ignore_errors=True)  # gigabytes, of each case


def chosen(names: Sequence[str] | None) -> list[peer_runs.Peer]:
    """Return the peers to run."""
    return [peer for peer in peer_runs.PEERS if names is None or peer.name in names]


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure all, and return the report."""
    size = QUICK if arguments.quick else FULL
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    ticks = make_markets(arguments, size)
    predictor = load_predictor(Settings().model)
    kernels, lanes = in_process(ticks, predictor)
    workers = [through_kafka(case, directory) for case in worker_cases(ticks, size)]
    first = size.symbols[0]
    market = agreement.Market.make(ticks[first], directory / "market.npz")
    seconds = size.peer_seconds if arguments.seconds is None else arguments.seconds
    limits = peer_runs.Limits(seconds, size.peer_messages, PARTITIONS, MAX_BLOCK_RECORDS)
    report: dict[str, Any] = {
        "bench": "lanes",
        "machine": {"cpu_count": os.cpu_count(), "python": platform.python_version(), "load": load},
        "market": f"{first} symbols: " + ("simulated" if arguments.ticks is None else f"{arguments.day}, recorded"),
        "symbols": first,
        "kernel": kernels,
        "lane": lanes,
        "worker": workers,
        "peers": peer_runs.run(chosen(arguments.peers), market, limits, directory / "peers", say),
    }
    report["goals"] = lanes_report.goals(report)
    report["troubles"] = lanes_report.troubles(report)
    return report


def say(line: str) -> None:
    """Show progress, apart from the result."""
    print(f"bench.lanes: {line}", file=sys.stderr, flush=True)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="directory of recorded ticks, for the 3 symbols")
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--quick", action="store_true", help="a smoke test: few ticks, figures that mean little")
    parser.add_argument("--seconds", type=float, help="of CPU time of each peer, at the most")
    names = [peer.name for peer in peer_runs.PEERS]
    parser.add_argument(
        "--peers", nargs="*", choices=names, metavar="PEER", help=f"only these of {', '.join(names)}"
    )
    parser.add_argument("--json", type=Path, help="write the report here too")
    return parser.parse_args(argv)


def main() -> None:
    """Run, print the report; SIGTERM leaves in good order, as Ctrl-C does."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tickloom-bench-") as directory:
        report = run(arguments, Path(directory))
    lanes_report.show(report, Console(width=None if sys.stdout.isatty() else 160))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    sys.exit(1 if report["troubles"] else 0)


if __name__ == "__main__":
    main()
