"""The interactive `tickloom sql`: questions over several lines, with a history and completion.

A question ends with a semicolon. Lines that begin with a backslash are commands; ``\\help`` lists them.
"""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer
from rich.console import Console

from exporters.clickhouse import answer_files
from exporters.clickhouse.answer_table import print_answer
from exporters.clickhouse.book import Query, queries, query
from exporters.clickhouse.book_table import book_table
from exporters.clickhouse.completion import Names, bindings
from exporters.clickhouse.session import Session, parameters_of
from exporters.clickhouse.waiting_line import waiting_line
from stream.errors import TickloomError

SHOWN_ROWS: Final = 10_000
_HELP: Final = """\
SQL over any number of lines, up to a semicolon. Tab completes; Ctrl-R searches the history; Ctrl-D leaves.
\\tables                  what there is to ask
\\columns NAME            its columns
\\list                    the query book
\\show NAME               a query of the book: what it asks, its parameters, its SQL
\\book NAME [P=VALUE ...] asks it
\\set P=VALUE ...         values of parameters {P:TYPE} of later questions; alone, shows them
\\records                 a line for each column, or a table: the other from now on
\\csv FILE, \\parquet FILE the last question again, into a file
\\quit                    leaves"""
_TABLES: Final = """
SELECT name, if(engine LIKE '%View', 'view', 'table') AS kind, total_rows AS rows,
    formatReadableSize(total_bytes) AS size, comment
FROM system.tables WHERE database = currentDatabase() AND name NOT LIKE '.inner%' ORDER BY kind DESC, name"""
_COLUMNS: Final = """
SELECT name, type, comment FROM system.columns
WHERE database = currentDatabase() AND table = {table:String} ORDER BY position"""


class Shell:
    """One conversation with a server."""

    def __init__(self, session: Session, history: Path) -> None:
        """Begin it.

        Args:
            session: whom to ask.
            history: file of what was asked; made where it is not there.
        """
        self._session = session
        self._console, self._notes = Console(), Console(stderr=True)
        self._values: dict[str, str] = {}
        self._as_records = False
        self._last: tuple[str, dict[str, str]] | None = None
        self._commands: Mapping[str, Callable[[list[str]], object]] = {
            "tables": lambda _: self._ask(_TABLES),
            "columns": self._columns,
            "list": lambda _: self._console.print(book_table()),
            "show": self._show,
            "book": self._book,
            "set": self._set,
            "records": lambda _: self._toggle_records(),
            "csv": lambda words: self._save(words, "csv"),
            "parquet": lambda words: self._save(words, "parquet"),
            "help": lambda _: self._console.print(_HELP, markup=False, highlight=False),
        }
        history.parent.mkdir(parents=True, exist_ok=True)
        self._history = FileHistory(str(history))

    def run(self) -> None:
        """Ask and answer until whoever asks has enough.

        Raises:
            ServerError: the server cannot be reached at the beginning.
        """
        names = self._names()
        self._notes.print(
            f"{self._session.where}, to look at only. \\help lists commands.", style="dim", markup=False
        )
        prompt: PromptSession[str] = PromptSession(
            history=self._history,
            multiline=True,
            key_bindings=bindings(),
            lexer=PygmentsLexer(SqlLexer),
            completer=Names(names, [page.name for page in queries()], list(self._commands)),
            complete_while_typing=False,
            prompt_continuation="     ... ",
        )
        while True:
            try:
                text = prompt.prompt("tickloom> ").strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.rstrip(";").strip().lower() in ("\\quit", "\\q", "exit", "quit"):
                return
            self.take(text)

    def take(self, text: str) -> None:
        """Do what one entry says; troubles are told, and end nothing."""
        try:
            if text.startswith("\\"):
                self._command(text)
            elif text.strip("; \n"):
                self._ask(text)
        except TickloomError as error:
            self._notes.print(str(error), style="red", markup=False, highlight=False)
        except KeyboardInterrupt:
            self._notes.print("stopped", style="red")

    def _names(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self._session.rows(
            "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND table NOT LIKE '.inner%'"
        ):
            found.setdefault(row["table"], []).append(row["name"])
        return found

    def _command(self, text: str) -> None:
        try:
            name, *words = shlex.split(text[1:].rstrip(";")) or ["help"]
        except ValueError as error:
            self._notes.print(f"{text}: {error}", style="red", markup=False)
            return
        command = self._commands.get(name)
        if command is None:
            self._notes.print(f"no command \\{name}; \\help lists them", style="red", markup=False)
        else:
            command(words)

    def _ask(self, text: str, values: Mapping[str, str] | None = None) -> None:
        chosen = {name: self._values[name] for name in parameters_of(text) if name in self._values}
        chosen |= values or {}
        self._last = text, chosen
        begun_s = time.monotonic()
        with self._session.cancelled_by_ctrl_c(), waiting_line(self._session, self._notes):
            answer = self._session.ask(text, chosen)
            batches, more = answer.first(SHOWN_ROWS)
        took_s = time.monotonic() - begun_s
        is_paged = sys.stdout.isatty()
        rows = print_answer(answer.schema, batches, self._console, paged=is_paged, records=self._as_records)
        note = (
            f"the first {rows:,} rows; \\csv or \\parquet FILE gets all"
            if more
            else f"{rows:,} rows, {took_s:.2f} s"
        )
        self._notes.print(note, style="dim", highlight=False, markup=False)

    def _columns(self, words: list[str]) -> None:
        self._ask(_COLUMNS, {"table": _one(words, "\\columns v_ticks")})

    def _show(self, words: list[str]) -> None:
        page = query(_one(words, "\\show NAME"))
        self._console.print(f"{page.title}\n{page.question}", style="bold", markup=False)
        for each in page.parameters:
            self._console.print(f"  {each.name}={each.default}  {each.meaning}", markup=False, highlight=False)
        self._console.print(page.sql, markup=False, highlight=False)

    def _book(self, words: list[str]) -> None:
        if not words:
            self._console.print(book_table())
            return
        page: Query = query(words[0])
        names = {each.name for each in page.parameters}
        known = {name: value for name, value in self._values.items() if name in names}
        self._ask(page.sql, page.values({**known, **_pairs(words[1:])}))

    def _set(self, words: list[str]) -> None:
        self._values |= _pairs(words)
        for name, value in self._values.items():
            self._console.print(f"{name}={value}", markup=False, highlight=False)

    def _toggle_records(self) -> None:
        self._as_records = not self._as_records
        self._console.print("records" if self._as_records else "tables")

    def _save(self, words: list[str], kind: str) -> None:
        path = Path(_one(words, f"\\{kind} FILE"))
        if self._last is None:
            self._notes.print("nothing was asked yet", style="red")
            return
        with self._session.cancelled_by_ctrl_c(), waiting_line(self._session, self._notes):
            answer = self._session.ask(*self._last)
            if kind == "parquet":
                rows = answer_files.write_parquet(answer.schema, answer, path)
            else:
                rows = answer_files.write_csv_file(answer.schema, answer, path)
        self._notes.print(f"{path}: {rows:,} rows", markup=False)


def _one(words: list[str], example: str) -> str:
    if len(words) != 1:
        raise _Usage(f"right would be {example}")
    return words[0]


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (name, equals, _) in zip(words, pairs, strict=True) if not (name and equals)]
    if wrong:
        raise _Usage(f"{wrong[0]!r}; right would be NAME=VALUE, as in symbol=AIG")
    return {name: value for name, _, value in pairs}


class _Usage(TickloomError):
    """A command that cannot be meant."""
