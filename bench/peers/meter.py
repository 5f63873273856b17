"""What a peer's process is told, and what it answers. Nothing but the standard library, as peers need not live in
our environment."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

# So that a peer gets as far on a machine that others use too.
WALL_FACTOR: Final = 4.0


@dataclass(frozen=True)
class Job:
    """One measurement of one peer. Paths are strings: a job travels as JSON."""

    name: str  # of the peer: its consumer group, and in the report
    result: str  # the file for the answer
    scratch: str  # a directory for what the peer must keep
    limit_ticks: int
    limit_s: float  # of CPU time: a slow peer stops after this, or after `WALL_FACTOR` times this by the clock
    market: str  # .npz of `bench.markets.save`, for peers that do not read Kafka
    bootstrap: str
    topic: str  # of ticks
    out_topic: str  # of rows of values
    partitions: int  # of both
    work: str  # of `bench.peers.work.WORKS`, for peers that compute in plain Python

    @classmethod
    def from_argv(cls) -> Self:
        """Read the job that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text("utf-8")))

    def write(self, path: Path) -> None:
        """Write the job for `from_argv`."""
        path.write_text(json.dumps(asdict(self)), "utf-8")


class Meter:
    """Counts ticks and takes the time, from the first tick to the moment when all that it brought about is done."""

    def __init__(self, job: Job) -> None:
        self.ticks = 0
        self._job = job
        self._limit_ticks = job.limit_ticks
        self._begun_s = self._begun_cpu_s = 0.0

    def start(self) -> None:
        """Take the time: the first tick is here."""
        self._begun_s = time.monotonic()
        self._begun_cpu_s = time.process_time()

    def tick(self) -> bool:
        """Count a tick; return whether it is the last one."""
        self.ticks += 1
        if self.ticks >= self._limit_ticks:
            return True
        return not self.ticks & 63 and self._is_late()

    def _is_late(self) -> bool:
        limit_s = self._job.limit_s
        cpu_s, wall_s = time.process_time() - self._begun_cpu_s, time.monotonic() - self._begun_s
        return cpu_s > limit_s or wall_s > WALL_FACTOR * limit_s

    def finish(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the time and write the answer, with the ``values`` after each symbol's last tick."""
        wall_s, cpu_s = time.monotonic() - self._begun_s, time.process_time() - self._begun_cpu_s
        answer = {"ticks": self.ticks, "wall_s": wall_s, "cpu_s": cpu_s, "values": values}
        path = Path(self._job.result)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(answer), "utf-8")
        unfinished.replace(path)
