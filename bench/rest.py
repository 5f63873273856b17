"""How many requests a second does the REST API answer, how late, and at what cost?

    python -m bench.rest [--symbols 50] [--rows 20000] [--connections 8] [--seconds 5] [--json FILE]

ClickHouse and Valkey are filled with rows of so many symbols; the API is a process of its own; clients keep their
connections, and each asks again once it is answered (a closed loop), for a symbol by chance. CPU time is the API's
alone, without ClickHouse and Valkey. Latencies are those of the clients, which share the machine.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
from pydantic import SecretStr

from bench.processor_time import ProcessorTime
from bench.spine import say
from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.redis_sink import RedisSink
from exporters.rest.representation import ARROW, JSON
from stream.clock import NS_PER_S
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.ports import free_port
from stream.embedded.valkey import EmbeddedValkey
from stream.records import PREDICTION, Records, TickKind, empty_ticks
from stream.settings import Settings, to_environment

_BEGIN_NS: Final = 1_700_000_000 * NS_PER_S
_STEP_NS: Final = 50_000_000  # between two predictions of a symbol
_READY_S: Final = 60.0
_WARM_UP_S: Final = 1.0
_BATCH_ROWS: Final = 20_000
# Name, path with a place for the symbol, form.
_CASES: Final = (
    ("latest of a symbol", "/v1/predictions/latest/{symbol}", JSON),
    ("latest of all symbols", "/v1/predictions/latest", JSON),
    ("100 bars of a minute", "/v1/bars/1m?symbol={symbol}&order=desc&limit=100", JSON),
    ("100 predictions", "/v1/predictions?symbol={symbol}&order=desc&limit=100", JSON),
    ("10,000 predictions", "/v1/predictions?symbol={symbol}&limit=10000", JSON),
    ("10,000 predictions, Arrow", "/v1/predictions?symbol={symbol}&limit=10000", ARROW),
)


class _NoTicks:
    async def find(self, rows: Records) -> Records:
        found = empty_ticks(len(rows))
        found["kind"], found["size"] = TickKind.TRADE, 100.0
        return found

    async def close(self) -> None:
        """Nothing is open."""


def make_rows(symbols: list[str], count: int) -> Iterator[Records]:
    """Yield PREDICTION rows in order of arrival: ``count`` of each symbol, some thousands at a time."""
    rng = np.random.default_rng(7)
    at_once = max(1, _BATCH_ROWS // len(symbols))
    for first in range(1, count + 1, at_once):
        seqs = np.repeat(np.arange(first, min(first + at_once, count + 1)), len(symbols))
        rows = np.zeros(len(seqs), PREDICTION)
        rows["symbol"] = np.tile(np.array(symbols, "S24"), len(seqs) // len(symbols))
        rows["seq"] = rows["source_offset"] = seqs
        rows["event_ns"] = _BEGIN_NS + seqs * _STEP_NS
        rows["ref_price"] = 100 + rng.normal(0, 0.05, len(seqs)).cumsum()
        rows["p_down"], rows["p_flat"], rows["p_up"] = rng.dirichlet((2, 3, 2), len(seqs)).astype(np.float32).T
        rows["model_id"], rows["horizon_ns"] = 0x718E0A2DDC1319FF, 10 * NS_PER_S
        rows["feature_hash"] = rng.integers(0, 2**63, len(seqs), np.uint64)
        for step, stage in enumerate(("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")):
            rows[stage] = rows["event_ns"] + 1_000_000 + step * 9_000
        yield rows


async def fill(settings: Settings, symbols: list[str], count: int) -> None:
    """Write the rows to both servers."""
    assert settings.clickhouse is not None
    assert settings.redis is not None
    stored = PredictionSink(settings.clickhouse.get_secret_value(), _NoTicks())
    newest = RedisSink(settings.redis.get_secret_value(), 0, 100)
    for number, rows in enumerate(make_rows(symbols, count)):
        batch = Batch(rows, ((0, number, number),), "bench")
        await stored.write(batch)
        await newest.write(batch)
    await stored.settle()
    await stored.close()
    await newest.close()


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """Run the API as a process; yield its id."""
    command = [sys.executable, "-m", "stream", "api"]
    environment = {**os.environ, **to_environment(settings)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


async def ask(
    base: str, case: tuple[str, str, str], symbols: list[str], connections: int, seconds: float, pid: int
) -> Any:
    """Ask in a closed loop and return what was seen."""
    name, path, form = case
    latencies_s: list[float] = []
    sizes: list[int] = []
    refused: list[int] = []
    begin_s = time.perf_counter() + _WARM_UP_S
    end_s = begin_s + seconds

    async def client(session: aiohttp.ClientSession, rng: random.Random) -> None:
        while (asked_s := time.perf_counter()) < end_s:
            url = base + path.format(symbol=rng.choice(symbols))
            async with session.get(url, headers={"Accept": form}) as answer:
                body = await answer.read()
            if answer.status != HTTPStatus.OK:
                refused.append(answer.status)
            elif asked_s >= begin_s:
                latencies_s.append(time.perf_counter() - asked_s)
                sizes.append(len(body))

    with ProcessorTime(pid) as cpu:
        begin_ns = time.time_ns() + int(_WARM_UP_S * NS_PER_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(client(session, random.Random(number)) for number in range(connections)))
    spent_s = cpu.between(begin_ns, begin_ns + int(seconds * NS_PER_S))
    if not latencies_s:
        return {"case": name, "requests_per_s": 0.0, "refused": len(refused)}
    p50, p99 = np.quantile(latencies_s, (0.5, 0.99)) * 1e3
    return {
        "case": name,
        "requests_per_s": round(len(latencies_s) / seconds, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "cpu_ms_per_request": round(1e3 * spent_s / len(latencies_s), 3),
        "refused": len(refused),
        "body_bytes": round(float(np.mean(sizes))),
    }


async def ready(base: str) -> None:
    """Wait until the API answers."""
    deadline_s = time.monotonic() + _READY_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{base}/v1/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            assert time.monotonic() < deadline_s, "the API did not start"
            await asyncio.sleep(0.1)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every case and return the report."""
    symbols = [f"S{number:04d}" for number in range(arguments.symbols)]
    cases = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedClickHouse(Path(folder) / "clickhouse") as clickhouse,
        EmbeddedValkey(Path(folder) / "valkey") as valkey,
    ):
        settings = Settings(
            clickhouse=SecretStr(clickhouse.url),
            redis=SecretStr(valkey.url),
            api_port=free_port(),
            api_rate_per_s=1e6,
            log_level="WARNING",
        )
        say(f"filling {arguments.symbols} symbols with {arguments.rows:,} predictions each", "rest")
        await fill(settings, symbols, arguments.rows)
        base = f"http://127.0.0.1:{settings.api_port}"
        with served(settings) as pid:
            await ready(base)
            for case in _CASES:
                seen = await ask(base, case, symbols, arguments.connections, arguments.seconds, pid)
                say(json.dumps(seen), "rest")
                cases.append(seen)
    return {
        "bench": "rest",
        "symbols": arguments.symbols,
        "rows": arguments.rows * arguments.symbols,
        "connections": arguments.connections,
        "load_average": round(os.getloadavg()[0], 1),
        "cases": cases,
    }


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--rows", type=int, default=20_000, help="of each symbol")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="that count, of each case")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(run(arguments)), indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
