"""The commands `tickloom models ...`. Concrete classes are imported where they are needed."""

import typer

from stream.search_commands import search_cli

models_cli = typer.Typer(name="models", help="Models: search, benchmark.", no_args_is_help=True)
models_cli.add_typer(search_cli)  # without a name: its commands stand beside those of this module
