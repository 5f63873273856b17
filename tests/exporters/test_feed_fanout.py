"""The fan-out without a network: whatever happens in whatever order, a client's messages add up."""

from typing import Any, cast

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from websockets.protocol import State

from exporters.feed_client import FeedClient
from exporters.feed_history import Segment
from exporters.feed_hub import Hub
from exporters.feed_metrics import FeedMetrics
from exporters.feed_requests import Subscribe, parse_request
from stream.records import PREDICTION, Records

SYMBOLS = ("AIG", "BAC", "SPY")
MODES = ('"mode":"latest"', '"mode":"full"', '"mode":"throttle","throttle_ms":10')


def make_rows(symbol: str, count: int, first: int, now_ns: int) -> Records:
    rows = np.zeros(count, PREDICTION)
    rows["symbol"], rows["seq"], rows["published_ns"] = symbol, np.arange(first, first + count), now_ns
    return rows


class Transport:
    """Takes everything at once, or nothing leaves it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.stalled = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 1 if self.stalled else 0

    def get_extra_info(self, name: str) -> None:
        return None


class Connection:
    """As much of a connection as a client needs."""

    def __init__(self) -> None:
        self.transport, self.protocol = Transport(), self
        self.subprotocol, self.extensions, self.state = None, (), State.OPEN
        self.remote_address = "test"


class Feed:
    """A hub, its clients, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ns = 1
        self.hub = Hub(FeedMetrics(CollectorRegistry()), lambda: self.now_ns, 4096)
        self.fanout = self.hub.channels["prediction"]
        self.fanout.begin("one", {0: 0})
        self.fanout.show_all()
        self.seqs = dict.fromkeys(SYMBOLS, 0)
        self.clients: list[tuple[FeedClient, Transport]] = []

    def connect(self) -> None:
        connection = Connection()
        client = FeedClient(cast(Any, connection), 100_000, self.hub._metrics, self.hub.holding)
        self.hub.add(client)
        self.clients.append((client, connection.transport))

    def subscribe(self, number: int, symbols: str, mode: str) -> None:
        client, _ = self.clients[number]
        request = parse_request(f'{{"op":"subscribe","symbols":["{symbols}"],{mode}}}')
        assert isinstance(request, Subscribe)
        client.followings["prediction"].subscriptions.subscribe(request)
        self.fanout.join(client)
        self.fanout.greet(client, request)

    def publish(self, symbol: str, count: int) -> None:
        rows = make_rows(symbol, count, first=self.seqs[symbol] + 1, now_ns=self.now_ns)
        self.seqs[symbol] += count
        self.fanout.publish(rows, [Segment(count, 0, 1)])


def check(transport: Transport, newest: dict[str, int]) -> None:
    """Every message says where its symbol is, and how many of it were left out since the one before."""
    at: dict[str, int] = {}
    for frame in transport.written:
        header = 2 if frame[1] < 126 else 4
        message = orjson.loads(frame[header:])
        for prediction in message.get("predictions", []):
            symbol, seq = prediction["symbol"], prediction["seq"]
            if message["type"] == "prediction":
                assert seq == at[symbol] + prediction.get("skipped", 0) + 1, transport.written
            at[symbol] = seq
    assert at == newest


WANTED = st.tuples(st.sampled_from(("*", "A*", *SYMBOLS)), st.sampled_from(MODES))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(SYMBOLS), st.integers(1, 3)),
        st.tuples(st.just("flush"), st.integers(0, 15), st.just(0)),
        st.tuples(st.just("stall"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("subscribe"), st.integers(0, 3), WANTED),
    ),
    min_size=10,
    max_size=30,
)


@given(first=st.lists(WANTED, min_size=4, max_size=4), steps=STEPS)
@settings(max_examples=60)
def test_every_client_ends_at_the_newest_and_what_was_left_out_adds_up(
    first: list[tuple[str, str]], steps: list[Any]
) -> None:
    feed = Feed()
    for number, wanted in enumerate(first):
        feed.connect()
        feed.subscribe(number, *wanted)
    for kind, one, other in steps:
        if kind == "publish":
            feed.publish(one, other)
        elif kind == "flush":
            feed.now_ns += one * 1_000_000
            feed.hub.flush()
        elif kind == "stall":
            feed.clients[one][1].stalled = other
        else:
            feed.subscribe(one, *other)
    for _, transport in feed.clients:
        transport.stalled = False
    feed.now_ns += 10**9
    feed.hub.flush()
    for client, transport in feed.clients:
        follows = client.followings["prediction"].subscriptions.choice_of
        check(transport, {name: seq for name, seq in feed.seqs.items() if seq and follows(name.encode()).mode})


def test_clients_at_the_same_point_cost_little_each() -> None:
    feed = Feed()
    for number in range(500):
        feed.connect()
        feed.subscribe(number, "*", MODES[0])
    made = 0
    newest = feed.fanout._newest

    def count(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return newest(*arguments)

    feed.fanout._newest = count  # type: ignore[method-assign]
    stalled = feed.clients[0][1]
    for turn in range(20):
        stalled.stalled = turn == 10
        feed.publish("AIG", 2)
        feed.hub.flush()
    # One for all of each turn, and one for the client that comes back.
    assert made == 21
    assert {len(transport.written) for _, transport in feed.clients[1:]} == {20}
    assert len({transport.written[-1] for _, transport in feed.clients}) == 1
