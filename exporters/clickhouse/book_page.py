"""docs/queries.md, made from the headers of the query book, so that the page cannot say other than the files.

What queries cost is in docs/queries-measured.json, where `bench.query_book` notes it.

``python -m exporters.clickhouse.book_page`` prints it; with ``--check FILE`` it says whether the file is that.
"""

import argparse
import json
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from exporters.clickhouse.book import Query, queries

MEASURED: Final = Path(__file__).parents[2] / "docs" / "queries-measured.json"
COMMAND: Final = "python -m exporters.clickhouse.book_page > docs/queries.md"
_HEAD: Final = """# The query book

{count} questions that analysts ask, answered in ClickHouse SQL. Each is a file in `deploy/clickhouse/queries` that
also runs in `clickhouse-client`, in Grafana, or over HTTP; each is run in the tests on real ticks, and its answer
compared with an independent computation. The views that they ask show every tick, prediction and outcome once,
however often it was written.

```
tickloom sql --list
tickloom sql --book ohlcv -p symbol=AIG -p seconds=300 -p "from=2013-10-07 14:00:00"
clickhouse-client --param_symbol=AIG ... --queries-file deploy/clickhouse/queries/ohlcv.sql
```

Times are event times in UTC unless a parameter says other. Where a question is about one symbol, ClickHouse reads
that symbol and those times only; `%` in a pattern stands for any characters. Ticks that the engine refused are
left out.

"""

_COST: Final = """
## What they cost

Milliseconds on two cores, and the rows that were read, of the quickest of {day_repeats} runs (with many days: of
{all_repeats}), as `python -m bench.query_book` found them with made-up ticks, each with a prediction and outcome: a
day of {day:,} ticks of three symbols, and {all:,} of twenty symbols on five days. *A symbol's day* is one symbol
on one day; of a query that asks for no symbol it is a day. *Everything* is all days of all symbols; where a query
asks for one symbol, all its days. There are no features in these ticks: `feature_drift` finds nothing to read.

Above a second are, for this reason:

{reasons}
"""
_COST_HEAD: Final = """
| query | {day:,} ticks | {all:,} ticks: a symbol's day | {all:,} ticks: everything |
|---|---|---|---|
"""
_GOAL_MS: Final = 1_000.0


def page() -> str:
    """Return the page as text."""
    book = queries()
    parts = [_HEAD.format(count=len(book)), "| section | queries |\n|---|---|\n"]
    sections = [(section, list(some)) for section, some in groupby(book, key=lambda query: query.section)]
    for section, some in sections:
        links = ", ".join(f"[{query.name}](#{query.name})" for query in some)
        parts.append(f"| {section} | {links} |\n")
    for section, some in sections:
        parts.append(f"\n## {section}\n")
        parts += [_entry(query) for query in some]
    return "".join([*parts, cost(json.loads(MEASURED.read_text("utf-8")))])


def cost(reports: list[dict[str, Any]]) -> str:
    """Return what `bench.query_book` found: the reports of a day and of many days, in this order."""
    day, whole = reports
    names = dict.fromkeys(each["query"] for each in whole["queries"])
    found = [{(each["query"], each["of"]): each for each in report["queries"]} for report in (day, whole)]
    wanted = ((0, "everything"), (1, "a symbol's day"), (1, "everything"))
    rows = [[_cost(found[which].get((name, scope))) for which, scope in wanted] for name in names]
    lines = [f"| {name} | {' | '.join(cells)} |\n" for name, cells in zip(names, rows, strict=True)]
    sizes = {"day": day["ticks"], "all": whole["ticks"]}
    repeats = {"day_repeats": day["repeats"], "all_repeats": whole["repeats"]}
    return "".join([_COST.format(reasons=_reasons(whole), **sizes, **repeats), _COST_HEAD.format(**sizes), *lines])


def _cost(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    return figures.get("error") or f"{figures['ms']:,.0f} ms, {_rows(figures['read_rows'])}"


def _rows(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def _reasons(report: dict[str, Any]) -> str:
    slow = [each for each in report["queries"] if each.get("ms", 0) > _GOAL_MS]
    # One symbol's rows are a twentieth.
    all_rows = [each for each in slow if each["read_rows"] > report["ticks"] / 2]
    sorts = [each for each in slow if each not in all_rows]
    names = [", ".join(dict.fromkeys(f"`{each['query']}`" for each in some)) for some in (all_rows, sorts)]
    most = max((each["read_rows"] for each in all_rows), default=0)
    items = (
        f"- every row of every symbol is read, {_rows(report['ticks'])} to {_rows(most)}, as bars and histograms "
        f"do not have what is asked: {names[0]}. Ask for some symbols, or days.",
        f"- the five million rows of one symbol are joined or sorted: {names[1]}. A day of them takes a fifth.",
    )
    return "\n".join(textwrap.fill(item, 116, subsequent_indent="  ", break_on_hyphens=False) for item in items)


def _entry(query: Query) -> str:
    file = f"../deploy/clickhouse/queries/{query.name}.sql"
    lines = ["", f"### {query.name}", "", f"**{query.title}.** {query.question} [SQL]({file})", ""]
    if query.parameters:
        lines += ["| parameter | type | default | |", "|---|---|---|---|"]
        for each in query.parameters:
            default = f"`{each.default}`" if each.default else ""
            lines.append(f"| `{each.name}` | {each.type} | {default} | {_cell(each.meaning)} |")
        lines.append("")
    lines += ["| column | |", "|---|---|"]
    lines += [f"| `{column.name}` | {_cell(column.meaning)} |" for column in query.columns]
    lines.append("")
    if query.notes:
        lines += [f"Note: {query.notes}.", ""]
    if query.source:
        lines += [f"Source: {query.source}.", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Print the page, or check a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, metavar="FILE", help="say whether FILE is the page")
    arguments = parser.parse_args()
    if arguments.check is None:
        print(page(), end="")
    elif arguments.check.read_text("utf-8") != page():
        sys.exit(f"{arguments.check} is not what the query book says; run: {COMMAND}")


if __name__ == "__main__":
    main()
