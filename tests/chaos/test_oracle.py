"""The oracle itself: it sees what is missing, twice or different, and faults come as their seed says."""

from collections import Counter
from typing import Any

import pytest
from faults import LONG, SHORT, Kind, schedule
from flows import Flow
from full_client import FullView
from hypothesis import given
from hypothesis import strategies as st
from verdict import is_same

from stream.clock import NS_PER_S


def item(symbol: str, seq: int, p_up: float = 0.5) -> dict[str, Any]:
    names = ("event_ns", "ref_price", "horizon_ns", "p_down", "p_flat", "expected_return_bps", "model", "warming")
    return {"symbol": symbol, "seq": seq, "p_up": p_up, "recv_ns": seq} | dict.fromkeys(names, 0)


def view(*messages: tuple[str, Any]) -> FullView:
    """A client that has been sent these messages on one connection."""
    client = FullView(Flow(["A", "B"]))
    client.begin()
    for kind, content in messages:
        client.take({"type": kind, {"heartbeat": "seqs", "epoch": "epoch"}.get(kind, "predictions"): content})
    return client


def test_what_follows_its_snapshot_without_a_gap_is_right() -> None:
    client = view(
        ("epoch", "x"),
        ("snapshot", [item("A", 3), item("B", 8)]),
        ("prediction", [item("A", 4), item("A", 5), item("B", 9)]),
        ("heartbeat", {"A": 5, "B": 9}),
    )
    assert client.broken == []
    assert client.newest == {"A": 5, "B": 9}


@pytest.mark.parametrize(
    ("told", "messages"),
    [
        ("seq 5 came after 3", [("snapshot", [item("A", 3)]), ("prediction", [item("A", 5)])]),
        ("seq 3 came after 3", [("snapshot", [item("A", 3)]), ("prediction", [item("A", 3)])]),
        ("seq 3 came after None", [("prediction", [item("A", 3)])]),
        ("and was", [("snapshot", [item("A", 3)]), ("snapshot", [item("A", 3, 0.25)])]),
        ("the heartbeat says", [("snapshot", [item("A", 3)]), ("heartbeat", {"A": 4})]),
        ("another epoch", [("epoch", "x"), ("epoch", "y")]),
    ],
)
def test_a_promise_of_the_feed_that_is_broken_is_seen(told: str, messages: list[tuple[str, Any]]) -> None:
    assert any(told in line for line in view(*messages).broken)


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
