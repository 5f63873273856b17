"""The commands `tickloom models ...`. Concrete classes are imported where they are needed."""

import json
from pathlib import Path
from typing import Annotated

import typer

models_cli = typer.Typer(name="models", help="Models: search, benchmark.", no_args_is_help=True)
benchmark_cli = typer.Typer(name="benchmark", help="Public benchmarks.", no_args_is_help=True)
models_cli.add_typer(benchmark_cli)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@benchmark_cli.command(epilog="Example: tickloom models benchmark stocknet daily_stocknet88.parquet --seeds 5")
def stocknet(
    bars: Annotated[Path, typer.Argument(help="Parquet of daily bars: a row for each stock and day.")],
    seeds: Annotated[int, typer.Option(min=2, help="How many trainings, with a seed each.")] = 5,
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
        found = compare(days, seeds, progress)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            console.print(comparison_table(found))
        return
    outcome = benchmark(days, seeds=seeds, console=progress)
    if as_json:
        typer.echo(json.dumps(outcome.as_json()))
    else:
        console.print(outcome.table())
