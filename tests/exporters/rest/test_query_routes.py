from typing import Any

import pyarrow.ipc
import pytest
from clickhouse_driver import Client

from exporters.clickhouse.book import queries
from exporters.rest.representation import ARROW


def test_the_book_is_listed_with_parameters_columns_and_sql(api: Any) -> None:
    listed = api.get("/v1/queries").json["data"]
    assert [each["name"] for each in listed] == [query.name for query in queries()]
    assert all(each["sql"] and each["columns"] and each["question"].endswith("?") for each in listed)
    paths = api.get("/openapi.json").json["paths"]
    for query in queries():
        parameters = paths[f"/v1/queries/{query.name}"]["get"].get("parameters", [])
        assert [each["name"] for each in parameters] == [each.name for each in query.parameters]


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.name)
def test_every_query_answers_with_the_columns_that_it_describes(api: Any, query: Any) -> None:
    reply = api.get(f"/v1/queries/{query.name}", Accept=ARROW)
    assert reply.status == 200, reply.body
    found = pyarrow.ipc.open_stream(reply.body).read_all()
    assert found.column_names == [column.name for column in query.columns]
    assert api.get(f"/v1/queries/{query.name}").status == 200


def test_parameters_are_taken_and_the_answer_is_that_of_the_database(api: Any, database: Client) -> None:
    rows = api.get("/v1/queries/ohlcv?symbol=AIG&from=2013-10-07T00:00:00Z&to=2013-10-08").json["data"]
    assert rows
    [[high]] = database.execute("SELECT max(ref_price) FROM predictions WHERE symbol = 'AIG'")
    assert max(row["high"] for row in rows) == high


@pytest.mark.parametrize("given", ["minute=1", "symbol=AIG&symbol=BAC", "from=noon", "minutes=-1", "minutes=x"])
def test_a_parameter_that_is_none_is_refused(api: Any, given: str) -> None:
    reply = api.get(f"/v1/queries/vwap?{given}")
    assert (reply.status, reply.json["code"]) == (422, "bad-parameter")


def test_a_query_that_there_is_not_is_not_found(api: Any) -> None:
    assert api.get("/v1/queries/nobody").status == 404
