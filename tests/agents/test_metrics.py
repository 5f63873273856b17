"""What a worker counts, as its figures and as Prometheus reads it."""

import numpy as np
from markets import FUTURE_NS, LATENESS_NS, Feed
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from recurrent import Recurrent

from agents.lane import Lane
from agents.metrics import LaneMetrics
from agents.windows import Windows


def counted() -> tuple[LaneMetrics, CollectorRegistry]:
    """Apply two blocks: three ticks are accepted, one is refused, one comes twice."""
    registry = CollectorRegistry()
    metrics = LaneMetrics(registry)
    lane = Lane(2, Windows(LATENESS_NS, FUTURE_NS, 8, metrics.outcomes), Recurrent())
    feed = Feed()
    first = feed.trade("A", 1.0)
    for offset, block in enumerate(
        (
            np.concatenate([first, feed.trade("B", 1.0)]),
            np.concatenate([first, feed.trade("A", -1.0), feed.trade("A", 2.0)]),
        )
    ):
        output = lane.apply([(offset, block)])
        output.predictions["published_ns"] = lane.clock()
        metrics.on_blocks(1, lane, output)
    return metrics, registry


def test_ticks_are_counted_by_outcome() -> None:
    metrics, _ = counted()
    assert metrics.ticks() == {"accepted": 3, "not_positive": 1, "duplicate": 1}
    assert metrics.predictions == 3
    assert metrics.blocks["applied"] == 2
    assert metrics.symbols == {2: 2}


def test_each_prediction_is_in_the_latency_of_each_stage() -> None:
    metrics, _ = counted()
    assert {name: figures["count"] for name, figures in metrics.stages.summary_us().items()} == dict.fromkeys(
        ("source_to_consumed", "features", "inference", "publish"), 3
    )


def test_a_block_without_a_prediction_is_counted_too() -> None:
    metrics = LaneMetrics(CollectorRegistry())
    lane = Lane(0, Windows(LATENESS_NS, FUTURE_NS, 8, metrics.outcomes), Recurrent())
    metrics.on_blocks(1, lane, lane.apply([(0, Feed().trade("A", np.nan))]))
    assert metrics.blocks["applied"] == 1
    assert metrics.ticks() == {"not_finite": 1}
    assert metrics.predictions == 0


def test_prometheus_reads_the_same_figures() -> None:
    metrics, registry = counted()
    metrics.blocks["BadBlock"] += 1
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert samples["tickloom_ticks_total", "accepted"] == 3
    assert samples["tickloom_ticks_total", "not_positive"] == 1
    assert samples["tickloom_ticks_total", "late"] == 0  # there from the start, for alerts
    assert samples["tickloom_blocks_total", "BadBlock"] == 1
    assert samples["tickloom_predictions_total",] == 3
    assert samples["tickloom_lane_symbols", "2"] == 2
