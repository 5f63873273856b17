"""Any worker answers for the state of any symbol."""

from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from lane_kafka import Kafka, NewWorker, trades, until
from lane_worker import PARTITIONS, Worker
from markets import Feed
from prometheus_client import CollectorRegistry

from agents.state_view import StateView
from stream.app import tell_address
from stream.records import TICK, partition_of
from stream.telemetry import TelemetryServer

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def serving(new_worker: NewWorker) -> Any:
    """``async with serving("w1") as (worker, url)``: a worker that answers, as `stream/compose.py` has it."""

    @asynccontextmanager
    async def run(name: str) -> Any:
        servers: list[TelemetryServer] = []

        async def before(worker: Worker) -> None:
            view = StateView(worker.app, worker.lanes, PARTITIONS)
            routes = {"/state/{symbol}": view.answer}
            server = TelemetryServer(worker.health, CollectorRegistry(), dict, routes=routes)
            servers.append(await server.__aenter__())
            tell_address(worker.app, "127.0.0.1", server.port)

        try:
            async with new_worker(name, before) as worker:
                yield worker, f"http://127.0.0.1:{servers[0].port}"
        finally:
            for server in servers:
                await server.__aexit__(None, None, None)

    return run


async def ask(url: str, symbol: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/state/{symbol}") as response:
        return response.status, await response.json()


async def test_each_of_two_workers_answers_for_every_symbol(kafka_io: Kafka, serving: Any) -> None:
    feed = Feed()
    symbols = [f"VIEW{number}" for number in range(8)]
    async with serving("w1") as (first, url_1), serving("w2") as (second, url_2):
        await until(lambda: first.app.consumer.starts and second.app.consumer.starts, "both have partitions")
        await kafka_io.send(trades(feed, "VIEW", 5))
        made = [first.metrics, second.metrics]
        await until(lambda: sum(metrics.predictions for metrics in made) >= 40, "all ticks are predicted")
        for url in (url_1, url_2):
            for symbol in symbols:
                status, state = await ask(url, symbol)
                assert (status, state["symbol"], state["seq"]) == (200, symbol, 5)
                assert state["partition"] == partition_of(np.array([symbol], TICK["symbol"]), PARTITIONS)[0]
        assert first.lanes.owned
        assert second.lanes.owned
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(url_1, "VIEW0")


async def test_what_is_no_symbol_or_never_ticked_is_told(kafka_io: Kafka, serving: Any) -> None:
    async with serving("w1") as (worker, url):
        assert (await ask(url, "ANY"))[0] == 503 or worker.app.consumer.starts
        await until(lambda: worker.app.consumer.starts, "the worker has partitions")
        status, told = await ask(url, "NEVER-SEEN")
        assert (status, "has not ticked" in told["error"]) == (404, True)
        status, told = await ask(url, "X" * 25)
        assert (status, "1 to 24 printable" in told["error"]) == (400, True)
