"""The page of the query book is what the files say."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from exporters.clickhouse.book import queries
from exporters.clickhouse.book_page import COMMAND, MEASURED, cost, main, page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "queries.md"


def test_the_page_in_docs_is_that_of_the_files() -> None:
    assert PAGE.read_text("utf-8") == page(), f"run: {COMMAND}"


def test_every_query_has_its_question_and_leads_to_its_file() -> None:
    text = page()
    for query in queries():
        assert f"### {query.name}\n\n**{query.title}.** {query.question} [SQL](" in text
        assert (PAGE.parent / f"../deploy/clickhouse/queries/{query.name}.sql").is_file()


def test_a_page_that_is_not_up_to_date_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "queries.md"
    monkeypatch.setattr(sys, "argv", ["book_page", "--check", str(old)])
    old.write_text(page())
    main()
    old.write_text("of yesterday")
    with pytest.raises(SystemExit, match=r"is not what the query book says; run: python -m"):
        main()


def report(ticks: int, **rows_of: tuple[float, int]) -> dict[str, Any]:
    """What a run of the benchmark tells: of each query ms and rows of everything, and of a day a tenth."""
    asked = [
        {"query": name, "of": scope, "ms": ms / part, "read_rows": rows // part}
        for name, (ms, rows) in rows_of.items()
        for scope, part in (("a symbol's day", 10), ("everything", 1))
    ]
    return {"ticks": ticks, "repeats": 3, "queries": asked}


def test_what_queries_cost_is_told_with_the_reason_where_it_is_much() -> None:
    day = report(1_000, quick=(5, 1_000))
    whole = report(100_000_000, quick=(20, 50_000), sorts=(1_001, 5_000_000), reads=(4_000, 200_000_000))
    text = cost([day, whole])
    assert "| quick | 5 ms, 1,000 | 2 ms, 5,000 | 20 ms, 50,000 |" in text
    assert "| reads |  | 400 ms, 20.0 M | 4,000 ms, 200.0 M |" in text
    told = " ".join(text.split())
    assert "100.0 M to 200.0 M, as bars and histograms do not have what is asked: `reads`." in told
    assert "joined or sorted: `sorts`." in told
    assert "`quick`" not in text


def test_a_query_that_failed_says_so_in_place_of_its_cost() -> None:
    day, whole = report(1_000), report(100_000_000, reads=(4_000, 200_000_000))
    whole["queries"].append({"query": "sorts", "of": "everything", "error": "Query memory limit exceeded"})
    assert "| sorts |  |  | Query memory limit exceeded |" in cost([day, whole])


def test_the_figures_are_of_queries_that_the_book_has_and_of_all_of_them() -> None:
    names = {query.name for query in queries()}
    for each in json.loads(MEASURED.read_text("utf-8")):
        assert {asked["query"] for asked in each["queries"]} == names
