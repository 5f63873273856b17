"""Rounds over parts of the clients: all get all, once and in order, and nobody waits for all others."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.feed_board import Int64s
from exporters.feed_pacer import FLUSH_EVERY_S
from exporters.feed_rounds import Chunk, Rounds, rest_after
from exporters.feed_wire import Held
from stream.records import PREDICTION, Records

SYMBOLS = 3
CLIENTS = 300  # three parts


class Client:
    """Takes every frame at once."""

    is_binary = False

    def __init__(self) -> None:
        self.got: list[Held] = []

    def post(self, held: Held) -> None:
        self.got.append(held)


class Follows:
    """As much of a `Following` as rounds look at."""

    def __init__(self, full: list[bool]) -> None:
        self.full = np.array(full)
        self.full_key = self.full.tobytes() if any(full) else b""


class Channel:
    """Rounds, the clients they serve, and rows with the numbers 1, 2, 3... of each symbol."""

    def __init__(self, clients: int = CLIENTS) -> None:
        self.followers = {Client(): Follows([True] * SYMBOLS) for _ in range(clients)}
        self.seqs = np.zeros(SYMBOLS, np.int64)
        self.rounds = Rounds(False, self._frames, lambda rows: None)
        self.head = 0
        self.changing, *self.others = self.followers
        self.wanted: defaultdict[int, list[int]] = defaultdict(list)  # by the one whose subscriptions change

    def put(self, *slots: int) -> None:
        if not self.rounds.known:
            self.rounds.set_clients(cast(Any, self.followers))
        rows = np.zeros(len(slots), PREDICTION)
        before = []
        for row, slot in zip(rows, slots, strict=True):
            before.append(int(self.seqs[slot]))
            self.seqs[slot] += 1
            if self.followers[self.changing].full[slot]:
                self.wanted[slot].append(int(self.seqs[slot]))
            row["symbol"], row["seq"] = str(slot), self.seqs[slot]
        positions = np.arange(self.head, self.head + len(slots))
        self.head += len(slots)
        is_first = None if self.head % 2 else np.zeros(len(slots), bool)  # the same
        self.rounds.put(Chunk(rows, np.array(slots), is_first, positions, before))

    def had(self, client: Client) -> dict[int, list[int]]:
        got: defaultdict[int, list[int]] = defaultdict(list)
        for held in client.got:
            for pair in held.frame.split():
                slot, seq = map(int, pair.split(b":"))
                got[slot].append(seq)
        return got

    def _frames(self, is_snapshot: bool, rows: Records, positions: Int64s, binary: bool) -> Iterator[Held]:
        assert not is_snapshot
        assert len(rows) == len(positions)
        yield Held(b" ".join(b"%b:%d" % (bytes(row["symbol"]), row["seq"]) for row in rows), len(rows))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=6)),
        st.tuples(st.just("turns"), st.integers(1, 4)),
        st.tuples(st.just("follow"), st.lists(st.booleans(), min_size=SYMBOLS, max_size=SYMBOLS)),
    ),
    min_size=1,
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=60)
def test_whatever_comes_when_everybody_gets_what_he_follows_once_and_in_order(steps: list[Any]) -> None:
    async def run() -> None:
        channel = Channel()
        for what, argument in steps:
            match what:
                case "put":
                    channel.put(*argument)
                case "turns":
                    for _ in range(argument):
                        await asyncio.sleep(0)
                case "follow":
                    channel.rounds.forget()
                    channel.followers[channel.changing] = Follows(argument)
            before = channel.rounds.before_unsent()
            settled = np.array([before.get(slot, seq) for slot, seq in enumerate(channel.seqs.tolist())])
            # A heartbeat may say less than a client has, never more: it would ask for what is on its way.
            for had in map(channel.had, channel.others):
                assert all(had[slot][-1:] >= [seq] for slot, seq in enumerate(settled.tolist()) if seq)
        channel.rounds.forget()
        everything = {slot: list(range(1, seq + 1)) for slot, seq in enumerate(channel.seqs.tolist()) if seq}
        assert all(channel.had(client) == everything for client in channel.others)
        assert channel.had(channel.changing) == channel.wanted

    asyncio.run(run())


async def test_between_two_parts_the_late_get_what_has_come_meanwhile_too() -> None:
    channel = Channel()
    channel.put(0)
    first, *_, last = channel.followers
    assert (len(first.got), len(last.got)) == (1, 0)  # the first part at once
    channel.put(1)
    while channel.rounds.backlog:
        await asyncio.sleep(0)
    assert [held.items for held in first.got] == [1, 1]
    assert [held.items for held in last.got] == [2]


async def test_a_message_that_comes_alone_goes_out_at_once_and_is_followed_by_no_rest() -> None:
    channel = Channel(clients=100)
    for number in range(1, 4):
        channel.put(0)
        assert [len(client.got) for client in channel.followers] == [number] * 100
        assert not channel.rounds.busy


async def test_a_round_in_which_messages_gathered_is_followed_by_rest() -> None:
    channel = Channel(clients=100)
    client = next(iter(channel.followers))
    rested = False
    for _ in range(10):  # a machine that stops us meanwhile makes the round too long to rest after it
        channel.put(0, 1, 2, 0)
        time.sleep(0.004)  # what writing to sockets takes
        await asyncio.sleep(0)
        before = len(client.got)
        channel.put(0)
        rested = rested or len(client.got) == before
        while channel.rounds.busy:
            await asyncio.sleep(0.001)
        assert len(client.got) == before + 1
    assert rested


@pytest.mark.parametrize(
    ("worked_s", "rest_s"),
    [
        (0.0, 0.0),
        (0.0003, 0.0),
        (0.003, 0.003),
        (0.5 * FLUSH_EVERY_S, 0.5 * FLUSH_EVERY_S),
        (0.8 * FLUSH_EVERY_S, 0.2 * FLUSH_EVERY_S),
        (FLUSH_EVERY_S, 0.0),
        (1.0, 0.0),
    ],
)
def test_a_rest_is_as_long_as_the_work_but_no_round_waits_longer_than_a_flush(
    worked_s: float, rest_s: float
) -> None:
    assert rest_after(worked_s) == pytest.approx(rest_s)
