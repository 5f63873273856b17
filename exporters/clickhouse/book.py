"""The query book: questions of analysts, answered in SQL, in files whose headers say what they ask and answer.

The files are ``deploy/clickhouse/queries/*.sql``; an installed tickloom has them beside this module. A file is::

    -- Title
    --
    -- The question that it answers?
    --
    -- Section: Prices
    -- Parameters:
    --   {symbol:String} = SIM.ALPHA: what it is; the value after = is the default
    -- Columns:
    --   bar_time: what it means
    -- Notes: what else to know (may be left out)
    -- Source: paper or book of the formula (may be left out)
    SELECT ...

Parameters are ClickHouse's own, so the server puts them in, and no value can become SQL.
"""

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.errors import InvariantError, SettingsError

SECTIONS: Final = ("Prices", "Liquidity", "Data quality", "Predictions", "Models", "Engine")

_INSTALLED: Final = Path(__file__).with_name("queries")  # pyproject.toml puts them there
_IN_REPOSITORY: Final = Path(__file__).parents[2] / "deploy" / "clickhouse" / "queries"
_PART: Final = re.compile(r"(Section|Parameters|Columns|Notes|Source):\s*(.*)")
_PARAMETER: Final = re.compile(r"\{(\w+):(.+)\} = (.*?): (.+)")
_COLUMN: Final = re.compile(r"(\w+): (.+)")
_PLACEHOLDER: Final = re.compile(r"\{(\w+):([^{}]+)\}")


@dataclass(frozen=True)
class Parameter:
    """One parameter: ``{name:type}`` in the SQL."""

    name: str
    type: str  # of ClickHouse
    default: str
    meaning: str


@dataclass(frozen=True)
class Column:
    """One column of the answer."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Query:
    """One query of the book."""

    name: str  # of its file, without .sql
    section: str  # one of SECTIONS
    title: str
    question: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    notes: str  # "" where there are none
    source: str  # "" where there is none
    sql: str

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the value of every parameter as text: what is given, else the default.

        Raises:
            SettingsError: a name is given that the query does not have.
        """
        names = [parameter.name for parameter in self.parameters]
        unknown = [name for name in given if name not in names]
        if unknown:
            has = f"its parameters are {', '.join(names)}" if names else "it has none"
            raise SettingsError(f"the query {self.name} has no parameter {', '.join(unknown)}; {has}")
        return {each.name: given.get(each.name, each.default) for each in self.parameters}


@functools.cache
def queries() -> tuple[Query, ...]:
    """Return the book, by section and name.

    Raises:
        InvariantError: a file is not as it should be, or there are none.
    """
    folder = _INSTALLED if _INSTALLED.is_dir() else _IN_REPOSITORY
    book = [parse(file.stem, file.read_text("utf-8")) for file in folder.glob("*.sql")]
    if not book:
        raise InvariantError(f"there are no queries in {folder}")
    return tuple(sorted(book, key=lambda query: (SECTIONS.index(query.section), query.name)))


def query(name: str) -> Query:
    """Return a query of the book.

    Raises:
        SettingsError: there is none of this name.
    """
    book = {each.name: each for each in queries()}
    if name not in book:
        close = difflib.get_close_matches(name, book, 3, 0.4) or list(book)
        raise SettingsError(f"the query book has no {name!r}; it has {', '.join(close)}")
    return book[name]


def parse(name: str, text: str) -> Query:
    """Return the query of one file.

    Args:
        name: of the file, without .sql.
        text: what it holds.

    Raises:
        InvariantError: the header is not whole, or does not name the parameters that the SQL has.
    """
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    header = [line.removeprefix("--").removeprefix(" ") for line in lines[:end]]
    sql = "\n".join(lines[end:]).strip().removesuffix(";")
    title, question, parts = _parts(header)
    parameters = tuple(Parameter(*_match(name, _PARAMETER, line)) for line in parts.get("Parameters", []))
    columns = tuple(Column(*_match(name, _COLUMN, line)) for line in parts.get("Columns", []))
    section = " ".join(parts.get("Section", []))
    notes, source = (" ".join(parts.get(part, [])) for part in ("Notes", "Source"))
    if not (title and question.endswith("?") and columns and sql and section in SECTIONS):
        raise InvariantError(
            f"the query {name} needs a title, a question that ends in ?, its columns, SQL, and a section of "
            f"{', '.join(SECTIONS)}; it has {title!r}, {question!r}, {len(columns)} columns, section {section!r}"
        )
    declared = {(each.name, each.type) for each in parameters}
    used = set(_PLACEHOLDER.findall(sql))
    if declared != used or len(declared) != len(parameters):
        raise InvariantError(f"the query {name} declares {sorted(declared)} and uses {sorted(used)}")
    return Query(name, section, title, question, parameters, columns, notes, source, sql)


def _parts(header: list[str]) -> tuple[str, str, dict[str, list[str]]]:
    """Return title, question, and the items of each part; an item goes on in lines that are indented further."""
    title, question = (header[0] if header else ""), []
    parts: dict[str, list[str]] = {}
    items: list[str] | None = None
    for line in header[1:]:
        begins = _PART.fullmatch(line)
        if begins is not None:
            items = parts.setdefault(begins[1], [])
            if begins[2]:
                items.append(begins[2])
        elif items is None:
            question.append(line.strip())
        elif line.startswith("   ") and items:
            items[-1] += " " + line.strip()
        elif line.strip():
            items.append(line.strip())
    return title, " ".join(question).strip(), parts


def _match(name: str, pattern: re.Pattern[str], line: str) -> tuple[str, ...]:
    found = pattern.fullmatch(line)
    if found is None:
        raise InvariantError(f"the query {name} has {line!r} in its header, not like {pattern.pattern}")
    return found.groups()
