"""How long does the query book take, and how many rows does it read?

``python -m bench.query_book --rows 100_000_000`` fills a ClickHouse of its own with made-up ticks, a prediction and
an outcome on each, of twenty symbols on five days; then it asks every query of the book as the analyst user: about
one symbol's day (a query that has no symbol: about a day), and about everything (a query of one symbol: all its
days). Told are the time, the server's CPU time (which other work beside hardly changes), and the rows and bytes
read. ``--rows 1_600_000 --symbols 3 --days 1`` is a day as recorded days are. ``--keep DIR`` keeps the data for the
next time; ``--ask no`` asks nothing yet. JSON goes to ``--out``; ``--note docs/queries-measured.json`` puts it
beside that of other numbers of ticks, for the page of the book.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psutil
from clickhouse_driver import Client

from bench.query_book_rows import MODEL, SHADOW, Filling, fill, first_day
from exporters.clickhouse.book import Query, queries
from exporters.clickhouse.schema import migrate
from stream.embedded.clickhouse import EmbeddedClickHouse

SYMBOL_DAY: Final = "a symbol's day"
SCOPES: Final = (SYMBOL_DAY, "everything")

_GOAL_MS: Final = 1_000.0
_DATABASE: Final = "query_book"


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, to 10 ms."""
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def times(server: EmbeddedClickHouse, filling: Filling, only: list[str], repeat: int) -> Iterator[dict[str, Any]]:
    """Ask each query about a symbol's day and about everything; yield what the server says of it."""
    for query in queries():
        if only and query.name not in only:
            continue
        for scope in SCOPES:
            runs = [_ask(server, query, _parameters(query, filling, scope)) for _ in range(repeat)]
            best = min(runs, key=lambda run: run.get("ms", float("inf")))
            yield {"query": query.name, "of": scope, **best}


def _parameters(query: Query, filling: Filling, scope: str) -> dict[str, str]:
    start = first_day(filling)
    end = start + timedelta(days=1 if scope == SYMBOL_DAY else filling.days)
    known = {
        "symbol": "SYM00",
        "symbols": "SYM00" if scope == SYMBOL_DAY else "%",
        "leader": "SYM00",
        "follower": "SYM01",
        "a": MODEL,
        "b": SHADOW,
        "from": f"{start:%Y-%m-%d %H:%M:%S}",
        "to": f"{end:%Y-%m-%d %H:%M:%S}",
        "base_from": f"{start:%Y-%m-%d %H:%M:%S}",
        "base_to": f"{end:%Y-%m-%d %H:%M:%S}",
    }
    return {each.name: known[each.name] for each in query.parameters if each.name in known}


def _ask(server: EmbeddedClickHouse, query: Query, given: dict[str, str]) -> dict[str, Any]:
    options = {"user": "analyst", "database": _DATABASE, "wait_end_of_query": "1", "default_format": "Native"}
    options |= {f"param_{name}": value for name, value in query.values(given).items()}
    url = f"{server.http_url}/?{urllib.parse.urlencode(options)}"
    started, cpu_started_s = time.perf_counter(), cpu_s(server.pid)
    try:
        with urllib.request.urlopen(url, query.sql.encode(), 120) as answer:  # noqa: S310
            answer.read()
            told = json.loads(answer.headers["X-ClickHouse-Summary"])
    except urllib.error.HTTPError as error:
        return {"error": error.read().decode().splitlines()[0][:200]}
    return {
        "ms": round((time.perf_counter() - started) * 1e3, 1),
        "cpu_ms": round((cpu_s(server.pid) - cpu_started_s) * 1e3),
        "read_rows": int(told["read_rows"]),
        "read_bytes": int(told["read_bytes"]),
        "result_rows": int(told["result_rows"]),
    }


def _told(figures: dict[str, Any]) -> str:
    if "error" in figures:
        return str(figures["error"])
    slow = "" if figures["ms"] < _GOAL_MS else "  above the goal"
    return f"{figures['ms']:9.1f} ms {figures['cpu_ms']:6} ms of CPU {figures['read_rows']:13,} rows read{slow}"


def note(file: Path, report: dict[str, Any]) -> None:
    """Put a report into a list of reports, in place of the one of as many ticks; what it did not ask stays."""
    reports = {each["ticks"]: each for each in (json.loads(file.read_text("utf-8")) if file.exists() else [])}
    old = reports.get(report["ticks"], {"queries": []})
    new = {(each["query"], each["of"]) for each in report["queries"]}
    report["queries"] += [each for each in old["queries"] if (each["query"], each["of"]) not in new]
    report["queries"].sort(key=lambda each: (each["query"], each["of"]))
    reports[report["ticks"]] = report
    file.write_text(json.dumps([reports[ticks] for ticks in sorted(reports)], indent=1) + "\n", "utf-8")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_600_000, help="ticks in all")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--only", nargs="*", default=[], metavar="QUERY")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the data is, or is to be kept")
    parser.add_argument("--ask", choices=["yes", "no"], default="yes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", type=Path, metavar="FILE", help="a list of what runs found, one for each size")
    return parser.parse_args()


def main() -> None:
    """Fill, ask, and tell."""
    arguments = parse()
    filling = Filling(arguments.rows, arguments.symbols, arguments.days)
    with ExitStack() as stack:
        home = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedClickHouse(home, memory_bytes=6 << 30))
        with Client.from_url(server.url) as client:
            client.execute(f"CREATE DATABASE IF NOT EXISTS {_DATABASE}")
        client = Client.from_url(f"{server.url.removesuffix('/default')}/{_DATABASE}")
        migrate(client)
        started = time.perf_counter()
        fill(client, filling, lambda text: print(text, file=sys.stderr, flush=True))
        report: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "ticks": client.execute("SELECT count() FROM ticks")[0][0],
            "repeats": arguments.repeat,
            "filled_s": round(time.perf_counter() - started, 1),
            "queries": [],
        }
        for each in times(server, filling, arguments.only, arguments.repeat) if arguments.ask == "yes" else ():
            report["queries"].append(each)
            print(f"{each['query']:26} {each['of']:14} {_told(each)}", flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1))
    if arguments.note is not None:
        note(arguments.note, report)


if __name__ == "__main__":
    main()
