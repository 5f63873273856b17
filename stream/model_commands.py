"""The commands `tickloom models ...`. Concrete classes are imported where they are needed."""

import typer

from stream.evaluation_commands import evaluation_cli
from stream.registry_commands import registry_cli

models_cli = typer.Typer(name="models", help="Models: evaluate, list, promote, roll back.", no_args_is_help=True)
for commands in (registry_cli, evaluation_cli):
    models_cli.add_typer(commands)  # without a name: its commands stand beside those of this module
