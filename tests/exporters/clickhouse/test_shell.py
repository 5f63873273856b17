"""The interactive `tickloom sql`: what is typed is asked, troubles end nothing, and names are completed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from exporters.clickhouse.book import queries
from exporters.clickhouse.completion import Names
from exporters.clickhouse.session import Session
from exporters.clickhouse.shell import Shell
from stream.embedded.clickhouse import EmbeddedClickHouse


@pytest.fixture
def session(clickhouse: EmbeddedClickHouse) -> Iterator[Session]:
    with Session(clickhouse.analyst_url) as made:
        yield made


def test_questions_over_several_lines_are_asked_and_remembered(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "data" / "sql.history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("SELECT 6 *\r7 AS answer;\r\\quit\r")
        Shell(session, history).run()
    assert "42" in capsys.readouterr().out
    assert "7 AS answer;" in history.read_text()


def test_troubles_are_told_and_the_next_question_is_answered(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(session, tmp_path / "history")
    for text in (
        "SELECT numbr FROM numbers(3);",
        "\\nope",
        "\\book nope",
        "\\set x",
        "\\show 'a",
        "\\csv x.csv y",
        "SELECT 41 + 1;",
    ):
        shell.take(text)
    told = capsys.readouterr()
    assert "42" in told.out
    for words in (
        "Maybe you meant: ['number']",
        "no command \\nope",
        "no 'nope'",
        "NAME=VALUE",
        "No closing quotation",
        "\\csv FILE",
    ):
        assert words in told.err


def test_set_values_are_those_of_later_questions_and_files_hold_the_last_answer(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(session, tmp_path / "history")
    shell.take("\\csv " + str(tmp_path / "a.csv"))
    assert "nothing was asked yet" in capsys.readouterr().err
    shell.take("\\set symbol=AIG other=1")
    shell.take("SELECT {symbol:String} AS chosen;")
    assert "AIG" in capsys.readouterr().out
    shell.take(f"\\csv {tmp_path / 'a.csv'}")
    assert (tmp_path / "a.csv").read_text() == '"chosen"\n"AIG"\n'
    shell.take("\\records")
    shell.take("SELECT 1 AS one;")
    assert "row 1" in capsys.readouterr().out


def test_the_book_is_listed_and_shown(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shell = Shell(session, tmp_path / "history")
    shell.take("\\list")
    shell.take(f"\\show {queries()[0].name}")
    told = capsys.readouterr().out
    assert all(page.name in told for page in queries())
    assert queries()[0].sql.splitlines()[0] in told


def test_names_are_completed_where_they_belong() -> None:
    names = Names({"v_ticks": ["symbol", "price"], "v_bars_1m": ["close"]}, ["vwap", "rsi"], ["book", "list"])

    def after(text: str, rest: str = "") -> list[str]:
        found = names.get_completions(Document(text + rest, len(text)), CompleteEvent())
        return [each.text for each in found]

    assert after("SELECT pr", " FROM v_ticks") == ["price", "PREWHERE", "PRECEDING"]
    assert after("SELECT cl", " FROM v_ticks") == []
    assert after("SELECT cl") == ["close"]
    assert after("SELECT 1 FROM v_t") == ["v_ticks"]
    assert after("\\bo") == ["book"]
    assert after("\\book v") == ["vwap"]
    assert after("\\columns v_b") == ["v_bars_1m"]
