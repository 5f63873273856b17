"""How lanes get from one model to the next: they decide where, record it, and go by what is recorded."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agents.inference import Predictor
from agents.lane import Lane
from agents.metrics import LaneMetrics
from agents.owned import OwnedLane
from agents.shadow import Shadow
from agents.swaps import Swap, spread_of
from agents.timeline import Timeline
from stream.app import TickloomApp
from stream.clock import wall_ns
from stream.topics import MODELS

logger = logging.getLogger(__name__)

SETTINGS_VERSION: Final = "settings"  # names the model of the worker's settings, which is in no registry


@dataclass(frozen=True)
class Candidate:
    """A model that is loaded, checked, and to serve."""

    version: str
    predictor: Predictor
    urgent: bool = False


@dataclass(frozen=True)
class Plan:
    """What a lane starts with."""

    serving: Predictor  # before the swaps
    swaps: tuple[tuple[Swap, Predictor], ...] = ()  # that are not done where the lane goes on
    known: tuple[Swap, ...] = ()  # all records of the partition
    repair: Candidate | None = None  # what to serve instead, where a recorded model cannot be loaded


class Models(Protocol):
    """The models that a worker has loaded, and what the topic says of swaps."""

    wanted: Candidate | None  # None: whatever the lanes have

    @property
    def challengers(self) -> Mapping[int, Predictor]:
        """The challengers by model id."""
        ...

    async def plan(self, partition: int, start: int) -> Plan:
        """Return what a lane that goes on at ``start`` begins with, by everything that is recorded up to now."""
        ...

    def swaps_of(self, partition: int) -> list[Swap]:
        """Return the records of a partition that have been read."""
        ...

    def on_challenger_failed(self, model_id: int, error: Exception) -> None:
        """Take note that a challenger was dropped."""
        ...


class Swapping:
    """Swaps the models of a worker's lanes."""

    def __init__(
        self,
        app: TickloomApp,
        models: Models,
        metrics: LaneMetrics,
        worker: str,
        is_ours: Callable[[OwnedLane], bool],
    ) -> None:
        """Make it.

        Args:
            app: whose producer and generation are used.
            models: which there are.
            metrics: where swaps are counted.
            worker: the name to sign records with.
            is_ours: whether a lane is still this worker's.
        """
        self._app = app
        self._models = models
        self._metrics = metrics
        self._worker = worker
        self._is_ours = is_ours

    async def plan(self, partition: int, start: int) -> Plan:
        """See `Models.plan`."""
        return await self._models.plan(partition, start)

    def begin(self, lane: Lane, plan: Plan) -> None:
        """Give an empty lane the models of its plan."""
        lane.timeline = Timeline(plan.serving, lane.windows)
        for swap, predictor in plan.swaps:
            lane.timeline.add(swap, predictor)

    async def start(self, owned: OwnedLane, plan: Plan) -> None:
        """Let a lane that has just begun get to the model that is wanted."""
        owned.swaps = {swap.key: swap for swap in plan.known}
        if plan.repair is not None:
            # From the first block on, and after all records: what they name cannot be served again.
            owned.first_free = max([swap.offset for swap in plan.known], default=0)
            await self._swap(owned, plan.repair, is_repair=True)
        owned.first_free = await self._app.end_offset(owned.tp)
        for swap in self._models.swaps_of(owned.lane.partition):
            await self.check(owned, swap)
        await self.adopt(owned)

    async def adopt(self, owned: OwnedLane) -> None:
        """Bring a lane to the model that is wanted, and its challengers to those that there are."""
        wanted = self._models.wanted
        if wanted is not None:
            await self._swap(owned, wanted)
        shadows, there_are = owned.lane.shadows, self._models.challengers
        room = len(owned.lane.windows.states)
        owned.lane.shadows = {
            model_id: shadows.get(model_id) or Shadow(predictor, room) for model_id, predictor in there_are.items()
        }
        self._metrics.models.serving[owned.lane.partition] = owned.lane.predictor.model_id

    async def check(self, owned: OwnedLane, swap: Swap) -> None:
        """Look at a record of a lane's partition: one that is not by us is of a worker that has lost the partition.

        What it says is not what was served, so that it is taken back. Of two workers that both think that they have
        a partition, the one with the older generation is wrong, and never does this to the other.
        """
        if owned.swaps.get(swap.key) == swap or swap.generation >= self._app.consumer_generation_id:
            return
        ours = owned.swaps.get(swap.key)
        logger.warning("lane %d: %s is of a worker that had lost it; taken back", owned.lane.partition, swap)
        await self._write(swap.key, None if ours is None else ours.to_json())

    async def _swap(self, owned: OwnedLane, wanted: Candidate, *, is_repair: bool = False) -> None:
        predictor, timeline = wanted.predictor, owned.lane.timeline
        async with owned.swap_lock:
            async with owned.lock:
                is_there = timeline.newest.model_id == predictor.model_id and not is_repair
                if is_there or not self._is_ours(owned):
                    return
                swap = Swap(
                    owned.lane.partition,
                    max(
                        owned.next_offset + owned.pace.ahead(urgent=wanted.urgent),
                        owned.first_free,
                        timeline.next_offset,
                    ),
                    spread_of(owned.lane.windows.count, urgent=wanted.urgent),
                    predictor.model_id,
                    wanted.version,
                    timeline.newest.model_id,
                    self._app.consumer_generation_id,
                    self._worker,
                    wall_ns(),
                )
                # From here on the lane may get there at any moment: it waits for the record (`Outlet`).
                timeline.add(swap, predictor)
                owned.swaps[swap.key] = swap
                acknowledged: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                owned.unrecorded.append((swap.offset, acknowledged))
                owned.sends.append(acknowledged)  # a checkpoint waits for it, and fails with it
            await self._record(owned, swap, acknowledged)

    async def _record(self, owned: OwnedLane, swap: Swap, acknowledged: "asyncio.Future[Any]") -> None:
        begun_s = time.monotonic()
        try:
            await self._write(swap.key, swap.to_json())
        except BaseException as error:
            acknowledged.set_exception(error)
            raise
        acknowledged.set_result(None)
        owned.unrecorded.remove((swap.offset, acknowledged))
        self._metrics.models.swaps += 1
        self._metrics.models.swap_seconds.observe(time.monotonic() - begun_s)
        logger.info(
            "lane %d: model %016x (%s) from block %d on, over %d blocks, after %016x",
            *(swap.partition, swap.model_id, swap.version, swap.offset, swap.spread_blocks, swap.previous_id),
        )

    async def _write(self, key: str, value: bytes | None) -> None:
        await (await self._app.producer.send(MODELS, key.encode(), value, 0, None, None))
