"""An API that runs on real servers with real prices in them, and a plain client of it."""

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from clickhouse_driver import Client
from pydantic import SecretStr

from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from exporters.intake import PLACED_TICK
from exporters.redis_sink import RedisSink
from exporters.rest.server import ApiAddresses
from exporters.rest.server import run_api as run_server
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.valkey import EmbeddedValkey
from stream.records import OUTCOME, PREDICTION, Records, TickKind, empty_ticks
from stream.settings import Settings

MODEL = 0x718E0A2DDC1319FF
_ROWS = 3_000  # of each symbol
_SYMBOLS = ("AIG", "BAC")


@dataclass(frozen=True)
class Reply:
    """What the API answered."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Running:
    """An API that runs in a thread of its own."""

    def __init__(self, where: ApiAddresses) -> None:
        self.where = where
        self.host = where.api.removeprefix("http://")

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, timeout=150)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def pages(self, path: str, **headers: str) -> list[dict[str, Any]]:
        """The rows of all pages."""
        rows, cursor = [], None
        while True:
            reply = self.get(path + (f"&cursor={cursor}" if cursor else ""), **headers)
            assert reply.status == 200, reply.body
            rows += reply.json["data"]
            cursor = reply.json["next"]
            if cursor is None:
                return rows


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Run an API until the block is left."""
    ready: Future[tuple[ApiAddresses, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        await run_server(settings, stop, lambda where: ready.set_result((where, loop, stop)))

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    where, loop, stop = ready.result(30)
    try:
        yield Running(where)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def run_api() -> Callable[[Settings], Any]:
    """Run an API with other settings, as a context."""
    return running


@pytest.fixture(scope="session")
def rows(shared_data: Path) -> Records:
    """Predictions of real trades: prices and times are those of AIG and BAC, 2013-10-07; the rest is made up."""
    found = []
    for symbol in _SYMBOLS:
        trades = _trades(shared_data, symbol)
        made = np.zeros(trades.num_rows, PREDICTION)
        made["symbol"] = symbol
        made["event_ns"], made["ref_price"] = trades["ts_ns"].to_numpy(), trades["price"].to_numpy()
        made["seq"] = made["source_offset"] = np.arange(1, trades.num_rows + 1)
        found.append(made)
    made = np.concatenate(found)
    chance = np.random.default_rng(7).dirichlet((2, 3, 2), len(made)).astype(np.float32)
    made["p_down"], made["p_flat"], made["p_up"] = chance.T
    made["expected_return_bps"] = (made["p_up"] - made["p_down"]) * 3
    made["spread_bps"] = np.where(made["seq"] < 3, np.nan, made["seq"] % 7 / 3)
    made["model_id"], made["horizon_ns"] = MODEL, 10_000_000_000
    made["feature_hash"] = np.arange(len(made), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for step, stage in enumerate(("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")):
        made[stage] = made["event_ns"] + 1_000_000 + step * 7_001
    return made


@pytest.fixture(scope="session")
def ticks(shared_data: Path, rows: Records) -> Records:
    """The trade of each prediction."""
    made = empty_ticks(len(rows))
    made["symbol"], made["event_ns"], made["price"] = rows["symbol"], rows["event_ns"], rows["ref_price"]
    made["recv_ns"], made["source_seq"], made["kind"] = rows["recv_ns"], rows["seq"], TickKind.TRADE
    found = [_trades(shared_data, symbol)["size"].to_numpy() for symbol in _SYMBOLS]
    made["size"] = np.concatenate(found)
    return made


class _Trades:
    """Finds the ticks of all rows at once, which is what the fixture writes."""

    def __init__(self, ticks: Records) -> None:
        self._ticks = ticks

    async def find(self, rows: Records) -> Records:
        assert len(rows) == len(self._ticks)
        return self._ticks

    async def close(self) -> None:
        """Nothing is open."""


def _trades(shared_data: Path, symbol: str) -> Any:
    [path] = sorted((shared_data / "ticks" / "us_equity").glob(f"trades_{symbol}_*07.parquet"))
    return pq.read_table(path, columns=["ts_ns", "price", "size"]).slice(0, _ROWS)


@pytest.fixture(scope="session")
def filled(
    kafka: EmbeddedKafka,
    clickhouse: EmbeddedClickHouse,
    valkey: EmbeddedValkey,
    rows: Records,
    ticks: Records,
    fresh_name: Callable[[str], str],
) -> Settings:
    """Settings of servers that have the rows."""
    database = fresh_name("rest")
    url = f"{clickhouse.url.rsplit('/', 1)[0]}/{database}"
    # A database of Redis of our own: the API lists every symbol that it finds.
    redis = f"{valkey.url.rsplit('/', 1)[0]}/9"

    async def fill() -> None:
        predictions, plain, newest = (
            PredictionSink(url, _Trades(ticks)),
            ClickHouseSink(url),
            RedisSink(redis, 0, 1000),
        )
        for sink in (predictions, newest):
            await sink.write(Batch(rows, ((0, 1, _ROWS),), "epoch-1"))
        await predictions.settle()
        placed = np.zeros(len(ticks), PLACED_TICK)
        placed["tick"], placed["source_offset"] = ticks, rows["source_offset"]
        await plain.write(Batch(placed, ((0, 1, _ROWS),), "epoch-1"))
        for each in (predictions, plain, newest):
            await each.close()

    asyncio.run(fill())
    return Settings(
        kafka=kafka.bootstrap,
        clickhouse=SecretStr(url),
        redis=SecretStr(redis),
        api_port=0,
        api_rate_per_s=1e6,
    )


@pytest.fixture(scope="module")
def api(filled: Settings) -> Iterator[Running]:
    """An API without a token.

    It ends with its file: its Kafka client draws from ``random``, which must not move while hypothesis or a
    seeded training of another file draws from it.
    """
    with running(filled) as one:
        yield one


@pytest.fixture(scope="session")
def database(filled: Settings) -> Iterator[Client]:
    """A client of the database behind the API."""
    assert filled.clickhouse is not None
    with Client.from_url(filled.clickhouse.get_secret_value()) as client:
        yield client


@pytest.fixture(scope="session")
def outcomes(filled: Settings, rows: Records) -> Records:
    """What came of the predictions, as if each was right or wrong by its number; they are in the database."""
    assert filled.clickhouse is not None
    made = np.zeros(len(rows), OUTCOME)
    for name in (
        "symbol",
        "model_id",
        "seq",
        "event_ns",
        "ref_price",
        "expected_return_bps",
        "p_down",
        "p_flat",
        "p_up",
    ):
        made[name] = rows[name]
    made["horizon_ns"] = rows["horizon_ns"]
    made["from_ns"], made["resolved_ns"] = rows["event_ns"], rows["event_ns"] + rows["horizon_ns"]
    made["realised"] = rows["seq"] % 3
    made["return_bps"] = (made["realised"].astype(float) - 1) * 2
    made["later_price"] = made["ref_price"] * (1 + made["return_bps"] / 1e4)
    made["log_loss"], made["brier"], made["cost_bps"] = 1.0, 0.6, 1.0
    made["fallback_log_loss"] = np.nan
    sink = ClickHouseSink(filled.clickhouse.get_secret_value())

    async def fill() -> None:
        await sink.write(Batch(made, ((0, 1, len(made)),), "epoch-1"))
        await sink.close()

    asyncio.run(fill())
    return made
