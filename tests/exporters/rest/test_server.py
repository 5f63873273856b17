"""The process as a client meets it: its page, its manners, its limits, and what it counts."""

import asyncio
import http.client
import re
import socket
import time
from typing import Any

import pytest

from exporters.rest.server import run_api
from stream.errors import SettingsError
from stream.settings import Settings


def test_the_page_is_served_with_its_policy_and_loads_nothing_from_another_host(api: Any) -> None:
    page = api.get("/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/", "/docs"):
        links = re.findall(r'(?:src|<link [^>]*href)="([^"]+)"', api.get(path).body.decode())
        assert links
        assert [link for link in links if re.match(r"(https?:)?//", link)] == []
        for link in links:
            if not link.startswith("data:"):
                assert api.get(f"/{link.removeprefix('/')}").status == 200, link
    assert api.get("/", If_None_Match=page.headers["etag"]).status == 304


def test_the_page_is_told_where_the_feed_is(filled: Settings, api: Any, run_api: Any) -> None:
    said = api.get("/config.json").json
    assert said == {
        "title": "tickloom",
        "feed_url": f"ws://127.0.0.1:{filled.gateway_port}/feed",
        "api_url": "/v1",
        "token_needed": False,
    }
    with run_api(
        filled.model_copy(update={"api_feed_url": "wss://feed.example/feed", "api_title": "Desk"})
    ) as other:
        said = other.get("/config.json").json
        assert (said["feed_url"], said["title"]) == ("wss://feed.example/feed", "Desk")


@pytest.mark.parametrize(
    "path", ["/../settings.py", "/%2e%2e/settings.py", "/..%2fsettings.py", "/__init__.py", "/x"]
)
def test_nothing_else_of_the_machine_is_served(api: Any, path: str) -> None:
    assert api.get(path).status == 404


def test_every_answer_has_safe_headers_and_an_id(api: Any) -> None:
    for path in ("/", "/v1/symbols", "/v1/nothing", "/v1/predictions"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert api.get("/v1/symbols", X_Request_ID="desk-7").headers["x-request-id"] == "desk-7"
    assert api.get("/v1/symbols", X_Request_ID="a b").headers["x-request-id"] != "a b"
    reply = api.get("/v1/nothing", X_Request_ID="desk-8")
    assert reply.json["request_id"] == "desk-8"


def test_head_is_get_without_a_body(api: Any) -> None:
    path = "/v1/predictions?symbol=AIG&limit=10"
    got, head = api.get(path), api.get(path, method="HEAD")
    assert head.status == 200
    assert head.body == b""
    assert head.headers["etag"] == got.headers["etag"]
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(api: Any, method: str) -> None:
    reply = api.get("/v1/predictions", method=method)
    assert (reply.status, reply.json["code"]) == (405, "method-not-allowed")
    assert reply.headers["allow"] == "GET"


def test_requests_that_are_too_large_are_refused(api: Any) -> None:
    assert api.get("/v1/symbols", body=b"x" * 10).json["code"] == "request-too-large"
    assert api.get("/v1/symbols?start=" + "x" * 9000).json["code"] == "request-too-large"
    assert api.get("/v1/symbols", X_Large="x" * 40_000).json["code"] == "request-too-large"
    assert api.get("/v1/live").status == 200


def test_a_name_that_was_made_to_point_here_reads_nothing(api: Any) -> None:
    reply = api.get("/v1/symbols", Host="evil.example")
    assert (reply.status, reply.json["code"]) == (421, "wrong-host")


def test_pages_of_other_sites_read_only_where_they_were_named(filled: Settings, api: Any, run_api: Any) -> None:
    assert "access-control-allow-origin" not in api.get("/v1/symbols", Origin="https://desk.example").headers
    with run_api(filled.model_copy(update={"api_origins": "https://desk.example"})) as other:
        said = other.get("/v1/symbols", Origin="https://desk.example").headers
        assert said["access-control-allow-origin"] == "https://desk.example"
        assert "access-control-allow-origin" not in other.get("/v1/symbols", Origin="https://evil.example").headers


def test_an_answer_that_takes_too_long_is_given_up(filled: Settings, run_api: Any) -> None:
    with run_api(filled.model_copy(update={"api_timeout_s": 0.2, "kafka": "127.0.0.1:1"})) as api:
        begun_s = time.monotonic()
        reply = api.get("/v1/lag")
        assert reply.status in (503, 504)
        assert time.monotonic() - begun_s < 5


def test_readiness_is_of_servers_and_liveness_is_of_the_process(api: Any, eventually: Any) -> None:
    assert api.get("/v1/live").json["status"] == "ok"
    ready = api.get("/v1/ready")
    assert ready.status == 200
    assert set(ready.json["parts"]) == {"clickhouse", "redis", "kafka"}


def test_requests_are_counted_by_route_and_not_by_symbol(api: Any) -> None:
    api.get("/v1/predictions/latest/AIG")
    api.get("/v1/predictions/latest/NOBODY")
    host, _, port = api.where.telemetry.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    route = 'route="/v1/predictions/latest/{symbol}"'
    assert re.search(rf'tickloom_api_requests_total{{method="GET",{route},status="200"}} [1-9]', text)
    assert re.search(rf'tickloom_api_requests_total{{method="GET",{route},status="404"}} [1-9]', text)
    assert f'tickloom_api_request_seconds_bucket{{le="0.005",method="GET",{route}}}' in text
    assert "NOBODY" not in text
    assert "tickloom_api_in_flight 0.0" in text


async def test_a_port_that_is_taken_is_a_clear_error(filled: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = filled.model_copy(update={"api_port": taken.getsockname()[1]})
        with pytest.raises(SettingsError, match="set another api_port"):
            await run_api(settings, asyncio.Event())
