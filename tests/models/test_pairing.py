"""Outcomes of two models for the same ticks find each other, in whatever order they come."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.pairing import Pairing, against_fallback, least_difference
from stream.records import OUTCOME, Records


def outcomes(count: int, seed: int) -> Records:
    rows = np.zeros(count, OUTCOME)
    rows["symbol"], rows["seq"] = np.array([b"AIG", b"BAC"])[np.arange(count) % 2], np.arange(count)
    rows["from_ns"] = np.arange(count) * 10
    drawn = np.random.default_rng(seed).dirichlet((1, 1, 1), count)
    rows["p_down"], rows["p_flat"], rows["p_up"] = drawn.T
    rows["realised"] = np.arange(count) % 3
    rows["log_loss"] = -np.log(drawn[np.arange(count), rows["realised"]])
    return rows


@given(cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_each_pair_is_made_once(cuts: Any) -> None:
    served, other = outcomes(60, 1), outcomes(60, 2)[5:]
    pairing, found = Pairing(), []
    edges = (
        [(0, 0), *zip(*map(sorted, zip(*cuts, strict=True)), strict=True), (60, 60)] if cuts else [(0, 0), (60, 60)]
    )
    for (a, b), (c, d) in itertools.pairwise(edges):
        found.append(pairing.add(served[a:c], is_other=False))
        found.append(pairing.add(other[b:d], is_other=True))
    from_ns, difference, least = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(from_ns)
    assert from_ns[order].tolist() == served["from_ns"][5:].tolist()
    right = served["log_loss"][5:].astype(np.float64) - other["log_loss"]
    np.testing.assert_allclose(difference[order], right)
    assert (least <= difference + 1e-6).all()


def test_the_least_difference_is_what_the_best_class_for_the_served_model_gives() -> None:
    served, other = np.array([[0.2, 0.3, 0.5]]), np.array([[0.4, 0.3, 0.3]])
    np.testing.assert_allclose(least_difference(served, other), np.log(0.3 / 0.5))
    assert least_difference(served, served).tolist() == [0.0]


def test_the_fallback_stands_in_the_same_record() -> None:
    rows = outcomes(30, 3)
    rows["fallback_down"], rows["fallback_flat"], rows["fallback_up"] = 0.25, 0.5, 0.25
    rows["fallback_log_loss"] = -np.log(np.where(rows["realised"] == 1, 0.5, 0.25))
    from_ns, difference, least = against_fallback(rows)
    assert from_ns.tolist() == rows["from_ns"].tolist()
    assert (least <= difference + 1e-6).all()
