"""What lanes send: predictions, rejected ticks, features, bytes that are no ticks, and what challengers predict."""

import asyncio
import logging
import time
from typing import Any, Final

from agents import features
from agents.feature_tap import FeatureTap
from agents.inference import Challengers
from agents.lane import LaneOutput
from agents.metrics import LaneMetrics
from agents.owned import OwnedLane
from agents.timeline import Blocks
from stream.app import TickloomApp
from stream.early import EarlySender
from stream.errors import RecordError
from stream.feature_blocks import features_per_block
from stream.records import MAX_BLOCK_RECORDS, Records, encode_block
from stream.topics import FEATURES, PREDICTIONS, REJECTED_TICKS, SHADOW_PREDICTIONS

logger = logging.getLogger(__name__)

# Blocks sent and not yet acknowledged, for each lane; beyond it the lane waits for the brokers.
_MAX_UNACKNOWLEDGED: Final = 256


class Outlet:
    """Applies blocks to lanes, and sends what comes of it."""

    def __init__(
        self,
        app: TickloomApp,
        metrics: LaneMetrics,
        challengers: Challengers | None,
        features_every_ms: int | None = None,
        early: EarlySender | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._challengers = challengers
        self._features_every_ms = features_every_ms
        self._early = early

    async def apply(self, owned: OwnedLane, blocks: Blocks) -> None:
        """Apply blocks and send what they became. While symbols switch to another model it is one at a time."""
        groups = list(owned.lane.groups(blocks))
        if self._features_every_ms is not None and owned.tap is None:
            owned.tap = FeatureTap(owned.lane.windows, self._features_every_ms)
        for group in groups:
            await self._await_record(owned, group[-1][0])
            output = owned.lane.apply(group)
            published_ns = await self._send(owned, output)
            self._metrics.on_blocks(len(group), owned.lane, output, published_ns)
            if owned.lane.shadows:
                await self._shadow(owned, output)
            if len(groups) > 1:
                await asyncio.sleep(0)  # the producer's turn

    async def bound(self, owned: OwnedLane) -> None:
        """Wait until the brokers have all but the last blocks."""
        sends = owned.sends  # a checkpoint may put another list in its place
        if len(sends) > _MAX_UNACKNOWLEDGED:
            oldest = len(sends) - _MAX_UNACKNOWLEDGED // 2
            await asyncio.gather(*sends[:oldest])
            del sends[:oldest]

    async def dead_letter(self, owned: OwnedLane, message: Any, error: RecordError) -> None:
        """Put bytes that are not a block of ticks aside, as they came, with the reason in the headers."""
        where = f"{message.topic}[{message.partition}]@{message.offset}"
        logger.error("rejected %s: %s", where, error)
        self._metrics.blocks[type(error).__name__] += 1
        headers = [("tickloom-error", str(error).encode()), ("tickloom-source", where.encode())]
        raw = message.value if isinstance(message.value, bytes) else b""
        owned.sends.append(
            await self._app.producer.send(REJECTED_TICKS, None, raw, message.partition, None, headers)
        )

    async def _await_record(self, owned: OwnedLane, offset: int) -> None:
        """Wait until the brokers have the records of the swaps that the block at ``offset`` is subject to."""
        for first, acknowledged in list(owned.unrecorded):
            if first <= offset and not acknowledged.done():
                begun_s = time.monotonic()
                await asyncio.shield(acknowledged)
                self._metrics.models.wait_seconds.observe(time.monotonic() - begun_s)

    async def _send(self, owned: OwnedLane, output: LaneOutput) -> int:
        """Send what comes of blocks; return when it began."""
        output.predictions["published_ns"] = published_ns = owned.lane.clock()
        for topic, records in ((PREDICTIONS, output.predictions), (REJECTED_TICKS, output.rejected)):
            owned.sends += await self._send_blocks(topic, records, owned.lane.partition)
        if owned.tap is not None:
            rows = owned.tap.take(output)
            per_block = features_per_block(features.COUNT)
            owned.sends += await self._send_blocks(FEATURES, rows, owned.lane.partition, per_block)
            self._metrics.feature_rows += len(rows)
        return published_ns

    async def _shadow(self, owned: OwnedLane, output: LaneOutput) -> None:
        """Send what challengers predict. Nobody waits for it, and what fails is counted and stays so."""
        predictions, failed = owned.lane.shadow(output)
        for model_id, error in failed.items():
            if self._challengers is not None:
                self._challengers.on_challenger_failed(model_id, error)
        predictions["published_ns"] = owned.lane.clock()
        for sent in await self._send_blocks(SHADOW_PREDICTIONS, predictions, owned.lane.partition):
            sent.add_done_callback(self._on_shadow_sent)
        self._metrics.models.shadow_predictions += len(predictions)

    async def _send_blocks(
        self, topic: str, records: Records, partition: int, per_block: int = MAX_BLOCK_RECORDS
    ) -> "list[asyncio.Future[Any]]":
        sent = []
        for start in range(0, len(records), per_block):
            block = encode_block(records[start : start + per_block])
            if topic == PREDICTIONS and self._early is not None:
                self._early.send(block)
            sent.append(await self._app.producer.send(topic, None, block, partition, None, None))
        return sent

    def _on_shadow_sent(self, sent: "asyncio.Future[Any]") -> None:
        if not sent.cancelled() and sent.exception() is not None:
            self._metrics.models.shadow_failures += 1
