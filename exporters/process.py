"""One exporter process: a sink, its consumption, and what it tells about itself."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from exporters.batch import Sink
from exporters.consume import Consumption
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics, SinkMetrics
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import APP_ID, PREDICTIONS

logger = logging.getLogger(__name__)

OnReady = Callable[[str], None]  # called with the URL that a process serves, once it does


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
        }

    consumption = Consumption(
        settings,
        topic=PREDICTIONS,
        group=group_of(exporter),
        sink=sink,
        intake=Intake(intake_metrics),
        metrics=sink_metrics,
        health=health,
        max_rows=max_rows,
        max_age_s=max_age_s,
    )
    try:
        async with TelemetryServer(health, registry, figures, settings.host, settings.exporter_port) as telemetry:
            if on_ready is not None:
                on_ready(f"http://{telemetry.host}:{telemetry.port}")
            await consumption.run(stop)
    finally:
        await sink.close()
    logger.info("exporter %s: wrote %d predictions", exporter, sink_metrics.written)
