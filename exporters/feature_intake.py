"""From messages of ``features`` to rows that may be trusted, as `exporters.intake` does for predictions."""

import logging
from collections.abc import Iterable
from typing import Final

import numpy as np

from agents.features import COUNT
from exporters.intake import Message, plausible
from exporters.metrics import IntakeMetrics
from exporters.sequence import Accepted
from stream.errors import RecordError
from stream.feature_blocks import decode_features
from stream.records import features_record, join_records

logger = logging.getLogger(__name__)

FEATURES_RECORD: Final = features_record(COUNT)


class FeatureIntake:
    """Decodes and checks; for a sink that itself drops what it has: nothing is remembered."""

    def __init__(self, metrics: IntakeMetrics | None = None) -> None:
        """Make the door.

        Args:
            metrics: counts what is left out; None where it was counted when it was new.
        """
        self._metrics = metrics

    def read(self, partition: int, messages: Iterable[Message]) -> Accepted:
        """Return every row that can be read and can be true, in order: ``FEATURES[N]``."""
        blocks = [np.zeros(0, FEATURES_RECORD)]
        for message in messages:
            try:
                rows = decode_features(message.value or b"", COUNT)
            except RecordError as error:
                self._leave_out(partition, message, type(error).__name__, str(error))
                continue
            good = plausible(rows, ("ref_price",))
            if not good.all():
                bad = int(len(good) - good.sum())
                self._leave_out(partition, message, "BadRows", f"{bad} rows cannot be true")
                rows = rows[good]
            blocks.append(rows)
        return Accepted(join_records(blocks))

    def forget(self, partition: int) -> None:
        """Nothing was remembered."""

    def forget_everything(self) -> None:
        """Nothing was remembered."""

    def _leave_out(self, partition: int, message: Message, reason: str, why: str) -> None:
        if self._metrics is not None:
            self._metrics.on_bad_block(reason)
            logger.warning("features, block %d of partition %d: left out: %s", message.offset, partition, why)
