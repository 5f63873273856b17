"""From the archive to ClickHouse: the same rows as the exporter wrote."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clickhouse_driver import Client
from prometheus_client import CollectorRegistry

from exporters.archive.ranges import OpenRange
from exporters.archive.restore import chosen
from exporters.archive.restore_clickhouse import restore_to_clickhouse
from exporters.archive.vault import Chain, Vault
from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from exporters.intake import TickIntake
from exporters.metrics import IntakeMetrics
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import PREDICTION, TICK, Records, TickKind, encode_block
from stream.sources.replay import Replay
from stream.topics import PREDICTIONS, TICKS

BLOCK_TICKS = 500
EPOCH = "epoch-1"
# What the two databases must agree on: everything but when a row was written.
QUESTIONS = (
    "SELECT * EXCEPT (ingested_time) FROM v_ticks ORDER BY ALL",
    "SELECT * EXCEPT (ingested_time) FROM predictions FINAL ORDER BY ALL",
    "SELECT * FROM v_bars_1s ORDER BY ALL",
    "SELECT * FROM v_bars_1h ORDER BY ALL",
    "SELECT * FROM v_stage_latency ORDER BY ALL",
)


class Sent:
    """A message of Kafka."""

    def __init__(self, offset: int, rows: Records) -> None:
        self.partition, self.offset, self.timestamp = 0, offset, 1_700_000_000_000 + offset
        self.value, self.headers = encode_block(rows), ()


def predicted(ticks: Records) -> Records:
    """A prediction for each tick, as a lane would place it."""
    rows = np.zeros(len(ticks), PREDICTION)
    rows["symbol"], rows["event_ns"], rows["recv_ns"] = ticks["symbol"], ticks["event_ns"], ticks["event_ns"]
    rows["seq"] = np.arange(1, len(ticks) + 1)
    mid = (ticks["bid"] + ticks["ask"]) / 2
    rows["ref_price"] = np.where(ticks["kind"] == TickKind.TRADE, ticks["price"], mid)
    rows["p_flat"] = 1
    rows["source_offset"], rows["source_index"] = np.divmod(np.arange(len(ticks)), BLOCK_TICKS)
    for step, stage in enumerate(("consumed_ns", "features_ns", "inferred_ns", "published_ns")):
        rows[stage] = rows["recv_ns"] + 10_000 * (step + 1)
    return rows


def url_of(server: EmbeddedClickHouse, database: str) -> str:
    return f"{server.url.rpartition('/')[0]}/{database}"


class Known:
    """Knows the ticks that its predictions follow."""

    def __init__(self, ticks: Records) -> None:
        self._ticks = ticks

    async def find(self, rows: Records) -> Records:
        return self._ticks[rows["source_offset"] * BLOCK_TICKS + rows["source_index"]]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_database_comes_back_as_the_exporter_wrote_it(
    clickhouse: EmbeddedClickHouse, shared_data: Path, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    day = next(iter(Replay([shared_data / "ticks" / "us_equity"], symbols=["AIG"]).days()))
    ticks = np.ascontiguousarray(day[:6_000])
    assert ticks.dtype == TICK
    blocks = [Sent(at, ticks[at * BLOCK_TICKS : (at + 1) * BLOCK_TICKS]) for at in range(12)]
    rows = predicted(ticks)
    calls = [Sent(at, rows[at * 1000 : (at + 1) * 1000]) for at in range(6)]

    first, second = fresh_name("written"), fresh_name("restored")
    placed = TickIntake(IntakeMetrics(CollectorRegistry())).read(0, blocks).rows
    for sink, what in (
        (ClickHouseSink(url_of(clickhouse, first)), placed),
        (PredictionSink(url_of(clickhouse, first), Known(ticks)), rows),
    ):
        await sink.write(Batch(what, ((0, 0, 11),), EPOCH))
        await sink.settle()
        await sink.close()

    vault = Vault(str(tmp_path))
    for topic, sent, cuts in ((TICKS, blocks, (5, 12)), (PREDICTIONS, calls, (1, 4, 6))):
        chain, start = Chain(topic, EPOCH, 0), 0
        for upto in cuts:
            each = OpenRange(chain, start)
            each.add(sent[start:upto])
            assert vault.add_range(chain, *each.close("aaaaaaaa"), "aaaaaaaa")
            start = upto
    for _ in range(2):  # to do it again does no harm
        for chain, history in chosen(vault, (TICKS, PREDICTIONS), None):
            done: list[int] = []
            written = await restore_to_clickhouse(url_of(clickhouse, second), vault, chain, history, done.append)
            assert written == sum(done) == len(ticks)
        await asyncio.to_thread(_same, clickhouse, first, second)


def _same(server: EmbeddedClickHouse, first: str, second: str) -> None:
    answers: list[list[Any]] = []
    for database in (first, second):
        client = Client.from_url(url_of(server, database))
        answers.append([client.execute(question) for question in QUESTIONS])
        client.disconnect()
    for question, one, other in zip(QUESTIONS, *answers, strict=True):
        assert len(one) > 0, question
        assert str(one) == str(other), question  # as text: NaN is NaN
    hours = answers[0][3]
    assert sum(row[6] for row in hours) > 0  # the ticks of the predictions were found, and their volume
