"""The oracle itself: it sees what is missing, twice or different, and faults come as their seed says."""

from collections import Counter

import numpy as np
import pytest
from faults import LONG, SHORT, Kind, schedule
from flows import Flow
from full_client import FullView
from hypothesis import given
from hypothesis import strategies as st
from verdict import is_same

from exporters.client import Batch, Gap, Item, Reset
from stream.clock import NS_PER_S
from stream.records import PREDICTION


def batch(*rows: tuple[str, int], is_snapshot: bool = False, p_up: float = 0.5) -> Batch:
    records = np.zeros(len(rows), PREDICTION)
    records["symbol"], records["seq"] = [symbol for symbol, _ in rows], [seq for _, seq in rows]
    records["recv_ns"], records["p_up"] = records["seq"], p_up
    return Batch("prediction", records, is_snapshot, None, "x", 1)


def snapshot(*rows: tuple[str, int], p_up: float = 0.5) -> Batch:
    return batch(*rows, is_snapshot=True, p_up=p_up)


def view(*items: Item) -> FullView:
    """A client that has been given these items."""
    client = FullView(Flow(["A", "B"]))
    for item in items:
        client.take(item)
    return client


def test_what_follows_its_snapshot_without_a_gap_is_right() -> None:
    client = view(snapshot(("A", 3), ("B", 8)), batch(("A", 4), ("A", 5), ("B", 9)))
    assert (client.broken, client.told) == ([], [])
    assert client.newest == {"A": 5, "B": 9}


@pytest.mark.parametrize(
    ("told", "items"),
    [
        ("seq 5 came after 3", [snapshot(("A", 3)), batch(("A", 5))]),
        ("seq 3 came after 3", [snapshot(("A", 3)), batch(("A", 3))]),
        ("seq 3 came after None", [batch(("A", 3))]),
        ("snapshot of seq 5 came after 3", [snapshot(("A", 3)), snapshot(("A", 5))]),
        ("and was", [snapshot(("A", 3)), batch(("A", 3), p_up=0.25)]),
        ("Gap", [snapshot(("A", 3)), Gap("prediction", "A", 3, 5), batch(("A", 5))]),
    ],
)
def test_a_promise_of_the_feed_that_is_broken_is_seen(told: str, items: list[Item]) -> None:
    assert any(told in line for line in view(*items).broken)


def test_a_loss_that_was_told_is_no_broken_promise() -> None:
    client = view(snapshot(("A", 3)), Reset("prediction", ("A",), "gone"), snapshot(("A", 9)), batch(("A", 10)))
    assert client.broken == []
    assert len(client.told) == 1


def test_what_is_missing_twice_or_foreign_is_told() -> None:
    assert is_same("sink", [1, 2, 3], [3, 2, 1]) == []
    assert is_same("sink", [1, 3], [1, 2, 3]) == ["sink: 1 missing: [2]"]
    assert is_same("sink", [1, 2, 4], [1, 2]) == ["sink: 1 not of the undisturbed run: [4]"]
    assert "1 more than once" in is_same("sink", [1, 2, 2], [1, 2])[0]


def test_a_flow_flows_once_something_newer_of_every_symbol_has_come() -> None:
    flow = Flow(["A", "B"])
    flow.note("A", 5)
    flow.note("B", 5)
    assert flow.flows_since(5) is None
    flow.note("A", 6)
    flow.note("A", 6)
    assert flow.flows_since(5) is None
    flow.note("B", 7)
    assert flow.flows_since(5) is not None
    assert flow.silence_s(0, NS_PER_S) == 1.0


@given(st.integers(0, 2**32 - 1))
def test_a_seed_gives_the_same_faults_again_and_none_is_left_out(seed: int) -> None:
    faults = schedule(seed, LONG)
    assert faults == schedule(seed, LONG)
    assert Counter(fault.kind for fault in faults) == Counter(LONG)
    assert all(0 <= fault.after_s <= 3 and 1 <= fault.lasts_s(1, 2) <= 2 for fault in faults)


def test_the_long_version_has_every_kind_and_kills_worker_or_broker_more_than_twenty_times() -> None:
    kills = [kind for kind in LONG if "killed" in kind and ("worker" in kind or "broker" in kind)]
    assert len(kills) >= 20
    assert set(LONG) == set(Kind)
    assert set(SHORT) < set(Kind)
