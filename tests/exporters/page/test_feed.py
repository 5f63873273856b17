"""The feed's client for browsers, in a real one, over real gateways: kills, resumes, resets, slowness, tokens."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from browser import Browser, Tab
from feed_driver import PARTITIONS, Running, Start, known
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve

from stream.embedded.kafka import EmbeddedKafka

ROOT = Path(__file__).resolve().parents[3]
JWT_KEY = "a-secret-of-more-than-32-characters"
GATEWAY = """
import asyncio, sys
from exporters.gateway import Gateway
from stream.settings import Settings
settings = Settings(kafka=sys.argv[1], gateway_port=int(sys.argv[3]), partitions=int(sys.argv[4]))
asyncio.run(Gateway(settings, sys.argv[2]).run(asyncio.Event(), lambda where: print(where.feed, flush=True)))
"""
# What each test sees: `items` of `*` in mode full, as [snapshot, symbol, seq], and what the client said meanwhile.
FOLLOW = """
const { Feed } = await import("/feed.js");
window.items = []; window.said = []; window.states = [];
window.feed = new Feed(URLS, { token: TOKEN });
for (const name of ["gap", "reset", "resumed", "going_away", "error"]) {
  feed.on(name, (event) => said.push({ name, ...event, message: event.message }));
}
feed.on("state", (event) => states.push(event));
window.following = feed.subscribe("prediction", ["*"], {
  mode: "full", onItems: (more) => { for (const i of more) items.push([i.snapshot, i.symbol, i.seq]); } });
"""


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


@pytest.fixture
async def tab(browser: Browser, files_url: str) -> AsyncIterator[Tab]:
    """An empty page that can import feed.js."""
    async with browser.tab(files_url) as opened:
        yield opened
        # The browser itself complains of each connection that fails.
        assert [line for line in opened.complaints if not line.startswith("WebSocket connection to")] == []


async def follow(tab: Tab, *urls: str, token_script: str | None = None) -> None:
    await tab.run(FOLLOW.replace("URLS", orjson.dumps(urls).decode()).replace("TOKEN", token_script or "null"))


async def seqs(tab: Tab, symbol: str, last: int) -> list[int]:
    await tab.eventually(f"items.some(([, symbol, seq]) => symbol === {symbol!r} && seq === {last})")
    return [seq for _, name, seq in await tab.run("return items") if name == symbol]


async def said(tab: Tab, name: str) -> list[dict[str, Any]]:
    return [event for event in await tab.run("return said") if event["name"] == name]


async def test_a_browser_gets_every_item_once_and_in_order(
    gateway: Running, tab: Tab, publish: Any, make_rows: Any, eventually: Any
) -> None:
    await publish(make_rows(["AIG"], 5))
    await known(gateway, eventually, predictions=5)
    await follow(tab, gateway.where.feed)
    await seqs(tab, "AIG", 5)
    await publish(make_rows(["AIG", "BAC"], 300, first=6), block_rows=7)
    assert await seqs(tab, "AIG", 305) == list(range(5, 306))
    assert await seqs(tab, "BAC", 305) == list(range(6, 306))
    items = await tab.run("return items")
    assert [(symbol, seq) for snapshot, symbol, seq in items if snapshot] == [("AIG", 5), ("BAC", 6)]
    assert await tab.run("return said") == []
    assert [state["state"] for state in await tab.run("return states")] == ["connecting", "live"]


async def test_iterators_give_what_was_asked_for_and_conflate_where_that_was_asked_for(
    gateway: Running, tab: Tab, publish: Any, make_rows: Any
) -> None:
    await tab.run(f"""
        const {{ Feed }} = await import("/feed.js");
        window.feed = new Feed("{gateway.where.feed}");
        window.full = []; window.latest = [];
        (async () => {{
          for await (const item of feed.subscribe("prediction", ["A*"], {{ mode: "full" }})) {{
            full.push(item.seq);
            if (item.seq === 400) break;
          }}
          window.ended = true;
        }})();
        (async () => {{
          for await (const item of feed.subscribe("prediction", ["B*"])) {{
            latest.push([item.seq, item.skipped]);
            await new Promise((resolve) => setTimeout(resolve, 30));
          }}
        }})();
    """)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG", "BAC"], 400), block_rows=9)
    await tab.eventually("window.ended")
    assert await tab.run("return full") == list(range(1, 401))
    await tab.eventually("latest.some(([seq]) => seq === 400)")
    latest = await tab.run("return latest")
    assert len(latest) < 300
    assert sum(skipped + 1 for _, skipped in latest) == 400
    await tab.run("feed.close()")


@pytest.fixture
async def killable(kafka: EmbeddedKafka, topic: str) -> AsyncIterator[Callable[..., Any]]:
    """Start a gateway as a process of its own; returns it and its address."""
    started: list[asyncio.subprocess.Process] = []

    async def go(port: int = 0) -> tuple[asyncio.subprocess.Process, str]:
        arguments = (kafka.bootstrap, topic, str(port), str(PARTITIONS))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", GATEWAY, *arguments), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        started.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        return process, line.decode().strip()

    yield go
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_resumes_without_a_gap_where_its_gateway_is_killed_and_another_comes(
    killable: Any, tab: Tab, publish: Any, make_rows: Any
) -> None:
    process, url = await killable()
    await follow(tab, url)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG", "BAC"], 50))
    await seqs(tab, "BAC", 50)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await publish(make_rows(["AIG", "BAC"], 150, first=51), block_rows=11)
    await tab.eventually('feed.state === "away"')
    await killable(port=int(url.rpartition(":")[2].partition("/")[0]))
    for symbol in ("AIG", "BAC"):
        got = await seqs(tab, symbol, 200)
        assert got == list(range(got[0], 201))
        assert got[0] <= 50  # before the kill; the first may be newest of what was there when the gateway came
    assert (await said(tab, "gap"), await said(tab, "reset")) == ([], [])
    resumed = [symbol for event in await said(tab, "resumed") for symbol in event["seqs"]]
    assert sorted(resumed) == ["AIG", "BAC"]


async def test_a_planned_stop_moves_it_to_the_other_gateway_at_once(
    start: Start, tab: Tab, publish: Any, make_rows: Any
) -> None:
    one, other = await start(), await start()
    await follow(tab, one.where.feed, other.where.feed)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG"], 20))
    await seqs(tab, "AIG", 20)
    stopping = asyncio.create_task(one.stop())
    for first in range(21, 121, 10):
        await publish(make_rows(["AIG"], 10, first=first))
        await asyncio.sleep(0.15)
    await stopping
    assert await seqs(tab, "AIG", 120) == list(range(1, 121))
    assert len(await said(tab, "going_away")) == 1
    away = [state for state in await tab.run("return states") if state["state"] == "away"]
    assert (away[0]["code"], len(away)) == (1001, 1)
    assert away[0]["retryMs"] < 250


async def test_what_cannot_be_resumed_is_told_and_begins_anew(
    start: Start, tab: Tab, publish: Any, make_rows: Any, eventually: Any
) -> None:
    one = await start()
    await follow(tab, one.where.feed)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG", "BAC"], 9))
    await seqs(tab, "BAC", 9)
    # Somebody who believes to be further than the feed is.
    await tab.run("""
        const Socket = window.WebSocket;
        window.WebSocket = class extends Socket {
          send(text) { super.send(text.replace('"AIG":9', '"AIG":900')); }
        };
    """)
    port = int(one.where.feed.rpartition(":")[2].partition("/")[0])
    await one.stop()
    again = await start(gateway_port=port)
    await tab.eventually("said.some((event) => event.name === 'reset')")
    await seqs(tab, "BAC", 9)
    await publish(make_rows(["AIG", "BAC"], 3, first=10))
    assert await seqs(tab, "AIG", 12) == [*range(1, 10), 9, 10, 11, 12]
    assert await seqs(tab, "BAC", 12) == list(range(1, 13))
    resets = await said(tab, "reset")
    assert [(event["symbols"], event["reason"]) for event in resets] == [(["AIG"], "ahead")]
    await known(again, eventually, clients=1)


async def test_what_the_engine_does_not_have_is_told_as_a_gap(
    gateway: Running, tab: Tab, publish: Any, make_rows: Any
) -> None:
    await follow(tab, gateway.where.feed)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG"], 6))
    await publish(make_rows(["AIG"], 2, first=10))
    assert await seqs(tab, "AIG", 11) == [1, 2, 3, 4, 5, 6, 10, 11]
    gaps = await said(tab, "gap")
    assert [(gap["channel"], gap["symbol"], gap["after"], gap["before"]) for gap in gaps] == [
        ("prediction", "AIG", 6, 10)
    ]


async def test_a_page_that_stands_still_is_closed_as_too_slow_and_loses_nothing(
    start: Start, tab: Tab, publish: Any, make_rows: Any, eventually: Any
) -> None:
    gateway = await start(gateway_queue=500)
    await follow(tab, gateway.where.feed)
    await tab.eventually('feed.state === "live"')
    await publish(make_rows(["AIG"], 1))
    await seqs(tab, "AIG", 1)
    standing = asyncio.create_task(
        tab.run("const until = performance.now() + 2500; while (performance.now() < until);", within_s=60)
    )
    first = 2
    async with asyncio.timeout(20):
        while not (await gateway.health())["slow_closes"]:
            await publish(make_rows(["AIG"], 4000, first=first), block_rows=500)
            first += 4000
    await standing
    got = await seqs(tab, "AIG", first - 1)
    assert got == list(range(1, first))
    away = [state for state in await tab.run("return states") if state["state"] == "away"]
    assert away[0]["code"] == 4008
    assert away[0]["reason"].startswith("too slow: 500 waited; last delivered: AIG seq ")


async def test_it_asks_for_a_token_and_goes_on_once_it_has_the_right_one(start: Start, tab: Tab) -> None:
    gateway = await start(feed_token=SecretStr("open-sesame"))
    await follow(tab, gateway.where.feed)
    await tab.eventually('feed.state === "token"')
    await tab.run('feed.token = "sesame"')
    await tab.eventually('states.at(-1).code === 4401 && states.at(-1).reason === "this is not the right token"')
    await tab.run('feed.token = "open-sesame"')
    await tab.eventually('feed.state === "live"')
    assert [state["state"] for state in await tab.run("return states")] == [
        *("connecting", "token", "connecting", "token", "connecting", "live")
    ]


async def test_it_fetches_another_token_before_one_ends(start: Start, tab: Tab) -> None:
    gateway = await start(feed_jwt_key=SecretStr(JWT_KEY))
    claims = {"aud": "tickloom", "channels": ["*"], "symbols": ["*"]}
    tokens = [jwt.encode(claims | {"exp": time.time() + s}, JWT_KEY, "HS256") for s in (2.0, 600.0)]
    await tab.run(f"window.tokens = {orjson.dumps(tokens).decode()}")
    await follow(tab, gateway.where.feed, token_script="() => Promise.resolve(tokens.shift())")
    await tab.eventually('feed.state === "live" && tokens.length === 0')
    await asyncio.sleep(2.2)
    assert [state["state"] for state in await tab.run("return states")] == ["connecting", "live"]


async def test_a_refused_subscription_ends_with_the_reason_and_the_others_go_on(
    gateway: Running, tab: Tab, publish: Any, make_rows: Any
) -> None:
    await follow(tab, gateway.where.feed)
    refusal = await tab.run("""
        try {
          for await (const _ of feed.subscribe("weather", ["*"]));
        } catch (error) { return [error.name, error.code]; }
    """)
    assert refusal == ["FeedError", "unknown_channel"]
    await publish(make_rows(["AIG"], 3))
    assert await seqs(tab, "AIG", 3) == [1, 2, 3]


async def test_a_mode_can_be_changed_and_what_is_closed_comes_no_more(
    gateway: Running, tab: Tab, publish: Any, make_rows: Any
) -> None:
    await follow(tab, gateway.where.feed)
    await tab.eventually('feed.state === "live"')
    await tab.run("""
        window.named = [];
        window.one = feed.subscribe("prediction", ["BAC"], { onItems: (more) => named.push(...more) });
        following.change({ mode: "throttle", throttleMs: 200 });
    """)
    for first in range(1, 101, 10):
        await publish(make_rows(["AIG", "BAC"], 10, first=first))
        await asyncio.sleep(0.05)
    throttled = await seqs(tab, "AIG", 100)
    assert len(throttled) < 10
    await tab.run("one.close(); following.change({ mode: 'full' })")
    await tab.eventually("items.filter(([, symbol, seq]) => symbol === 'BAC' && seq === 100).length >= 2")
    await publish(make_rows(["AIG", "BAC"], 50, first=101))
    assert (await seqs(tab, "AIG", 150))[-50:] == list(range(101, 151))
    assert (await seqs(tab, "BAC", 150))[-50:] == list(range(101, 151))
    assert await tab.run("return named.at(-1).seq") == 100
    assert (await said(tab, "gap"), await said(tab, "error")) == ([], [])


async def test_a_gateway_that_falls_silent_is_left(tab: Tab) -> None:
    """A server in our hands: a machine that vanishes from the network says nothing any more, and closes nothing."""
    connections = 0

    async def silent(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        hello = {"type": "hello", "schema_version": 1, "heartbeat_ms": 100, "server_ns": time.time_ns()}
        limits = {"inbound_bytes": 65536, "named_symbols": 2000}
        await connection.send(orjson.dumps(hello | {"limits": limits}).decode())
        await connection.wait_closed()

    async with serve(silent, "127.0.0.1", 0, close_timeout=0.1) as server:
        await follow(tab, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/feed")
        await tab.eventually("states.filter(({ state }) => state === 'live').length >= 2")
        away = (await tab.run("return states"))[2]
        assert (away["state"], away["reason"]) == ("away", "nothing was heard for 0.5 s")
        assert connections == 2
        await tab.run("feed.close()")


async def test_the_example_in_the_documentation_runs_as_it_stands(
    start: Start, tab: Tab, publish: Any, make_rows: Any
) -> None:
    text = (ROOT / "docs" / "feed.md").read_text("utf-8")
    found = re.search(r'<script type="module">\n(.*?)</script>', text, re.DOTALL)
    assert found is not None
    gateway = await start()
    script = found[1].replace("ws://127.0.0.1:8765/feed", gateway.where.feed)
    await tab.run(f"""
        window.printed = [];
        console.log = (...words) => printed.push(words);
        const script = document.createElement("script");
        script.type = "module";
        script.textContent = {orjson.dumps(script).decode()};
        document.body.append(script);
    """)
    deadline_s = time.monotonic() + 10
    while not await tab.run("return printed.length"):
        assert time.monotonic() < deadline_s
        await publish(make_rows(["AIG"], 1, first=1))
        await asyncio.sleep(0.1)
    assert (await tab.run("return printed"))[0] == ["AIG", 1, 100.01, 0.5]
