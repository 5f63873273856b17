"""The exporter process of ClickHouse: which topics go into which tables."""

import asyncio
from typing import Final

from exporters.clickhouse.feature_sink import FeatureSink
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.server import quiet_driver
from exporters.clickhouse.sink import ClickHouseSink
from exporters.clickhouse.source_ticks import SourceTicks
from exporters.feature_intake import FEATURES_RECORD, FeatureIntake
from exporters.intake import PLACED_TICK, TickIntake
from exporters.process import OnReady, SideFlow, run_sink
from stream.errors import SettingsError
from stream.records import MODEL_EVENT, OUTCOME, REJECTED
from stream.settings import Settings
from stream.topics import FEATURES, MODEL_EVENTS, OUTCOMES, REJECTED_TICKS, TICKS

_SIDE_FLOWS: Final = (
    SideFlow(TICKS, PLACED_TICK, "ticks", TickIntake),
    SideFlow(REJECTED_TICKS, REJECTED, "rejected"),
    SideFlow(OUTCOMES, OUTCOME, "outcomes"),
    SideFlow(MODEL_EVENTS, MODEL_EVENT, "model_events"),
)


async def run_clickhouse(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
    """Export all that analysts ask for to ClickHouse until ``stop`` is set; then drain and commit.

    Args:
        settings: ``kafka`` and ``clickhouse`` must be set.
        stop: ends it.
        on_ready: told the URL of ``/metrics`` and ``/health``.

    Raises:
        SettingsError: an address is not set.
    """
    if settings.kafka is None or settings.clickhouse is None:
        raise SettingsError("the ClickHouse exporter needs the settings `kafka` and `clickhouse`")
    quiet_driver()
    url = settings.clickhouse.get_secret_value()
    await run_sink(
        settings,
        stop,
        "clickhouse",
        PredictionSink(url, SourceTicks(settings.kafka)),
        max_rows=settings.clickhouse_batch_rows,
        max_age_s=settings.clickhouse_flush_s,
        on_ready=on_ready,
        side_flows=(*_SIDE_FLOWS, _features(url, settings.kafka)),
        # A connection of its own for each: none waits while another's rows are written.
        side_sink=lambda: ClickHouseSink(url),
    )


def _features(url: str, kafka: str) -> SideFlow:
    return SideFlow(FEATURES, FEATURES_RECORD, "features", FeatureIntake, lambda: FeatureSink(url, kafka))
