"""``features``: what the model saw, for the channel of that name. A worker sends it where it is asked to."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.features import Feature
from exporters.feature_intake import FeatureIntake
from exporters.feed_channels import FEED_FEATURES
from exporters.feed_encode import name_features
from exporters.feed_history import Segment
from exporters.feed_hub import Hub
from exporters.feed_inlets import give
from exporters.feed_messages import FeatureNames
from exporters.feed_wire import Held, message_frame
from exporters.intake import Message
from exporters.known_names import KnownNames
from exporters.metrics import IntakeMetrics
from exporters.sequence import Sequencer
from stream.feature_blocks import names_id_of
from stream.records import FEATURES_HEAD, Records

logger = logging.getLogger(__name__)


class FeatureInlet:
    """``features``. The engine may have sent some twice: each goes on once."""

    def __init__(self, hub: Hub, bootstrap: str, metrics: IntakeMetrics) -> None:
        """Feed the channel features of ``hub``.

        Args:
            hub: told what values are called as well.
            bootstrap: address of Kafka.
            metrics: counts what is left out.
        """
        self._main = hub.channels["features"]
        self.fanouts = (self._main,)
        self._names = KnownNames(bootstrap, self._tell)
        self._intake, self._sequencer, self._metrics = FeatureIntake(metrics), Sequencer(), metrics

    def forget(self) -> None:
        """Everything is numbered anew from here on."""
        self._sequencer = Sequencer()

    async def prepare(self, messages: Sequence[Any]) -> None:
        """Learn what values are called that are in messages to be read.

        Raises:
            KafkaError: the brokers do not answer.
        """
        ids = {names_id_of(message.value or b"") for message in messages}
        for names_id in await self._names.learn(names_id for names_id in ids if names_id is not None):
            logger.error("rows are left out: nobody has told what features of names_id %016x are called", names_id)

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return ``FEED_FEATURES[N]`` that are new."""
        rows = self._intake.read(partition, messages).rows
        named = self._named(rows)
        if not named.all():
            self._metrics.on_bad_rows(int(len(named) - named.sum()))
        return _placed(self._sequencer.accept(partition, rows[named]).rows)

    def decode_past(self, messages: Iterable[Message]) -> Records:
        """Return every row of blocks of the past that can be read: ``FEED_FEATURES[N]``."""
        rows = FeatureIntake().read(0, messages).rows
        return _placed(rows[self._named(rows)])

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give them to the channel."""
        give(self._main, rows, segments, is_past)

    def _named(self, rows: Records) -> NDArray[np.bool_]:
        return np.isin(rows["names_id"], np.array(list(self._names.known), np.uint64))

    def _tell(self, names_id: int, catalogue: tuple[Feature, ...]) -> None:
        name_features(names_id, [feature.name for feature in catalogue])
        message: FeatureNames = {
            "type": "feature_names",
            "channel": "features",
            "names_id": f"{names_id:016x}",
            "features": [asdict(feature) for feature in catalogue],  # type: ignore[misc]
        }
        self._main.tell_first(Held(message_frame(message)))


def _placed(rows: Records) -> Records:
    placed = np.zeros(len(rows), FEED_FEATURES)
    for name in (*(FEATURES_HEAD.names or ()), "values"):
        placed[name] = rows[name]
    return placed
