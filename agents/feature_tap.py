"""Which feature rows of a lane are published, and the records that they become.

Every one, or of each symbol the first in each so many ms of event time. Which those are follows from the accepted
ticks alone, and after a crash from ``event_ns`` of the `STATE` row: so that, as with predictions, what is sent does
not depend on how ticks were cut into blocks, nor on where the process was killed.
"""

import asyncio
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.feature_names import names_id, tell_names
from agents.lane import LaneOutput
from agents.periods import Periods
from agents.windows import Windows
from stream.compiled import compiled
from stream.records import Records, features_record

_NS_PER_MS: Final = 1_000_000
_NEVER: Final = np.iinfo(np.int64).min
_NOTHING: Final = np.zeros(0, np.int64)
_FROM_PREDICTION: Final = (
    "symbol",
    "seq",
    "event_ns",
    "ref_price",
    "feature_hash",
    "source_offset",
    "source_index",
    "source_partition",
    "published_ns",
)


class FeatureTap:
    """What one lane has published."""

    def __init__(self, windows: Windows, every_ms: int) -> None:
        """Begin after the ticks that ``windows`` have seen.

        Args:
            windows: of the lane.
            every_ms: 0 for every row, else the first of each symbol in each so many ms of event time.
        """
        self._record = features_record(features.COUNT)
        self._names_id = names_id(features.names(windows.periods))
        self._every_ns = every_ms * _NS_PER_MS
        self._spans: NDArray[np.int64] = np.full(len(windows.states), _NEVER, np.int64)  # the newest, by row
        if every_ms:
            seen = windows.states[: windows.count]
            has_ticked = np.flatnonzero(seen["seq"])
            self._spans[has_ticked] = seen["event_ns"][has_ticked] // self._every_ns

    def take(self, output: LaneOutput) -> Records:
        """Return FEATURES of what a lane has just predicted, ``features_record(F)[M]``, in order.

        Args:
            output: of the last call of the lane's `apply`; ``published_ns`` is set.
        """
        predictions, rows = output.predictions, np.concatenate([step.rows for step in output.steps])
        values = np.concatenate([step.features for step in output.steps])
        chosen = np.arange(len(rows))
        if self._every_ns:
            event_ns = np.ascontiguousarray(predictions["event_ns"])
            chosen = chosen[: _choose(rows, event_ns, self._every_ns, self._spans, chosen)]
        records = np.zeros(len(chosen), self._record)
        for name in _FROM_PREDICTION:
            records[name] = predictions[name][chosen]
        records["names_id"] = self._names_id
        records["values"] = values[chosen]
        return records


@compiled
def _choose(rows: Any, event_ns: Any, every_ns: int, spans: Any, chosen: Any) -> int:
    """Write the positions of the rows that begin a span of their symbol; return how many."""
    count = 0
    for at in range(len(rows)):
        # As the kernel keeps it in STATE: never below 0.
        span = max(event_ns[at], 0) // every_ns
        if span > spans[rows[at]]:
            spans[rows[at]] = span
            chosen[count] = at
            count += 1
    return count


async def get_ready(bootstrap: str, periods: Periods) -> None:
    """Tell what the features are called, and compile what chooses rows now rather than at the first tick.

    Raises:
        ServerError: the brokers do not take the names.
    """
    await tell_names(bootstrap, periods)
    await asyncio.to_thread(_choose, _NOTHING, _NOTHING, 1, _NOTHING, _NOTHING)
