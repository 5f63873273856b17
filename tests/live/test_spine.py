"""Real ticks through the real processes, through crashes and rebalances, compared with a computation in one go."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.lane import Lane
from agents.windows import Windows
from models.predictor import load_predictor
from stream.clock import NS_PER_S
from stream.records import PREDICTION_CONTENT_BYTES, Records, partition_of
from stream.settings import Settings
from stream.sources.replay import Replay

pytestmark = pytest.mark.timeout(420)


def undisturbed(settings: Settings, ticks: Records) -> dict[tuple[bytes, int], bytes]:
    """Return the content of every prediction of ``ticks`` by (symbol, seq), computed here and in one go."""
    predictor = load_predictor(settings.model, settings.predictor)
    contents: dict[tuple[bytes, int], bytes] = {}
    lanes = partition_of(ticks["symbol"], settings.partitions)
    for number in range(settings.partitions):
        mine = ticks[lanes == number]
        lane = Lane(
            number, Windows(int(settings.lateness_s * NS_PER_S), int(settings.future_s * NS_PER_S)), predictor
        )
        for start in range(0, len(mine), 4096):
            contents |= by_identity(lane.apply([(start, mine[start : start + 4096])]).predictions)
    return contents


def by_identity(predictions: Records) -> dict[tuple[bytes, int], bytes]:
    """Return the content bytes by (symbol, seq)."""
    raw = np.ascontiguousarray(predictions).view(np.uint8).reshape(len(predictions), -1)
    contents = raw[:, :PREDICTION_CONTENT_BYTES]
    keys = zip(predictions["symbol"].tolist(), predictions["seq"].tolist(), strict=True)
    return {key: content.tobytes() for key, content in zip(keys, contents, strict=True)}


def real_ticks(files: list[Path]) -> Records:
    """Return the whole replay as the engine would receive it."""
    ticks = np.concatenate(list(Replay(files).days()))
    ticks["recv_ns"] = np.maximum(ticks["recv_ns"], ticks["event_ns"])
    return ticks


async def test_a_replay_through_crash_join_and_leave_gives_the_very_predictions_of_one_undisturbed_run(
    engine: Any, shared_data: Path
) -> None:
    files = sorted((shared_data / "ticks" / "crypto").glob("*_spot_*.parquet"))
    ticks = real_ticks(files)
    expected = undisturbed(engine.settings, ticks)
    total = len(expected)
    assert total > 60_000

    await engine.start("worker-1", "worker", "--name", "worker-1")
    await engine.start_ways_out()
    source = await engine.start("source", "replay", *map(str, files), "--speed", "8", ends=True)

    await engine.until(lambda: engine.made() > total * 0.15, "the replay is under way")
    engine.kill("worker-1")
    engine.parts["worker-1"].stop()
    engine.parts["worker-1"].start()
    await engine.until(lambda: engine.parts["worker-1"].health.get("predictions", 0) > 0, "worker-1 is back")

    second = await engine.start("worker-2", "worker", "--name", "worker-2")
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
    assert by_identity(published) == expected
    # Repetitions after the crash are the same to the bit: as many different contents as identities.
    raw = np.ascontiguousarray(published).view(np.uint8).reshape(len(published), -1)[:, :PREDICTION_CONTENT_BYTES]
    assert len({content.tobytes() for content in raw}) == total

    last: dict[str, int] = {}
    for symbol, seq in expected:
        last[symbol.decode()] = max(seq, last.get(symbol.decode(), 0))
    arrived = "the WebSocket client has the newest of every symbol"
    await engine.until(lambda: {name: item["seq"] for name, item in engine.feed.latest.items()} == last, arrived)
