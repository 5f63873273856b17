"""Whatever order copies and Kafka come in, each prediction goes out once, in order, and Kafka is found to agree."""

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from feed_driver import PARTITIONS, Running, Start, known, seqs
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from exporters.feed_early import EARLY, EarlyCopies
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics
from stream.clock import NS_PER_S
from stream.cluster import cluster_id
from stream.early import Seal
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.records import PREDICTION, Records, encode_block, partition_of
from stream.telemetry import Health

MEMORY = 65_536
KEY = SecretStr("what workers and gateways share")
Copy = Callable[..., None]
MakeRows = Callable[..., Records]


@dataclass
class Feed:
    """A gateway's way in, and what it handed on."""

    memory: int = MEMORY
    now_ns: int = 1_000
    got: list[tuple[int, bytes, int]] = field(default_factory=list)  # partition, symbol, seq

    def __post_init__(self) -> None:
        self.health, self.registry = Health("gateway"), CollectorRegistry()
        self.intake = Intake(IntakeMetrics(self.registry))
        self.early = EarlyCopies(self.intake, self.memory, self.health, lambda: self.now_ns, self.registry)

    def copy(self, block: bytes) -> None:
        self.early.take(block)
        self.hand_on()

    def hand_on(self) -> None:
        for partition, rows in self.early.due():
            self._note(partition, rows)

    def kafka(self, partition: int, blocks: Sequence[bytes]) -> None:
        messages = [SimpleNamespace(partition=partition, offset=0, value=block) for block in blocks]
        left = self.early.without_told(partition, messages)
        if left:
            self._note(partition, self.intake.read(partition, left).rows)
        self.hand_on()

    def _note(self, partition: int, rows: Records) -> None:
        self.got += [(partition, symbol, seq) for symbol, seq in pairs(rows)]

    @property
    def figures(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.early.predictions.items() if count}


def pairs(rows: Records) -> list[tuple[bytes, int]]:
    return list(zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True))


def predictions(partition: int, symbols: Sequence[bytes]) -> Records:
    """The predictions of one partition: those of each symbol are numbered, the tick behind each is the next."""
    rows = np.zeros(len(symbols), PREDICTION)
    rows["symbol"], rows["source_partition"] = symbols, partition
    rows["source_offset"] = np.arange(len(symbols))
    rows["ref_price"] = rows["feature_hash"] = np.arange(len(symbols)) + 1
    last: dict[bytes, int] = {}
    for row, symbol in zip(rows, symbols, strict=True):
        row["seq"] = last[symbol] = last.get(symbol, 0) + 1
    return rows


def cut(rows: Records, lengths: Sequence[int], published_ns: int = 1) -> list[bytes]:
    """Blocks of these lengths, again and again, as a worker makes them; their stamps are of one run of it."""
    rows = rows.copy()
    rows["published_ns"] = published_ns
    blocks, start = [], 0
    while start < len(rows):
        length = lengths[len(blocks) % len(lengths)]
        blocks.append(encode_block(rows[start : start + length]))
        start += length
    return blocks


LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(max_examples=300)
@given(
    symbols=st.lists(st.sampled_from([b"A", b"B", b"C"]), min_size=1, max_size=40),
    cuts=st.lists(LENGTHS, min_size=1, max_size=3),
    data=st.data(),
)
def test_each_goes_out_once_and_in_order_and_is_confirmed(
    symbols: list[bytes], cuts: list[list[int]], data: st.DataObject
) -> None:
    """One run of a worker after the other: each begins at what Kafka has at the least, and cuts in its own way."""
    rows, feed = predictions(0, symbols), Feed()
    kept = 0  # rows that Kafka has
    for run, lengths in enumerate(cuts):
        begin = data.draw(st.integers(0, kept), label="goes on from")  # its last checkpoint
        blocks = cut(rows[begin:], lengths, published_ns=run + 1)
        # It dies before Kafka has had all of it, but for the last.
        in_kafka = len(blocks) if run == len(cuts) - 1 else data.draw(st.integers(0, len(blocks)), label="in Kafka")
        copies, messages = deque(blocks), deque(blocks[:in_kafka])
        held_up: list[bytes] = []
        while messages or (copies and data.draw(st.booleans(), label="more copies")):
            what = data.draw(st.sampled_from(["kafka", "copy", "lost", "held up", "late"]), label="what")
            if what == "kafka":
                count = min(len(messages), data.draw(st.integers(1, 3)))
                feed.kafka(0, [messages.popleft() for _ in range(count)])
            elif what == "late" and held_up:
                feed.copy(held_up.pop(data.draw(st.integers(0, len(held_up) - 1))))
            elif copies and what == "copy":
                feed.copy(copies.popleft())
            elif copies and what == "held up":
                held_up.append(copies.popleft())
            elif copies:
                copies.popleft()
        kept = max(kept, begin + sum(lengths[place % len(lengths)] for place in range(in_kafka)))
    for symbol in set(symbols):
        assert [seq for _, name, seq in feed.got if name == symbol] == list(range(1, symbols.count(symbol) + 1))
    assert feed.early.unconfirmed == 0
    assert feed.figures.get("told", 0) == feed.figures.get("confirmed", 0)
    assert not {"contradicted", "lost", "bad"} & feed.figures.keys()
    assert feed.early._room_rows == 8192


def test_a_copy_that_is_ahead_waits_for_what_kafka_has_in_between() -> None:
    feed = Feed()
    one, two, three, four = cut(predictions(0, [b"A"] * 8), [2])
    feed.kafka(0, [one])
    feed.copy(three)
    assert (len(feed.got), feed.early.wait) == (2, True)
    feed.kafka(0, [two])
    assert (len(feed.got), feed.early.wait) == (6, False)
    feed.copy(four)
    assert len(feed.got) == 8
    feed.kafka(0, [three, four])
    assert feed.figures == {"told": 4, "confirmed": 4}


def test_a_symbol_that_is_new_begins_with_kafka() -> None:
    feed = Feed()
    one, two = cut(predictions(0, [b"A", b"A", b"B", b"A"]), [2])
    feed.kafka(0, [one])
    feed.copy(two)
    assert len(feed.got) == 2
    feed.kafka(0, [two])
    assert [(symbol, seq) for _, symbol, seq in feed.got] == [(b"A", 1), (b"A", 2), (b"B", 1), (b"A", 3)]
    assert feed.figures == {"late": 2}


def test_what_kafka_says_otherwise_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    rows = predictions(0, [b"A"] * 6)
    one, two = cut(rows, [3])
    feed.kafka(0, [one])
    feed.copy(two)
    rows["p_up"][4] = 0.9
    feed.kafka(0, cut(rows, [3])[1:])
    assert feed.figures == {"told": 3, "confirmed": 2, "contradicted": 1}
    assert "another prediction (b'A', 5) than clients were told" in caplog.text
    assert [seq for _, _, seq in feed.got] == [1, 2, 3, 4, 5, 6]


def test_what_kafka_goes_on_without_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    one, two, three = cut(predictions(0, [b"A", b"B"] * 3), [2])
    feed.kafka(0, [one])
    feed.copy(two)
    feed.kafka(0, [three])
    assert feed.figures == {"told": 2, "lost": 2}
    assert "without 2 predictions that clients were told" in caplog.text
    assert feed.early.unconfirmed == 0


def test_no_more_is_told_than_the_feed_can_give_again() -> None:
    feed = Feed(memory=80)
    one, *more = cut(predictions(0, [b"A"] * 60), [4])
    feed.kafka(0, [one])
    for block in more:
        feed.copy(block)
    assert (len(feed.got), feed.early.unconfirmed) == (
        4 + 12,
        12,
    )  # an eighth is 10, and a block is told as a whole
    feed.kafka(0, more[:3])
    assert (len(feed.got), feed.early.unconfirmed) == (4 + 24, 12)


def test_copies_that_nothing_leads_to_make_room_for_newer_ones() -> None:
    feed = Feed()
    blocks = cut(predictions(0, [b"A"] * 700), [1])
    feed.kafka(0, blocks[:1])
    for block in blocks[2:]:
        feed.copy(block)
    assert feed.figures == {"late": 698 - 256}
    feed.kafka(0, blocks[1 : 2 + 698 - 256])
    assert [seq for _, _, seq in feed.got] == list(range(1, 701))


def test_copies_of_a_worker_that_died_do_not_keep_those_of_its_successor() -> None:
    feed = Feed()
    rows = predictions(0, [b"A"] * 9)
    one, *_ = cut(rows, [2])
    feed.kafka(0, [one])
    dead = cut(rows, [2], published_ns=1)
    feed.copy(dead[3])  # those before it were lost with it, also for Kafka
    alive = cut(rows, [3], published_ns=2)
    feed.kafka(0, [*alive[:3]])
    assert [seq for _, _, seq in feed.got] == list(range(1, 10))
    assert not feed.early.wait


@pytest.mark.parametrize("change", [{"p_up": np.nan}, {"seq": 0}, {"spread_bps": -1.0}, {"source_offset": -1}])
def test_what_cannot_be_true_is_left_to_the_intake(change: dict[str, Any]) -> None:
    feed = Feed()
    rows = predictions(0, [b"A"] * 4)
    feed.kafka(0, cut(rows, [2])[:1])
    for name, value in change.items():
        rows[name][3] = value
    feed.copy(cut(rows, [2])[1])
    assert (len(feed.got), feed.figures) == (2, {"bad": 2})


def test_what_is_no_block_of_predictions_is_counted() -> None:
    feed = Feed()
    feed.copy(b"noise")
    assert feed.figures == {"bad": 1}
    assert feed.registry.get_sample_value("tickloom_early_predictions_total", {"outcome": "bad"}) == 1


def test_partitions_do_not_wait_for_each_other() -> None:
    feed = Feed()
    ours, others = (
        cut(predictions(partition, [b"AB"[partition : partition + 1]] * 6), [2]) for partition in (0, 1)
    )
    feed.kafka(0, ours[:1])
    feed.kafka(1, others[:1])
    feed.copy(ours[2])
    feed.copy(others[1])
    assert feed.got[-2:] == [(1, b"B", 3), (1, b"B", 4)]
    assert feed.registry.get_sample_value("tickloom_early_unconfirmed") == 2


def test_all_is_forgotten_when_everything_is_numbered_anew() -> None:
    feed = Feed()
    one, two, _, four = cut(predictions(0, [b"A"] * 8), [2])
    feed.kafka(0, [one])
    feed.copy(two)
    feed.copy(four)
    feed.early.forget()
    feed.intake.forget_everything()
    assert (feed.early.unconfirmed, feed.early.wait, feed.early._room_rows) == (0, False, 8192)
    feed.kafka(0, [one])
    feed.copy(two)
    assert [seq for _, _, seq in feed.got] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_what_kafka_does_not_get_for_a_minute_is_a_problem_until_it_has_it() -> None:
    feed = Feed(now_ns=time.time_ns())
    one, two = cut(predictions(3, [b"A"] * 4), [2])
    feed.kafka(3, [one])
    feed.copy(two)
    feed.now_ns += 59 * NS_PER_S
    feed.early.check()
    assert EARLY not in feed.health.problems
    feed.now_ns += 2 * NS_PER_S
    feed.early.check()
    assert feed.health.problems[EARLY].endswith("no worker goes on with the partitions 3")
    feed.kafka(3, [two])
    feed.early.check()
    assert EARLY not in feed.health.problems


# ---- a gateway that runs, on a real broker ----


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


@pytest.fixture
def make_rows(make_rows: MakeRows) -> MakeRows:
    """As ever, each of a tick of its own."""

    def make(symbols: list[str], count: int, first: int = 1) -> Records:
        rows = make_rows(symbols, count, first)
        rows["source_index"] = np.tile(np.arange(len(symbols)), count)
        return rows

    return make


@pytest.fixture
def port() -> int:
    """Where the gateway takes copies."""
    return free_port()


@pytest.fixture
async def gateway(start: Start, port: int) -> Running:
    """A gateway that takes copies."""
    return await start(early_at=f"127.0.0.1:{port}", early_key=KEY, gateway_memory=1024)


@pytest.fixture
async def seal(kafka: EmbeddedKafka) -> Seal:
    """What the copies of our workers have."""
    return Seal(KEY, await cluster_id(kafka.bootstrap))


@pytest.fixture
def copy(port: int, seal: Seal) -> Iterator[Copy]:
    """Send copies of rows as workers do: of each partition its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))

        def send(rows: Records, block_rows: int = 4096, seal: Seal = seal) -> None:
            partitions = partition_of(rows["symbol"], PARTITIONS)
            for partition in range(PARTITIONS):
                ours = rows[partitions == partition]
                ours["source_partition"] = partition
                for begin in range(0, len(ours), block_rows):
                    sender.send(seal.close(encode_block(ours[begin : begin + block_rows])))

        yield send


async def early(gateway: Running) -> dict[str, int]:
    figures = (await gateway.health())["early"]
    return {outcome: count for outcome, count in figures.items() if count}


async def test_clients_have_it_before_kafka_and_once(
    gateway: Running, publish: Any, make_rows: MakeRows, copy: Copy, eventually: Any
) -> None:
    symbols = ["AIG", "BAC", "SPY"]
    await publish(make_rows(symbols, 5))
    await known(gateway, eventually, predictions=15)
    async with gateway.client("*", mode="full") as client, gateway.client("*") as latest:
        await client.items(3)
        rows = make_rows(symbols, 4, first=6)
        copy(rows, block_rows=5)
        got = await client.items(12)  # Kafka has none of them
        assert all(seqs(got, symbol) == [6, 7, 8, 9] for symbol in symbols)
        newest: dict[str, int] = {}
        while newest != dict.fromkeys(symbols, 9):
            newest |= {item["symbol"]: item["seq"] for item in await latest.items(1)}
        await publish(rows, block_rows=5)
        await eventually(lambda: _confirmed(gateway, 12))
        await publish(make_rows(symbols, 2, first=10))
        got = await client.items(6)
        assert all(seqs(got, symbol) == [10, 11] for symbol in symbols)
    assert await early(gateway) == {"told": 12, "confirmed": 12}
    assert (await gateway.health())["duplicates"] == 0
    metrics = await gateway.metrics()
    assert 'tickloom_early_predictions_total{outcome="told"} 12.0' in metrics
    assert 'tickloom_early_copies_total{outcome="foreign"} 0.0' in metrics


async def _confirmed(gateway: Running, count: int) -> bool:
    return (await early(gateway)).get("confirmed", 0) == count


async def test_what_comes_again_in_other_blocks_after_a_crash_is_the_same(
    gateway: Running, publish: Any, make_rows: MakeRows, copy: Copy, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 5))
    await known(gateway, eventually, predictions=10)
    async with gateway.client("*", mode="full") as client:
        await client.items(2)
        copy(make_rows(["AIG", "BAC"], 10, first=6), block_rows=4)
        await client.items(20)
        await publish(make_rows(["AIG", "BAC"], 12, first=4), block_rows=7)  # with stamps of its own
        await eventually(lambda: _confirmed(gateway, 20))
        await publish(make_rows(["AIG", "BAC"], 1, first=16))
        assert [item["seq"] for item in await client.items(2)] == [16, 16]
    assert await early(gateway) == {"told": 20, "confirmed": 20}


async def test_a_client_resumes_what_came_early_from_memory_and_from_kafka(
    gateway: Running, publish: Any, make_rows: MakeRows, copy: Copy, eventually: Any
) -> None:
    """Memory holds 1,024 rows, an eighth of it may be early: what is older has been confirmed, and is in Kafka."""
    await publish(make_rows(["AIG", "BAC"], 5))
    await known(gateway, eventually, predictions=10)
    async with gateway.client("AIG", "BAC", mode="full") as client:
        hello = (await client.items(2))[0]
        assert hello["seq"] == 5
        seq = 6
        for _ in range(20):
            rows = make_rows(["AIG", "BAC"], 60, first=seq)
            copy(rows, block_rows=16)
            await publish(rows, block_rows=16)
            await client.until("AIG", seq + 59)
            seq += 60
        newest = make_rows(["AIG", "BAC"], 10, first=seq)
        copy(newest)
        await client.until("BAC", seq + 9)
    assert (await early(gateway))["told"] > 0
    epoch = await _epoch(gateway)
    for first in (seq + 3, seq - 200, 7):  # in memory alone, at its edge, and in Kafka
        async with gateway.client() as late:
            resume = {"epoch": epoch, "seqs": {"AIG": first, "BAC": first}}
            await late.follow("*", resume=resume)
            count = 2 * (seq + 9 - first)
            got = await late.items(count, "prediction")
            assert seqs(got, "AIG") == seqs(got, "BAC") == list(range(first + 1, seq + 10))
            assert (await late.next("resumed"))["seqs"] == {"AIG": seq + 9, "BAC": seq + 9}
    await publish(newest)
    await eventually(lambda: _all_confirmed(gateway))


async def _all_confirmed(gateway: Running) -> bool:
    figures = await early(gateway)
    return figures["confirmed"] == figures["told"]


async def _epoch(gateway: Running) -> str:
    async with gateway.client("AIG", mode="full") as client:
        return str((await client.next("snapshot"))["epoch"])


async def test_strangers_are_not_heard(
    gateway: Running, publish: Any, make_rows: MakeRows, copy: Copy, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 5))
    await known(gateway, eventually, predictions=5)
    async with gateway.client("*", mode="full") as client:
        await client.items(1)
        copy(make_rows(["AIG"], 1, first=6), seal=Seal(None, "another cluster"))
        copy(make_rows(["AIG"], 1, first=6), seal=Seal(SecretStr("another"), "another cluster"))
        await eventually(lambda: _foreign(gateway, 2))
        await publish(make_rows(["AIG"], 1, first=6))
        assert [item["seq"] for item in await client.items(1)] == [6]
    assert await early(gateway) == {}


async def _foreign(gateway: Running, count: int) -> bool:
    return f'tickloom_early_copies_total{{outcome="foreign"}} {count}.0' in await gateway.metrics()


async def test_bars_are_made_of_what_came_early_too(
    gateway: Running, publish: Any, make_rows: MakeRows, copy: Copy, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 5))
    await known(gateway, eventually, predictions=5)
    async with gateway.client() as client:
        await client.follow("AIG", channel="bar.1s")
        rows = make_rows(["AIG"], 3, first=6)
        rows["event_ns"] += [0, 10**9, 2 * 10**9]
        copy(rows)
        bar = (await client.next("snapshot", "bar.1s"))["bars"][0]
        assert (bar["symbol"], bar["last_seq"]) == ("AIG", 7)  # of the one before, the gateway saw no beginning
