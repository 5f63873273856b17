"""What a worker needs to have models retrained each night. Part of the composition root."""

import sys
from typing import TYPE_CHECKING

from stream.settings import Settings, to_environment
from stream.telemetry import Health
from stream.topics import broker

if TYPE_CHECKING:
    from agents.model_metrics import ModelMetrics
    from models.night_watch import NightWatch
    from models.registry import Registry
    from models.service import ModelService
    from stream.app import TickloomApp


def worker_registry(settings: Settings) -> "Registry":
    """Return the registry of models as a worker reads it."""
    from models.registry import Registry

    return Registry(settings.registry_url, settings.data_dir / "workers" / settings.worker_name / "models")


def night_watch(
    settings: Settings, app: "TickloomApp", models: "ModelService", health: Health, metrics: "ModelMetrics"
) -> "NightWatch":
    """Return a worker's part in retraining each night, on the clock where the settings name a time.

    Args:
        settings: of the worker, which the retraining gets as well.
        app: not started yet.
        models: what the topic ``models`` says.
        health: of the worker.
        metrics: likewise.
    """
    from models.night_watch import Job, NightWatch
    from stream.app import at_times

    def command(night: str) -> list[str]:
        return [sys.executable, "-m", "stream", "retrain", "--now", "--run", night]

    job = Job(command, to_environment(settings), settings.data_dir / "retrain")
    worker, store = settings.worker_name, worker_registry(settings)
    nights = NightWatch(job, lambda: models.said.nights, store, broker(settings), worker, health, metrics)
    if settings.retrain_at is not None:
        at_times(app, settings.retrain_at, nights.due)
    return nights
