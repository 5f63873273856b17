"""The page of the query book is what the files say."""

import sys
from pathlib import Path

import pytest

from exporters.clickhouse.book import queries
from exporters.clickhouse.book_page import COMMAND, main, page

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
