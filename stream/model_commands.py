"""The commands `tickloom models ...`. Concrete classes are imported where they are needed."""

import typer

from stream.registry_commands import registry_cli

models_cli = typer.Typer(name="models", help="Models: list, publish, promote, roll back.", no_args_is_help=True)
models_cli.add_typer(registry_cli)  # without a name: its commands stand beside those of this module
