"""`tickloom sql` and `tickloom explain`, as they are typed."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from exporters.clickhouse.complaints import QueryRefused
from stream.__main__ import cli
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.errors import SettingsError
from stream.running import run_file


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KAFKA", "CLICKHOUSE", "CLICKHOUSE_ANALYST"):
        monkeypatch.delenv(f"TICKLOOM_{name}", raising=False)
    monkeypatch.setenv("TICKLOOM_DATA_DIR", str(tmp_path))
    return tmp_path


def run(*arguments: str, **more: Any) -> Any:
    return CliRunner().invoke(cli, arguments, **more)


def test_a_question_is_answered_as_table_csv_json_and_parquet(
    clickhouse: EmbeddedClickHouse, tmp_path: Path
) -> None:
    asked = (
        "sql",
        "SELECT number AS n, {s:String} AS s FROM numbers(2)",
        "-p",
        "s=x",
        "--clickhouse",
        clickhouse.url,
    )
    assert "│ 1 │ x │" in run(*asked).output
    assert run(*asked, "--csv").stdout == '"n","s"\n0,"x"\n1,"x"\n'
    assert [json.loads(line)["n"] for line in run(*asked, "--json").stdout.splitlines()] == [0, 1]
    path = tmp_path / "a.parquet"
    assert "2 rows" in run(*asked, "--parquet", str(path)).output
    assert pq.read_table(path).to_pydict() == {"n": [0, 1], "s": ["x", "x"]}


def test_a_question_may_come_from_standard_input(clickhouse: EmbeddedClickHouse) -> None:
    assert "42" in run("sql", "-", "--csv", "--clickhouse", clickhouse.url, input="SELECT 42").stdout


def test_the_running_demo_is_asked_without_being_named(clickhouse: EmbeddedClickHouse, data_dir: Path) -> None:
    folder = data_dir / "demo" / "simulator"
    folder.mkdir(parents=True)
    with run_file(folder, {"clickhouse": clickhouse.url, "clickhouse_analyst": clickhouse.analyst_url}):
        assert "analyst" in run("sql", "SELECT currentUser()", "--csv").stdout
    error = run("sql", "SELECT 1").exception
    assert isinstance(error, SettingsError)
    assert "no demo runs here" in str(error)


def test_a_refusal_is_an_error_with_the_place(clickhouse: EmbeddedClickHouse) -> None:
    error = run("sql", "SELECT numbr FROM numbers(1)", "--clickhouse", clickhouse.url).exception
    assert isinstance(error, QueryRefused)
    assert "       ^^^^^" in str(error)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sql", "SELECT 1", "--book", "vwap"), "one of them"),
        (("sql", "SELECT 1", "--csv", "--json"), "one of them at most"),
        (("sql", "SELECT 1", "--param", "symbol"), "NAME=VALUE"),
        (("sql", "--book", "no-such-query"), "the query book has no 'no-such-query'"),
        (("explain", "AIG"), "SYMBOL:SEQ"),
        (("explain", "AIG:many"), "SYMBOL:SEQ"),
        (("explain", "AIG:1@"), "SYMBOL:SEQ"),
        (("explain", "AIG:1"), "neither ClickHouse nor Kafka is configured"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], says: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, SettingsError)
    assert says in str(error)


def test_the_book_is_listed() -> None:
    listed = json.loads(run("sql", "--list", "--json").stdout)
    assert {"vwap", "rsi"} <= {page["name"] for page in listed}
    assert "symbol" in next(page for page in listed if page["name"] == "rsi")["parameters"]
