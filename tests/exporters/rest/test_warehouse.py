import asyncio
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client

from exporters.rest.problems import BAD_PARAMETER, BUSY, NOT_FOUND, TIMEOUT, TOO_MUCH, UNAVAILABLE, Problem
from exporters.rest.warehouse import Warehouse
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.ports import free_port
from stream.errors import SettingsError
from stream.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def warehouse(filled: Settings) -> AsyncIterator[Warehouse]:
    assert filled.clickhouse is not None
    one = Warehouse(filled.clickhouse.get_secret_value(), connections=2, timeout_s=20)
    yield one
    await one.close()


def nothing(_: Any) -> None:
    return None


def running(database: Client, mark: str) -> int:
    return int(
        database.execute(
            "SELECT count() FROM system.processes WHERE query LIKE %(mark)s AND query NOT LIKE '%%processes%%'",
            {"mark": f"%{mark}%"},
        )[0][0]
    )


async def test_a_question_nobody_waits_for_is_stopped_on_the_server(
    warehouse: Warehouse, database: Client, eventually: Any
) -> None:
    mark = uuid.uuid4().hex
    slow = f"SELECT sleepEachRow(0.1), '{mark}' FROM numbers(200) SETTINGS max_block_size = 1"  # noqa: S608
    asking = asyncio.create_task(warehouse.ask(slow, {}, nothing))
    await eventually(lambda: running(database, mark) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: running(database, mark) == 0, within_s=5)
    assert await warehouse.ask("SELECT 7 AS n", {}, lambda found: found["n"][0].as_py()) == 7


async def test_the_loop_runs_on_while_questions_are_answered(warehouse: Warehouse) -> None:
    asking = asyncio.create_task(warehouse.ask("SELECT sleep(0.5)", {}, nothing))
    beats, begun_s = 0, time.monotonic()
    while not asking.done():
        await asyncio.sleep(0.01)
        beats += 1
    assert beats > (time.monotonic() - begun_s) / 0.1


async def test_more_questions_than_may_wait_are_refused(filled: Settings) -> None:
    assert filled.clickhouse is not None
    warehouse = Warehouse(filled.clickhouse.get_secret_value(), connections=1, timeout_s=20)
    asking = [asyncio.create_task(warehouse.ask("SELECT sleep(0.2)", {}, nothing)) for _ in range(17)]
    await asyncio.sleep(0.05)
    with pytest.raises(Problem) as refused:
        await warehouse.ask("SELECT 1", {}, nothing)
    assert refused.value.kind is BUSY
    for task in asking[2:]:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await warehouse.close()


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM nowhere", NOT_FOUND),
        ("SELECT {n:UInt8}", BAD_PARAMETER),
        ("SELECT number FROM numbers(2000000)", TOO_MUCH),
        ("SELECT count() FROM numbers(1000000000000)", TIMEOUT),
        ("CREATE TABLE mine (n UInt8) ENGINE = Memory", UNAVAILABLE),
        ("INSERT INTO predictions (symbol) VALUES ('X')", UNAVAILABLE),
    ],
)
async def test_what_the_server_refuses_is_told_as_what_it_is(filled: Settings, sql: str, kind: Any) -> None:
    assert filled.clickhouse is not None
    warehouse = Warehouse(filled.clickhouse.get_secret_value(), connections=1, timeout_s=1)
    with pytest.raises(Problem) as refused:
        await warehouse.ask(sql, {"n": "many"}, nothing)
    assert refused.value.kind is kind, refused.value
    assert await warehouse.ask("SELECT 1 AS n", {}, lambda found: found.num_rows) == 1, "the next one is answered"
    await warehouse.close()


async def test_a_user_who_may_only_read_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedClickHouse(tmp_path)
    (server.home / "users.d").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "clickhouse" / "analyst.xml", server.home / "users.d")
    monkeypatch.setenv("CLICKHOUSE_ANALYST_PASSWORD", "right")
    with server:
        with Client.from_url(server.url) as owner:
            owner.execute("CREATE DATABASE tickloom")
            owner.execute("CREATE TABLE tickloom.t ENGINE = MergeTree ORDER BY n AS SELECT 7 AS n")
        url = f"clickhouse://analyst:right@127.0.0.1:{server.port}/tickloom"
        warehouse = Warehouse(url, connections=1, timeout_s=100)
        asked = "SELECT n FROM t WHERE n = {n:UInt8}"
        assert await warehouse.ask(asked, {"n": 7}, lambda found: found["n"].to_pylist(), most_rows=5) == [7]
        await warehouse.close()


async def test_a_server_that_is_away_is_told_and_found_again() -> None:
    warehouse = Warehouse(f"clickhouse://default@127.0.0.1:{free_port()}/default", connections=1, timeout_s=2)
    with pytest.raises(Problem) as refused:
        await warehouse.check()
    assert refused.value.kind is UNAVAILABLE
    assert "cannot be reached" in refused.value.detail
    await warehouse.close()


async def test_a_value_is_never_sql(warehouse: Warehouse) -> None:
    value = "x' OR 1=1 -- \\ \x00 \n ü"
    assert await warehouse.ask("SELECT {v:String} AS v", {"v": value}, lambda found: found["v"][0].as_py()) == value


def test_an_address_that_is_none_is_refused_when_it_is_set() -> None:
    with pytest.raises(SettingsError, match="not a ClickHouse URL"):
        Warehouse("clickhouse://host:no-port/default", connections=1, timeout_s=1)
