"""Answers in a terminal: numbers to the right, NULL and NaN to be seen, never wider than the screen."""

import io
from typing import Any

import pyarrow as pa
from rich.console import Console

from exporters.clickhouse.answer_table import print_answer


def printed(table: dict[str, Any], width: int = 80, **how: Any) -> list[str]:
    batch = pa.RecordBatch.from_pydict(table)
    out = io.StringIO()
    assert print_answer(batch.schema, [batch], Console(file=out, width=width), paged=False, **how) == batch.num_rows
    return out.getvalue().splitlines()


def test_numbers_stand_to_the_right_and_nothing_is_invisible() -> None:
    lines = printed(
        {"symbol": ["AIG", None], "n": [1, 20000], "x": pa.array([float("nan"), 1 / 3]), "s": ["", "a\nb"]}
    )
    assert lines == [
        "╭────────┬───────┬──────────────┬─────╮",
        "│ symbol │     n │            x │ s   │",
        "├────────┼───────┼──────────────┼─────┤",
        "│ AIG    │     1 │          NaN │     │",
        "│ NULL   │ 20000 │ 0.3333333333 │ a⏎b │",
        "╰────────┴───────┴──────────────┴─────╯",
    ]


def test_a_float32_shows_the_digits_that_it_has_and_a_time_its_nanoseconds() -> None:
    at = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns", "UTC"))
    lines = printed({"p": pa.array([0.1, 0.25], pa.float32()), "at": at})
    assert "│ 0.1 " in lines[3].replace("│  0.1", "│ 0.1")
    assert "2023-11-14 22:13:20.123456789" in lines[3]
    assert "2023-11-14 22:13:20 " in lines[4]


def test_long_text_is_cut_before_rows_become_records() -> None:
    lines = printed({"n": [1], "text": ["x" * 200]}, width=40)
    assert max(map(len, lines)) <= 40
    assert "…" in lines[3]


def test_rows_become_records_where_columns_do_not_fit() -> None:
    lines = printed({f"column_{number}": [number, 10**12] for number in range(12)}, width=60)
    assert lines[0].startswith("row 1 ")
    assert lines[1] == " column_0  0"
    assert len([line for line in lines if line.startswith("row ")]) == 2
    assert printed({"n": [1]}, records=True) == ["row 1 " + "─" * 74, "n  1"]


def test_a_later_number_is_never_cut_though_it_is_longer() -> None:
    schema = pa.schema([("n", pa.int64())])
    batches = [pa.RecordBatch.from_pydict({"n": [each]}, schema) for each in (1, 10**15)]
    out = io.StringIO()
    print_answer(schema, batches, Console(file=out, width=80), paged=False)
    assert str(10**15) in out.getvalue()


def test_an_empty_answer_has_its_columns() -> None:
    assert "symbol" in printed({"symbol": pa.array([], pa.string())})[1]
