import asyncio
import threading
from typing import Any

import pytest

from exporters.rest import explain_routes
from exporters.rest.explain_routes import Explainer
from exporters.rest.problems import BUSY, Problem
from stream.records import Records
from stream.settings import Settings


@pytest.fixture(scope="module")
def api(filled: Settings, run_api: Any) -> Any:
    """An API that has ClickHouse alone: the tests' Kafka has none of the engine's topics."""
    with run_api(filled.model_copy(update={"kafka": None})) as one:
        yield one


def test_a_prediction_is_told_with_its_source_and_whether_it_comes_out_the_same(api: Any, rows: Records) -> None:
    reply = api.get("/v1/predictions/AIG/5/explain")
    assert reply.status == 200, reply.body
    told = reply.json
    [ours] = rows[(rows["symbol"] == b"AIG") & (rows["seq"] == 5)]
    assert (told["id"], told["found_in"]) == ("AIG:5@epoch-1", "clickhouse")
    assert told["source"]["source_offset"] == ours["source_offset"]
    assert told["stored"]["ref_price"] == ours["ref_price"]
    assert told["verdict"] in ("different", "gone"), "the fixture made its probabilities up: no model says them"


def test_a_prediction_that_is_not_stored_is_not_found(api: Any) -> None:
    for path in ("/v1/predictions/AIG/999999/explain", "/v1/predictions/NOBODY/1/explain"):
        reply = api.get(path)
        assert (reply.status, reply.json["code"]) == (404, "not-found"), path


async def test_more_than_two_at_a_time_are_refused_and_later_ones_are_not(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slow(*_: object) -> dict[str, Any]:
        assert go.wait(20)
        return {"seq": 1}

    monkeypatch.setattr(explain_routes, "_explain", slow)
    explainer = Explainer(filled)
    first = [asyncio.create_task(explainer.explain("AIG", 1, None)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(Problem) as refused:
        await explainer.explain("AIG", 2, None)
    assert refused.value.kind is BUSY
    go.set()
    assert await asyncio.gather(*first) == [{"seq": 1}] * 2
    assert await explainer.explain("AIG", 2, None) == {"seq": 1}
    explainer.close()
