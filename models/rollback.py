"""Takes a model out of service when it is worse than what it replaced, or than no model at all.

It follows the topic ``models``. After a promotion it lets the champion before run in shadow, so that the two can be
compared on the same ticks. When a trial says that the one in service is worse it promotes the one before, urgently;
where there is none, or that one was itself taken out of service, the fallback of class frequencies
(`models/fallback_model.py`). Two guards do no harm: the registry lets only one of them change what it has seen.

A trial of one model in one partition is wrong with a probability of at most alpha / (trials * partitions), so that
a model which is never worse is taken out of service in its whole life with a probability of at most alpha.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models import fallback_model
from models.artifact import manifest_path
from models.promotion import ModelsTopic, Promotion, challenge, promote, retire
from models.registry import Registry, Version
from models.watch import PREVIOUS, PartitionWatch, Service
from stream.clock import Clock, wall_ns
from stream.errors import ModelError, RegistryError

logger = logging.getLogger(__name__)

NAME: Final = "tickloom outcomes"  # how it signs


@dataclass(frozen=True)
class Terms:
    """What must be known of a model to tell what came of its predictions."""

    model_id: int
    name: str
    horizon_ns: int
    dead_band_bps: float

    @classmethod
    def of_manifest(cls, manifest: dict[str, Any]) -> "Terms":
        """Return the terms in a model's manifest.

        Raises:
            ModelError: they are not there.
        """
        try:
            return cls(
                int(manifest["model_id"], 16),
                str(manifest["name"]),
                int(manifest["horizon_ns"]),
                float(manifest["dead_band_bps"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"a manifest without id, name, horizon and dead band: {error!r}") from None


@dataclass(frozen=True)
class Trip:
    """A trial that found the model in service worse."""

    service: Service
    other: str  # `models.watch.FALLBACK` or `PREVIOUS`
    partition: int
    e_value: float
    windows: int

    def __str__(self) -> str:
        than = "the fallback" if self.other != PREVIOUS else f"the model before, {self.service.previous_id:016x}"
        return (
            f"model {self.service.model_id:016x} loses more than {than}: e-value {self.e_value:.3g} after "
            f"{self.windows} windows in partition {self.partition}"
        )


class Guard:
    """Knows which model is in service, and changes it when it must."""

    def __init__(
        self,
        registry: Registry,
        bootstrap: str,
        base: Path,
        available: tuple[str, ...],
        partitions: int,
        false_alarms: float,
        clock: Clock = wall_ns,
    ) -> None:
        """Make it; it does nothing by itself.

        Args:
            registry: of the models.
            bootstrap: brokers.
            base: the model that workers serve while none was promoted.
            available: the features that the engine computes.
            partitions: of the predictions.
            false_alarms: the probability that a model which is never worse is taken out of service.
            clock: of now.
        """
        self.said = ModelsTopic()
        self.terms: dict[int, Terms] = {}
        self.bad: set[str] = set()  # versions that were taken out of service, and that nobody promoted since
        self.available = available
        self._registry, self._bootstrap, self._base = registry, bootstrap, base
        self._partitions, self._false_alarms, self._clock = partitions, false_alarms, clock
        self._base_terms: Terms | None = None

    async def learn(self) -> None:
        """Read the manifests of models that are not known yet, and what was taken out of service.

        Raises:
            ModelError: the model of the settings has no manifest.
            RegistryError: the registry cannot be read.
        """
        await asyncio.to_thread(self._learn)

    def _learn(self) -> None:
        if self._base_terms is None:
            try:
                manifest = json.loads(manifest_path(self._base).read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise ModelError(f"cannot read the manifest of {self._base}: {error}") from None
            self._base_terms = Terms.of_manifest(manifest)
            self.terms[self._base_terms.model_id] = self._base_terms
        for version in self._registry.versions():
            if Version.parse(version).model_id not in self.terms:
                terms = Terms.of_manifest(self._registry.manifest(version))
                self.terms[terms.model_id] = terms
        self.bad = set()
        champion: str | None = None
        for change in self._registry.history():
            if change.champion != champion:
                self.bad.discard(change.champion or "")
                if change.by == NAME and champion is not None:
                    self.bad.add(champion)
                champion = change.champion

    def service(self) -> Service | None:
        """Return the model in service; None where its terms are not known: `learn`."""
        champion = self.said.champion
        if champion is None:
            terms = self._base_terms
            return None if terms is None else Service(terms.model_id, terms.horizon_ns)
        known = self.terms.get(champion.model_id)
        if known is None:
            return None
        previous = self._previous(champion)
        before = None if previous is None else self.terms.get(Version.parse(previous).model_id)
        if before is None:
            return Service(known.model_id, known.horizon_ns, champion.generation)
        return Service(known.model_id, known.horizon_ns, champion.generation, before.model_id, before.horizon_ns)

    def _previous(self, champion: Promotion) -> str | None:
        previous = champion.previous
        return None if previous in (None, champion.version) or previous in self.bad else previous

    def trip(self, watches: Iterable[PartitionWatch]) -> Trip | None:
        """Return the trial that found the model in service worse, the surest one if there are more."""
        service = self.service()
        found = [
            Trip(service, other, watch.partition, trial.e_value, trial.windows)
            for watch in watches
            if service is not None and watch.service == service
            for other, trial in watch.trials.items()
            if trial.e_value >= self.threshold(len(watch.trials))
        ]
        return max(found, key=lambda trip: trip.e_value, default=None)

    def threshold(self, trials: int) -> float:
        """Return the e-value at which a model goes, with so many trials in each partition."""
        return trials * self._partitions / self._false_alarms

    async def keep_previous_in_shadow(self) -> None:
        """Let the champion before run in shadow, and no other one that we let run.

        Raises:
            RegistryError, ServerError: as `models.promotion.challenge`.
        """
        champion = self.said.champion
        if champion is None:
            return
        previous = self._previous(champion)
        for running in list(self.said.challengers.values()):
            if running.by == NAME and running.version not in (previous, champion.version):
                await retire(self._registry, self._bootstrap, running.version, reason="not the one before", by=NAME)
        if previous is not None and all(each.version != previous for each in self.said.challengers.values()):
            reason = f"was in service before {champion.version}: to be compared with it"
            await challenge(self._registry, self._bootstrap, previous, reason=reason, by=NAME, clock=self._clock)

    async def go_back(self, trip: Trip, shares: NDArray[np.float64], clock_ns: int) -> Promotion:
        """Take the model out of service.

        Args:
            trip: why.
            shares: of down, flat and up of late, for the fallback: ``float64[3]``.
            clock_ns: the market's time.

        Raises:
            RegistryError: somebody changed the champion meanwhile, or the fallback itself is in service.
            ModelError: the model before must not serve, nor can the fallback.
            ServerError: no broker answers.
        """
        champion = self.said.champion
        previous = None if champion is None else self._previous(champion)
        if previous is not None:
            try:
                return await self._promote(previous, trip)
            except ModelError as error:
                logger.error("%s cannot serve again, the fallback takes over: %s", previous, error)
        terms = self.terms[trip.service.model_id]
        if terms.name == fallback_model.NAME:
            raise RegistryError(f"{trip}, and it is the fallback: promote another model")
        return await self._promote(await asyncio.to_thread(self._publish, terms, shares, clock_ns), trip)

    async def _promote(self, version: str, trip: Trip) -> Promotion:
        champion = self.said.champion
        return await promote(
            self._registry,
            self._bootstrap,
            version,
            reason=str(trip),
            by=NAME,
            base=self._base,
            available=self.available,
            expected=None if champion is None else champion.version,
            urgent=True,
            clock=self._clock,
        )

    def _publish(self, terms: Terms, shares: NDArray[np.float64], clock_ns: int) -> str:
        with tempfile.TemporaryDirectory(prefix="tickloom-fallback-") as folder:
            path = Path(folder) / "model.onnx"
            fallback_model.write_fallback(
                path,
                shares,
                feature=self.available[0],
                horizon_ns=terms.horizon_ns,
                dead_band_bps=terms.dead_band_bps,
                seen_from_ns=0,
                seen_to_ns=clock_ns,
            )
            return self._registry.publish(path, by=NAME, available=self.available, clock=self._clock)
