"""Answers as tables in a terminal: numbers to the right, NULL and NaN to be seen, no wider than the screen.

Widths are those of the first rows. Where the columns do not fit beside each other, each row becomes a record of its
own, a line for each column.
"""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_SAMPLE_ROWS: Final = 500
_TEXT_WIDTH: Final = 60  # of a column of text, at the most
_NARROW: Final = 12  # a text column may be cut to that before rows become records
_PAGER: Final = "less -RSFX"
_NULL: Final = Text("NULL", "dim italic")


def print_answer(
    schema: Any, batches: Iterable[Any], console: Console, *, paged: bool, records: bool = False
) -> int:
    """Print an answer; return its rows.

    Args:
        schema: ``pyarrow.Schema``.
        batches: ``pyarrow.RecordBatch`` of it.
        console: where to.
        paged: through ``$PAGER`` where it is longer than the screen.
        records: a line for each column, whether they fit beside each other or not.
    """
    chunks = _chunks(batches)
    first = next(chunks, [])
    widths = None if records else _widths(schema, first, console.width)
    lines = len(first) * (1 if widths is not None else len(schema) + 1)
    with _pager(console) if paged and lines > console.height - 5 else contextlib.nullcontext(console) as out:
        rows = 0
        chunk: list[list[Text]] | None = first
        while chunk is not None:
            if widths is None:
                _print_records(schema, chunk, rows, out)
            else:
                out.print(_table(schema, chunk, widths))
            rows += len(chunk)
            chunk = next(chunks, None)
    return rows


def cell(value: Any, kind: Any) -> Text:
    """Return a value of an Arrow type as it is shown."""
    if value is None:
        return _NULL
    if pa.types.is_floating(kind):
        if value != value:
            return Text("NaN", "yellow")
        digits = 7 if kind.bit_width == 32 else 10
        return Text(f"{value:.{digits}g}")
    if pa.types.is_integer(kind):
        return Text(str(value))
    if pa.types.is_nested(kind):
        return Text(str(value))
    return Text(str(value).replace("\n", "⏎"))


def _chunks(batches: Iterable[Any]) -> Iterator[list[list[Text]]]:
    for batch in batches:
        for start in range(0, batch.num_rows, _SAMPLE_ROWS):
            yield _rows(batch.slice(start, _SAMPLE_ROWS))


def _rows(batch: Any) -> list[list[Text]]:
    columns = []
    for column in batch.columns:
        kind = column.type
        # to_pylist would make objects of these, and cut nanoseconds
        as_text = pa.types.is_timestamp(kind) or pa.types.is_decimal(kind)
        values = (column.cast(pa.string()) if as_text else column).to_pylist(maps_as_pydicts="strict")
        if pa.types.is_timestamp(kind):
            values = [None if value is None else _time(value) for value in values]
        columns.append([cell(value, kind) for value in values])
    return [list(row) for row in zip(*columns, strict=True)]


def _time(text: str) -> str:
    """Return a time without the zone that all of ours have, and without nanoseconds where there are none."""
    return text.removesuffix("Z").removesuffix(".000000000").removesuffix(".000")


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _widths(schema: Any, rows: list[list[Text]], width: int) -> list[int] | None:
    """Return the width of each column, or None where they cannot stand beside each other."""
    widths = []
    for number, field in enumerate(schema):
        widest = max((row[number].cell_len for row in rows), default=0)
        cut = widest if _is_number(field.type) or pa.types.is_timestamp(field.type) else min(widest, _TEXT_WIDTH)
        widths.append(max(cut, len(field.name), 1))
    room = width - 3 * len(widths) - 1
    while sum(widths) > room:
        cuttable = [
            number
            for number, field in enumerate(schema)
            if not _is_number(field.type) and not pa.types.is_timestamp(field.type) and widths[number] > _NARROW
        ]
        if not cuttable:
            return None
        widest_at = max(cuttable, key=lambda number: widths[number])
        widths[widest_at] -= min(widths[widest_at] - _NARROW, sum(widths) - room)
    return widths


def _table(schema: Any, rows: list[list[Text]], widths: list[int]) -> Table:
    table = Table(box=box.ROUNDED, header_style="bold")
    for field, width in zip(schema, widths, strict=True):
        if _is_number(field.type):  # is never cut, though a later number is longer than the first ones
            table.add_column(field.name, justify="right", min_width=width, no_wrap=True)
        else:
            table.add_column(field.name, width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _print_records(schema: Any, rows: list[list[Text]], before: int, out: Console) -> None:
    name_width = max(len(name) for name in schema.names)
    for number, row in enumerate(rows, before + 1):
        out.rule(f"row {number:,}", align="left", style="dim")
        for name, value in zip(schema.names, row, strict=True):
            out.print(Text.assemble((name.rjust(name_width), "bold"), "  ", value), soft_wrap=True)


@contextlib.contextmanager
def _pager(console: Console) -> Iterator[Console]:
    """Yield a console whose lines go through a pager. Who leaves it early does not want the rest."""
    command = shlex.split(os.environ.get("PAGER") or _PAGER)
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    except OSError:
        yield console
        return
    assert pager.stdin is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError):
        width, height = console.width, console.height
        yield Console(file=pager.stdin, force_terminal=True, color_system="standard", width=width, height=height)
    with contextlib.suppress(BrokenPipeError):
        pager.stdin.close()
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # is for the pager
            pager.wait()
            return
