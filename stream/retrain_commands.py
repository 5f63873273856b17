"""The command `tickloom retrain`. Concrete classes are imported where they are needed."""

import json
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.settings import Settings, load_settings
from stream.topics import TICKS

if TYPE_CHECKING:
    from models.registry import Registry
    from models.train import TrainSettings
    from stream.records import Records

retrain_cli = typer.Typer()

_ONE_THREAD: Final = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
_NICEST: Final = 19


@retrain_cli.command(epilog="Example: tickloom retrain --now --kafka localhost:9092")
def retrain(
    context: typer.Context,
    now: Annotated[bool, typer.Option("--now", help="Do it; else only show the runs that there were.")] = False,
    run: Annotated[
        str | None, typer.Option(help="Name of the run, to go on with one; a new one or the last unfinished.")
    ] = None,
    ticks: Annotated[
        list[Path] | None,
        typer.Option(help="Parquet files of ticks, or directories of them; else Kafka's last days."),
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="Of --ticks only these, with commas between.")] = None,
    days: Annotated[float | None, typer.Option(help="How many of Kafka's last days.")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="Training settings, as a search writes them.")
    ] = None,
    shadow_s: Annotated[float | None, typer.Option(help="How long it runs in shadow.")] = None,
    promote: Annotated[bool, typer.Option("--promote/--no-promote", help="Let workers serve what passes.")] = True,
    registry: Annotated[str | None, typer.Option(help="Directory or URL of the registry.")] = None,
    kafka: Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where runs are kept, in retrain/RUN.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train a model on the last days, judge it beside the one in service, and promote it where it is better.

    With the lowest priority and on one core. Killed and started again it goes on where it was. That a model is not
    better is no error: exit code 0, and the reasons.
    """
    flags: dict[str, Any] = {"registry": registry, "kafka": kafka, "data_dir": data_dir}
    flags |= {"retrain_days": days, "retrain_settings": settings_file, "retrain_shadow_s": shadow_s}
    common = context.find_root().params
    settings = load_settings({**flags, "log_level": common["log_level"]}, config=common["config"]).settings
    set_up_logging(settings.log_level)
    if not now:
        _show(settings, as_json)
        return
    _yield_to_others()
    end = _go(settings, run, ticks or [], symbols.split(",") if symbols else None, promote, as_json)
    if as_json:
        typer.echo(json.dumps(end))


def _yield_to_others() -> None:
    """Compute only when nobody else wants to, on one core: lanes beside must not feel it."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"  # before the libraries that read it are imported
    os.nice(_NICEST)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _go(
    settings: Settings, run: str | None, ticks: list[Path], symbols: list[str] | None, promote: bool, quiet: bool
) -> dict[str, Any]:
    from rich.console import Console

    from models.gate import Rules
    from models.registry import Registry
    from models.retrain import Retraining, Run
    from stream.embedded.lock import FileLock

    store = Registry(settings.registry_url, settings.data_dir / "models")
    if settings.kafka is None and not ticks:
        raise SettingsError("on which ticks? Give --kafka HOST:PORT, or --ticks PATH")
    folder = settings.data_dir / "retrain" / (_next_run(settings) if run is None else run)
    if folder.parent != settings.data_dir / "retrain":
        raise SettingsError(f"the run {run!r}; right would be a name such as 2026-11-25")
    lock = FileLock(folder / "lock")
    lock.acquire(0.0, f"the run {folder}")
    wanted = Retraining(
        settings=_training(settings, store),
        collect=lambda from_ns, to_ns: _collect(settings, ticks, symbols, from_ns, to_ns),
        collected_from=", ".join(map(str, [*ticks, *(symbols or ())])) or f"Kafka's {TICKS}",
        days=settings.retrain_days,
        rules=Rules(settings.retrain_level, settings.retrain_calibration_error),
        shadow_s=settings.retrain_shadow_s,
        promote=promote,
        bootstrap=settings.kafka,
    )
    try:
        return Run(folder, wanted, store, settings.model, Console(stderr=quiet)).go()
    finally:
        lock.release()


def _training(settings: Settings, store: "Registry") -> "TrainSettings":
    """Return the settings of the training: what the model in service predicts, unless a file says what."""
    from agents import features
    from agents.periods import Periods
    from models.artifact import load
    from stream.clock import NS_PER_S
    from stream.training import training_settings

    if settings.retrain_settings is not None:
        return training_settings(settings, settings.retrain_settings)
    champion = store.aliases().champion
    path = settings.model if champion is None else store.fetch(champion)
    card = load(path, features.names(Periods.of(settings))).card
    return training_settings(
        settings, None, name=card.name, horizon_s=card.horizon_ns / NS_PER_S, dead_band_bps=card.dead_band_bps
    )


def _collect(
    settings: Settings, files: list[Path], symbols: list[str] | None, from_ns: int, to_ns: int
) -> "Iterable[Records]":
    from models.kafka_history import kafka_ticks
    from stream.sources.replay import Replay
    from stream.topics import broker

    if files:
        return Replay(files, symbols=symbols).days()
    return kafka_ticks(broker(settings), TICKS, from_ns, to_ns, lambda done, total: None)


def _next_run(settings: Settings) -> str:
    """Return the name of today's last run by hand where that is unfinished, or else of the next one."""
    from models.journal import read_journal
    from models.retrain import END

    today, number = datetime.now(UTC).date().isoformat(), 1
    while END in read_journal(settings.data_dir / "retrain" / f"{today}-by-hand-{number}")["steps"]:
        number += 1
    return f"{today}-by-hand-{number}"


def _show(settings: Settings, as_json: bool) -> None:
    from models.journal import JOURNAL, read_journal

    rows = []
    for journal in sorted((settings.data_dir / "retrain").glob(f"*/{JOURNAL}")):
        steps = read_journal(journal.parent)["steps"]
        end = steps.get("end", {})
        rows.append(
            {
                "run": journal.parent.name,
                "last step": next(reversed(steps), ""),
                "model": steps.get("train", {}).get("model_id", ""),
                "outcome": end.get("outcome", "not finished"),
                "reason": end.get("reason", ""),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console

    from stream.inspection import table

    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table(f"Retrainings in {settings.data_dir / 'retrain'}", rows))
