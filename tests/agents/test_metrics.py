"""What a worker counts, as its figures and as Prometheus reads it."""

import numpy as np
from markets import FUTURE_NS, LATENESS_NS, Feed
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from recurrent import Recurrent

from agents.lane import Lane
from agents.metrics import NAMED_SYMBOLS, OTHER, LaneMetrics
from agents.windows import Windows


def new_lane() -> Lane:
    return Lane(0, Windows(LATENESS_NS, FUTURE_NS, 1024), Recurrent())


def counted() -> tuple[LaneMetrics, CollectorRegistry]:
    """Apply two blocks: three ticks are accepted, one of them with a mark, one is refused, one comes twice."""
    registry = CollectorRegistry()
    metrics = LaneMetrics(registry)
    lane = Lane(2, Windows(LATENESS_NS, FUTURE_NS, 8, metrics.outcomes), Recurrent())
    feed = Feed()
    first = feed.trade("A", 1.0)
    for offset, block in enumerate(
        (
            np.concatenate([first, feed.trade("B", 1.0)]),
            np.concatenate([first, feed.trade("A", -1.0), feed.trade("A", 1.01, size=0.0)]),
        )
    ):
        output = lane.apply([(offset, block)])
        output.predictions["published_ns"] = lane.clock()
        metrics.on_blocks(1, lane, output, lane.clock())
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
    metrics.on_blocks(1, lane, lane.apply([(0, Feed().trade("A", np.nan))]), lane.clock())
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
    assert samples["tickloom_rejected_ticks_total", "not_positive", "A"] == 1
    assert samples["tickloom_marked_ticks_total", "zero_size", "A"] == 1


def test_what_is_odd_is_counted_by_symbol() -> None:
    metrics, _ = counted()
    assert metrics.rejected == {("A", "not_positive"): 1}
    assert metrics.marked == {("A", "zero_size"): 1}


def test_a_tick_with_two_marks_counts_for_each() -> None:
    metrics, lane, feed = LaneMetrics(CollectorRegistry()), new_lane(), Feed()
    ticks = [feed.quote("A", 1.0, 1.0), feed.quote("A", np.nan, 1.0, event_ns=feed.now_ns)]
    metrics.on_blocks(1, lane, lane.apply([(0, np.concatenate(ticks))]), lane.clock())
    assert metrics.marked == {("A", "locked"): 2, ("A", "carried"): 1}


def test_symbols_beyond_the_cap_are_summed_as_other_and_none_is_lost_or_moves() -> None:
    metrics, lane, feed = LaneMetrics(CollectorRegistry()), new_lane(), Feed()
    names = [f"SYM{number}" for number in range(NAMED_SYMBOLS + 50)]
    good = [feed.trade(name, 1.0) for name in names]
    for offset in range(3):
        bad = [feed.trade(name, -1.0) for name in (names if offset % 2 == 0 else reversed(names))]
        metrics.on_blocks(1, lane, lane.apply([(offset, np.concatenate([*good, *bad]))]), lane.clock())
        good = []
    assert sum(metrics.rejected.values()) == 3 * len(names)
    assert metrics.rejected[OTHER, "not_positive"] == 3 * 50
    assert metrics.rejected["SYM0", "not_positive"] == 3
    assert len({symbol for symbol, _ in metrics.rejected}) == NAMED_SYMBOLS + 1


def test_garbage_takes_no_name_from_a_symbol_that_has_a_state() -> None:
    metrics, lane, feed = LaneMetrics(CollectorRegistry()), new_lane(), Feed()
    garbage = [feed.trade(f"GARBAGE{number}", np.nan) for number in range(2 * NAMED_SYMBOLS)]
    block = np.concatenate([*garbage, feed.trade("", 1.0), feed.trade("A", 1.0), feed.trade("A", np.nan)])
    metrics.on_blocks(1, lane, lane.apply([(0, block)]), lane.clock())
    assert metrics.rejected == {
        (OTHER, "not_finite"): 2 * NAMED_SYMBOLS,
        (OTHER, "bad_symbol"): 1,
        ("A", "not_finite"): 1,
    }
