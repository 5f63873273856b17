"""What a process tells about itself: quantiles that can be trusted, over real HTTP."""

import asyncio
import json
import logging
import math
import socket
import time

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from stream.errors import SettingsError
from stream.telemetry import Health, LatencyHistogram, StageLatencies, TelemetryServer, event_loop_lag

CELL = 2 ** (1 / 8)  # the ratio of the edges of a cell: 9 %
SMALLEST_NS = 1_000
LARGEST_NS = SMALLEST_NS * 2**24


def histogram(values_ns: np.ndarray | list[int]) -> LatencyHistogram:
    made = LatencyHistogram("latency_seconds", "Time")
    made.record(np.asarray(values_ns, np.int64))
    return made


@pytest.mark.parametrize("quantile", [0.001, 0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("shape", ["log-normal", "uniform", "two modes", "constant"])
def test_a_quantile_is_within_nine_percent(shape: str, quantile: float) -> None:
    rng = np.random.default_rng(7)
    values = {
        "log-normal": np.exp(rng.normal(np.log(50_000), 1.5, 100_000)),
        "uniform": rng.uniform(2_000, 1_000_000, 100_000),
        "two modes": np.where(rng.random(100_000) < 0.95, 20_000, 40_000_000) * rng.uniform(0.9, 1.1, 100_000),
        "constant": np.full(1000, 123_456.0),
    }[shape]
    values = np.clip(values, SMALLEST_NS, LARGEST_NS).astype(np.int64)
    # The smallest value that has at least this share of all values at or below it.
    exact = float(np.quantile(values, quantile, method="inverted_cdf"))
    got = histogram(values).quantile_ns(quantile)
    assert exact <= got * (1 + 1e-9)
    assert got <= exact * CELL * (1 + 1e-9)


@given(st.lists(st.integers(SMALLEST_NS, LARGEST_NS), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_the_upper_edge_of_the_cell_of_a_value_that_was_seen(values: list[int], share: float) -> None:
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert exact <= histogram(values).quantile_ns(share) * (1 + 1e-9) <= exact * CELL * (1 + 1e-6)


def test_an_empty_histogram_has_no_quantile() -> None:
    empty = histogram([])
    assert math.isnan(empty.quantile_ns(0.5))
    assert empty.summary_us() == {"count": 0}


def test_latencies_beyond_the_cells_are_counted_at_the_ends() -> None:
    low = histogram([-5_000_000_000, 0, 1])
    assert low.quantile_ns(1.0) == SMALLEST_NS
    high = histogram([3600 * 10**9])
    assert high.quantile_ns(0.5) == pytest.approx(LARGEST_NS)
    assert high.counts.sum() == 1


def test_a_clock_that_went_back_does_not_lower_the_sum() -> None:
    made = histogram([-5_000_000_000, 2_000])
    made.record_one(-7_000_000_000)
    assert made.sum_ns == 2_000
    assert made.counts.sum() == 3


@given(st.lists(st.integers(-(10**6), 2**62), max_size=150))
def test_one_at_a_time_counts_as_all_at_once(values: list[int]) -> None:
    together = LatencyHistogram("x", "X")
    for value in values:
        together.record(np.array([value], np.int64))
    singly = LatencyHistogram("x", "X")
    for value in values:
        singly.record_one(value)
    assert singly.counts.tolist() == together.counts.tolist()
    assert singly.sum_ns == together.sum_ns


def test_one_latency_can_be_counted_many_times() -> None:
    made = LatencyHistogram("x", "X")
    made.record_one(10_000, 500)
    assert made.counts.sum() == 500
    assert made.sum_ns == 5_000_000


def test_a_summary_is_in_microseconds() -> None:
    summary = histogram([1_000_000] * 100).summary_us()
    assert summary["count"] == 100
    assert set(summary) == {"count", "p50", "p90", "p99", "p99.9"}
    assert 1000 <= summary["p50"] == summary["p99.9"] <= 1000 * CELL


def test_recording_does_not_cost_more_than_the_work_it_measures() -> None:
    made = LatencyHistogram("x", "X")
    values = np.random.default_rng(1).integers(1_000, 10_000_000, 100_000)
    made.record(values)
    before = time.perf_counter()
    made.record(values)
    assert (time.perf_counter() - before) / len(values) < 1e-6


def server(health: Health, registry: CollectorRegistry, **figures: object) -> TelemetryServer:
    return TelemetryServer(health, registry, lambda: dict(figures))


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_health_is_200_with_the_figures_while_nothing_is_wrong() -> None:
    health = Health("worker w1")
    async with server(health, CollectorRegistry(), partitions=[0, 3], rate=np.float64(1.5)) as telemetry:
        status, content_type, text = await get(telemetry.port, "/health")
    body = json.loads(text)
    assert (status, content_type) == (200, "application/json")
    assert body["role"] == "worker w1"
    assert body["status"] == "ok"
    assert body["problems"] == {}
    assert body["partitions"] == [0, 3]
    assert body["rate"] == 1.5
    assert 0 <= body["up_s"] < 60


async def test_health_is_503_while_something_is_wrong_and_says_what() -> None:
    health = Health("exporter redis")
    async with server(health, CollectorRegistry()) as telemetry:
        health.fail("redis", "connection refused")
        status, _, text = await get(telemetry.port, "/health")
        assert status == 503
        assert json.loads(text)["status"] == "failing"
        assert json.loads(text)["problems"] == {"redis": "connection refused"}
        health.fail("kafka", "no broker answers")
        health.recover("redis")
        assert (await get(telemetry.port, "/health"))[0] == 503
        health.recover("kafka")
        assert (await get(telemetry.port, "/health"))[0] == 200


def test_a_trouble_is_logged_when_it_starts_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    health = Health("exporter redis")
    with caplog.at_level(logging.INFO):
        health.recover("redis")
        for _ in range(100):
            health.fail("redis", "connection refused")
        health.fail("redis", "timeout")
        health.recover("redis")
        health.recover("redis")
    assert [record.getMessage() for record in caplog.records] == [
        "redis: connection refused",
        "redis: timeout",
        "redis: works again",
    ]


async def test_metrics_are_what_prometheus_reads() -> None:
    registry = CollectorRegistry()
    Counter("tickloom_ticks", "Ticks by outcome", ["outcome"], registry=registry).labels("accepted").inc(42)
    stages = StageLatencies(("features", "inference"))
    registry.register(stages)
    latencies = np.random.default_rng(3).integers(1_000, 50_000_000, 1000)
    stages.stages["features"].record(latencies)
    async with server(Health("worker w1"), registry) as telemetry:
        status, content_type, text = await get(telemetry.port, "/metrics")
    assert status == 200
    assert content_type == "text/plain"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ticks = families["tickloom_ticks"].samples
    assert [(sample.labels, sample.value) for sample in ticks if sample.name.endswith("_total")] == [
        ({"outcome": "accepted"}, 42.0)
    ]
    family = families["tickloom_stage_latency_seconds"]
    assert family.type == "histogram"
    features = [sample for sample in family.samples if sample.labels["stage"] == "features"]
    buckets = [(float(s.labels["le"]), s.value) for s in features if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == (math.inf, 1000.0)
    for edge_s, count in buckets:
        assert count == np.sum(latencies <= edge_s * 1e9)
    figures = {sample.name.removeprefix(family.name): sample.value for sample in features}
    assert figures["_count"] == 1000
    assert figures["_sum"] == pytest.approx(latencies.sum() / 1e9)
    inference = [sample for sample in family.samples if sample.labels["stage"] == "inference"]
    assert all(sample.value == 0 for sample in inference)
    assert "process_resident_memory_bytes" in families


async def test_the_server_stops_listening() -> None:
    async with server(Health("w"), CollectorRegistry()) as telemetry:
        port = telemetry.port
        assert port > 0
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(port, "/health")


async def test_a_port_in_use_is_told_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        telemetry = TelemetryServer(Health("w"), CollectorRegistry(), dict, port=port)
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            async with telemetry:
                pass


async def test_a_blocked_event_loop_shows_as_lag() -> None:
    lag = LatencyHistogram("lag_seconds", "Event loop lag")
    task = asyncio.create_task(event_loop_lag(lag, every_s=0.01))
    await asyncio.sleep(0.05)
    time.sleep(0.2)  # this is the point
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lag.quantile_ns(1.0) > 150_000_000
    assert lag.counts.sum() >= 3
