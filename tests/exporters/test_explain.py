"""A stored prediction is made again to the bit, wherever its traces are, and what is not so is said."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from clickhouse_driver import Client
from clickhouse_driver.util.helpers import parse_url
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))

from markets import equity_day

from agents import features
from agents.lane import Lane
from agents.swaps import Swap
from agents.windows import Windows
from exporters.batch import Batch
from exporters.clickhouse.rows import STORED_PREDICTION
from exporters.clickhouse.sink import ClickHouseSink
from exporters.explain import UnknownPrediction, explain
from exporters.intake import PLACED_TICK
from models.predictor import load_predictor
from models.promotion import send_models
from models.registry import Registry, Version
from stream.clock import NS_PER_S
from stream.cluster import cluster_id
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import PREDICTION, STAGES, Records, encode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, TICKS, create_topics

pytest.importorskip("onnx")

from bench.other_model import write_other_model

SYMBOLS = ("AIG", "BAC")
TICKS_EACH = 1500
SWAP_AT = 200  # block


@dataclass
class Stored:
    """A morning of two stocks through a lane that swaps its model in the middle, stored everywhere."""

    settings: Settings
    predictions: Records
    old_id: int
    new_id: int
    version: str  # of the new model
    url: str

    def of(self, symbol: str, model_id: int) -> Records:
        mine = self.predictions["symbol"] == symbol.encode()
        return self.predictions[mine & (self.predictions["model_id"] == model_id)]

    def without_kafka(self) -> Settings:
        return self.settings.model_copy(update={"kafka": None})


def blocks_of(shared_data: Path) -> list[Records]:
    """A morning's trades and quotes in turn, cut at random; a block comes twice, as after a source's restart."""
    ticks = np.stack([equity_day(shared_data, symbol, "20131007", TICKS_EACH) for symbol in SYMBOLS], 1).ravel()
    rng = np.random.default_rng(3)
    blocks = np.split(ticks, np.sort(rng.choice(np.arange(1, len(ticks)), 2 * SWAP_AT, replace=False)))
    return [*blocks[:50], blocks[49], *blocks[50:]]


def predicted(settings: Settings, blocks: list[Records], version: str, swap: Swap) -> list[Records]:
    lane = Lane(0, Windows(int(5 * NS_PER_S), int(5 * NS_PER_S)), load_predictor(settings.model))
    lane.timeline.add(swap, load_predictor(Registry(settings.registry_url).fetch(version)))
    outputs = [lane.apply([(offset, ticks)]).predictions for offset, ticks in enumerate(blocks)]
    for predictions in outputs:
        predictions["published_ns"] = predictions["inferred_ns"] + 1000
    return [each for each in outputs if len(each)]


async def store(settings: Settings, blocks: list[Records], predictions: list[Records], swap: Swap) -> None:
    assert settings.kafka is not None
    assert settings.clickhouse is not None
    await create_topics(settings.kafka, 1, 1, 24.0)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for topic, messages in ((TICKS, blocks), (PREDICTIONS, predictions)):
            for records in messages:
                await producer.send(topic, encode_block(records), partition=0)
    await send_models(settings.kafka, [(swap.key, swap.to_json())])
    placed = np.zeros(sum(map(len, blocks)), PLACED_TICK)
    placed["tick"] = np.concatenate(blocks)
    placed["source_offset"] = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    placed["source_index"] = np.concatenate([np.arange(len(block)) for block in blocks])
    epoch = await cluster_id(settings.kafka)
    sink = ClickHouseSink(settings.clickhouse.get_secret_value())
    try:
        for rows in (placed, stored_rows(np.concatenate(predictions))):
            await sink.write(Batch(rows, ((0, 0, 0),), epoch))
    finally:
        await sink.close()


def stored_rows(predictions: Records) -> Records:
    stored = np.zeros(len(predictions), STORED_PREDICTION)
    for name in PREDICTION.names or ():
        stored[name] = predictions[name]
    stored["newest_ns"] = predictions["event_ns"]
    return stored


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory,
    clickhouse: EmbeddedClickHouse,
    shared_data: Path,
    fresh_name: Callable[[str], str],
) -> Iterator[Stored]:
    """See `Stored`. Kafka is of this module alone: topics have fixed names."""
    root = tmp_path_factory.mktemp("explain")
    url = clickhouse.url.rsplit("/", 1)[0] + "/" + fresh_name("explain")
    with EmbeddedKafka(root) as kafka:
        settings = Settings(data_dir=root, kafka=kafka.bootstrap, clickhouse=SecretStr(url), partitions=1)
        write_other_model(settings.model, root / "made" / "model.onnx", seed=1)
        version = Registry(settings.registry_url).publish(root / "made" / "model.onnx", by="test")
        new_id, old_id = Version.parse(version).model_id, load_predictor(settings.model).model_id
        swap = Swap(0, SWAP_AT, 40, new_id, version, old_id, 1, "worker-1", 1)
        blocks = blocks_of(shared_data)
        predictions = predicted(settings, blocks, version, swap)
        asyncio.run(store(settings, blocks, predictions, swap))
        yield Stored(settings, np.concatenate(predictions), old_id, new_id, version, url)


def some_of(stored: Stored) -> list[tuple[str, int]]:
    """The first, those around the switch of each symbol, and the last."""
    wanted = []
    for symbol in SYMBOLS:
        before, after = stored.of(symbol, stored.old_id), stored.of(symbol, stored.new_id)
        assert len(before) > 50 < len(after)
        wanted += [(symbol, int(seq)) for seq in (1, before["seq"][-1], after["seq"][0], after["seq"][-1])]
    return wanted


def test_every_prediction_comes_out_again_to_the_bit_before_at_and_after_a_swap(stored: Stored) -> None:
    for symbol, seq in some_of(stored):
        found = explain(stored.settings, symbol, seq)
        assert (found.verdict, found.differences, found.reason) == ("identical", (), "")
        assert (found.found_in, found.ticks_from) == ("clickhouse", "kafka")
    assert found.version == stored.version
    assert [each.is_recorded for each in found.switches] == [True]


def test_it_does_so_from_clickhouse_alone_and_from_kafka_alone(stored: Stored) -> None:
    alone = (stored.without_kafka(), stored.settings.model_copy(update={"clickhouse": None}))
    for settings, name in zip(alone, ("clickhouse", "kafka"), strict=True):
        for symbol, seq in some_of(stored):
            found = explain(settings, symbol, seq)
            assert (found.verdict, found.differences, found.reason) == ("identical", (), "")
            assert (found.found_in, found.ticks_from) == (name, name)


def test_features_are_those_of_the_hash_by_name_and_latencies_are_those_of_the_record(stored: Stored) -> None:
    row = stored.of("AIG", stored.new_id)[-1]
    found = explain(stored.settings, "AIG", int(row["seq"]))
    plain = json.loads(json.dumps(found.plain()))
    assert [each["name"] for each in plain["features"]] == list(features.NAMES)
    assert any(each["taken"] for each in plain["features"])
    assert plain["stored"]["feature_hash"] == f"{row['feature_hash']:016x}"
    assert plain["stored"] == {**plain["recomputed"], **{name: plain["stored"][name] for name in STAGES}}
    assert plain["latencies_us"]["publish"] == 1.0
    assert plain["source"] == {
        "topic": "ticks",
        "source_index": row["source_index"],
        "source_partition": 0,
        "source_offset": row["source_offset"],
    }


def alter(stored: Stored, statement: str) -> None:
    host, options = parse_url(stored.url)
    client = Client(host, **options)
    client.execute(statement, settings={"mutations_sync": 2})
    client.disconnect()


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ("p_up = reinterpretAsFloat32(bitXor(reinterpretAsUInt32(p_up), 1))", ("p_up",)),
        ("ref_price = ref_price + 0.01", ("ref_price",)),
        ("flags = bitXor(flags, 4)", ("flags",)),
        ("feature_hash = feature_hash + 1", ("feature_hash",)),
        ("source_index = source_index + 1", ("source_index",)),
        ("spread_bps = spread_bps + 0.5", ("spread_bps",)),
    ],
)
def test_a_row_that_was_tampered_with_is_found_out_and_the_field_is_named(
    stored: Stored, change: str, fields: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    seq = 300 + request.node.callspec.indices["change"]
    alter(stored, f"ALTER TABLE predictions UPDATE {change} WHERE symbol = 'BAC' AND seq = {seq}")
    found = explain(stored.settings, "BAC", seq)
    assert (found.verdict, found.differences) == ("different", fields)
    (row,) = found.compared_values()
    assert row["stored"] != row["recomputed"]
    assert explain(stored.settings, "BAC", seq + 10).verdict == "identical"


def test_a_row_from_before_spreads_is_what_its_ticks_give_all_the_same(stored: Stored) -> None:
    alter(stored, "ALTER TABLE predictions UPDATE spread_bps = nan WHERE symbol = 'BAC' AND seq = 400")
    found = explain(stored.settings, "BAC", 400)
    assert (found.verdict, found.differences) == ("identical", ())
    assert np.isnan(found.stored["spread_bps"])
    assert found.recomputed is not None
    assert found.recomputed.prediction["spread_bps"] > 0.0


def test_it_says_which_model_is_gone(stored: Stored, tmp_path: Path) -> None:
    elsewhere = stored.settings.model_copy(update={"registry": str(tmp_path)})
    assert explain(elsewhere, "AIG", 1).verdict == "identical"
    found = explain(elsewhere, "AIG", int(stored.of("AIG", stored.new_id)["seq"][0]))
    assert (found.verdict, found.missing) == ("gone", "model")
    assert f"model {stored.new_id:016x} is gone" in found.reason


def test_it_says_which_ticks_are_gone(stored: Stored) -> None:
    alter(stored, "ALTER TABLE ticks DELETE WHERE symbol = 'BAC' AND source_offset < 30")
    found = explain(stored.without_kafka(), "BAC", 500)
    assert (found.verdict, found.missing) == ("gone", "ticks")
    assert "from block 3" in found.reason
    assert "some are missing" in found.reason
    assert explain(stored.settings, "BAC", 500).verdict == "identical"  # Kafka has them


def test_another_setting_than_the_workers_shows_in_the_hash_of_the_features(stored: Stored) -> None:
    found = explain(stored.settings.model_copy(update={"tick_rsi": 21}), "AIG", 700)
    assert (found.verdict, found.missing) == ("gone", "model")  # it was trained on the other RSI
    found = explain(stored.settings.model_copy(update={"session_gap_s": 1.0}), "AIG", 700)
    assert found.verdict == "different"
    assert "feature_hash" in found.differences


def test_what_was_never_predicted_is_unknown(stored: Stored) -> None:
    with pytest.raises(UnknownPrediction, match="no prediction AIG:99999 is in ClickHouse or Kafka"):
        explain(stored.settings, "AIG", 99_999)
    with pytest.raises(UnknownPrediction, match="of epoch elsewhere"):
        explain(stored.settings, "AIG", 1, "elsewhere")
    with pytest.raises(SettingsError, match="neither ClickHouse nor Kafka is configured"):
        explain(Settings(), "AIG", 1)


def test_a_clickhouse_that_is_away_is_done_without(stored: Stored, caplog: pytest.LogCaptureFixture) -> None:
    away = SecretStr("clickhouse://default@127.0.0.1:1/default")
    found = explain(stored.settings.model_copy(update={"clickhouse": away}), "AIG", 900)
    assert (found.verdict, found.found_in, found.outcome) == ("identical", "kafka", None)
    assert "going on without ClickHouse" in caplog.text


async def forget_blocks(bootstrap: str, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(TICKS, 0): RecordsToDelete(before_offset=before)})
    await admin.close()


def test_what_kafka_has_let_go_of_comes_from_clickhouse_and_else_it_says_so(stored: Stored) -> None:
    assert stored.settings.kafka is not None
    asyncio.run(forget_blocks(stored.settings.kafka, 20))  # the last of these tests: Kafka does not give them back
    found = explain(stored.settings, "AIG", 900)
    assert (found.verdict, found.ticks_from) == ("identical", "clickhouse")
    found = explain(stored.settings.model_copy(update={"clickhouse": None}), "AIG", 900)
    assert (found.verdict, found.missing) == ("gone", "ticks")
    assert "Kafka has the blocks from 20 on" in found.reason
