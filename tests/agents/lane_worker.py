"""A worker with the model of these tests: in the process of a test, or as one that can be killed."""

import asyncio
import sys
from pathlib import Path

from markets import FUTURE_NS, LATENESS_NS
from prometheus_client import CollectorRegistry
from recurrent import Recurrent

from agents.lane import Lane, compile_kernels
from agents.lanes import Lanes
from agents.metrics import LaneMetrics
from agents.windows import Windows
from stream.app import create_app
from stream.settings import Settings
from stream.telemetry import Health

PARTITIONS = 4
FEATURES_EVERY_MS = 20  # ticks of these tests are 1 ms apart, of 8 symbols in turn


class Worker:
    """One worker in this process, as `stream/compose.py` runs it."""

    def __init__(self, bootstrap: str, data_dir: Path, name: str) -> None:
        settings = Settings(
            kafka=bootstrap, data_dir=data_dir, worker_name=name, checkpoint_s=0.2, session_timeout_s=6.0
        )
        self.metrics = LaneMetrics(CollectorRegistry())
        self.health = Health(name)
        self.app = create_app(settings)
        self.lanes = Lanes(
            self.app,
            PARTITIONS,
            self._lane,
            settings.checkpoint_s,
            self.health,
            self.metrics,
            features_every_ms=FEATURES_EVERY_MS,
        )

    def _lane(self, partition: int) -> Lane:
        windows = Windows(LATENESS_NS, FUTURE_NS, outcomes=self.metrics.outcomes)
        return Lane(partition, windows, Recurrent())


async def serve(bootstrap: str, data_dir: str, name: str) -> None:
    """Serve until the process is killed."""
    compile_kernels(Recurrent())
    await Worker(bootstrap, Path(data_dir), name).app.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
