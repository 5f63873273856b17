"""A whole real day through real processes, crashes and rebalances, compared with a computation in one go."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_oracle import in_order, newest, real_ticks, undisturbed

pytestmark = pytest.mark.timeout(420)


async def test_a_day_through_crash_join_and_leave_gives_the_very_predictions_of_one_undisturbed_run(
    engine: Any, shared_data: Path
) -> None:
    files = sorted((shared_data / "ticks" / "us_equity").glob("*_20131007.parquet"))
    ticks = real_ticks(files)
    predictions = undisturbed(engine.settings, ticks).predictions
    total = len(predictions)
    assert total > 1_100_000

    await engine.start("worker-1", "worker", "--name", "worker-1")
    await engine.start_ways_out()
    source = await engine.start("source", "replay", *map(str, files), "--speed", "1300", ends=True)

    await engine.until(lambda: engine.made() > total * 0.15, "the replay is under way")
    engine.kill("worker-1")
    # However slow the machine is: most of the day comes after the second worker has come.
    os.kill(source.pid, signal.SIGSTOP)
    engine.parts["worker-1"].stop()
    engine.parts["worker-1"].start()
    await engine.until(lambda: engine.parts["worker-1"].health.get("predictions", 0) > 0, "worker-1 is back")

    second = await engine.start("worker-2", "worker", "--name", "worker-2")
    os.kill(source.pid, signal.SIGCONT)
    shared = "two workers share the partitions"
    await engine.until(lambda: second.health.get("partitions") and second.health["predictions"] > 0, shared)
    first_has = set(engine.parts["worker-1"].health["partitions"])
    assert not first_has & set(second.health["partitions"]), "a partition has two owners"

    os.kill(engine.parts["worker-1"].pid, signal.SIGTERM)
    await engine.until(lambda: source.finished, "the replay is sent")
    await engine.until(lambda: set(second.health["partitions"]) >= first_has, "the second has taken over")

    outcome = await engine.settled_outcome(total)
    assert outcome.clickhouse_rows == outcome.clickhouse_distinct == outcome.redis_latest_seq_sum == total
    assert outcome.clickhouse_gaps == 0

    published = await engine.predictions()
    # Repetitions after the crash are the same to the bit: as many different contents as identities.
    assert np.array_equal(in_order(published), in_order(predictions))

    last = newest(predictions)
    arrived = "the WebSocket client has the newest of every symbol"
    await engine.until(lambda: {name: item["seq"] for name, item in engine.feed.latest.items()} == last, arrived)
