import time
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from exporters.rest.admission import Budgets
from stream.settings import Settings

KEY = "a-key-of-the-tests-that-is-long-enough"
TOKEN = "right"


@settings(max_examples=30)
@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 20))
def test_a_client_never_gets_more_than_its_burst_and_its_rate(pauses_s: list[float], per_s: float) -> None:
    now_s = 0.0
    budgets = Budgets(per_s, 5.0, lambda: now_s)
    taken = 0
    for pause_s in pauses_s:
        now_s += pause_s
        wait_s = budgets.wait_s("a")
        if wait_s == 0:
            budgets.take("a")
            taken += 1
    assert taken <= 5 + now_s * per_s + 1e-6
    assert budgets.wait_s("b") == 0


def test_who_waits_as_long_as_he_is_told_may_come_in() -> None:
    now_s = 0.0
    budgets = Budgets(2.0, 1.0, lambda: now_s)
    budgets.take("a")
    now_s += budgets.wait_s("a") / 2
    assert budgets.wait_s("a") > 0
    now_s += budgets.wait_s("a") + 1e-9
    assert budgets.wait_s("a") == 0


@pytest.fixture(scope="module")
def guarded(filled: Settings, run_api: Any) -> Any:
    """An API that wants tokens, of either kind."""
    changes = {"feed_token": SecretStr(f"{TOKEN},other"), "feed_jwt_key": SecretStr(KEY)}
    with run_api(filled.model_copy(update=changes)) as api:
        yield api


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed(symbols: list[str], channels: list[str], seconds: float = 60, key: str = KEY) -> dict[str, str]:
    claims = {"aud": "tickloom", "exp": time.time() + seconds, "symbols": symbols, "channels": channels}
    return bearer(jwt.encode(claims, key, "HS256"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"Authorization": TOKEN},
        signed(["*"], ["*"], seconds=-10),
        signed(["*"], ["*"], key="x" * 40),
    ],
)
def test_without_the_right_token_nothing_is_told(guarded: Any, headers: dict[str, str]) -> None:
    for path in (
        "/v1/symbols",
        "/v1/predictions?symbol=AIG",
        "/v1/models",
        "/v1/queries",
        "/v1/version",
        "/v1/lag",
    ):
        reply = guarded.get(path, **headers)
        assert (reply.status, reply.json["code"]) == (401, "unauthorised"), path
        assert reply.headers["www-authenticate"].startswith("Bearer")


def test_the_page_the_description_and_the_probes_need_none(guarded: Any) -> None:
    for path in ("/", "/config.json", "/docs", "/openapi.json", "/v1/live", "/v1/ready"):
        assert guarded.get(path).status == 200, path
    assert guarded.get("/config.json").json["token_needed"] is True


def test_any_of_the_tokens_opens_everything(guarded: Any) -> None:
    for token in (TOKEN, "other"):
        assert guarded.get("/v1/predictions?symbol=AIG&limit=1", **bearer(token)).status == 200


def test_a_jwt_shows_what_its_claims_grant_and_no_more(guarded: Any) -> None:
    aig = signed(["A*"], ["prediction"])
    assert guarded.get("/v1/symbols", **aig).json["data"] == ["AIG"]
    assert [row["symbol"] for row in guarded.get("/v1/predictions/latest", **aig).json["data"]] == ["AIG"]
    assert guarded.get("/v1/predictions?symbol=AIG&limit=1", **aig).status == 200
    for path in (
        "/v1/predictions?symbol=BAC",
        "/v1/predictions/latest?symbols=AIG,BAC",
        "/v1/predictions/latest/BAC",
        "/v1/ticks?symbol=AIG",
        "/v1/models",
        "/v1/queries/movers",
    ):
        reply = guarded.get(path, **aig)
        assert (reply.status, reply.json["code"]) == (403, "forbidden"), path


def test_a_table_of_all_symbols_shows_only_those_that_are_granted(guarded: Any, outcomes: Any) -> None:
    everything = guarded.pages("/v1/model-scores?limit=1000", **bearer(TOKEN))
    assert {row["symbol"] for row in everything} == {"AIG", "BAC"}
    some = guarded.pages("/v1/model-scores?limit=1000", **signed(["A*"], ["model"]))
    assert {row["symbol"] for row in some} == {"AIG"}


def test_who_asks_too_often_is_told_when_to_come_again(filled: Settings, run_api: Any) -> None:
    changes = {"api_rate_per_s": 2.0, "feed_token": SecretStr("one,two")}
    with run_api(filled.model_copy(update=changes)) as api:
        replies = [api.get("/v1/version", **bearer("one")) for _ in range(12)]
        refused = [reply for reply in replies if reply.status == 429]
        assert len([reply for reply in replies if reply.status == 200]) >= 4
        assert refused
        assert refused[0].json["code"] == "rate-limited"
        assert int(refused[0].headers["retry-after"]) >= 1
        assert api.get("/v1/version", **bearer("two")).status == 200, "another client has a budget of its own"
        assert api.get("/v1/live").status == 200, "probes are never refused"
