"""Who gets what, without a socket: order, gaps, skipping, slowness; a slow client is the only one to notice."""

from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from exporters.client import BACKLOG_BYTES, Client
from exporters.hub import Hub
from exporters.ws_metrics import FeedMetrics
from exporters.ws_protocol import ListSubscriptions, ProtocolError, Subscribe, Unsubscribe
from stream.clock import NS_PER_S


class Time:
    now_ns = 1_700_000_000 * NS_PER_S

    def __call__(self) -> int:
        return self.now_ns


class FakeWire:
    """Keeps what was written; ``stuck`` makes it look like a socket that nobody reads."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.stuck = False
        self.closed: tuple[int, str] | None = None
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.data += data
        self.writes += 1

    def backlog_bytes(self) -> int:
        return BACKLOG_BYTES + 1 if self.stuck else 0

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def take(self) -> list[dict[str, Any]]:
        messages, at = [], 0
        while at < len(self.data):
            size, head = self.data[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(self.data[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(self.data[at + 2 : at + 10], "big"), 10
            messages.append(orjson.loads(self.data[at + head : at + head + size]))
            at += head + size
        self.data.clear()
        return messages


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def hub(time: Time) -> Hub:
    made = Hub(queue_limit=20, metrics=FeedMetrics(CollectorRegistry()), clock=time)
    made.new_epoch("one")
    return made


def join(hub: Hub, *symbols: str, mode: Any = "full", every_ms: int = 0) -> tuple[Client, FakeWire]:
    wire = FakeWire()
    client = Client(wire, Time.now_ns)
    hub.join(client, token_needed=False)
    if symbols:
        hub.handle(client, Subscribe(1, "prediction", symbols, mode, every_ms))
    return client, wire


def seqs(messages: list[dict[str, Any]], symbol: str) -> list[int]:
    return [m["seq"] for m in messages if m["type"] == "prediction" and m["symbol"] == symbol]


def test_a_client_is_greeted_gets_a_snapshot_and_then_what_follows(hub: Hub, make_rows: Any) -> None:
    hub.publish(make_rows(["AIG", "BAC"], 3), 5)
    _, wire = join(hub, "AIG", "XYZ")
    hello, subscribed, snapshot = wire.take()
    assert (hello["type"], hello["schema_version"], hello["epoch"]) == ("hello", 1, "one")
    assert (subscribed["id"], subscribed["symbols"], subscribed["unknown"]) == (1, ["AIG", "XYZ"], ["XYZ"])
    assert [(p["symbol"], p["seq"]) for p in snapshot["predictions"]] == [("AIG", 3)]
    assert snapshot["more"] is False
    hub.publish(make_rows(["AIG", "BAC"], 2, first=4), 7)
    messages = wire.take()
    assert seqs(messages, "AIG") == [4, 5]
    assert seqs(messages, "BAC") == []
    message = messages[0]
    assert message["gateway_ns"] == 7
    assert message["send_ns"] == Time.now_ns
    assert message["model_id"] == "fedcba9876543210"
    assert message["p_up"] == 0.5
    stamps = ["recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns"]
    assert [message[stamp] for stamp in stamps] == sorted(message[stamp] for stamp in stamps)


def test_a_burst_is_one_write_for_each_client_and_the_same_bytes(hub: Hub, make_rows: Any) -> None:
    wires = [join(hub, "*")[1] for _ in range(3)]
    for wire in wires:
        wire.take()
        wire.writes = 0
    hub.publish(make_rows(["AIG", "BAC"], 5), 1)
    assert [wire.writes for wire in wires] == [1, 1, 1]
    assert wires[0].data == wires[1].data == wires[2].data
    assert seqs(wires[0].take(), "BAC") == [1, 2, 3, 4, 5]


def test_a_slow_client_is_warned_then_sent_away_with_what_it_was_given_and_others_do_not_notice(
    hub: Hub, make_rows: Any
) -> None:
    client, slow = join(hub, "AIG")
    _, quick = join(hub, "AIG")
    hub.publish(make_rows(["AIG"], 5), 1)
    slow.take()
    slow.stuck = True
    hub.publish(make_rows(["AIG"], 12, first=6), 1)
    assert client.warned
    assert slow.closed is None
    hub.publish(make_rows(["AIG"], 12, first=18), 1)
    assert slow.closed == (4008, "slow consumer; last delivered: AIG 5")
    (error,) = slow.take()
    assert (error["code"], error["delivered"]) == ("slow_consumer", {"AIG": 5})
    assert seqs(quick.take(), "AIG") == list(range(1, 30))
    assert client not in hub.clients


def test_a_client_that_reads_again_in_time_misses_nothing(hub: Hub, make_rows: Any) -> None:
    _, wire = join(hub, "*")
    wire.stuck = True
    hub.publish(make_rows(["AIG"], 15), 1)
    assert hub.waiting
    wire.stuck = False
    hub.pump()
    messages = wire.take()
    assert seqs(messages, "AIG") == list(range(1, 16))
    assert [m["code"] for m in messages if m["type"] == "warning"] == ["falling_behind"]
    assert not hub.waiting


def test_latest_skips_and_says_how_many(hub: Hub, make_rows: Any) -> None:
    hub.publish(make_rows(["AIG", "BAC"], 1), 1)
    _, wire = join(hub, "*", mode="latest")
    wire.take()
    wire.stuck = True
    for first in range(2, 1000):
        hub.publish(make_rows(["AIG"], 1, first=first), 1)
    wire.stuck = False
    hub.pump()
    (message,) = wire.take()
    assert (message["seq"], message["skipped"]) == (999, 997)
    hub.publish(make_rows(["AIG"], 1, first=1000), 1)
    (message,) = wire.take()
    assert (message["seq"], message["skipped"]) == (1000, 0)


def test_latest_waits_as_long_as_the_client_wants(hub: Hub, time: Time, make_rows: Any) -> None:
    _, wire = join(hub, "AIG", mode="latest", every_ms=100)
    wire.take()
    hub.publish(make_rows(["AIG"], 1), 1)
    hub.publish(make_rows(["AIG"], 3, first=2), 1)
    assert seqs(wire.take(), "AIG") == [1]
    hub.pump()
    assert wire.take() == []
    time.now_ns += NS_PER_S // 10
    hub.pump()
    (message,) = wire.take()
    assert (message["seq"], message["skipped"]) == (4, 2)


def test_a_break_in_the_numbering_is_told_before_what_follows(hub: Hub, make_rows: Any) -> None:
    _, full = join(hub, "*")
    _, latest = join(hub, "*", mode="latest")
    hub.publish(make_rows(["AIG"], 5), 1)
    full.take()
    latest.take()
    hub.publish(make_rows(["AIG"], 1, first=9), 1)
    reset, follows = full.take()
    assert (reset["type"], reset["reason"], reset["missing"], reset["last_seq"]) == ("reset", "gap", 3, 5)
    assert follows["seq"] == 9
    assert [m["skipped"] for m in latest.take()] == [3]
    hub.publish(make_rows(["AIG"], 2), 1)
    assert [(m["type"], m.get("reason"), m["seq"]) for m in full.take()] == [
        ("reset", "restart", 1),
        ("prediction", None, 1),
        ("prediction", None, 2),
    ]
    assert [(m["type"], m["seq"]) for m in latest.take()] == [("reset", 2), ("prediction", 2)]


def test_heartbeats_tell_the_last_seq_of_what_a_client_wants_and_status_what_it_asked_for(
    hub: Hub, make_rows: Any
) -> None:
    _, one = join(hub, "AIG")
    client, every = join(hub, "*")
    hub.handle(client, Subscribe(2, "status", (), "latest", 0))
    hub.publish(make_rows(["AIG", "BAC"], 4), 1)
    one.take()
    every.take()
    hub.heartbeat(lambda: {"clients": 2})
    (beat,) = one.take()
    assert (beat["type"], beat["seqs"], beat["server_ns"]) == ("heartbeat", {"AIG": 4}, Time.now_ns)
    status, beat = every.take()
    assert (status["type"], status["clients"]) == ("status", 2)
    assert beat["seqs"] == {"AIG": 4, "BAC": 4}


def test_an_idle_client_is_sent_away_and_one_without_its_token_too(hub: Hub, time: Time) -> None:
    _, idle = join(hub)
    unknown = Client(without := FakeWire(), time.now_ns)
    hub.join(unknown, token_needed=True)
    hub.heartbeat(dict)
    assert idle.closed is None
    time.now_ns += 11 * NS_PER_S
    hub.heartbeat(dict)
    assert idle.closed is not None
    assert idle.closed[0] == 4408
    assert without.closed is not None
    assert without.closed[0] == 4401
    assert not hub.clients


def test_subscriptions_are_listed_changed_and_given_up(hub: Hub, make_rows: Any) -> None:
    hub.publish(make_rows(["AIG", "BAC"], 1), 1)
    client, wire = join(hub, "AIG", "BAC")
    wire.take()
    with pytest.raises(ProtocolError, match="this connection has mode full"):
        hub.handle(client, Subscribe(3, "prediction", ("SPY",), "latest", 0))
    hub.handle(client, Unsubscribe(4, "prediction", ("BAC",)))
    hub.handle(client, ListSubscriptions(5))
    gone, listed = wire.take()
    assert gone["symbols"] == ["BAC"]
    assert listed["subscriptions"] == [{"channel": "prediction", "mode": "full", "every_ms": 0, "symbols": ["AIG"]}]
    assert listed["available"] == ["AIG", "BAC"]
    hub.publish(make_rows(["AIG", "BAC"], 1, first=2), 1)
    assert {m["symbol"] for m in wire.take()} == {"AIG"}
    with pytest.raises(ProtocolError, match="no such subscription"):
        hub.handle(client, Unsubscribe(6, "prediction", ("BAC",)))


def test_a_big_snapshot_comes_in_parts(hub: Hub, make_rows: Any) -> None:
    hub.restore(make_rows([f"S{n}" for n in range(1200)], 1))
    _, wire = join(hub, "*")
    parts = [m for m in wire.take() if m["type"] == "snapshot"]
    assert [len(part["predictions"]) for part in parts] == [500, 500, 200]
    assert [part["more"] for part in parts] == [True, True, False]


def test_another_cluster_begins_anew(hub: Hub, make_rows: Any) -> None:
    _, wire = join(hub, "*")
    hub.publish(make_rows(["AIG"], 5), 1)
    wire.take()
    hub.new_epoch("two")
    hub.publish(make_rows(["AIG"], 1), 1)
    reset, follows = wire.take()
    assert (reset["reason"], reset["epoch"], follows["seq"]) == ("epoch", "two", 1)
