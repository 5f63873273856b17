"""What the server complains of is told in few lines, with the place and what to do."""

import pytest

from exporters.clickhouse.complaints import explained


@pytest.mark.parametrize(
    ("code", "message", "query", "right"),
    [
        (
            62,
            "DB::Exception: Syntax error: failed at position 8 (FROMM) (line 1, col 8): FROMM x. Expected one of: "
            "FROM. Stack trace: 0. ? @ 0x1",
            "SELECT FROMM x",
            "Syntax error (code 62)\n  SELECT FROMM x\n         ^",
        ),
        (
            47,
            "DB::Exception: Unknown expression identifier `numbr`. Maybe you meant: ['number']. In scope SELECT 1.",
            "SELECT\n  numbr\nFROM numbers(2)",
            "Unknown expression identifier `numbr`. Maybe you meant: ['number'] (code 47)\n"
            "  line 2:   numbr\n            ^^^^^\n"
            "hint: `DESCRIBE TABLE name` lists the columns of a table or view",
        ),
        (999, "DB::Exception: Something else: at last.", "SELECT 1", "Something else: at last (code 999)"),
        (
            62,  # the server counts bytes
            "Syntax error: failed at position 13 ('x): 'x. ",
            "SELECT 'é' 'x",
            "Syntax error (code 62)\n  SELECT 'é' 'x\n             ^",
        ),
    ],
)
def test_a_complaint_is_short_and_points_at_the_place(code: int, message: str, query: str, right: str) -> None:
    assert explained(code, message, query) == right


def test_of_a_long_line_only_what_is_around_the_place_is_shown() -> None:
    query = "SELECT " + "1, " * 200 + "numbr FROM x"
    lines = explained(47, "Unknown expression identifier `numbr`", query).splitlines()
    assert max(map(len, lines)) < 120
    assert lines[1][lines[2].index("^") :].startswith("numbr")
