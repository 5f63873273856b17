"""`tickloom sql` and `tickloom explain`. Concrete classes are imported where they are needed."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.running import beside_demo
from stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from exporters.clickhouse.session import Session

analyst_cli = typer.Typer()

_SHOWN_ROWS: Final = 10_000

ClickHouseFlag = Annotated[
    str | None, typer.Option("--clickhouse", help="clickhouse://USER@HOST:PORT/DATABASE of a server.")
]


@analyst_cli.command(epilog='Example: tickloom sql "SELECT symbol, count() FROM v_predictions GROUP BY symbol"')
def sql(
    context: typer.Context,
    query: Annotated[
        str | None, typer.Argument(help="SQL, or - for standard input. Without any, it asks for them.")
    ] = None,
    book: Annotated[str | None, typer.Option(help="Ask a query of the book.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE of a parameter {NAME:TYPE} of the query.")
    ] = None,
    list_book: Annotated[bool, typer.Option("--list", help="List the query book.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a row, a line each.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write a Parquet file.")] = None,
    records: Annotated[bool, typer.Option("--records", help="A line for each column instead of a table.")] = False,
    timeout_s: Annotated[int, typer.Option("--timeout", min=1, help="Seconds that the server may take.")] = 60,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows that an answer may have.")] = 10_000_000,
    clickhouse: ClickHouseFlag = None,
) -> None:
    """Ask ClickHouse, read-only: one question, one of the query book, or many, one after the other."""
    from exporters.clickhouse.session import Limits, Session

    if list_book:
        _list_book(as_json)
        return
    if query is not None and book is not None:
        raise SettingsError("a query and --book; right would be one of them")
    if sum((csv, as_json, records, parquet is not None)) > 1:
        raise SettingsError("of --csv, --json, --parquet and --records; right would be one of them at most")
    values = _values(param or [])
    if book is not None:
        from exporters.clickhouse.book import query as of_book

        page = of_book(book)
        query, values = page.sql, page.values(values)
    elif query == "-" or (query is None and not sys.stdin.isatty()):
        query = sys.stdin.read()
    settings = _settings(context, clickhouse)
    with Session.of(settings, Limits(timeout_s, max_rows)) as session:
        if query is None:
            from exporters.clickhouse.shell import Shell

            Shell(session, settings.data_dir / "sql.history").run()
        elif csv or as_json or parquet is not None:
            _write(session, query, values, csv, parquet)
        else:
            _show(session, query, values, records)


def _settings(context: typer.Context, clickhouse: str | None = None, **flags: str | None) -> Settings:
    common = context.find_root().params
    # What is told of beside the answer is what went wrong.
    wanted = {
        **flags,
        "clickhouse": clickhouse,
        "clickhouse_analyst": clickhouse,
        "log_level": common.get("log_level") or "WARNING",
    }
    settings = load_settings(wanted, config=common.get("config")).settings
    set_up_logging(settings.log_level)
    return beside_demo(settings)


def _values(given: list[str]) -> dict[str, str]:
    values = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise SettingsError(f"--param {each!r}; right would be NAME=VALUE, as in symbol=AIG")
        values[name] = value
    return values


def _list_book(as_json: bool) -> None:
    from rich.console import Console

    from exporters.clickhouse.book_table import book_rows, book_table

    if as_json:
        import orjson

        typer.echo(orjson.dumps(book_rows()))
    else:
        Console().print(book_table())


def _show(session: "Session", query: str, values: dict[str, str], records: bool) -> None:
    from rich.console import Console

    from exporters.clickhouse.answer_table import print_answer
    from exporters.clickhouse.waiting_line import waiting_line

    begun_s = time.monotonic()
    is_terminal = sys.stdout.isatty()
    with session.cancelled_by_ctrl_c(), waiting_line(session, Console(stderr=True)):
        answer = session.ask(query, values)
        batches, more = answer.first(_SHOWN_ROWS)
    console = Console() if is_terminal else Console(width=10_000, no_color=True)
    rows = print_answer(answer.schema, batches, console, paged=is_terminal, records=records)
    notes = Console(stderr=True)
    if more:
        notes.print(f"the first {rows:,} rows; --csv, --json or --parquet FILE give all of them", soft_wrap=True)
    elif is_terminal:
        notes.print(f"{rows:,} rows, {time.monotonic() - begun_s:.2f} s", style="dim")


def _write(session: "Session", query: str, values: dict[str, str], csv: bool, parquet: Path | None) -> None:
    from rich.console import Console

    from exporters.clickhouse import answer_files
    from exporters.clickhouse.waiting_line import waiting_line

    notes = Console(stderr=True)
    shows = notes if parquet is not None or not sys.stdout.isatty() else Console(quiet=True, force_terminal=False)
    with session.cancelled_by_ctrl_c(), waiting_line(session, shows):
        answer = session.ask(query, values)
        if parquet is not None:
            rows = answer_files.write_parquet(answer.schema, answer, parquet)
        else:
            write = answer_files.write_csv if csv else answer_files.write_json
            try:
                write(answer.schema, answer, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except (
                BrokenPipeError
            ):  # `| head` has what it wants; what is left in the buffer must not complain at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return
    if parquet is not None:
        notes.print(f"{parquet}: {rows:,} rows")


@analyst_cli.command(epilog="Example: tickloom explain AIG:123456")
def explain(
    context: typer.Context,
    prediction: Annotated[str, typer.Argument(metavar="ID", help="SYMBOL:SEQ, or SYMBOL:SEQ@EPOCH.")],
    kafka: Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")] = None,
    clickhouse: ClickHouseFlag = None,
    registry: Annotated[
        str | None, typer.Option("--registry", help="Directory or URL of the registry; else DATA_DIR/registry.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Make a stored prediction again from its ticks, and tell whether it is the same to the bit, and what it is of.

    Ends with 0 where it is identical, 1 where it is not, 3 where its ticks are gone, 4 where its model is.
    """
    symbol, seq, epoch = _parsed(prediction)
    settings = _settings(context, clickhouse, kafka=kafka, registry=registry)
    from rich.console import Console

    from exporters.explain import explain as explained
    from exporters.explanation_view import explanation_view

    with Console(stderr=True).status(f"reading the ticks of {symbol}"):
        found = explained(settings, symbol, seq, epoch)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(found.plain()))
    else:
        Console().print(explanation_view(found))
    raise typer.Exit({"identical": 0, "different": 1, "ticks": 3, "model": 4}[found.missing or found.verdict])


def _parsed(prediction: str) -> tuple[str, int, str | None]:
    # A symbol may have any of these signs in it, so that they are looked for from the end.
    symbol, _, rest = prediction.rpartition(":")
    seq, at, epoch = rest.partition("@")
    if not symbol or not seq.isdecimal() or (at and not epoch):
        raise SettingsError(f"{prediction!r} names no prediction; right would be SYMBOL:SEQ, as in AIG:123456")
    return symbol, int(seq), epoch or None
