"""How far the features of a worker have left the training span of the model that it serves, for Prometheus.

Features are not in Kafka. But a `STATE` row has the last of them: once a second the newest row of some symbols of a
lane is counted, beside the lane's work.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from agents.drift import FEATURES_KEY, Drift
from agents.inference import Predictor
from agents.lanes import Lanes
from models.compiled_predictor import CompiledPredictor
from models.predictor import OrtPredictor
from stream.records import Records

_EVERY_S: Final = 1.0
_MOST_SYMBOLS: Final = 64  # of a lane at a time: 0.6 ms with all features


class FeatureDrift:
    """Counts of the newest feature rows, in the bins of the training span."""

    def __init__(self, available: Sequence[str], registry: CollectorRegistry) -> None:
        """Register with ``registry``.

        Args:
            available: the features in a row, in their order.
            registry: of the worker's metrics.
        """
        registry.register(self)
        self._available = tuple(available)
        self._drift = Drift({}, ())
        self._model_id = 0
        self._next = 0

    @contextlib.asynccontextmanager
    async def watching(self, lanes: Lanes) -> AsyncIterator[None]:
        """Sample the lanes for as long as the context lasts."""
        task = asyncio.create_task(self._watch(lanes))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, lanes: Lanes) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for owned in list(lanes.owned.values()):
                windows = owned.lane.windows
                self.sample(owned.lane.predictor, windows.states[: windows.count])
                await asyncio.sleep(0)  # ticks have their turn

    def sample(self, predictor: Predictor, states: Records) -> None:
        """Count the newest feature row of some symbols, in turn.

        Args:
            predictor: the model in service; with another one the counts begin anew.
            states: ``STATE[S]`` of a lane, those in use.
        """
        if predictor.model_id != self._model_id:
            self._follow(predictor)
        if len(states) == 0 or not self._drift.names:
            return
        chosen = (self._next + np.arange(min(_MOST_SYMBOLS, len(states)))) % len(states)
        self._next = int(chosen[-1]) + 1
        chosen = chosen[states["seq"][chosen] > 0]
        if len(chosen):
            recent = states["recent"]
            newest = (states["seq"][chosen].astype(np.int64) - 1) % recent.shape[1]
            self._drift.add(recent[chosen, newest])

    def _follow(self, predictor: Predictor) -> None:
        self._model_id = predictor.model_id
        expected = {}
        if isinstance(predictor, CompiledPredictor | OrtPredictor):
            expected = predictor.card.training.get(FEATURES_KEY, {})
        self._drift = Drift(expected, self._available)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector. Two series for each feature of the model."""
        for name, told, values in (
            ("tickloom_feature_drift_psi", "PSI of a feature against the training span", self._drift.psi()),
            ("tickloom_feature_drift_ks", "KS distance of a feature against the training span", self._drift.ks()),
        ):
            family = GaugeMetricFamily(name, told, labels=["feature"])
            for feature, value in values.items():
                family.add_metric([feature], value)
            yield family
        yield GaugeMetricFamily("tickloom_feature_drift_rows", "Rows that the drift is told of", self._drift.rows)
