"""How fast do rows get from Kafka into ClickHouse, acknowledged, and at what cost to either side?

    python -m bench.clickhouse [DIRECTORY] [--day 2013-10-07] [--rows 500000] [--batch 20000] [--json FILE]

Real ticks of a day, and the predictions of the engine's lane on them (with a model that says nothing), are in Kafka
before anything is measured. Each contestant then reads all blocks of predictions with aiokafka, decodes them, and
inserts them in batches of the same size into a table of the same schema; a row counts once the server has
acknowledged it. ``whole`` are the flows of `tickloom export clickhouse` themselves, with all that they do: commits,
bars, latencies of stages and the trades of predictions are in it. CPU seconds are those of this
process and of the server's, user and system.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from clickhouse_driver import Client
from prometheus_client import CollectorRegistry

from agents.lane import Lane
from agents.windows import Windows
from bench.clickhouse_peers import PEERS
from bench.no_model import NoModel
from exporters.batch import Batch, Sink
from exporters.clickhouse.predictions import PredictionSink, with_trades
from exporters.clickhouse.server import quiet_driver
from exporters.clickhouse.sink import ClickHouseSink
from exporters.clickhouse.source_ticks import SourceTicks
from exporters.clickhouse.storage import storage
from exporters.consume import Consumption
from exporters.intake import Door, Intake, TickIntake
from exporters.metrics import IntakeMetrics, SinkMetrics
from stream.clock import NS_PER_S
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.records import PREDICTION, REJECTED, Records, decode_block, empty_ticks, encode_block, join_records
from stream.settings import Settings
from stream.sources.replay import Replay
from stream.telemetry import Health
from stream.topics import PREDICTIONS, REJECTED_TICKS, TICKS, create_topics

_BLOCK_TICKS: Final = 1000
_PART: Final = TopicPartition(PREDICTIONS, 0)
_WARM_UP_BATCHES: Final = 2

Insert = Callable[[Records], Awaitable[None]]


@dataclass(frozen=True)
class Market:
    """What is put into Kafka."""

    ticks: Records
    predictions: list[Records]  # by block of ticks
    rejected: Records


def make_market(directory: Path, day: str, rows: int) -> Market:
    """Let a lane take the first ``rows`` ticks of a recorded day."""
    ticks = next(Replay([directory], date.fromisoformat(day)).days())[:rows]
    ticks["recv_ns"] = ticks["event_ns"]
    lane = Lane(0, Windows(5 * NS_PER_S, 5 * NS_PER_S), NoModel())
    outputs = [
        lane.apply([(number, ticks[start : start + _BLOCK_TICKS])])
        for number, start in enumerate(range(0, len(ticks), _BLOCK_TICKS))
    ]
    predictions = [output.predictions.copy() for output in outputs if len(output.predictions)]
    for block in predictions:
        block["published_ns"] = block["inferred_ns"] + 20_000
    return Market(ticks, predictions, np.concatenate([np.zeros(0, REJECTED), *(each.rejected for each in outputs)]))


async def load(bootstrap: str, market: Market) -> None:
    """Fill the topics."""
    await create_topics(bootstrap, 1, 1, 24.0)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5) as producer:
        sent = []
        for start in range(0, len(market.ticks), _BLOCK_TICKS):
            block = encode_block(market.ticks[start : start + _BLOCK_TICKS])
            sent.append(await producer.send(TICKS, block, partition=0))
        sent += [await producer.send(PREDICTIONS, encode_block(rows), partition=0) for rows in market.predictions]
        if len(market.rejected):
            sent.append(await producer.send(REJECTED_TICKS, encode_block(market.rejected[:4096]), partition=0))
        await asyncio.gather(*sent)


async def batches(bootstrap: str, rows: int, batch_rows: int) -> AsyncIterator[Records]:
    """Read all predictions from Kafka, in batches of at least ``batch_rows``."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_min_bytes=1 << 20)
    await consumer.start()
    try:
        consumer.assign([_PART])
        held: list[Records] = []
        waiting = seen = 0
        while seen < rows:
            for messages in (await consumer.getmany(timeout_ms=500)).values():
                blocks = [decode_block(message.value, PREDICTION) for message in messages]
                held += blocks
                waiting += sum(map(len, blocks))
                seen += sum(map(len, blocks))
                if waiting >= batch_rows or seen == rows:
                    yield join_records(held)
                    held, waiting = [], 0
    finally:
        await consumer.stop()


class Meter:
    """Wall and CPU seconds of this process and of the server, of the ``with`` block."""

    def __init__(self, server_pid: int) -> None:
        self._server = psutil.Process(server_pid)
        self._own = psutil.Process(os.getpid())

    def __enter__(self) -> "Meter":
        self._begun = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s, self.client_s, self.server_s = (
            end - begin for begin, end in zip(self._begun, self._now(), strict=True)
        )

    def _now(self) -> tuple[float, float, float]:
        own, server = self._own.cpu_times(), self._server.cpu_times()
        return time.perf_counter(), own.user + own.system, server.user + server.system

    def figures(self, rows: int) -> dict[str, float]:
        """Return what it comes to for so many rows."""
        return {
            "rows_per_s": round(rows / self.wall_s),
            "rows_per_client_core_s": round(rows / self.client_s),
            "client_us_per_row": round(1e6 * self.client_s / rows, 3),
            "server_us_per_row": round(1e6 * self.server_s / rows, 3),
        }


async def contest(
    kafka: EmbeddedKafka, server: EmbeddedClickHouse, insert: Insert, rows: int, batch_rows: int
) -> dict[str, float]:
    """Measure one way to insert; the first batches warm it up and count for nothing."""
    counted = number = 0
    meter = Meter(server.pid)
    with contextlib.ExitStack() as measured:
        async for some in batches(kafka.bootstrap, rows, batch_rows):
            if number == _WARM_UP_BATCHES:
                measured.enter_context(meter)
            await insert(some)
            counted += len(some) if number >= _WARM_UP_BATCHES else 0
            number += 1
    return meter.figures(counted)


def ours(url: str) -> tuple[ClickHouseSink, Insert]:
    """Return our sink as a contestant: rows with the columns that it has more than the others, left empty."""
    sink, nothing = ClickHouseSink(url), empty_ticks(1)

    async def insert(rows: Records) -> None:
        await sink.write(Batch(with_trades(rows, np.broadcast_to(nothing, len(rows))), ((0, 0, 0),), "bench"))

    return sink, insert


async def whole(
    server: EmbeddedClickHouse,
    settings: Settings,
    topic: str,
    sink: Sink,
    make_door: Callable[[IntakeMetrics], Door],
    rows: int,
) -> dict[str, float]:
    """Measure a flow of the exporter, from its start until its last offset is committed."""
    registry, stop = CollectorRegistry(), asyncio.Event()
    metrics, intake = SinkMetrics(registry), IntakeMetrics(registry)
    group = f"bench-{topic}-{time.time_ns()}"
    flow = Consumption(
        settings,
        topic,
        group,
        sink,
        make_door(intake),
        metrics,
        Health("bench"),
        max_rows=settings.clickhouse_batch_rows,
        max_age_s=settings.clickhouse_flush_s,
    )
    with Meter(server.pid) as meter:
        running = asyncio.create_task(flow.run(stop))
        while metrics.written < rows and not running.done():
            await asyncio.sleep(0.02)
        stop.set()
        await running
    await sink.close()
    return meter.figures(rows)


async def measure(directory: Path, day: str, rows: int, batch_rows: int) -> dict[str, Any]:
    """Return all figures."""
    market = make_market(directory, day, rows)
    made = sum(map(len, market.predictions))
    with tempfile.TemporaryDirectory() as root, EmbeddedKafka(Path(root) / "kafka") as kafka:
        await load(kafka.bootstrap, market)
        with EmbeddedClickHouse(Path(root) / "clickhouse") as server:
            found: dict[str, Any] = {}
            base = server.url.rsplit("/", 1)[0]
            sink, insert = ours(f"{base}/ours")
            await sink.check()
            found["tickloom, insert only"] = await contest(kafka, server, insert, made, batch_rows)
            await sink.close()
            for name, make in PEERS.items():
                peer = ClickHouseSink(f"{base}/{name}")
                await peer.check()  # makes the tables
                await peer.close()
                async with make(server, name) as insert:
                    found[name.replace("_", " ")] = await contest(kafka, server, insert, made, batch_rows)
            settings = Settings(kafka=kafka.bootstrap, clickhouse=f"{base}/whole", clickhouse_batch_rows=batch_rows)
            url = f"{base}/whole"
            predictions = PredictionSink(url, SourceTicks(kafka.bootstrap))
            found["whole: predictions, bars, latencies"] = await whole(
                server, settings, PREDICTIONS, predictions, Intake, made
            )
            found["whole: ticks"] = await whole(
                server, settings, TICKS, ClickHouseSink(url), TickIntake, len(market.ticks)
            )
            return {"ticks": len(market.ticks), "predictions": made, "batch": batch_rows} | {
                "ways": found,
                "tables": _tables(url),
            }


def _tables(url: str) -> list[dict[str, Any]]:
    client = Client.from_url(url)
    try:
        held = [table for table in storage(client) if table.rows]
        for table in held:
            client.execute(f"OPTIMIZE TABLE {table.table} FINAL", settings={"send_receive_timeout": 300})
        return [table.as_dict() for table in storage(client) if table.rows]
    finally:
        client.disconnect()


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, nargs="?", default=Path("../shared/data/ticks/us_equity"))
    parser.add_argument("--day", default="2013-10-07")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    quiet_driver()
    found = asyncio.run(measure(wanted.directory, wanted.day, wanted.rows, wanted.batch))
    text = json.dumps(found, indent=1)
    print(text)
    if wanted.json is not None:
        wanted.json.write_text(text)


if __name__ == "__main__":
    main()
