"""Messages of several connections become one sequence: nothing twice, nothing missing that is not told."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from exporters.client.continuity import Continuity, Had, Stream
from exporters.client.items import Batch, Gap, Item, Reset, Stats
from exporters.feed_channels import CHANNELS, FEED_TICK
from exporters.protocol import Mode
from stream.records import PREDICTION

SYMBOLS = (b"AIG", b"BAC")


def batch(*messages: tuple[bytes, int, int], is_snapshot: bool = False, epoch: str = "e") -> Batch:
    """Predictions: symbol, seq, and the offset of the tick behind."""
    records = np.zeros(len(messages), PREDICTION)
    records["symbol"] = [symbol for symbol, _, _ in messages]
    records["seq"] = [seq for _, seq, _ in messages]
    records["source_offset"] = [offset for _, _, offset in messages]
    return Batch("prediction", records, is_snapshot, None, epoch, 1)


def ticks(*messages: tuple[int, int], is_snapshot: bool = False) -> Batch:
    """Ticks of AIG: the seq before, and seq."""
    records = np.zeros(len(messages), FEED_TICK)
    records["symbol"] = b"AIG"
    records["prev"] = [before for before, _ in messages]
    records["seq"] = [seq for _, seq in messages]
    return Batch("tick", records, is_snapshot, None, "e", 1)


def books(channel: str = "prediction", streams: int = 1, mode: Mode = Mode.FULL) -> tuple[Continuity, list[Stream]]:
    continuity = Continuity(CHANNELS[channel], Stats())
    continuity.streams = [Stream(lambda _: mode) for _ in range(streams)]
    return continuity, continuity.streams


def told(items: list[Item]) -> list[object]:
    """Items, with batches as their snapshot flag and seqs."""
    return [
        ("snapshot" if item.is_snapshot else "data", item.records["seq"].tolist())
        if isinstance(item, Batch)
        else item
        for item in items
    ]


def test_the_first_of_a_symbol_is_a_snapshot_and_what_follows_is_not() -> None:
    continuity, (stream,) = books()
    assert told(continuity.take(stream, batch((b"AIG", 7, 7), (b"AIG", 8, 8)))) == [
        ("snapshot", [7]),
        ("data", [8]),
    ]
    assert told(continuity.take(stream, batch((b"AIG", 9, 9), (b"AIG", 10, 10)))) == [("data", [9, 10])]


def test_a_hole_in_one_stream_is_told_where_it_is() -> None:
    continuity, (stream,) = books()
    continuity.take(stream, batch((b"AIG", 7, 7), is_snapshot=True))
    items = continuity.take(stream, batch((b"AIG", 8, 8), (b"AIG", 11, 11), (b"AIG", 12, 12)))
    assert told(items) == [("data", [8]), Gap("prediction", "AIG", 8, 11), ("data", [11, 12])]
    assert items[1].missing == 2  # type: ignore[union-attr]


def test_of_ticks_the_seq_before_tells_what_is_missing() -> None:
    continuity, (stream,) = books("tick")
    continuity.take(stream, ticks((0, 4097), is_snapshot=True))
    assert told(continuity.take(stream, ticks((4097, 8193), (8193, 8194)))) == [("data", [8193, 8194])]
    items = continuity.take(stream, ticks((9000, 9001)))
    assert told(items) == [Gap("tick", "AIG", 8194, 9001), ("data", [9001])]
    assert items[0].missing is None  # type: ignore[union-attr]


def test_numbers_that_begin_anew_are_told_and_begin_with_a_snapshot() -> None:
    continuity, (stream,) = books()
    continuity.take(stream, batch((b"AIG", 500, 900), is_snapshot=True))
    assert told(continuity.take(stream, batch((b"AIG", 499, 899), (b"AIG", 1, 901), (b"AIG", 2, 902)))) == [
        Reset("prediction", ("AIG",), "restarted"),
        ("snapshot", [1]),
        ("data", [2]),
    ]


def test_another_epoch_begins_everything_anew_and_one_that_is_over_does_not_come_back() -> None:
    continuity, (one, other) = books(streams=2)
    for stream in (one, other):
        continuity.take(stream, batch((b"AIG", 7, 7), is_snapshot=True))
    assert told(continuity.take(one, batch((b"AIG", 3, 3), is_snapshot=True, epoch="f"))) == [
        Reset("prediction", ("AIG",), "epoch"),
        ("snapshot", [3]),
    ]
    assert continuity.take(other, batch((b"AIG", 8, 8))) == []
    continuity.end(one)
    assert told(continuity.take(other, batch((b"AIG", 9, 9)))) == [
        Reset("prediction", ("AIG",), "epoch"),
        ("snapshot", [9]),
    ]


def test_of_the_newest_only_what_is_newer_is_given_with_how_many_were_left_out() -> None:
    continuity, (one, other) = books(streams=2, mode=Mode.LATEST)
    skipping = np.zeros(1, np.uint32)

    def newest(stream: Stream, seq: int, is_snapshot: bool = False) -> list[tuple[list[int], list[int]]]:
        records = batch((b"AIG", seq, seq)).records
        items = continuity.take(stream, Batch("prediction", records, is_snapshot, skipping, "e", 1))
        return [(i.records["seq"].tolist(), i.skipped.tolist()) for i in items if isinstance(i, Batch)]  # type: ignore[union-attr]

    assert newest(one, 5, is_snapshot=True) == [([5], [0])]
    assert newest(other, 4, is_snapshot=True) == []
    assert newest(other, 9) == [([9], [3])]
    assert newest(one, 8) == []
    assert newest(one, 10) == [([10], [0])]


def test_what_one_gateway_no_longer_has_is_not_missed_while_another_brings_it() -> None:
    continuity, (one, other) = books(streams=2)
    continuity.take(one, batch((b"AIG", 5, 5), is_snapshot=True))
    # The other comes back later, cannot bring what was between, and begins further on.
    assert continuity.reset(other, ["AIG"], "gone") == []
    assert continuity.take(other, batch((b"AIG", 9, 9), is_snapshot=True)) == []
    assert not other.is_ahead  # to ask it again would be in vain
    assert told(continuity.take(one, batch((b"AIG", 6, 6), (b"AIG", 7, 7)))) == [("data", [6, 7])]
    # Now only the other is left: that is a loss, and is told.
    assert continuity.end(one) == [Reset("prediction", ("AIG",), "gone")]
    assert other.is_ahead
    assert told(continuity.take(other, batch((b"AIG", 10, 10)))) == [("snapshot", [10])]


def test_a_stream_that_was_ahead_until_the_others_came_there_is_as_good_as_they_are() -> None:
    continuity, (one, other) = books(streams=2)
    continuity.take(one, batch((b"AIG", 5, 5), is_snapshot=True))
    assert continuity.reset(other, ["AIG"], "gone") == []
    continuity.take(other, batch((b"AIG", 7, 7), is_snapshot=True))
    continuity.take(one, batch((b"AIG", 6, 6), (b"AIG", 7, 7)))
    assert continuity.end(one) == []
    assert told(continuity.take(other, batch((b"AIG", 8, 8)))) == [("data", [8])]


def test_a_stream_that_is_ahead_is_asked_to_go_back_and_not_believed() -> None:
    continuity, (one, other) = books(streams=2)
    continuity.take(one, batch((b"AIG", 5, 5), is_snapshot=True))
    assert continuity.take(other, batch((b"AIG", 8, 8), is_snapshot=True)) == []
    assert other.is_ahead
    continuity.begin(other, {b"AIG": Had(5, 5 << 16)})
    assert told(continuity.take(other, batch((b"AIG", 6, 6), (b"AIG", 7, 7), (b"AIG", 8, 8)))) == [
        ("data", [6, 7, 8])
    ]
    assert continuity.take(one, batch((b"AIG", 6, 6))) == []


# ---- any two gateways, killed at any time -----------------------------------------------------------------------


@dataclass
class Gateway:
    """Reads the log of all messages up to `head`, and holds those from `start` on."""

    head: int = 0
    start: int = 0


@dataclass
class Connection:
    """What a gateway still has to send us: (is snapshot, index in the log)."""

    stream: Stream
    due: list[tuple[bool, int]] = field(default_factory=list)


class World:
    """An engine, two gateways, a client that connects to both."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, int]] = []  # symbol, seq; the index is the place of the tick
        self.missing: set[tuple[bytes, int]] = set()  # the engine's own holes
        self.seqs = dict.fromkeys(SYMBOLS, 0)
        self.gateways = [Gateway(), Gateway()]
        self.connections: list[Connection | None] = [None, None]
        self.books = Continuity(CHANNELS["prediction"], Stats())
        self.out: list[Item] = []
        self.needless: list[str] = []

    def publish(self, symbol: int, hole: bool) -> None:
        name = SYMBOLS[symbol]
        self.seqs[name] += 1
        if hole:
            self.missing.add((name, self.seqs[name]))
        else:
            self.log.append((name, self.seqs[name]))

    def read(self, which: int, count: int) -> None:
        """A gateway reads on, and sends it to whoever is connected."""
        gateway, connection = self.gateways[which], self.connections[which]
        until = min(len(self.log), gateway.head + count)
        if connection is not None:
            seen = {self.log[index][0] for index in range(gateway.head)}
            for index in range(gateway.head, until):
                connection.due.append((self.log[index][0] not in seen, index))
                seen.add(self.log[index][0])
        gateway.head = until

    def forget(self, which: int) -> None:
        """A gateway lets go of what is old."""
        gateway = self.gateways[which]
        gateway.start = max(gateway.start, gateway.head - 4)

    def connect(self, which: int) -> None:
        if self.connections[which] is not None:
            return
        stream = Stream(lambda _: Mode.FULL)
        self.books.streams.append(stream)
        self.connections[which] = Connection(stream)
        self.ask(which)

    def ask(self, which: int) -> None:
        """Subscribe, and resume what came."""
        gateway, connection = self.gateways[which], self.connections[which]
        assert connection is not None
        self.deliver(which, len(connection.due))  # the answer is behind what was sent before
        after = dict(self.books.had)
        self.books.begin(connection.stream, after)
        for symbol in SYMBOLS:
            mine = [index for index in range(gateway.head) if self.log[index][0] == symbol]
            if not mine:
                continue
            had = after.get(symbol)
            missed = [] if had is None else [index for index in mine if index > had.order >> 16]
            if had is None:
                connection.due.append((True, mine[-1]))
            elif mine[-1] < had.order >> 16:
                self.lose(connection, symbol, mine[-1], "ahead")
            elif missed and missed[0] < gateway.start:
                self.lose(connection, symbol, mine[-1], "gone")
            else:
                connection.due += [(False, index) for index in missed]

    def lose(self, connection: Connection, symbol: bytes, newest: int, reason: str) -> None:
        self.tell(self.books.reset(connection.stream, [symbol.decode()], reason))
        connection.due.append((True, newest))

    def deliver(self, which: int, count: int) -> None:
        connection = self.connections[which]
        if connection is None:
            return
        for is_snapshot, index in connection.due[:count]:
            symbol, seq = self.log[index]
            self.out += self.books.take(connection.stream, batch((symbol, seq, index), is_snapshot=is_snapshot))
        del connection.due[:count]

    def settle(self) -> None:
        """Ask again whoever is ahead."""
        for which, connection in enumerate(self.connections):
            if connection is not None and connection.stream.is_ahead:
                connection.stream.is_ahead = False
                self.ask(which)

    def kill(self, which: int) -> None:
        connection = self.connections[which]
        if connection is not None:
            self.connections[which] = None
            self.tell(self.books.end(connection.stream))

    def tell(self, items: list[Item]) -> None:
        """Take in what was told; note what the first connection would have brought."""
        first = self.connections[0]
        for item in items:
            if isinstance(item, Reset) and first is not None:
                self.needless += [name for name in item.symbols if name.encode() in first.stream.last]
        self.out += items


def check(out: list[Item], missing: set[tuple[bytes, int]]) -> tuple[int, dict[bytes, int]]:
    """Hold what came to the promise; return how many resets there were, and where each symbol is."""
    last: dict[bytes, int] = {}
    resets = 0
    for item in out:
        match item:
            case Batch():
                for symbol, seq in zip(item.records["symbol"].tolist(), item.records["seq"].tolist(), strict=True):
                    if symbol in last:
                        assert not item.is_snapshot
                        assert seq == last[symbol] + 1
                    else:
                        assert item.is_snapshot
                    last[symbol] = seq
            case Gap():
                symbol = item.symbol.encode()
                assert last[symbol] == item.after_seq
                holes = {(symbol, seq) for seq in range(item.after_seq + 1, item.before_seq)}
                assert holes <= missing, "a gap that is not the engine's"
                last[symbol] = item.before_seq - 1
            case Reset():
                resets += 1
                for name in item.symbols:
                    last.pop(name.encode(), None)
    return resets, last


STEPS = ["publish"] * 6 + ["read", "deliver"] * 5 + ["settle"] * 2 + ["connect"] * 2 + ["kill", "forget"]


def go_on(world: World, chance: random.Random, allowed: Callable[[str, int], bool]) -> None:
    """Let anything happen that may."""
    which, count = chance.randrange(2), chance.randint(1, 6)
    steps: dict[str, Callable[[], None]] = {
        "publish": lambda: world.publish(which, hole=chance.random() < 0.1),
        "read": lambda: world.read(which, count),
        "deliver": lambda: world.deliver(which, count),
        "connect": lambda: world.connect(which),
        "kill": lambda: world.kill(which),
        "forget": lambda: world.forget(which),
        "settle": world.settle,
    }
    what = chance.choice(STEPS)
    if allowed(what, which):
        steps[what]()


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_whatever_two_gateways_go_through_the_sequence_is_whole_or_it_was_told(
    seed: int, keeps: bool, one_stays: bool
) -> None:
    chance, world = random.Random(seed), World()  # noqa: S311
    if one_stays:
        world.connect(0)
    for _ in range(150):
        go_on(
            world,
            chance,
            lambda what, which: (what, keeps) != ("forget", True) and (what, which, one_stays) != ("kill", 0, True),
        )
    resets, _ = check(world.out, world.missing)
    if keeps:
        assert resets == 0, "nothing is lost while gateways hold everything"
    if one_stays:
        assert world.needless == [], "nothing is lost that a connection brings which lives"
    event(f"resets: {min(resets, 3)}")
    for which in (0, 1):
        world.connect(which)
        world.read(which, len(world.log))
    for _ in range(4):
        for which in (0, 1):
            world.deliver(which, len(world.log) + 10)
        world.settle()
    _, last = check(world.out, world.missing)
    newest = {
        symbol: max(s for n, s in world.log if n == symbol) for symbol in SYMBOLS if symbol in dict(world.log)
    }
    assert last == newest
