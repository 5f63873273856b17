"""Where a lane swaps, that it waits for the record, and what it does with records of others."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import KafkaError
from markets import FUTURE_NS, LATENESS_NS, random_market
from prometheus_client import CollectorRegistry, generate_latest
from recurrent import Recurrent

from agents.checkpoint import NO_BLOCK
from agents.lane import Lane
from agents.metrics import LaneMetrics
from agents.outlet import Outlet
from agents.owned import OwnedLane
from agents.swapping import Candidate, Plan, Swapping
from agents.swaps import Swap
from agents.windows import Windows
from stream.records import PREDICTION, Records, decode_block
from stream.topics import MODELS, PREDICTIONS

OLD, NEW, OTHER = Recurrent(1), Recurrent(2), Recurrent(3)
GENERATION = 7


class Brokers:
    """Takes messages, and acknowledges those to the topic of models when it is told to."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any, Any]] = []
        self.withheld: list[asyncio.Future[None]] = []
        self.withholds = False
        self.consumer_generation_id = GENERATION
        self.producer = self
        self.end = 0

    async def send(self, topic: str, key: Any, value: Any, *_: Any) -> "asyncio.Future[None]":
        self.messages.append((topic, key, value))
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.withholds and topic == MODELS:
            self.withheld.append(sent)
        else:
            sent.set_result(None)
        return sent

    async def end_offset(self, tp: Any) -> int:
        return self.end

    def swaps(self) -> list[Swap]:
        return [Swap.from_json(value) for topic, _, value in self.messages if topic == MODELS and value]

    def predictions(self) -> Records:
        blocks = [decode_block(value, PREDICTION) for topic, _, value in self.messages if topic == PREDICTIONS]
        return np.concatenate([np.zeros(0, PREDICTION), *blocks])


class Models(SimpleNamespace):
    """What a worker has loaded."""

    def __init__(self, wanted: Candidate | None = None, recorded: tuple[Swap, ...] = ()) -> None:
        super().__init__(wanted=wanted, recorded=list(recorded), challengers={}, failed=[])

    def swaps_of(self, partition: int) -> list[Swap]:
        return list(self.recorded)

    def on_challenger_failed(self, model_id: int, error: Exception) -> None:
        self.failed.append(model_id)


class Scene:
    """A lane, brokers, and what is between them."""

    def __init__(self, models: Models, next_offset: int = 0) -> None:
        self.brokers, self.models = Brokers(), models
        self.registry = CollectorRegistry()
        self.metrics = LaneMetrics(self.registry)
        lane = Lane(0, Windows(LATENESS_NS, FUTURE_NS, 64), OLD)
        self.owned = OwnedLane("tp", lane, next_offset, NO_BLOCK)
        app: Any = self.brokers
        self.is_ours = True
        self.swapping = Swapping(app, models, self.metrics, "worker-1", lambda owned: self.is_ours)
        self.outlet = Outlet(app, self.metrics, models)


def blocks(count: int, start: int = 0) -> list[tuple[int, Records]]:
    ticks = random_market(np.random.default_rng(1), 10 * count)
    return list(enumerate(np.split(ticks, count), start))


async def test_a_lane_records_where_it_swaps_and_then_swaps_there() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)), next_offset=3)
    await scene.outlet.apply(scene.owned, blocks(3))
    await scene.swapping.adopt(scene.owned)
    [swap] = scene.brokers.swaps()
    assert (swap.partition, swap.offset, swap.spread_blocks) == (0, 3, 2)
    assert (swap.model_id, swap.previous_id, swap.generation) == (NEW.model_id, OLD.model_id, GENERATION)
    await scene.outlet.apply(scene.owned, blocks(4, start=3))
    by_block = scene.brokers.predictions()
    assert set(by_block["model_id"][by_block["source_offset"] < 3]) == {OLD.model_id}
    assert set(by_block["model_id"][by_block["source_offset"] >= 5]) == {NEW.model_id}
    await scene.swapping.adopt(scene.owned)
    assert len(scene.brokers.swaps()) == 1
    told = generate_latest(scene.registry).decode()
    assert "tickloom_model_swaps_total 1.0" in told
    assert f'tickloom_model_in_service{{model_id="{NEW.model_id:016x}",partition="0"}} 1.0' in told


async def test_nothing_is_applied_past_a_swap_that_the_brokers_do_not_have() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)))
    scene.brokers.withholds = True
    swapping = asyncio.create_task(scene.swapping.adopt(scene.owned))
    await asyncio.sleep(0)
    applying = asyncio.create_task(scene.outlet.apply(scene.owned, blocks(2)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(scene.brokers.predictions()) == 0
    scene.brokers.withheld[0].set_result(None)
    await asyncio.gather(swapping, applying)
    assert set(scene.brokers.predictions()["model_id"]) == {NEW.model_id}
    assert "tickloom_model_swap_wait_seconds_count 1.0" in generate_latest(scene.registry).decode()


async def test_a_record_that_the_brokers_refuse_stops_the_lane() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)))
    scene.brokers.withholds = True
    swapping = asyncio.create_task(scene.swapping.adopt(scene.owned))
    await asyncio.sleep(0)
    applying = asyncio.create_task(scene.outlet.apply(scene.owned, blocks(1)))
    await asyncio.sleep(0)
    scene.brokers.withheld[0].set_exception(KafkaError("refused"))
    for task in (swapping, applying):
        with pytest.raises(KafkaError, match="refused"):
            await task
    [acknowledged] = scene.owned.sends  # a checkpoint would fail with it
    assert acknowledged.exception() is not None
    assert len(scene.brokers.predictions()) == 0


async def test_a_lane_that_starts_swaps_where_nobody_before_it_can_have_been() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)), next_offset=10)
    scene.brokers.end = 25
    await scene.swapping.start(scene.owned, Plan(OLD))
    assert [swap.offset for swap in scene.brokers.swaps()] == [25]


async def test_a_lane_whose_recorded_model_is_gone_records_what_it_serves_instead() -> None:
    known = (Swap(0, 40, 1, OTHER.model_id, "m/000003-3", OLD.model_id, 3, "worker-2", 1),)
    scene = Scene(Models(recorded=known), next_offset=12)
    await scene.swapping.start(scene.owned, Plan(OLD, (), known, Candidate("settings", OLD)))
    assert {(swap.offset, swap.version) for swap in scene.brokers.swaps()} == {(40, "settings")}


async def test_records_of_workers_that_have_lost_the_partition_are_taken_back() -> None:
    scene = Scene(Models())
    stale = Swap(0, 9, 1, OTHER.model_id, "m/000003-3", OLD.model_id, GENERATION - 1, "worker-2", 1)
    await scene.swapping.start(scene.owned, Plan(OLD))
    await scene.swapping.check(scene.owned, stale)
    assert scene.brokers.messages == [(MODELS, b"swap/0/9", None)]


async def test_where_both_recorded_the_same_block_ours_is_written_again() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)))
    await scene.swapping.adopt(scene.owned)
    [ours] = scene.brokers.swaps()
    stale = Swap(0, ours.offset, 1, OTHER.model_id, "m/000003-3", OLD.model_id, GENERATION - 1, "worker-2", 1)
    await scene.swapping.check(scene.owned, stale)
    assert scene.brokers.swaps() == [ours, ours]


async def test_records_of_our_own_and_of_our_successor_stay() -> None:
    known = Swap(0, 9, 1, NEW.model_id, "m/000002-2", OLD.model_id, GENERATION - 1, "worker-2", 1)
    successor = Swap(0, 30, 1, NEW.model_id, "m/000002-2", OLD.model_id, GENERATION + 1, "worker-3", 1)
    scene = Scene(Models(recorded=(known, successor)))
    await scene.swapping.start(scene.owned, Plan(OLD, ((known, NEW),), (known,)))
    assert scene.brokers.messages == []


async def test_a_lane_that_is_not_ours_any_more_does_not_swap() -> None:
    scene = Scene(Models(Candidate("m/000002-2", NEW)))
    scene.is_ours = False
    await scene.swapping.adopt(scene.owned)
    assert scene.brokers.messages == []


async def test_a_busy_lane_swaps_ahead_of_its_ticks_and_an_urgent_one_less_so() -> None:
    offsets = []
    for urgent in (False, True):
        scene = Scene(Models(Candidate("m/000002-2", NEW, urgent)), next_offset=1000)
        scene.owned.pace.count(0)
        scene.owned.pace.blocks_per_s = 100.0
        await scene.swapping.adopt(scene.owned)
        offsets += [swap.offset for swap in scene.brokers.swaps()]
    assert offsets == [1100, 1010]


async def test_a_challenger_that_fails_is_reported_and_the_champions_predictions_are_sent_first() -> None:
    class Broken(Recurrent):
        def run(self, *_: Any) -> None:
            from stream.errors import InvariantError

            raise InvariantError("not finite")

    broken = Broken(5)
    scene = Scene(Models())
    scene.models.challengers = {broken.model_id: broken, NEW.model_id: NEW}
    await scene.swapping.adopt(scene.owned)
    await scene.outlet.apply(scene.owned, blocks(1))
    assert scene.models.failed == [broken.model_id]
    topics = [topic for topic, _, _ in scene.brokers.messages]
    assert topics == ["predictions", "ticks.rejected", "predictions.shadow"]
    assert len(scene.owned.sends) == 2  # nobody waits for the challengers'
