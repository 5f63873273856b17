"""The commands `tickloom clickhouse ...`. Concrete classes are imported where they are needed."""

import json
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from stream.errors import ServerError, SettingsError, SinkError
from stream.logs import set_up_logging
from stream.running import beside_demo
from stream.settings import load_settings

if TYPE_CHECKING:
    from clickhouse_driver import Client

clickhouse_cli = typer.Typer()
_commands = typer.Typer(
    name="clickhouse", help="ClickHouse: make its tables, see what they hold.", no_args_is_help=True
)
clickhouse_cli.add_typer(_commands)

ClickHouseFlag = Annotated[
    str | None, typer.Option("--clickhouse", help="clickhouse://USER@HOST:PORT/DATABASE of a server.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

T = TypeVar("T")


@_commands.command(
    epilog="Example: tickloom clickhouse migrate --clickhouse clickhouse://default@localhost/default"
)
def migrate(context: typer.Context, clickhouse: ClickHouseFlag = None, as_json: JsonFlag = False) -> None:
    """Make the tables and views, or change those of an earlier version.

    Exporters do so too when they connect. What is done already is left alone.
    """
    from exporters.clickhouse.schema import migrations

    def noted(client: "Client") -> list[str]:
        return [name for (name,) in client.execute("SELECT name FROM tickloom_migrations ORDER BY version")]

    has = _ask(context, clickhouse, noted)
    known = [name for _, name, _ in migrations()]
    newer = sorted(set(has) - set(known))
    if as_json:
        typer.echo(json.dumps({"applied": has, "unknown": newer}))
    else:
        typer.echo(f"the schema is at {known[-1]}: {len(has)} of {len(known)} migrations are applied")
        if newer:
            typer.echo(f"a newer tickloom applied {', '.join(newer)} as well")


@_commands.command(epilog="Example: tickloom clickhouse tables --json")
def tables(context: typer.Context, clickhouse: ClickHouseFlag = None, as_json: JsonFlag = False) -> None:
    """List the tables: rows, bytes on disk, bytes a row, and how well they are compressed."""
    from exporters.clickhouse.storage import storage

    found = [table.as_dict() for table in _ask(context, clickhouse, storage)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console

    from stream.inspection import table

    Console().print(table("tables of ClickHouse", found))


@_commands.command(epilog="Example: tickloom clickhouse recompute 2026-11-24 2026-11-25")
def recompute(
    context: typer.Context,
    first: Annotated[str, typer.Argument(help="The first day, as in 2026-11-24, UTC.")],
    last: Annotated[str | None, typer.Argument(help="The last day; the first if not given.")] = None,
    clickhouse: ClickHouseFlag = None,
) -> None:
    """Compute the bars and latencies of some days anew, from the predictions in the table.

    Needed where predictions came there in another way than through the exporter, as out of an archive.
    """
    from exporters.clickhouse.derived import compute, touched_days

    days = _day(first), _day(last or first)
    if days[1] < days[0]:
        raise SettingsError(f"the last day, {last}, is before the first, {first}")

    def work(client: "Client") -> int:
        touched = touched_days(client, *days)
        compute(client, touched)
        return len(touched.spans)

    typer.echo(f"computed bars and latencies of {_ask(context, clickhouse, work)} symbols")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no day; right would be one like 2026-11-24") from None


def _ask(context: typer.Context, clickhouse: str | None, work: "Callable[[Client], T]") -> T:
    """Let ``work`` ask the server, whose tables are made first where they are not there."""
    common: dict[str, Any] = context.find_root().params
    flags = {"clickhouse": clickhouse, "log_level": common.get("log_level")}
    settings = beside_demo(load_settings(flags, config=common.get("config")).settings)
    set_up_logging(settings.log_level)
    if settings.clickhouse is None:
        raise SettingsError(
            "no ClickHouse is configured: set TICKLOOM_CLICKHOUSE=clickhouse://USER@HOST:PORT/DATABASE, "
            "or give --clickhouse"
        )
    from exporters.clickhouse.server import Server, quiet_driver

    quiet_driver()
    server = Server(settings.clickhouse.get_secret_value())
    try:
        return server.do(work)
    except SinkError as error:
        raise ServerError(str(error)) from error
    finally:
        server.disconnect()
