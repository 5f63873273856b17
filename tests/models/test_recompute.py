"""Which model each prediction of a symbol had: what records and predictions say together."""

import numpy as np
import pytest

from agents.swaps import Swap, due_offsets
from models.recompute import Run, Switch, joined, switches_of
from stream.records import symbol_words

A, B, C = 1, 2, 3
SYMBOL = b"AIG"


def swap(offset: int, model_id: int, spread: int = 1) -> Swap:
    return Swap(0, offset, spread, model_id, "", 0, 0, "", 0)


def run(model_id: int, first_seq: int, first: int, last: int) -> Run:
    return Run(model_id, first_seq, first, last)


def test_runs_of_one_model_that_follow_one_another_are_one() -> None:
    parts = [run(A, 1, 0, 5), run(A, 7, 6, 9), run(B, 9, 10, 10), run(A, 10, 11, 11)]
    assert joined(parts) == [run(A, 1, 0, 9), run(B, 9, 10, 10), run(A, 10, 11, 11)]


@pytest.mark.parametrize(
    ("swaps", "runs", "right"),
    [
        ([], [run(A, 1, 0, 90)], []),
        # Recorded, and the symbol did not tick until later.
        ([swap(40, B)], [run(A, 1, 0, 30), run(B, 9, 50, 90)], [Switch(40, B, True)]),
        # Not recorded (Kafka is away, or a worker was started with another model): known by the predictions.
        ([], [run(A, 1, 0, 30), run(B, 9, 50, 90)], [Switch(50, B, False)]),
        # Two swaps between two ticks: the later one counts, and the earlier does no harm.
        (
            [swap(35, C), swap(40, B)],
            [run(A, 1, 0, 30), run(B, 9, 50, 90)],
            [Switch(35, C, True), Switch(40, B, True)],
        ),
        # There and back between two ticks, which no prediction shows: h and c were rebuilt all the same.
        ([swap(35, B), swap(40, A)], [run(A, 1, 0, 90)], [Switch(35, B, True), Switch(40, A, True)]),
        # A record that predictions contradict was of a worker that had lost the partition.
        ([swap(35, B)], [run(A, 1, 0, 90)], []),
        ([swap(35, C)], [run(A, 1, 0, 30), run(B, 9, 50, 90)], [Switch(50, B, False)]),
        # Before the first prediction, and after the last one: not its business.
        ([swap(5, B), swap(95, C)], [run(B, 1, 10, 90)], []),
    ],
)
def test_records_and_predictions_together_say_where_the_model_changed(
    swaps: list[Swap], runs: list[Run], right: list[Switch]
) -> None:
    assert switches_of(SYMBOL, swaps, runs) == right


def test_a_symbol_switches_at_the_block_of_its_own_and_a_quicker_swap_overtakes_a_slow_one() -> None:
    slow = swap(100, B, spread=1000)
    due = int(due_offsets(symbol_words(np.array([SYMBOL], "S24")), slow)[0])
    assert due > 110
    assert switches_of(SYMBOL, [slow], [run(A, 1, 0, due - 1), run(B, 50, due, 2000)]) == [Switch(due, B, True)]
    quick = swap(105, C)
    assert switches_of(SYMBOL, [slow, quick], [run(A, 1, 0, 104), run(C, 50, 105, 2000)]) == [Switch(105, C, True)]
