"""A client that comes back is given what it missed and goes on without a gap, or is told that it cannot."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from feed_driver import Client, Message, Running, Start, known, seqs
from prometheus_client import CollectorRegistry

from exporters.feed_catchup import CatchUp
from exporters.feed_channels import CHANNELS
from exporters.feed_fanout import Fanout
from exporters.feed_following import Following
from exporters.feed_history import Segment
from exporters.feed_metrics import FeedMetrics
from exporters.feed_requests import Resume, Subscribe
from exporters.feed_tail import Tail
from exporters.feed_wire import Held
from exporters.protocol import Mode
from stream.embedded.kafka import EmbeddedKafka
from stream.records import Records


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


async def epoch_of(gateway: Running) -> str:
    async with gateway.client() as client:
        return str((await client.next("heartbeat"))["epoch"])


async def resume(client: Client, epoch: str, *symbols: str, **last: int) -> list[Message]:
    """Subscribe and resume; return all messages with items up to and with `resumed`."""
    await client.follow(*symbols, mode="full", resume={"epoch": epoch, "seqs": last})
    got: list[Message] = []
    while not got or got[-1]["type"] != "resumed":
        got.append(await client.next("snapshot", "prediction", "reset", "resumed"))
    return got


def items(messages: list[Message]) -> list[Message]:
    return [item | {"type": message["type"]} for message in messages for item in message.get("predictions", [])]


async def test_what_was_missed_comes_from_memory_and_then_it_goes_on_live(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 40))
    await known(gateway, eventually, predictions=80)
    async with gateway.client() as client:
        messages = await resume(client, await epoch_of(gateway), "*", AIG=10)
        # BAC, of which it had nothing, begins with a snapshot; AIG with the next.
        assert seqs(items(messages), "AIG") == list(range(11, 41))
        assert [(i["type"], i["seq"]) for i in items(messages) if i["symbol"] == "BAC"] == [("snapshot", 40)]
        assert {item["type"] for item in items(messages) if item["symbol"] == "AIG"} == {"prediction"}
        assert messages[-1]["seqs"] == {"AIG": 40}
        await publish(make_rows(["AIG"], 3, first=41))
        assert seqs(await client.until("AIG", 43), "AIG") == [41, 42, 43]
        # Nothing was missed: that is no reset either.
        messages = await resume(client, messages[0]["epoch"], "AIG", AIG=43)
        assert [message["type"] for message in messages] == ["resumed"]


async def test_what_memory_no_longer_has_comes_from_kafka_while_the_feed_goes_on(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_memory=1024)
    total, more = 6000, 2000
    await publish(make_rows(["AIG", "BAC"], total), block_rows=25)
    await known(gateway, eventually, predictions=2 * total)
    epoch = await epoch_of(gateway)

    async def go_on() -> None:
        for first in range(total + 1, total + more + 1, 20):
            await publish(make_rows(["AIG", "BAC"], 20, first=first), block_rows=5)
            await asyncio.sleep(0.002)

    async with gateway.client("*", mode="full") as live, gateway.client() as late:
        await live.items(2, "snapshot")
        publishing = asyncio.create_task(go_on())
        messages = await resume(late, epoch, "AIG", "BAC", AIG=3, BAC=5000)
        assert "reset" not in [message["type"] for message in messages]
        got = items(messages)
        await publishing
        end = total + more
        while seqs(got, "AIG")[-1:] != [end] or seqs(got, "BAC")[-1:] != [end]:
            got += await late.items(1)
        assert seqs(got, "AIG") == list(range(4, end + 1))
        assert seqs(got, "BAC") == list(range(5001, end + 1))
        alive = await live.until("AIG", end)
        assert seqs(alive, "AIG") == list(range(total + 1, end + 1))
    assert (await gateway.health())["slow_closes"] == 0
    assert await counted(gateway, 'tickloom_feed_resumes_total{outcome="kafka"}') == 2


async def counted(gateway: Running, name: str) -> float:
    for line in (await gateway.metrics()).splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


@pytest.mark.parametrize(
    ("last", "reason"),
    [({"AIG": 500}, "ahead"), ({"AIG": 7}, "gone"), ({"NONE": 7}, "gone")],
    ids=["newer than what there is", "older than what there is", "of a symbol that never was"],
)
async def test_what_cannot_be_had_is_told_and_begins_with_a_snapshot(
    start: Start, publish: Any, make_rows: Any, eventually: Any, last: dict[str, int], reason: str
) -> None:
    gateway = await start(gateway_memory=1024)
    await publish(make_rows(["AIG"], 50, first=100))
    await known(gateway, eventually, predictions=50)
    async with gateway.client() as client:
        await client.follow("*", resume={"epoch": await epoch_of(gateway), "seqs": last})
        reset = await client.next("reset")
        assert (reset["id"], reset["symbols"], reset["reason"]) == (1, list(last), reason)
        await publish(make_rows(["AIG", "NONE"], 2, first=150))
        got = await client.until("NONE", 151)
        if "AIG" in last:
            assert ("snapshot", 149) in [(item["type"], item["seq"]) for item in got]
        assert [item["type"] for item in got if item["symbol"] == "NONE"] == ["snapshot", "prediction"]


@pytest.mark.parametrize("known_rows", [0, 4], ids=["of a symbol that is new", "of one that it knows"])
async def test_what_a_gateway_has_not_read_yet_is_neither_gone_nor_ahead_of_it(
    start: Start,
    publish: Any,
    make_rows: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    known_rows: int,
) -> None:
    gateway = await start()
    epoch = await epoch_of(gateway)
    if known_rows:
        await publish(make_rows(["AIG"], known_rows))
        await known(gateway, eventually, predictions=known_rows)
    go_on, hand_on, held = asyncio.Event(), Tail._hand_on, asyncio.Event()

    async def behind(*arguments: Any) -> None:
        held.set()
        await go_on.wait()
        await hand_on(*arguments)

    monkeypatch.setattr(Tail, "_hand_on", behind)
    await publish(make_rows(["AIG"], 6 - known_rows, first=known_rows + 1))  # the client was told by another
    await asyncio.wait_for(held.wait(), 20)
    async with gateway.client() as client:
        await client.follow("AIG", resume={"epoch": epoch, "seqs": {"AIG": 6}})
        with pytest.raises(TimeoutError):
            await client.next("reset", "resumed", within_s=1)
        go_on.set()
        message = await client.next("reset", "resumed", "snapshot", "prediction")
        assert (message["type"], message.get("seqs")) == ("resumed", {"AIG": 6})
        await publish(make_rows(["AIG"], 3, first=7))
        assert seqs(await client.until("AIG", 9), "AIG") == [7, 8, 9]


async def test_another_epoch_is_no_place_to_resume_from(gateway: Running, publish: Any, make_rows: Any) -> None:
    await publish(make_rows(["AIG"], 5))
    async with gateway.client("AIG") as client:
        await client.until("AIG", 5)
        await client.follow("AIG", resume={"epoch": "another", "seqs": {"AIG": 3}})
        assert (await client.next("reset"))["reason"] == "epoch"
        assert [item["seq"] for item in (await client.next("snapshot"))["predictions"]] == [5]


async def test_a_replay_begins_at_its_time_and_goes_on_live(
    start: Start, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_memory=1024)
    old_ns = time.time_ns()
    await publish(make_rows(["AIG", "BAC"], 700), block_rows=20)
    await asyncio.sleep(1.2)  # Kafka is asked from a second earlier, and rows are judged by their own time
    from_ns = time.time_ns()
    await publish(make_rows(["AIG", "BAC"], 700, first=701), block_rows=20)
    await known(gateway, eventually, predictions=2800)
    for since_ns, first in ((from_ns, 701), (old_ns, 1)):
        async with gateway.client() as client:
            await client.follow("A*", replay_from_ns=since_ns)
            got: list[Message] = []
            while not got or got[-1]["type"] != "replay_completed":
                got.append(await client.next("snapshot", "prediction", "reset", "replay_completed"))
            assert seqs(items(got), "AIG") == list(range(first, 1401))
            assert [item["type"] for item in items(got)][:2] == ["snapshot", "prediction"]
            assert {item["symbol"] for item in items(got)} == {"AIG"}
    async with gateway.client() as client:
        await client.follow("*", replay_from_ns=time.time_ns() + 10**12)
        await client.next("replay_completed")
        await publish(make_rows(["AIG"], 2, first=1401))
        got = await client.until("AIG", 1402)
        # Of what has not moved since, too, there is a snapshot to begin with.
        assert [(item["type"], item["seq"]) for item in got if item["symbol"] == "AIG"] == [
            ("snapshot", 1400),
            ("prediction", 1401),
            ("prediction", 1402),
        ]


async def test_who_no_longer_wants_the_past_does_not_get_it(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG", "BAC"], 50))
    await known(gateway, eventually, predictions=100)
    epoch = await epoch_of(gateway)
    async with gateway.client() as client:
        await client.say(
            op="subscribe",
            symbols=["AIG", "BAC"],
            mode="full",
            resume={"epoch": epoch, "seqs": {"AIG": 1, "BAC": 1}},
        )
        await client.say(op="unsubscribe", id=2, symbols=["AIG"])
        await client.next("unsubscribed")
        resumed = [await client.next("prediction", "resumed") for _ in range(2)]
        if "AIG" not in resumed[-1].get("seqs", {"AIG": 0}):
            assert {item["symbol"] for item in items(resumed)} == {"BAC"}
        await publish(make_rows(["AIG", "BAC"], 2, first=51))
        assert {item["symbol"] for item in await client.until("BAC", 52)} == {"BAC"}


async def test_bars_resume_from_memory_alone(gateway: Running, publish: Any, make_rows: Any) -> None:
    rows = make_rows(["AIG"], 5000)  # 1 ms apart: the bars of seconds 1 to 3 are whole
    await publish(rows)
    async with gateway.client() as client:
        await client.follow("AIG", channel="bar.1s", replay_from_ns=0)
        bars: list[Message] = []
        while not bars or bars[-1]["seq"] < 1_700_000_004:
            message = await client.next("snapshot", "bar.1s")
            bars += message["bars"]
        assert [bar["seq"] for bar in bars] == list(range(1_700_000_001, 1_700_000_005))
        await client.follow(
            "AIG", channel="bar.1s", resume={"epoch": message["epoch"], "seqs": {"AIG": bars[1]["seq"]}}
        )
        again = await client.next("bar.1s")
        assert [(bar["prev"], bar["seq"]) for bar in again["bars"]] == [
            (1_700_000_002, 1_700_000_003),
            (1_700_000_003, 1_700_000_004),
        ]
        await client.next("resumed")
        await client.follow("AIG", channel="bar.1s", resume={"epoch": message["epoch"], "seqs": {"AIG": 5}})
        assert (await client.next("reset"))["reason"] == "gone"


async def test_a_hundred_that_come_back_at_once_miss_nothing(
    gateway: Running, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 300))
    await known(gateway, eventually, predictions=300)
    epoch = await epoch_of(gateway)

    async def come_back(last: int) -> list[int]:
        async with gateway.client() as client:
            return seqs(items(await resume(client, epoch, "AIG", AIG=last)), "AIG")

    got = await asyncio.gather(*(come_back(last) for last in range(100)))
    assert got == [list(range(last + 1, 301)) for last in range(100)]


class PlainClient:
    """What a catch-up needs of a client; ``meanwhile`` runs whenever it waits for the client to read."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.followings: defaultdict[str, Following] = defaultdict(Following)
        self.is_binary, self.peer, self.got = False, "me", list[Message]()
        self._meanwhile = meanwhile

    def post(self, held: Held) -> None:
        data = held.frame[{126: 4, 127: 10}.get(held.frame[1], 2) :]
        self.got.append(orjson.loads(data))

    def allow_snapshot(self, items: int) -> None:
        pass

    async def room(self) -> bool:
        self._meanwhile()
        return True


class PlainArchive:
    """All blocks. The feed goes on whenever anybody waits for anything."""

    def __init__(self, rows: list[Records], meanwhile: Callable[[], None]) -> None:
        self.rows, self._meanwhile, self.starts = rows, meanwhile, {0: 0}

    @asynccontextmanager
    async def open(self) -> AsyncIterator["PlainArchive"]:
        self._meanwhile()
        yield self
        self._meanwhile()

    async def offsets_at(self, from_ns: int) -> dict[int, int | None]:
        return {0: max(0, from_ns + 2 * 10**9) // 20}

    async def read(self, positions: dict[int, int], ends: Callable[[int], int]) -> AsyncIterator[Any]:
        while positions[0] < ends(0):
            rows = self.rows[positions[0]]
            positions[0] += 1
            yield 0, rows, positions[0]


@pytest.mark.parametrize(("every", "blocks"), [(9, 1), (2, 1), (5, 4), (7, 5), (1, 1)])
@pytest.mark.parametrize("replay", [False, True])
async def test_nothing_is_lost_however_fast_memory_forgets_meanwhile(
    make_rows: Any, monkeypatch: pytest.MonkeyPatch, every: int, blocks: int, replay: bool
) -> None:
    monkeypatch.setattr("exporters.feed_catchup._PIECE_ROWS", 20)
    all_rows = make_rows(["AIG"], 8000)
    all_rows["published_ns"] = all_rows["seq"] - 1 - (10**9 if replay else 0)
    archive_rows = [all_rows[start : start + 20] for start in range(0, 8000, 20)]
    metrics = FeedMetrics(CollectorRegistry())
    fanout = Fanout(CHANNELS["prediction"], metrics, time.time_ns, memory=60)
    sent = calls = 0

    def publish(count: int) -> None:
        nonlocal sent
        for rows in archive_rows[sent : sent + count]:
            sent += 1
            fanout.publish(rows, [Segment(len(rows), 0, sent)])

    def go_on() -> None:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            publish(blocks)

    client = PlainClient(go_on)
    fanout.begin("e", {0: 0})
    fanout.show_all()
    publish(30)
    past: dict[str, Any] = {"replay_from_ns": 40 - 10**9} if replay else {"resume": Resume("e", {"AIG": 40})}
    request = Subscribe(1, ("AIG",), Mode.FULL, **past)
    client.followings["prediction"].subscriptions.subscribe(request)
    catch_up = CatchUp(client, fanout, request, PlainArchive(archive_rows, go_on), metrics)  # type: ignore[arg-type]
    fanout.join(client)  # type: ignore[arg-type]
    fanout.greet(client, request)  # type: ignore[arg-type]
    await catch_up.run()
    publish(3)
    while fanout.rounds.backlog:
        await asyncio.sleep(0.001)
    assert seqs(items(client.got), "AIG") == list(range(41, 20 * sent + 1))
    kinds = [message["type"] for message in client.got if message["type"] not in ("prediction", "snapshot")]
    assert kinds == ["replay_completed" if replay else "resumed"]
