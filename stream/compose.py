"""The composition root's processes: each function wires the concrete parts of one role and runs it until ``stop``.

Together with `stream/__main__.py` and `stream/demo/` this is the only place that knows every concrete class;
nothing imports it. Imports stand inside the functions: an exporter must not wait two seconds for the worker's
compiler, nor a worker for the exporters' clients.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from stream.clock import NS_PER_S
from stream.days import day_of
from stream.errors import InvariantError, SettingsError
from stream.garbage import freeze_garbage
from stream.nights import night_watch, worker_registry
from stream.settings import Settings
from stream.telemetry import Health, TelemetryServer
from stream.topics import await_topics, broker

_SWITCH_INTERVAL_S = 0.0005


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Run the lanes of one worker until ``stop`` is set; then checkpoint, commit and leave the group.

    Raises:
        SettingsError: ``symbols`` names none, or what is none.
        ModelError: the model must not serve.
        TickloomError: whatever stopped the lanes.
    """
    from agents import features
    from agents.feature_tap import get_ready
    from agents.lane import Lane, compile_kernels
    from agents.lanes import Lanes
    from agents.metrics import LaneMetrics
    from agents.periods import Periods
    from agents.state_view import StateView
    from models.feature_drift import FeatureDrift
    from models.predictor import load_predictor
    from models.service import ModelService
    from stream.app import create_app, tell_address
    from stream.symbols import read_symbols

    symbols = read_symbols(settings.symbols)
    periods = Periods.of(settings)
    available = features.names(periods)
    predictor = load_predictor(settings.model, settings.predictor, available=available)
    health = Health(f"worker {settings.worker_name}")
    registry = CollectorRegistry()
    metrics = LaneMetrics(registry)

    def new_lane(partition: int) -> Lane:
        return Lane(partition, _new_windows(settings, partition, symbols, periods, metrics.outcomes), predictor)

    app = create_app(settings)
    models = ModelService(
        broker(settings),
        worker_registry(settings),
        predictor,
        settings.predictor,
        available,
        settings.worker_name,
        health,
        metrics.models,
    )
    early = _early(settings, registry)
    lanes = Lanes(
        app,
        settings.partitions,
        new_lane,
        settings.checkpoint_s,
        health,
        metrics,
        models,
        settings.worker_name,
        settings.features_every_ms,
        early,
    )
    models.attach(lanes)

    nights = night_watch(settings, app, models, health, metrics.models)

    def figures() -> dict[str, Any]:
        return {
            "partitions": sorted(lanes.owned),
            "symbols": sum(owned.lane.windows.count for owned in lanes.owned.values()),
            "ticks": metrics.ticks(),
            "blocks": dict(metrics.blocks),
            "predictions": metrics.predictions,
            "model": ", ".join(sorted(set(models.figures()["serving"].values()))) or f"{predictor.model_id:016x}",
            **models.figures(),
            **nights.figures(),
            "stages_us": metrics.stages.summary_us(),
        }

    # Not a failure to log, but not ready either.
    health.problems["lanes"] = "starting: the kernels are compiled, then the group is joined"
    routes = {"/state/{symbol}": StateView(app, lanes, settings.partitions, periods).answer}
    async with TelemetryServer(health, registry, figures, settings.host, settings.worker_port, routes) as server:
        tell_address(app, settings.host, server.port)
        if not await await_topics(settings, health, stop):
            return
        if settings.features_every_ms is not None:
            await get_ready(broker(settings), periods)
        await asyncio.to_thread(compile_kernels, predictor)
        async with models, FeatureDrift(available, registry).watching(lanes), nights, early:
            await app.start()
            del health.problems["lanes"]
            freeze_garbage()
            # A thread that loads a model must not keep the lanes waiting for the interpreter for 5 ms at a time.
            sys.setswitchinterval(_SWITCH_INTERVAL_S)
            try:
                await app.wait_for_stopped(stop)
            finally:
                await app.stop()
    if lanes.failure is not None:
        raise lanes.failure
    if not stop.is_set():
        raise InvariantError(f"Faust stopped by itself: {app.crash_reason!r}") from app.crash_reason


def _early(settings: Settings, registry: CollectorRegistry) -> Any:
    from stream.addresses import parse_addresses
    from stream.early import EarlySender

    addresses = [] if settings.early_to is None else parse_addresses(settings.early_to)
    early = EarlySender(addresses, settings.early_key, broker(settings))
    registry.register(early)
    return early


def _new_windows(settings: Settings, partition: int, symbols: Any, periods: Any, outcomes: Any) -> Any:
    from agents.windows import Windows

    return Windows(
        int(settings.lateness_s * NS_PER_S),
        int(settings.future_s * NS_PER_S),
        outcomes=outcomes,
        outlier_bps=settings.outlier_bps,
        outlier_scale=settings.outlier_scale,
        partition=partition,
        partitions=settings.partitions,
        symbols=symbols,
        periods=periods,
    )


async def run_simulator(
    settings: Settings, stop: asyncio.Event, symbols: int, rate_per_s: float, seed: int
) -> None:
    """Send a simulated market to Kafka in real time until ``stop`` is set."""
    from stream.sources.simulating import run_simulator

    if not await await_topics(settings, Health("simulator"), stop):
        return
    await run_simulator(
        settings,
        broker(settings),
        stop,
        symbols=symbols,
        seed=seed,
        rate_per_s=rate_per_s,
        port=settings.source_port,
    )


async def run_replay(
    settings: Settings, stop: asyncio.Event, paths: list[Path], day: str | None, speed: str, run: str
) -> None:
    """Send historical ticks to Kafka until they are all sent or ``stop`` is set.

    Raises:
        SettingsError: the day or the speed is not one.
        SourceError: the files cannot be replayed.
    """
    from stream.sources.replay import Replay
    from stream.sources.replaying import MAX_SPEED, run_replay

    try:
        factor = MAX_SPEED if speed == "max" else float(speed)
    except ValueError:
        raise SettingsError(f"the speed {speed!r}; right would be a number such as 1 or 10, or max") from None
    replay = Replay(paths, day_of(day), run=run)
    if not await await_topics(settings, Health("replay"), stop):
        return
    await run_replay(settings, broker(settings), replay, stop, speed=factor, port=settings.source_port)


def write_features(settings: Settings, paths: list[Path], day: str | None, out: Path) -> dict[str, int]:
    """Compute the features of historical ticks, without Kafka, into a Parquet file; return the ticks by outcome.

    Raises:
        SettingsError: the day or a period is not one.
        SourceError: the files cannot be read.
        SinkUnavailable: the file cannot be written.
    """
    from rich.console import Console
    from rich.progress import Progress

    from agents.history import ANY_FUTURE_NS, write_features
    from agents.periods import Periods
    from agents.windows import Windows
    from stream.sources.replay import Replay

    replay = Replay(paths, day_of(day))
    windows = Windows(
        int(settings.lateness_s * NS_PER_S),
        ANY_FUTURE_NS,
        periods=Periods.of(settings),
        outlier_bps=settings.outlier_bps,
        outlier_scale=settings.outlier_scale,
    )
    made_with = ("lateness_s", "outlier_bps", "outlier_scale")
    origin = {"paths": [str(path) for path in paths], "day": day}
    origin |= {name: getattr(settings, name) for name in made_with}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("ticks", total=replay.total)
        return write_features(replay.days(), windows, out, origin, lambda done: progress.advance(task, done))


async def run_exchange(
    settings: Settings, stop: asyncio.Event, venue: str, symbols: list[str], url: str | None
) -> None:
    """Send live ticks of an exchange, or of what answers at ``url`` like it, to Kafka until ``stop`` is set.

    Raises:
        SettingsError: no symbols.
    """
    if not symbols:
        raise SettingsError(f"which symbols of {venue}? Give --symbols, with commas between")
    from stream.sources import exchange

    if not await await_topics(settings, Health(venue), stop):
        return
    await exchange.run_exchange(settings, stop, venue, symbols, url)


async def run_exporter(settings: Settings, stop: asyncio.Event, sink: str) -> None:
    """Write predictions to a sink until ``stop`` is set; then drain and commit."""
    from exporters import redis_sink
    from exporters.clickhouse.export import run_clickhouse

    await {"redis": redis_sink.run_redis, "clickhouse": run_clickhouse}[sink](settings, stop)


async def run_outcomes(settings: Settings, stop: asyncio.Event) -> None:
    """Tell what came of predictions, and go back to the model before when it must be, until ``stop`` is set.

    Raises:
        SettingsError: ``kafka`` is not set, or a period is not one.
    """
    from agents import features
    from agents.periods import Periods
    from exporters.intake import Intake
    from exporters.metrics import IntakeMetrics
    from exporters.outcome_board import OutcomeBoard
    from exporters.outcome_stream import OutcomeStream
    from models.registry import Registry
    from models.rollback import Guard
    from stream.clock import wall_ns

    health, metrics = Health("outcomes", {"outcomes": "starting"}), CollectorRegistry()
    models = Registry(settings.registry_url, settings.data_dir / "outcomes" / "models")
    available = features.names(Periods.of(settings))
    fixed = (settings.model, available, settings.partitions, settings.rollback_false_alarms)
    guard = Guard(models, broker(settings), *fixed)
    read = IntakeMetrics(CollectorRegistry())  # it only counts what is bad here, and the board shows that
    board = OutcomeBoard(metrics, guard, read, wall_ns)
    stream = OutcomeStream(settings, guard, models, board, Intake(read), health, wall_ns)
    async with TelemetryServer(health, metrics, board.figures, settings.host, settings.exporter_port):
        if await await_topics(settings, health, stop):
            await stream.run(stop)


async def run_gateway(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the feed and the page until ``stop`` is set; then tell the clients and close."""
    from exporters import gateway

    await gateway.run_gateway(settings, stop)
