"""How many predictions a second does the exporter bring to Redis, at what cost, and what do they take there?

    python -m bench.redis_sink [--rates 100000,max] [--symbols 100,1000] [--seconds 5] [--url URL] [--json FILE]

The exporter's sink on one core, given batches as it reads them from Kafka: 10 ms of predictions at the rate, or all
that has come where it is behind, the symbols in turn, so that of 1,000 or more symbols each prediction of 10 ms has
a hash of its own to write. ``max`` gives it the next 1,000 as soon as it has written some. CPU time of the sink
(encoding, Redis client, event loop) and of the server are told apart; a write's latency counts from when its batch
was due. Memory is what the server says (``used_memory``) before and after. Without --url it starts the embedded
Valkey.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop
from redis.asyncio import Redis

from bench.spine import say
from exporters.batch import Batch
from exporters.redis_sink import RedisSink
from stream.embedded.valkey import EmbeddedValkey
from stream.records import PREDICTION, Records

_GATHER_S: Final = 0.01
_MAX_ROWS: Final = 1000  # of a batch at the rate `max`
_FETCHED_ROWS: Final = 16_384  # of a batch when it is behind, as Kafka gives them
_MAXLEN: Final = 1000
_KEPT_UP: Final = 0.95  # of what was due in so short a time: the last batch is not done
_QUANTILES: Final = (50, 99, 99.9)


class Batches:
    """Batches of new predictions, the symbols in turn."""

    def __init__(self, symbols: int) -> None:
        """Begin with the first symbol."""
        self._names = np.array([f"SYM{number:05d}".encode() for number in range(symbols)], "S24")
        self._sent = 0

    def next(self, count: int) -> Batch:
        """Return the next one, of so many predictions."""
        number = np.arange(self._sent, self._sent + count)
        rows: Records = np.zeros(count, PREDICTION)
        rows["symbol"] = self._names[number % len(self._names)]
        rows["seq"] = 1 + number // len(self._names)
        rows["source_offset"] = number
        now_ns = time.time_ns()
        for stage in ("event_ns", "recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns"):
            rows[stage] = now_ns
        rows["ref_price"], rows["horizon_ns"] = 100 + (number % 977) / 100, 10_000_000_000
        rows["model_id"], rows["feature_hash"] = 0xFEDCBA9876543210, number
        up = (number % 89 / 100).astype(np.float32)
        rows["p_up"], rows["p_flat"], rows["p_down"] = up, (1 - up) / 3, 2 * (1 - up) / 3
        rows["expected_return_bps"] = up - 0.5
        self._sent += count
        return Batch(rows, ((0, int(number[0]), int(number[-1])),), "bench")


async def run_rate(client: Any, url: str, symbols: int, rate_per_s: float | None, seconds: float) -> dict[str, Any]:
    """Write for so many seconds after a second of warming up, and return what was seen."""
    rows = _MAX_ROWS if rate_per_s is None else max(1, int(rate_per_s * _GATHER_S))
    batches, sink = Batches(symbols), RedisSink(url, 3600, _MAXLEN, f"bench:{symbols}:{rate_per_s}:")
    late_s: list[float] = []
    for _ in range(-(-symbols // rows) + int(1 / _GATHER_S)):
        await sink.write(batches.next(rows))
    server_s, ours_s, began_s = await _server_cpu_s(client), time.process_time(), time.perf_counter()
    making_s, written = 0.0, 0
    while time.perf_counter() - began_s < seconds:
        due_s, count = time.perf_counter(), rows
        if rate_per_s is not None:
            due_s = began_s + (written + rows) / rate_per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            due = int((time.perf_counter() - began_s) * rate_per_s) - written
            count = min(max(rows, due), _FETCHED_ROWS)
        before_s = time.process_time()
        batch = batches.next(count)
        making_s += time.process_time() - before_s
        await sink.write(batch)
        written += count
        late_s.append(time.perf_counter() - due_s)
    took_s = time.perf_counter() - began_s
    ours_s, server_s = time.process_time() - ours_s - making_s, await _server_cpu_s(client) - server_s
    await sink.close()
    return {
        "symbols": symbols,
        "rate_per_s": rate_per_s or "max",
        "batch_rows": round(written / len(late_s)),
        "written_per_s": round(written / took_s),
        "kept_up": rate_per_s is None or written >= _KEPT_UP * rate_per_s * took_s,
        "client_us_each": round(ours_s / written * 1e6, 2),
        "per_client_core": round(written / ours_s),
        "server_us_each": round(server_s / written * 1e6, 2),
        "ms": {f"p{q:g}": round(float(np.percentile(late_s, q)) * 1000, 2) for q in _QUANTILES},
        "load_average": round(os.getloadavg()[0], 1),
    }


async def measure_memory(client: Any, url: str, symbols: int) -> dict[str, float]:
    """Return what a symbol takes as a hash, and a prediction in the stream, in bytes."""
    await client.execute_command("FLUSHALL", "SYNC")  # or what was there is still being freed meanwhile
    empty = await _used_bytes(client)
    sink = RedisSink(url, 3600, 1_000_000, "tickloom:")
    batches = Batches(symbols)
    for _ in range(symbols // 1000):
        await sink.write(batches.next(1000))
    stream = int(await client.memory_usage("tickloom:predictions", samples=0))
    hashes = await _used_bytes(client) - empty - stream
    await sink.close()
    return {"hash_bytes": round(hashes / symbols, 1), "stream_bytes": round(stream / symbols, 1)}


async def _server_cpu_s(client: Any) -> float:
    info = await client.info("cpu")
    return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


async def _used_bytes(client: Any) -> int:
    return int((await client.info("memory"))["used_memory"])


async def run(arguments: argparse.Namespace, url: str) -> dict[str, Any]:
    """Run every rate and number of symbols and return the report."""
    report: dict[str, Any] = {"bench": "redis_sink", "runs": []}
    report["machine"] = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
    async with Redis.from_url(url) as client:
        info = await client.info("server")
        report["server"] = f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"
        for symbols in map(int, arguments.symbols.split(",")):
            for text in arguments.rates.split(","):
                rate_per_s = None if text == "max" else float(text)
                figures = await run_rate(client, url, symbols, rate_per_s, arguments.seconds)
                say(json.dumps(figures), "redis_sink")
                report["runs"].append(figures)
        report["memory_of_10000_symbols"] = await measure_memory(client, url, 10_000)
    return report


def main() -> None:
    """Parse the command line, run, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="100000,max", help="predictions a second, with commas between")
    parser.add_argument("--symbols", default="100,1000,10000", help="with commas between")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--url", help="a server that may be emptied; none starts one")
    parser.add_argument("--json", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    if arguments.url is not None:
        report = uvloop.run(run(arguments, arguments.url))
    else:
        with EmbeddedValkey(Path(tempfile.mkdtemp(prefix="tickloom-redis-"))) as server:
            report = uvloop.run(run(arguments, server.url))
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
