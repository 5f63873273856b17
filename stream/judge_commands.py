"""The command `tickloom models evaluate`. Concrete classes are imported where they are needed."""

import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.settings import Settings, load_settings

judge_cli = typer.Typer()

_FILE_COLUMNS: Final = 140

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Folds(StrEnum):
    """How `tickloom models evaluate` cuts a recording."""

    DAYS = "days"  # each day but the first is judged, by what learned from the days before it
    LAST = "last"  # only the last day is
    SHARES = "shares"  # the last fifth of the rows is


@judge_cli.command(epilog="Example: tickloom models evaluate ticks/fx --symbols EURUSD.oanda --out eurusd")
def evaluate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Parquet files of ticks, or directories of them.")],
    out: Annotated[Path, typer.Option(help="Directory of the card, and of what is done until it is.")],
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, with commas between.")] = None,
    folds: Annotated[
        Folds, typer.Option(help="Judge each day but the first, only the last day, or the last fifth of the rows.")
    ] = Folds.DAYS,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings of each fold, with a seed each.")] = 5,
    seed: Annotated[int | None, typer.Option(min=1, help="The first seed; 7.")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="File of training settings, as a search writes it; flags win.")
    ] = None,
    horizon_s: Annotated[float | None, typer.Option(help="How far ahead to predict; 10 if not given.")] = None,
    dead_band_bps: Annotated[float | None, typer.Option(help="A move smaller than this is flat; 1.")] = None,
    layers: Annotated[int | None, typer.Option(help="LSTM layers; 1.")] = None,
    units: Annotated[int | None, typer.Option(help="Units of a layer; 32.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at the most; 20.")] = None,
    take: Annotated[
        str | None, typer.Option(help="Features that the model takes, such as '-bar_*,-*_300s*': all but these.")
    ] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Train nothing: judge this model file; may be given several times.")
    ] = None,
    fee_bps: Annotated[float, typer.Option(min=0.0, help="Fee of each order, beside the half-spread.")] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Judge a model beside all baselines, over days and seeds, and write its model card.

    It is trained anew for each day and seed, unless model files are given.

    A second run with the same flags goes on where the first one was stopped.
    """
    from rich.console import Console

    from models.evaluate import Plan, evaluate_recording
    from models.model_card_table import tables
    from stream.sources.replay import Replay

    # What a training says of itself is in the lines of progress.
    logging.getLogger("models").setLevel(logging.WARNING)
    chosen: dict[str, Any] = {"horizon_s": horizon_s, "dead_band_bps": dead_band_bps}
    chosen |= {"layers": layers, "units": units, "epochs": epochs, "seed": seed, "take": take}
    engine = _settings(context)
    settings = _train_settings(engine, settings_file, chosen, model or [])
    ticks = Replay(files, symbols=symbols.split(",") if symbols else None).days()
    plan = Plan(settings, folds.value, seeds, tuple(model or ()), fee_bps, engine.cost_bps)
    card = evaluate_recording(ticks, plan, out, Console(stderr=True))
    if as_json:
        typer.echo(json.dumps(card))
        return
    # A pipe or a file has room for whole tables.
    console = Console() if sys.stdout.isatty() else Console(width=_FILE_COLUMNS)
    for table in tables(card):
        console.print(table)
    for each in card["verdicts"]:
        console.print(each["words"], style="yellow", highlight=False)
    console.print(f"model card: {out / 'card.html'}")


def _settings(context: typer.Context) -> Settings:
    flags = context.find_root().params
    settings = load_settings({"log_level": flags["log_level"]}, config=flags["config"]).settings
    set_up_logging(settings.log_level)
    return settings


def _train_settings(settings: Settings, file: Path | None, chosen: dict[str, Any], models: list[Path]) -> Any:
    """Return settings of training; where models are there already, what is predicted is what they predict."""
    from agents.periods import Periods
    from models.contenders import task_of
    from stream.training import training_settings

    if models:
        given = [name for name, value in {"settings": file, **chosen}.items() if value is not None]
        if given:
            raise SettingsError(f"{', '.join(given)} with --model, which trains nothing; right would be either")
        task = task_of(models, Periods.of(settings))
        chosen = {"horizon_s": task.horizon_ns / NS_PER_S, "dead_band_bps": task.dead_band_bps}
    return training_settings(settings, file, **chosen)
