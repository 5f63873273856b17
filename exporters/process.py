"""One exporter process: a sink, its consumption, and what it tells about itself."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry

from exporters.batch import Sink
from exporters.consume import Consumption
from exporters.intake import Door, Intake, PlainIntake
from exporters.metrics import IntakeMetrics, SinkMetrics
from exporters.waiting import BROKER_PATIENCE_S, end_task
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import APP_ID, PREDICTIONS

logger = logging.getLogger(__name__)

_LEAVE_S: Final = 2 * BROKER_PATIENCE_S  # for ending a consumer in order

OnReady = Callable[[str], None]  # called with the URL that a process serves, once it does


@dataclass(frozen=True)
class SideFlow:
    """Another topic that goes to the same sink, with a group and metrics of its own."""

    topic: str
    dtype: np.dtype[np.void]
    name: str  # of its rows, as in metrics and the group
    door: Callable[[IntakeMetrics], Door] | None = None  # how they are read; none: blocks of ``dtype``, as they are
    sink: Callable[[], Sink] | None = None  # of its own


def group_of(exporter: str) -> str:
    """Return the consumer group of an exporter: its offsets say what its sink has."""
    return f"{APP_ID}-{exporter}"


async def run_sink(
    settings: Settings,
    stop: asyncio.Event,
    exporter: str,
    sink: Sink,
    max_rows: int,
    max_age_s: float,
    on_ready: OnReady | None = None,
    side_flows: Sequence[SideFlow] = (),
    side_sink: Callable[[], Sink] | None = None,
) -> None:
    """Take predictions to ``sink`` until ``stop`` is set; then drain, commit and close it.

    Args:
        settings: ``kafka`` must be set.
        stop: ends it.
        exporter: the name of this exporter; gives the consumer group.
        sink: where the rows go; closed at the end.
        max_rows: a batch is written at this size.
        max_age_s: a smaller one is written at this age.
        on_ready: told the URL of ``/metrics`` and ``/health``.
        side_flows: what else goes there.
        side_sink: makes the sink of a side flow, which is closed at the end; all go to ``sink`` without it.
    """
    registry = CollectorRegistry()
    intake_metrics, sink_metrics = IntakeMetrics(registry), SinkMetrics(registry)
    health = Health(f"exporter {exporter}")

    def figures() -> dict[str, Any]:
        return {
            "received": intake_metrics.received,
            "duplicates": intake_metrics.duplicates,
            "missing": intake_metrics.missing,
            "bad": intake_metrics.bad,
            "written": sink_metrics.written,
            "refused": sink_metrics.refused,
            "lag_blocks": {str(partition): lag for partition, lag in sorted(sink_metrics.lag_blocks.items())},
            **{flow.name: metrics.written for flow, metrics in zip(side_flows, side_metrics, strict=True)},
        }

    side_metrics = [SinkMetrics(registry, flow.name) for flow in side_flows]
    makers = [flow.sink or side_sink for flow in side_flows]
    side_sinks = [sink if make is None else make() for make in makers]
    consume = partial(Consumption, settings, health=health, max_rows=max_rows, max_age_s=max_age_s)
    group, intake = group_of(exporter), Intake(intake_metrics)
    consumptions = [consume(topic=PREDICTIONS, group=group, sink=sink, intake=intake, metrics=sink_metrics)]
    for flow, its_sink, metrics in zip(side_flows, side_sinks, side_metrics, strict=True):
        group = group_of(f"{exporter}-{flow.name}")
        door = PlainIntake(flow.dtype, intake_metrics) if flow.door is None else flow.door(intake_metrics)
        consumptions.append(consume(topic=flow.topic, group=group, sink=its_sink, intake=door, metrics=metrics))
    try:
        async with TelemetryServer(health, registry, figures, settings.host, settings.exporter_port) as telemetry:
            if on_ready is not None:
                on_ready(f"http://{telemetry.host}:{telemetry.port}")
            await _run_all(consumptions, stop)
    finally:
        for each in {id(one): one for one in (sink, *side_sinks)}.values():
            await each.close()
    logger.info("exporter %s: wrote %d predictions", exporter, sink_metrics.written)


async def _run_all(consumptions: Sequence[Consumption], stop: asyncio.Event) -> None:
    tasks = [asyncio.create_task(consumption.run(stop)) for consumption in consumptions]
    try:
        await asyncio.gather(*tasks)
    finally:
        await asyncio.gather(*(end_task(task, _LEAVE_S) for task in tasks))
