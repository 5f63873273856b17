"""`make chaos`: kills, pauses and restarts everything at random moments of a replay, and judges what comes out.

The exit code is 0 only if Kafka, ClickHouse, Redis and a client of the feed have exactly the predictions of a run
that nothing disturbed. Prints, for each kind of fault, how soon predictions flowed again.
"""

import argparse
import asyncio
import json
import logging
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "live"))
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from faults import LONG, SHORT, Kind
from live_engine import Engine
from storm import Recovery, Storm

TICKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "ticks" / "crypto"
# The recordings last 345 s. Twenty to thirty seconds for a fault are what a busy machine needs.
SHORT_SPEED, LONG_SPEED = 1.0, 0.3


def table_of(recoveries: Sequence[Recovery]) -> list[dict[str, Any]]:
    """Return a row for each kind of fault: how often, and its figures in seconds."""
    rows = []
    for kind in Kind:
        these = [recovery for recovery in recoveries if recovery.kind is kind]
        if these:
            recovery_s = [recovery.recovery_s for recovery in these]
            rows.append(
                {
                    "fault": kind.value,
                    "times": len(these),
                    "recovery_p50_s": round(median(recovery_s), 2),
                    "recovery_max_s": round(max(recovery_s), 2),
                    "silence_max_s": round(max(recovery.silence_s for recovery in these), 2),
                }
            )
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows for people."""
    print(f"{'fault':34} {'times':>5} {'recovery p50':>13} {'max':>8} {'longest silence':>16}")
    for row in rows:
        print(
            f"{row['fault']:34} {row['times']:5} {row['recovery_p50_s']:11.2f} s {row['recovery_max_s']:6.2f} s "
            f"{row['silence_max_s']:14.2f} s"
        )


async def run(options: argparse.Namespace) -> int:
    """Run the storm and print what came of it; return the exit code."""
    pattern, speed, kinds = ("*_spot_*", SHORT_SPEED, SHORT) if options.short else ("*", LONG_SPEED, LONG)
    files = sorted(options.ticks.glob(f"{pattern}.parquet"))
    if not files:
        print(f"there are no ticks in {options.ticks}; --ticks says where they are", file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="tickloom-chaos-"))
    print(f"logs are in {directory / 'logs'}, and stay there if anything is wrong")
    session_s = 4.0 if options.short else 6.0
    engine = await asyncio.to_thread(Engine, directory, session_timeout_s=session_s, redis_stream_maxlen=100_000)
    try:
        await engine.open()
        storm = Storm(engine, files, options.speed or speed, print)
        wrong = await storm.run(options.seed, kinds)
    finally:
        await engine.close()
    stops = storm.own_stops()
    if not wrong and not stops:
        shutil.rmtree(directory)
    rows = table_of(storm.recoveries)
    print_table(rows)
    for line in (*stops, *(f"WRONG: {what}" for what in wrong)):
        print(line)
    print(f"the feed's client was told {len(storm.told)} times that something cannot be had: {storm.told[:3]}")
    print(f"seed {options.seed}: {len(storm.recoveries)} faults, {len(wrong)} differences from an undisturbed run")
    if options.json:
        each = [asdict(recovery) for recovery in storm.recoveries]
        report = {"seed": options.seed, "wrong": wrong, "own_stops": stops, "kinds": rows, "faults": each}
        options.json.write_text(json.dumps(report, indent=1))
    return 1 if wrong else 0


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="repeats a run of this seed")
    parser.add_argument("--short", action="store_true", help="six faults instead of more than forty")
    parser.add_argument("--speed", type=float, help="of the replay, which must outlast the faults")
    parser.add_argument("--ticks", type=Path, default=TICKS, help="directory of Parquet ticks")
    parser.add_argument("--json", type=Path, help="file that the figures go to")
    options = parser.parse_args()
    # What parts say in their logs is told where it matters; clients that miss their broker are no news here.
    logging.basicConfig(level=logging.CRITICAL)
    print(f"seed {options.seed}")
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
