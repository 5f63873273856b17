"""Several watches at one real Kafka and one registry, as workers have them; what they start is a small script."""

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from agents.model_metrics import ModelMetrics
from models.night import Night
from models.night_watch import MOST_ATTEMPTS, Job, NightWatch
from models.promotion import ModelsTopic, read_models
from models.registry import Registry
from stream.embedded.kafka import EmbeddedKafka
from stream.telemetry import Health
from stream.topics import create_topics

PATIENCE_S = 30.0

# Says that it was started, and works for a while; a second time it is done at once, as a run that goes on.
_SCRIPT = """
import json, os, sys, time
folder, seconds, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with open(folder + "/started", "a") as file:
    file.write(f"{os.getpid()}\\n")
with open(folder + "/started") as file:
    is_first = len(file.readlines()) == 1
time.sleep(seconds if is_first else 0)
steps = {"collect": {"at_ns": 1}, "end": {"outcome": "refused", "reason": "it is not better"}}
with open(folder + "/journal.json", "w") as file:
    json.dump({"plan": {}, "steps": steps}, file)
print("the last words")
sys.exit(code)
"""


class Workers:
    """Watches of several workers, and what the topic says."""

    def __init__(self, root: Path, bootstrap: str, night: str, seconds: float, code: int = 0) -> None:
        self.bootstrap, self.night, self.folder = bootstrap, night, root / "retrain" / night
        self.registry = Registry(str(root / "registry"))
        self.is_over = False
        self.said, self.metrics = ModelsTopic(), ModelMetrics(CollectorRegistry())
        self.job = Job(
            lambda night: [sys.executable, "-c", _SCRIPT, str(root / "retrain" / night), str(seconds), str(code)],
            {},
            root / "retrain",
            beat_s=0.2,
            silence_s=2.0,
        )

    def watch(self, name: str) -> NightWatch:
        def nights() -> dict[str, Night]:  # of this test only: tests share the topic
            return {key: night for key, night in self.said.nights.items() if key == self.night}

        return NightWatch(self.job, nights, self.registry, self.bootstrap, name, Health(name), self.metrics)

    async def listen(self) -> None:
        while not self.is_over:
            self.said = await read_models(self.bootstrap)
            await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[Night], Any]) -> Night:
        async with asyncio.timeout(PATIENCE_S):
            while (night := self.said.nights.get(self.night)) is None or not condition(night):
                await asyncio.sleep(0.05)
        return night

    def pids(self) -> list[int]:
        try:
            return [int(line) for line in (self.folder / "started").read_text().split()]
        except FileNotFoundError:
            return []


@asynccontextmanager
async def workers(
    root: Path, kafka: EmbeddedKafka, night: str, seconds: float, code: int = 0
) -> AsyncIterator[Workers]:
    await create_topics(kafka.bootstrap, 4, 1, 24.0)
    made = Workers(root, kafka.bootstrap, night, seconds, code)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        made.is_over = True
        await listening


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_two_workers_that_hear_the_clock_at_once_retrain_once(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-01", 1.0) as night, AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(night.watch(f"worker-{number}")) for number in (1, 2)]
            for watch in watches:
                watch.due("2026-01-01", is_leader=True)  # both believe it, as they may during a rebalance
            told = await night.until(lambda each: each.is_over)
            assert (told.state, told.attempt, told.step) == ("done", 1, "end")
            assert told.reason == "refused: it is not better"
            watches[0].due("2026-01-01", is_leader=True)  # the clock goes off again
            await asyncio.sleep(night.job.silence_s + 1.0)
            assert len(night.pids()) == 1
            assert watches[0].figures()["retrain"]["state"] == "done"

    asyncio.run(scenario())


def test_who_does_not_lead_takes_a_night_that_nobody_took(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-02", 0.0) as night, night.watch("worker-2") as watch:
            watch.due("2026-01-02", is_leader=False)
            await asyncio.sleep(night.job.silence_s / 2)
            assert night.pids() == []
            told = await night.until(lambda each: each.is_over)
            assert (told.state, told.worker) == ("done", "worker-2")

    asyncio.run(scenario())


def test_a_worker_that_stops_ends_its_retraining_and_another_goes_on_at_once(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-03", 600.0) as night:
            night.job = dataclasses.replace(night.job, silence_s=60.0)
            async with night.watch("worker-1") as first:
                first.due("2026-01-03", is_leader=True)
                await night.until(lambda each: bool(night.pids()))
            assert not is_alive(night.pids()[0])
            assert (await night.until(lambda each: each.state == "stopped")).reason == "worker-1 was stopped"
            async with night.watch("worker-2"):
                told = await night.until(lambda each: each.is_over)
            assert (told.state, told.worker, told.attempt) == ("done", "worker-2", 2)

    asyncio.run(scenario())


def test_the_night_of_a_worker_that_is_silent_is_taken_over(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-04", 0.0) as night:
            assert night.registry.claim_night("2026-01-04", 1, "worker-1")  # and died before it said a word
            async with night.watch("worker-2") as watch:
                watch.due("2026-01-04", is_leader=True)
                await asyncio.sleep(night.job.silence_s / 2)
                assert night.pids() == []
                told = await night.until(lambda each: each.is_over)
            assert (told.worker, told.attempt) == ("worker-2", 2)

    asyncio.run(scenario())


def test_an_owner_that_was_taken_for_dead_lets_go(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-05", 600.0) as night, night.watch("worker-1") as first:
            first.due("2026-01-05", is_leader=True)
            told = await night.until(lambda each: bool(night.pids()))
            (pid,) = night.pids()
            assert night.registry.claim_night("2026-01-05", 2, "worker-2")
            taken = dataclasses.replace(told, attempt=2, worker="worker-2", state="done")
            night.registry.close_night("2026-01-05", "worker-2")
            await _send(night, taken)
            async with asyncio.timeout(PATIENCE_S):
                while is_alive(pid):
                    await asyncio.sleep(0.05)
            assert night.said.nights["2026-01-05"].worker == "worker-2"

    asyncio.run(scenario())


def test_what_needs_somebody_is_not_tried_again_and_a_metric_says_so(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-06", 0.0, code=4) as night:
            async with night.watch("worker-1") as watch:
                watch.due("2026-01-06", is_leader=True)
                told = await night.until(lambda each: each.is_over)
                assert (told.state, told.reason) == ("failed", "exit code 4: the last words")
                await asyncio.sleep(0.5)
                assert night.metrics.night_failed
            assert len(night.pids()) == 1

    asyncio.run(scenario())


def test_what_may_pass_is_tried_again_but_not_for_ever(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with workers(tmp_path, kafka, "2026-01-07", 0.0, code=3) as night:
            night.job = dataclasses.replace(night.job, silence_s=0.3)
            for attempt in range(1, MOST_ATTEMPTS - 1):
                assert night.registry.claim_night("2026-01-07", attempt, "worker-1")
            async with night.watch("worker-1") as watch:
                watch.due("2026-01-07", is_leader=True)
                told = await night.until(lambda each: each.is_over)
            assert (told.state, told.attempt) == ("failed", MOST_ATTEMPTS + 1)
            assert len(night.pids()) == 2

    asyncio.run(scenario())


async def _send(night: Workers, news: Night) -> None:
    from models.promotion import send_models

    await send_models(night.bootstrap, [(news.key, news.to_json())])
