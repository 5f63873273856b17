"""What Tab and Enter do in the interactive `tickloom sql`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.key_binding import KeyBindings

_WORDS: Final = """
    SELECT FROM WHERE GROUP BY ORDER LIMIT HAVING WITH AS AND OR NOT IN BETWEEN LIKE ASOF LEFT JOIN ON USING UNION
    ALL DISTINCT DESC ASC INTERVAL PREWHERE FINAL SAMPLE ARRAY QUALIFY WINDOW OVER PARTITION ROWS PRECEDING
    FOLLOWING DESCRIBE TABLE SHOW TABLES EXPLAIN SETTINGS CASE WHEN THEN ELSE END NULL
""".split()  # noqa: SIM905


class Names(Completer):
    """Completes tables, columns, words of SQL, commands, and after ``\\book`` the queries of the book."""

    def __init__(self, columns: Mapping[str, list[str]], book: list[str], commands: list[str]) -> None:
        """Take the columns of each table, the names of the book, and those of the commands."""
        self._columns, self._book, self._commands = columns, book, commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand where the cursor is."""
        before = document.text_before_cursor
        word = re.findall(r"[\w.]*$", before)[0]
        if before.startswith("\\"):
            words = before[1:].split(" ")
            choices = self._commands if len(words) == 1 else self._book if words[0] in ("book", "show") else []
            choices = list(self._columns) if len(words) > 1 and words[0] == "columns" else choices
        else:
            choices = self._of_query(document.text)
        for choice in choices:
            if choice.lower().startswith(word.lower()):
                yield Completion(choice, -len(word))

    def _of_query(self, text: str) -> list[str]:
        # Columns of the tables that the query names come first; of all tables where it names none yet.
        named = [table for table in self._columns if re.search(rf"\b{re.escape(table)}\b", text)]
        columns = sorted({name for table in named or self._columns for name in self._columns[table]})
        return [*columns, *sorted(self._columns), *_WORDS]


def bindings() -> KeyBindings:
    """Return keys where Enter sends a whole question or a command, and else begins a new line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: Any) -> None:
        text = event.current_buffer.text.strip()
        if text.endswith(";") or text.startswith("\\") or text.lower() in ("", "exit", "quit"):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return bindings
