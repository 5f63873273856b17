"""How long each stage of a prediction took, up to us: since we started, and in the last seconds."""

from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.records import Records
from stream.telemetry import LatencyHistogram, StageLatencies

# Name, from when, to when. Each is a difference of two clocks of our own machines.
_STAGES: Final = (
    ("source_to_consumed", "recv_ns", "consumed_ns"),
    ("consumed_to_features", "consumed_ns", "features_ns"),
    ("features_to_inferred", "features_ns", "inferred_ns"),
    ("inferred_to_published", "inferred_ns", "published_ns"),
    ("published_to_gateway", "published_ns", None),
    ("total", "recv_ns", None),
)
_WINDOW_S: Final = 10


class FeedLatency:
    """The stages of every prediction that the gateway reads."""

    def __init__(self) -> None:
        self.stages = StageLatencies(name for name, _, _ in _STAGES)
        self._history: deque[dict[str, NDArray[np.int64]]] = deque(maxlen=_WINDOW_S)
        self.tick()

    def record(self, rows: Records, gateway_ns: int) -> None:
        """Count ``PREDICTION[N]`` rows that came at ``gateway_ns``; a stamp of 0 is not known and not counted."""
        for name, start, end in _STAGES:
            began = rows[start]
            took: NDArray[np.int64] = (gateway_ns if end is None else rows[end]) - began
            self.stages.stages[name].record(took[began > 0])

    def tick(self) -> None:
        """Remember where we are; called once a second."""
        self._history.append({name: stage.counts.copy() for name, stage in self.stages.stages.items()})

    def recent_us(self) -> dict[str, dict[str, Any]]:
        """Return the percentiles of each stage over the last seconds, in microseconds."""
        then = self._history[0]
        recent = {}
        for name, stage in self.stages.stages.items():
            window = LatencyHistogram(stage.name, stage.documentation)
            window.counts = stage.counts - then[name]
            recent[name] = window.summary_us()
        return recent
