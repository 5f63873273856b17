"""What ClickHouse says of a query that it does not accept, made short: the message, the place, a hint."""

import re
from typing import Final

from stream.errors import TickloomError


class QueryRefused(TickloomError):
    """A query that the server does not accept, or cannot finish within the limits."""


class QueryCancelled(TickloomError):
    """A query that was cancelled; what it gave before is not its answer."""

    exit_code = 130


_MOST: Final = 300  # characters of a message
_AT: Final = re.compile(r"failed at position (\d+)")
_NAMED: Final = re.compile(r"[`']([A-Za-z_][\w.]*)[`']")
_HINTS: Final = {
    47: "`DESCRIBE TABLE name` lists the columns of a table or view",
    60: "`SHOW TABLES` lists what there is; ask the views, whose names begin with v_",
    158: "read less: name the symbol and a span of event_time",
    159: "read less (name the symbol and a span of event_time), or allow more time with --timeout",
    164: "this connection is for reading only",
    241: "read or group less: name the symbol and a span of event_time",
    307: "read less: name the symbol and a span of event_time",
    396: "add LIMIT, aggregate, or allow more with --max-rows",
    452: "the limits of this user are narrower than that",
    457: "text is as in ClickHouse: 2024-05-01 10:00:00 for times, ['A','B'] for arrays, NULL for Nullable",
    497: "this user may only look at the tables",
}


def explained(code: int, message: str, query: str) -> str:
    """Return what a server's exception says, in few lines.

    Args:
        code: of the exception.
        message: of it, with all that the server adds.
        query: that it is about.
    """
    text = message.partition("Stack trace:")[0].removeprefix("DB::Exception:")
    text = re.split(r" In scope |: While executing|: while executing| \(query: |\. Expected one of", text)[0]
    text = " ".join(text.split()).strip(" .:")
    place = _place(code, text, query)
    if place is not None and "failed at position" in text:
        text = text.partition(": failed at position")[0].partition(" failed at position")[0]
    lines = [f"{text[:_MOST]} (code {code})"]
    if place is not None:
        lines += _pointed(query, *place)
    if code in _HINTS:
        lines.append(f"hint: {_HINTS[code]}")
    return "\n".join(lines)


def _place(code: int, text: str, query: str) -> tuple[int, int] | None:
    """Return start and length, in characters, of what the message is about, where it is to be found."""
    at = _AT.search(text)
    if at is not None:
        # The server counts bytes, from 1.
        before = query.encode()[: int(at[1]) - 1].decode("utf-8", "ignore")
        return len(before), 1
    if code in (46, 47, 60):
        named = _NAMED.search(text)
        found = None if named is None else re.search(rf"(?<![\w.]){re.escape(named[1])}(?!\w)", query)
        if found is not None:
            return found.start(), len(found[0])
    return None


def _pointed(query: str, start: int, length: int) -> list[str]:
    number = query.count("\n", 0, start)
    begin = query.rfind("\n", 0, start) + 1
    line = (query[begin:].partition("\n"))[0]
    head = f"  line {number + 1}: " if "\n" in query else "  "
    left = max(0, start - begin - 60)  # of a long line, what is around
    shown = line[left : left + 100].replace("\t", " ")
    return [f"{head}{shown}", " " * (len(head) + start - begin - left) + "^" * length]
