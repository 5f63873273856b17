"""The commands `tickloom models ...`. Concrete classes are imported where they are needed."""

import typer

from stream.judge_commands import judge_cli
from stream.registry_commands import registry_cli
from stream.search_commands import search_cli

models_cli = typer.Typer(
    name="models",
    help="Models: evaluate, search, benchmark, list, publish, promote, roll back.",
    no_args_is_help=True,
)
for commands in (judge_cli, search_cli, registry_cli):
    models_cli.add_typer(commands)  # without a name: their commands stand side by side
