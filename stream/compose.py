"""The composition root's processes: each function wires the concrete parts of one role and runs it until ``stop``.

Together with `stream/__main__.py` and `stream/demo/` this is the only place that knows every concrete class;
nothing imports it.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from agents.lane import Lane
from agents.lanes import Lanes
from agents.metrics import LaneMetrics
from agents.windows import Windows, compile_kernels
from models.predictor import load_predictor
from stream.app import create_app
from stream.clock import NS_PER_S
from stream.errors import InvariantError
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import await_topics

logger = logging.getLogger(__name__)


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Run the lanes of one worker until ``stop`` is set; then checkpoint, commit and leave the group.

    Raises:
        ModelError: the model must not serve.
        TickloomError: whatever stopped the lanes.
    """
    predictor = load_predictor(Path(settings.model))
    health = Health(f"worker {settings.worker_name}")
    registry = CollectorRegistry()
    metrics = LaneMetrics(registry)
    app = create_app(settings)

    def new_lane(partition: int) -> Lane:
        windows = Windows(int(settings.lateness_s * NS_PER_S), int(settings.future_s * NS_PER_S))
        return Lane(partition, windows, predictor)

    lanes = Lanes(app, settings.partitions, new_lane, settings.checkpoint_s, health, metrics)

    def figures() -> dict[str, Any]:
        return {
            "partitions": sorted(lanes.owned),
            "symbols": sum(owned.lane.windows.count for owned in lanes.owned.values()),
            "ticks": metrics.outcomes,
            "predictions": metrics.predicted,
            "model": f"{predictor.model_id:016x}",
            "stages_us": metrics.stages.summary_us(),
        }

    async with TelemetryServer(health, registry, figures, settings.host, settings.worker_port):
        if not await await_topics(settings, health, stop):
            return
        compile_kernels()
        await app.start()
        try:
            await app.wait_for_stopped(stop)
        finally:
            await app.stop()
    if lanes.failure is not None:
        raise lanes.failure
    if not stop.is_set():
        raise InvariantError(f"Faust stopped by itself: {app.crash_reason!r}") from app.crash_reason
