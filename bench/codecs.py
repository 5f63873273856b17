"""Which codec stores each column of the ClickHouse tables in the fewest bytes, and what does reading it cost?

    python -m bench.codecs [DIRECTORY] [--day 2013-10-07] [--rows 300000] [--only TABLE ...] [--json FILE]

Real ticks of a day, and what the engine and its model make of them, are put into the tables of tickloom. Then the
rows of each table are copied, in its order, into a table for each codec, with every column that can have it. Told
are bytes a row, and the time that one thread takes to read a row of that column. ``Default`` in a codec counts as
ZSTD(1), which it is in the first week. Columns of texts have no choice and are left out.
"""

import argparse
import json
import re
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from clickhouse_driver import Client, errors

from agents.features import NAMES
from agents.lane import Lane
from agents.outcomes import Costs, OutcomeJoin
from agents.windows import Windows
from exporters.clickhouse.derived import Touched, compute
from exporters.clickhouse.native import insert
from exporters.clickhouse.predictions import newest_ns, with_trades
from exporters.clickhouse.rows import TABLES, feature_table
from exporters.clickhouse.schema import migrate
from exporters.clickhouse.source_ticks import ticks_at
from exporters.clickhouse.storage import storage
from exporters.intake import PLACED_TICK
from models.predictor import load_predictor
from stream.clock import NS_PER_S
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import FEATURES_HEAD, Records, features_record
from stream.sources.replay import Replay

_CHAMPION: Final = Path(__file__).parents[1] / "models" / "champion" / "model.onnx"
_BLOCK_TICKS: Final = 10
_COST_BPS: Final = 0.5
_READS: Final = 15
_TABLES: Final = ("ticks", "predictions", "outcomes", "bars_1s", "features")
_CODECS: Final = (
    "LZ4",
    "ZSTD(1)",
    "Delta, LZ4",
    "Delta, ZSTD(1)",
    "DoubleDelta, ZSTD(1)",
    "T64, ZSTD(1)",
    "GCD, Delta, ZSTD(1)",
    "Gorilla, ZSTD(1)",
    "FPC, ZSTD(1)",
    "ALP, ZSTD(1)",
    "NONE",
)
_WIDE: Final = "min_bytes_for_wide_part = 0, min_rows_for_wide_part = 0"
_TRY_ALL: Final = {"allow_experimental_codecs": 1, "allow_suspicious_codecs": 1}


def fill(client: Client, directory: Path, day: str, count: int) -> None:
    """Put the first ``count`` ticks of a recorded day into the tables, and all that follows from them."""
    ticks = next(Replay([directory], date.fromisoformat(day)).days())[:count]
    generator = np.random.default_rng(1)
    ticks["recv_ns"] = ticks["event_ns"] + generator.exponential(2e6, len(ticks)).astype(np.int64)
    predictor = load_predictor(_CHAMPION)
    lane = Lane(0, Windows(5 * NS_PER_S, 5 * NS_PER_S), predictor)
    blocks = [
        (offset, ticks[start : start + _BLOCK_TICKS])
        for offset, start in enumerate(range(0, len(ticks), _BLOCK_TICKS))
    ]
    made, features = [], []
    for block in blocks:
        output = lane.apply([block])
        made.append(output.predictions.copy())
        features += [step.features.copy() for step in output.steps]
    predictions = np.concatenate(made)
    delay_ns = generator.integers(20_000, 90_000, len(predictions))
    predictions["published_ns"] = predictions["inferred_ns"] + delay_ns
    stored = with_trades(predictions, ticks_at(predictions, dict(blocks)))
    stored["newest_ns"] = newest_ns(stored, lambda row: int(row["event_ns"]))
    join = OutcomeJoin(0, Costs(0.0, _COST_BPS))
    join.know({int(predictor.model_id): 1.0})
    outcomes = join.take(predictions, predictions["source_offset"].copy())
    for rows in (_placed(ticks), stored, outcomes):
        _insert(client, TABLES[rows.dtype], rows)
    _insert(client, feature_table(NAMES), _features(predictions, np.concatenate(features)))
    touched = Touched()
    touched.add(stored)
    compute(client, touched)


def _placed(ticks: Records) -> Records:
    placed = np.zeros(len(ticks), PLACED_TICK)
    placed["tick"] = ticks
    placed["source_offset"], placed["source_index"] = np.divmod(np.arange(len(ticks)), _BLOCK_TICKS)
    return placed


def _features(predictions: Records, values: Any) -> Records:
    rows = np.zeros(len(predictions), features_record(len(NAMES)))
    for name in FEATURES_HEAD.names or ():
        if name in (predictions.dtype.names or ()):
            rows[name] = predictions[name]
    rows["values"] = values
    return rows


def _insert(client: Client, table: Any, rows: Records) -> None:
    for start in range(0, len(rows), 100_000):
        some = rows[start : start + 100_000]
        insert(client, table.name, table.columns(some, "one", 1), len(some), {})
    client.execute(f"OPTIMIZE TABLE {table.name} FINAL")


def measure(client: Client, table: str) -> list[dict[str, Any]]:
    """Return for each column of a table its codec, and for each codec that it can have bytes and ns a row."""
    columns = client.execute(
        "SELECT name, type, compression_codec FROM system.columns WHERE database = currentDatabase()"
        " AND table = %(table)s AND NOT match(type, 'String|Array')",
        {"table": table},
    )
    [(rows,)] = client.execute(f"SELECT count() FROM {table} FINAL")  # noqa: S608
    figures: dict[str, dict[str, Any]] = {
        name: {"table": table, "column": name, "type": kind, "codec": _with_default(codec), "of": {}}
        for name, kind, codec in columns
    }
    takes = {(kind, codec): _takes(client, kind, codec) for _, kind, _ in columns for codec in _CODECS}
    for codec in _CODECS:
        some = [(name, kind) for name, kind, _ in columns if takes[kind, codec]]
        if some:
            for name, of_it in _try(client, table, codec, some, rows).items():
                figures[name]["of"][codec] = of_it
    return list(figures.values())


def _with_default(codec: str) -> str:
    whole = codec.removeprefix("CODEC(").removesuffix(")").replace("Default", "ZSTD(1)")
    return re.sub(r"(Delta|Gorilla)\(\d\)", r"\1", whole) or "LZ4"  # without the width of the type


def _takes(client: Client, kind: str, codec: str) -> bool:
    try:
        client.execute(f"CREATE TABLE can (c {kind} CODEC({codec})) ENGINE = Memory", settings=_TRY_ALL)
    except errors.ServerException:
        return False
    client.execute("DROP TABLE can")
    return True


def _try(
    client: Client, table: str, codec: str, columns: list[tuple[str, str]], rows: int
) -> dict[str, dict[str, float]]:
    [(key,)] = client.execute(
        "SELECT sorting_key FROM system.tables WHERE database = currentDatabase() AND name = %(table)s",
        {"table": table},
    )
    client.execute("DROP TABLE IF EXISTS trial")
    declared = ", ".join(f"`{name}` {kind} CODEC({codec})" for name, kind in columns)
    client.execute(
        f"CREATE TABLE trial ({declared}) ENGINE = MergeTree ORDER BY tuple() SETTINGS {_WIDE}", settings=_TRY_ALL
    )
    names = ", ".join(f"`{name}`" for name, _ in columns)
    copy = f"INSERT INTO trial SELECT {names} FROM {table} FINAL ORDER BY {key}"  # noqa: S608
    client.execute(copy, settings={"max_threads": 1, "max_insert_threads": 1})
    client.execute("OPTIMIZE TABLE trial FINAL")
    sizes = client.execute(
        "SELECT name, data_compressed_bytes FROM system.columns"
        " WHERE database = currentDatabase() AND table = 'trial'"
    )
    return {
        name: {"bytes": round(size / rows, 3), "read_ns": round(_read_s(client, name) / rows * 1e9, 2)}
        for name, size in sizes
    }


def _read_s(client: Client, column: str) -> float:
    taken_s = []
    for _ in range(_READS):
        started = time.perf_counter()
        client.execute(
            f"SELECT count() FROM trial WHERE NOT ignore(`{column}`)",  # noqa: S608
            settings={"max_threads": 1, "use_query_condition_cache": 0},
        )
        taken_s.append(time.perf_counter() - started)
    return min(taken_s)


def told(figures: list[dict[str, Any]]) -> str:
    """Return figures as a Markdown table: a column's codec, and the best of the others."""
    lines = [
        "| column | codec | bytes | ns to read | best other | bytes | ns to read |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in figures:
        best = min(
            (codec for codec in each["of"] if codec != each["codec"]), key=lambda it: each["of"][it]["bytes"]
        )
        parts = [f"`{each['table']}.{each['column']}`"]
        for codec in (each["codec"], best):
            parts += [codec, f"{each['of'][codec]['bytes']:.2f}", f"{each['of'][codec]['read_ns']:.1f}"]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Fill, try, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("../shared/data/ticks/us_equity"))
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--rows", type=int, default=300_000, help="ticks")
    parser.add_argument("--only", nargs="*", default=_TABLES, metavar="TABLE", choices=_TABLES)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    figures = []
    with (
        tempfile.TemporaryDirectory() as home,
        EmbeddedClickHouse(Path(home)) as server,
        Client.from_url(server.url) as client,
    ):
        migrate(client)
        fill(client, arguments.directory, arguments.day, arguments.rows)
        for each in storage(client):
            if each.table in _TABLES:
                print(f"{each.table}: {each.rows:,} rows of {each.bytes_on_disk / each.rows:.2f} bytes", flush=True)
        for table in arguments.only:
            found = measure(client, table)
            figures += found
            print("", told(found), sep="\n", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
