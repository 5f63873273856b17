"""What is done about models: what is told when one comes into service, drifts, or has to go; and that it goes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np

from agents.drift import ANSWERS, ANSWERS_KEY, Drift
from exporters.outcome_board import OutcomeBoard
from models.artifact import load
from models.registry import Registry
from models.rollback import Guard
from models.watch import Service
from stream.clock import Clock
from stream.errors import ModelError, RegistryError, ServerError
from stream.records import MODEL_EVENT, ModelEventKind, Records
from stream.settings import Settings
from stream.telemetry import Health
from stream.topics import MODEL_EVENTS

logger = logging.getLogger(__name__)

MUCH_DRIFT: Final = 0.25
_ACT_AGAIN_S: Final = 5.0  # after a rollback that failed
_SAMPLED_ROWS: Final = 64  # of the predictions that come together

Send = Callable[[str, int, Records], Awaitable[None]]


class OutcomeAlarm:
    """Looks at the model in service, and acts."""

    def __init__(
        self,
        settings: Settings,
        guard: Guard,
        registry: Registry,
        board: OutcomeBoard,
        health: Health,
        clock: Clock,
        send: Send,
    ) -> None:
        """Make it.

        Args:
            settings: ``rollback`` says whether it acts or only tells.
            guard: knows the models, and changes them.
            registry: where the models are.
            board: shows what is known.
            health: told when a model should go and cannot.
            clock: ns since 1970 UTC.
            send: sends records to a topic and partition.
        """
        self._settings, self._guard, self._registry, self._board = settings, guard, registry, board
        self._health, self._clock, self._send = health, clock, send
        self._served: Service | None = None
        self._tripped: Service | None = None
        self._act_after_s = 0.0
        self._drifted: set[str] = set()

    async def on_service(self, service: Service, *, is_new: bool) -> None:
        """Learn what the answers of the model in service were in training.

        Args:
            service: which it is.
            is_new: tell that it came into service; else we have only just started.

        Raises:
            ModelError, RegistryError: its file cannot be read.
        """
        if service == self._served:
            return
        self._served = service
        self._health.recover("rollback")
        self._board.answers, self._drifted = await asyncio.to_thread(self._answers, service), set()
        if not is_new:
            return
        promotion = self._guard.said.champion
        why = "the model of the settings" if promotion is None else f"{promotion.by}: {promotion.reason}"
        await self._event(ModelEventKind.SERVED, service.model_id, service.previous_id or 0, 0.0, why)

    def _answers(self, service: Service) -> Drift | None:
        champion = self._guard.said.champion
        path = self._settings.model if champion is None else self._registry.fetch(champion.version)
        expected = load(path, self._guard.available).card.training.get(ANSWERS_KEY)
        return None if expected is None else Drift(expected, ANSWERS)

    def look_at_answers(self, rows: Records) -> None:
        """Sample ``PREDICTION[N]`` for the drift of answers."""
        drift, service = self._board.answers, self._served
        if drift is not None and service is not None:
            ours = rows[rows["model_id"] == service.model_id][:: max(1, len(rows) // _SAMPLED_ROWS)]
            drift.add(np.stack([ours[name] for name in ANSWERS], axis=1))

    async def act(self) -> None:
        """Take the model in service out of it, if a trial says so."""
        trip = self._guard.trip(self._board.watches.values())
        if trip is None or time.monotonic() < self._act_after_s:
            return
        service, known = trip.service, self._board.since_promotion()
        other = 0 if service.previous_id is None else service.previous_id
        if self._tripped != service:
            self._tripped = service
            logger.error("%s, %d outcomes since it was promoted", trip, known)
            await self._event(ModelEventKind.TRIPPED, service.model_id, other, trip.e_value, str(trip))
        if not self._settings.rollback:
            self._health.fail("rollback", f"{trip}, and the setting rollback is off: promote another one")
            return
        self._act_after_s = time.monotonic() + _ACT_AGAIN_S
        try:
            shares = np.mean([watch.served.frequencies() for watch in self._board.watches.values()], axis=0)
            clock_ns = max(watch.served.clock_ns for watch in self._board.watches.values())
            promotion = await self._guard.go_back(trip, shares, clock_ns)
        except (ModelError, RegistryError, ServerError) as error:
            self._board.failed_rollbacks += 1
            self._health.fail("rollback", f"{trip}, and it stays in service: {error}")
            await self._event(ModelEventKind.ROLLBACK_FAILED, service.model_id, other, trip.e_value, str(error))
            return
        self._board.rollbacks += 1
        self._health.recover("rollback")
        logger.error("%s is in service again: %s", promotion.version, trip)
        text = f"{promotion.version}: {trip}"
        await self._event(ModelEventKind.ROLLED_BACK, service.model_id, promotion.model_id, trip.e_value, text)

    async def _event(self, kind: ModelEventKind, model: int, other: int, value: float, text: str) -> None:
        event = np.zeros(1, MODEL_EVENT)
        event["at_ns"], event["kind"], event["model_id"], event["other_id"] = self._clock(), kind, model, other
        event["event_ns"] = max(
            (max(0, watch.served.clock_ns) for watch in self._board.watches.values()), default=0
        )
        event["value"], event["predictions"] = min(value, 1e300), self._board.since_promotion()
        event["detail"] = text.encode("ascii", "replace")[: MODEL_EVENT["detail"].itemsize]
        await self._send(MODEL_EVENTS, 0, event)

    async def tell_drift(self) -> None:
        """Tell of each answer, once, that it has left the training span."""
        drift, service = self._board.answers, self._served
        psi = {} if drift is None else drift.psi()
        for name, value in psi.items():
            if value > MUCH_DRIFT and service is not None and name not in self._drifted:
                self._drifted.add(name)
                text = f"{name} has left the training span: PSI {value:.3g}"
                await self._event(ModelEventKind.DRIFTED, service.model_id, 0, value, text)
