"""docs/queries.md, made from the headers of the query book, so that the page cannot say other than the files.

``python -m exporters.clickhouse.book_page`` prints it; with ``--check FILE`` it says whether the file is that.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from exporters.clickhouse.book import Query, queries

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

What they cost, in seconds of the server's processor time, as `python -m bench.query_book --rows 20_000_000 --days
1` measured it: 20 symbols of a million ticks, each with a prediction and an outcome. A query about one symbol reads
the rows of that symbol, however many others there are.

- One symbol, a million ticks: bars of trades, indicators, TWAP, spreads, flows and sizes 0.1 to 0.5; what came of
  predictions 0.3 to 0.6; with joins or sorts (`effective_spread`, `book_imbalance`, `rank_ic_by_hour`, `markout`,
  `what_followed`, `hit_rate`, `answer_drift`, `duplicates`) 1.3 to 2.2.
- All symbols of a day, from bars and histograms (`movers`, `correlation`, `latency_by_stage`, ...): 0.2 or less.
- Every row of all symbols, each million: `accounting`, `quote_quality`, `sequence_gaps`, `missing_predictions`,
  `models_served`, `slowest_predictions` 0.06 to 0.11; `scores_by_day` 0.2;
  `model_comparison`, `shadow_against_served` 0.3. Of many symbols
  and days, ask for some.

"""


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
    return "".join(parts)


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
