"""The commands `tickloom models search` and `benchmark`. Concrete classes are imported where they are needed."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.settings import Settings, load_settings

search_cli = typer.Typer()
benchmark_cli = typer.Typer(name="benchmark", help="Public benchmarks.", no_args_is_help=True)
search_cli.add_typer(benchmark_cli)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _settings(context: typer.Context) -> Settings:
    flags = context.find_root().params
    settings = load_settings({"log_level": flags.get("log_level")}, config=flags.get("config")).settings
    set_up_logging(settings.log_level)
    return settings


@search_cli.command(epilog="Example: tickloom models search ticks/us_equity --horizons 10,60 --out searched")
def search(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Parquet files of ticks, or directories of them.")],
    out: Annotated[Path, typer.Option(help="The search's directory; one that has begun is gone on with.")],
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only this day.")] = None,
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, with commas between.")] = None,
    horizons_s: Annotated[
        str, typer.Option("--horizons", help="How far ahead to predict, in seconds: those to choose from.")
    ] = "10",
    trials: Annotated[int, typer.Option(min=1, help="Stop after so many trials, earlier runs included.")] = 50,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop this run after so many minutes.")] = None,
    folds: Annotated[int, typer.Option(min=1, help="Spans to judge a trial by, walking forward.")] = 3,
    seed: Annotated[int | None, typer.Option(min=1, help="Seed of the search and of its trainings.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a training at the most.")] = None,
    dead_band_bps: Annotated[float | None, typer.Option(help="A move smaller than this is flat.")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="File of training settings: what is not searched.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Search architecture, features, horizon and rates; write the best for `tickloom train --settings`."""
    from stream.training import search_models

    found = search_models(
        _settings(context),
        files,
        out,
        day=day.date() if day is not None else None,
        symbols=symbols.split(",") if symbols is not None else None,
        horizons_s=_seconds(horizons_s),
        trials=trials,
        seconds=60.0 * minutes if minutes is not None else None,
        folds=folds,
        file=settings_file,
        seed=seed,
        epochs=epochs,
        dead_band_bps=dead_band_bps,
    )
    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
        return
    from rich.console import Console

    Console().print(found.table())
    typer.echo(f"train with the best: tickloom train --settings {found.path} --replay ... --out model.onnx")


def _seconds(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0.0:
        raise SettingsError(f"--horizons {text!r}; right would be seconds with commas between, as in 1,10,60")
    return found


@benchmark_cli.command(epilog="Example: tickloom models benchmark stocknet daily_stocknet88.parquet")
def stocknet(
    bars: Annotated[Path, typer.Argument(help="Parquet of daily bars: a row for each stock and day.")],
    seeds: Annotated[
        int | None,
        typer.Option(min=2, help="Trainings with a seed each. [default: 10, or 3 of each candidate]"),
    ] = None,
    candidates: Annotated[
        bool,
        typer.Option(
            "--candidates",
            help="Show what the settings were chosen by: each candidate on spans before the test span.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train on daily movements of 88 stocks, judge on the last quarter of 2015, beside published figures."""
    from rich.console import Console

    from models.stocknet import read_days
    from models.stocknet_benchmark import benchmark, compare, comparison_table

    console = Console()
    progress = Console(stderr=True)
    days = read_days(bars)
    if candidates:
        found = compare(days, seeds or 3, console=progress)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            console.print(comparison_table(found))
        return
    outcome = benchmark(days, seeds=seeds or 10, console=progress)
    if as_json:
        typer.echo(json.dumps(outcome.as_json()))
    else:
        console.print(outcome.table())
