"""The market of the query book's tests, in ClickHouse, and a way to ask it a query of the book by name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# book_market and book_answers are plain modules beside these tests.
sys.path.insert(0, str(Path(__file__).parent))

from book_answers import Ask, asking
from book_market import Market, load_market, make_market

from stream.embedded.clickhouse import EmbeddedClickHouse


@pytest.fixture(scope="session")
def market(shared_data: Path) -> Market:
    """Real ticks, and what the engine made of them."""
    return make_market(shared_data)


@pytest.fixture(scope="session")
def ask(clickhouse: EmbeddedClickHouse, market: Market, fresh_name: Callable[[str], str]) -> Ask:
    """``ask("ohlcv", symbol="AIG")`` answers as the analyst user, and checks the columns that the book promises."""
    database = fresh_name("book")
    load_market(clickhouse, database, market)
    return asking(clickhouse, database)


@pytest.fixture
def ask_of(clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]) -> Callable[[Market], Ask]:
    """A function that puts a made-up market into a database of its own, and returns a way to ask it."""

    def make(market: Market) -> Ask:
        database = fresh_name("book")
        load_market(clickhouse, database, market)
        return asking(clickhouse, database)

    return make
