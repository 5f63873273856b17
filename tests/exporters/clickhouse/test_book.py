"""The query book is read as it is written, and what is not whole is refused with what is missing."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.clickhouse import book
from exporters.clickhouse.book import SECTIONS, Parameter, parse, queries, query
from stream.errors import InvariantError, SettingsError

WHOLE = """-- Bars
--
-- What were the bars,
-- and when?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = AIG: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this time on,
--     in UTC
-- Columns:
--   time: when; a colon: may follow
-- Notes: one note
--   that goes on
-- Source: a book
SELECT {symbol:String}, {from:DateTime64(9, 'UTC')};
"""


def test_a_file_is_read_as_it_is_written() -> None:
    read = parse("bars", WHOLE)
    assert (read.name, read.title, read.question) == ("bars", "Bars", "What were the bars, and when?")
    assert read.parameters == (
        Parameter("symbol", "String", "AIG", "the symbol"),
        Parameter("from", "DateTime64(9, 'UTC')", "1970-01-01 00:00:00", "from this time on, in UTC"),
    )
    assert [(column.name, column.meaning) for column in read.columns] == [("time", "when; a colon: may follow")]
    assert (read.notes, read.source) == ("one note that goes on", "a book")
    assert read.sql == "SELECT {symbol:String}, {from:DateTime64(9, 'UTC')}"


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ("-- Section: Prices", "-- Section: Sundry", "section 'Sundry'"),
        ("-- and when?", "-- and when", "a question that ends in"),
        ("--   {symbol:String} = AIG: the symbol\n", "", "declares .* and uses"),
        ("= AIG: the symbol", "= AIG", "in its header, not like"),
        ("{symbol:String},", "{symbol:UInt8},", "declares .* and uses"),
        ("--   time: when; a colon: may follow\n", "", "0 columns"),
    ],
)
def test_a_header_that_is_not_whole_is_refused(line: str, other: str, message: str) -> None:
    assert line in WHOLE
    with pytest.raises(InvariantError, match=message):
        parse("bars", WHOLE.replace(line, other))


@given(st.text())
def test_no_text_is_half_a_query(text: str) -> None:
    with pytest.raises(InvariantError):
        parse("text", text)


def test_what_is_not_given_has_its_default_and_what_is_unknown_is_refused() -> None:
    read = parse("bars", WHOLE)
    assert read.values({"symbol": "BAC"}) == {"symbol": "BAC", "from": "1970-01-01 00:00:00"}
    with pytest.raises(SettingsError, match="has no parameter sybmol; its parameters are symbol, from"):
        read.values({"sybmol": "BAC"})


def test_the_book_answers_what_analysts_ask_in_every_section() -> None:
    found = queries()
    assert len(found) >= 45
    assert [section for section in SECTIONS if section in {each.section for each in found}] == list(SECTIONS)
    assert len({each.title for each in found}) == len(found)


def test_a_query_is_found_by_name_and_a_wrong_name_is_told_what_is_near() -> None:
    assert query("ohlcv").section == "Prices"
    with pytest.raises(SettingsError, match="it has ohlcv"):
        query("ohlvc")


def test_an_installed_tickloom_has_the_files_where_the_book_looks_for_them() -> None:
    root = Path(__file__).resolve().parents[3]
    with (root / "pyproject.toml").open("rb") as file:
        included = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["deploy/clickhouse/queries"] == book._INSTALLED.relative_to(root).as_posix()
    assert root / "deploy/clickhouse/queries" == book._IN_REPOSITORY
    assert "COPY deploy/clickhouse/queries ./deploy/clickhouse/queries" in (root / "Dockerfile").read_text("utf-8")
