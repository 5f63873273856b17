"""The page, served by the real API, following a real gateway, in a real browser: what a trader sees and does."""

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from browser import Browser, Tab
from feed_driver import Running, Start
from pydantic import SecretStr

from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from exporters.rest.server import run_api
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.records import OUTCOME, REJECTED, Records, Reject, TickKind, empty_ticks, encode_block
from stream.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "exporters" / "page"
# How many pixels of the chart have each colour; false while one has hardly any.
PAINTED = """(() => {
  const wanted = WANTED, found = {};
  for (const canvas of document.querySelectorAll("#chart canvas")) {
    if (!canvas.width || !canvas.height) continue;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) {
      for (const [name, [r, g, b]] of Object.entries(wanted)) {
        if (data[i] === r && data[i + 1] === g && data[i + 2] === b) found[name] = (found[name] ?? 0) + 1;
      }
    }
  }
  return Object.keys(wanted).every((name) => found[name] > 30) && found;
})()"""
SYMBOLS = [f"SIM.{number:03d}" for number in range(200)]


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


@pytest.fixture
async def serve_page() -> AsyncIterator[Any]:
    """Start an API that sends the page to a gateway; returns the page's URL."""
    stops: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def go(feed_url: str, **settings: Any) -> str:
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        wanted = Settings(**{"api_port": 0, "api_feed_url": feed_url, "api_title": "testloom", **settings})
        task = asyncio.create_task(run_api(wanted, stop, ready.set_result))
        stops.append((stop, task))
        return f"{(await asyncio.wait_for(ready, 20)).api}/"

    yield go
    for stop, task in stops:
        stop.set()
        await asyncio.wait_for(task, 20)


@pytest.fixture
async def page_url(gateway: Running, serve_page: Any) -> str:
    """The page of a gateway."""
    return str(await serve_page(gateway.where.feed))


class Market:
    """Predictions of symbols that walk about, now."""

    def __init__(self, symbols: list[str], publish: Any, make_rows: Any, seed: int = 7) -> None:
        self._symbols, self._publish, self._make_rows = symbols, publish, make_rows
        self._random, self._seq = np.random.default_rng(seed), 1
        self._prices = 50 + 100 * self._random.random(len(symbols))

    async def tick(self, rounds: int = 1) -> None:
        """Publish so many predictions of every symbol."""
        rows = self._make_rows(self._symbols, rounds, first=self._seq)
        self._seq += rounds
        rows["event_ns"] = rows["recv_ns"]
        for start in range(0, len(rows), len(self._symbols)):
            some = rows[start : start + len(self._symbols)]
            self._prices *= 1 + self._random.normal(0, 2e-4, len(self._symbols))
            some["ref_price"] = np.round(self._prices, 2)
            odds = self._random.dirichlet([2, 2, 2], len(self._symbols))
            some["p_down"], some["p_flat"], some["p_up"] = odds.T
            some["expected_return_bps"] = 4 * (odds[:, 2] - odds[:, 0])
        await self._publish(rows)

    async def run(self, seconds: float, every_s: float = 0.1) -> None:
        """Tick for so long."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await self.tick()
            await asyncio.sleep(every_s)


@pytest.fixture
def market(publish: Any, make_rows: Any) -> Any:
    """Make a market of symbols."""
    return lambda symbols: Market(symbols, publish, make_rows)


def ours(tab: Tab) -> list[str]:
    """Complaints that are not of this API's having no servers behind it: the browser tells of every 4xx and 5xx."""
    # The latter is of these tests' looking at pixels.
    others = ("WebSocket connection", "Canvas2D: Multiple readback")
    return [line for line in tab.complaints if "/v1/" not in line and not line.startswith(others)]


async def test_a_trader_sees_live_predictions_a_chart_and_how_all_is(
    browser: Browser, page_url: str, market: Any
) -> None:
    some = market(["AIG", "BAC", "SPY"])
    await some.tick()
    async with browser.tab(page_url, 1600, 1000) as tab:
        await tab.eventually("document.querySelectorAll('#grid .space .row:not([hidden])').length === 3")
        await some.run(2.5)
        assert await tab.eventually("document.querySelector('#state').textContent") == "live"
        row = await tab.run("return document.querySelector('#grid .space .row').innerText.split(/\\s+/)")
        assert row[0] == "AIG"
        assert 20 < float(row[1]) < 200
        assert await tab.run("return document.querySelector('#q-symbol').textContent") == "AIG"
        # Candles: something is painted in both colours, and the legend has the newest bar.
        await tab.eventually("/O \\d+\\.\\d\\d  H .* L .* C /.test(document.querySelector('#legend').textContent)")
        assert await tab.run("return document.querySelectorAll('#chart canvas').length") >= 4
        await tab.eventually("document.querySelectorAll('#calls tr').length >= 1")
        assert "open" in await tab.run("return document.querySelector('#calls').innerText")
        assert "AIG, bars of 1s, last " in await tab.run("return document.querySelector('#chart').ariaLabel")
        await tab.eventually("document.querySelector('#stages').rows.length === 7")
        await tab.eventually("document.querySelector('#f-symbols').textContent === '3'")
        health = await tab.eventually("document.querySelector('#health').innerText")
        assert health.split("\n")[:3] == ["●", "gateway", "0 blocks behind"]
        assert (await tab.run("return document.title")).endswith("· testloom")
        assert ours(tab) == []
        hosts = {urlsplit(url).hostname for url in tab.requested if not url.startswith("data:")}
        assert hosts == {"127.0.0.1"}


async def test_markers_stand_on_the_chart_where_calls_were(browser: Browser, page_url: str, market: Any) -> None:
    some = market(["AIG"])
    await some.tick()
    async with browser.tab(page_url) as tab:
        await tab.eventually("document.querySelector('#q-symbol').textContent === 'AIG'")
        await some.run(3)
        await tab.eventually(PAINTED.replace("WANTED", "{ open: [201, 211, 224] }"))


SETTLED = 200


class NoTicks:
    """Knows no tick: bars without trades."""

    async def find(self, rows: Records) -> Records:
        return empty_ticks(len(rows))

    async def close(self) -> None:
        """Nothing is open."""


async def stored(url: str, symbol: str, make_rows: Any) -> tuple[Records, Records]:
    """Two minutes of predictions every half second, the newest now, and what became of the older ones."""
    rows = make_rows([symbol], 240)
    rows["event_ns"] = rows["published_ns"] = time.time_ns() - (240 - np.arange(240)) * 500_000_000
    rows["ref_price"] = 100 + np.round(np.sin(np.arange(240) / 9), 2)
    rows["p_up"] = np.where(np.arange(240) % 8 < 4, 0.6, 0.1)
    rows["p_down"] = 0.8 - rows["p_up"]
    known = rows[:SETTLED]
    outcomes = np.zeros(len(known), OUTCOME)
    for name in ("symbol", "seq", "model_id", "event_ns", "ref_price", "p_down", "p_flat", "p_up", "horizon_ns"):
        outcomes[name] = known[name]
    outcomes["from_ns"], outcomes["resolved_ns"] = known["event_ns"], known["event_ns"] + 1_000_000_000
    outcomes["realised"] = np.arange(SETTLED) // 8 % 3  # down, flat and up, two calls of each side in each
    outcomes["return_bps"] = outcomes["realised"].astype(float) * 3 - 3
    sink = PredictionSink(url, NoTicks())
    await sink.write(Batch(rows, ((0, 1, 2),), "one"))
    await sink.settle()
    await sink.close()
    plain = ClickHouseSink(url)
    await plain.write(Batch(outcomes, ((0, 1, 2),), "one"))
    await plain.close()
    return rows, outcomes


async def test_history_comes_from_the_api_with_what_became_of_calls(
    browser: Browser,
    gateway: Running,
    serve_page: Any,
    publish: Any,
    make_rows: Any,
    clickhouse: EmbeddedClickHouse,
    fresh_name: Any,
) -> None:
    url = clickhouse.url.rsplit("/", 1)[0] + f"/{fresh_name('page')}"
    rows, outcomes = await stored(url, "AIG", make_rows)
    await publish(rows[-1:])
    second = rows["event_ns"] // 1_000_000_000
    called = ("down", "flat", "up")
    hits = misses = 0
    for start in np.unique(second[:SETTLED]).tolist():
        of_bar = np.flatnonzero(second[:SETTLED] == start)
        clearest = of_bar[np.argmax(np.maximum(outcomes["p_up"], outcomes["p_down"])[of_bar])]
        side = "up" if outcomes["p_up"][clearest] > outcomes["p_down"][clearest] else "down"
        came = called[outcomes["realised"][clearest]]
        hits += side == came
        misses += came not in ("flat", side)
    async with browser.tab(await serve_page(gateway.where.feed, clickhouse=SecretStr(url)), 1600, 1000) as tab:
        score = await tab.eventually(
            "/moved/.test(document.querySelector('#calls-score').textContent) && "
            "document.querySelector('#calls-score').textContent"
        )
        assert score.startswith(f"{hits} of {hits + misses} that moved")
        told = await tab.run("return document.querySelector('#chart').ariaLabel")
        assert told.endswith(f"the clearest calls: {hits} right, {misses} wrong")
        text = await tab.run("return document.querySelector('#calls').innerText")
        assert "\u2713 hit" in text
        assert "\u2715 miss" in text
        # Each kind of marker is painted, in its colour.
        await tab.eventually(PAINTED.replace("WANTED", "{ hit: [127, 209, 174], miss: [255, 107, 107] }"))
        assert not await tab.run("return document.querySelector('#chart-trouble').checkVisibility()")
        asked = "/v1/queries/predictions_by_bar?symbol=AIG&seconds=1"
        said = (await tab.run(f"return (await fetch('{asked}')).json()"))["data"]
        last = [np.flatnonzero(second == start)[-1] for start in np.unique(second)]
        assert [row["p_up"] for row in said] == pytest.approx(rows["p_up"][last].tolist())
        assert [row["p_down"] for row in said] == pytest.approx(rows["p_down"][last].tolist())
        assert sum(row["predictions"] for row in said) == len(rows)
        await tab.press("2")
        await tab.eventually("document.querySelector('#chart').ariaLabel.startsWith('AIG, bars of 1m')")
        assert ours(tab) == []


async def test_keys_choose_filter_sort_freeze_and_help(browser: Browser, page_url: str, market: Any) -> None:
    some = market(["AIG", "BAC", "SPY"])
    await some.tick(2)
    async with browser.tab(page_url) as tab:
        chosen = "document.querySelector('#q-symbol').textContent"
        await tab.eventually(f"{chosen} === 'AIG'")
        await tab.press("ArrowDown")
        await tab.eventually(f"{chosen} === 'BAC'")
        active = "document.getElementById(document.querySelector('#grid').getAttribute('aria-activedescendant'))"
        await tab.eventually(f"{active}.innerText.startsWith('BAC') && {active}.ariaSelected === 'true'")
        assert await tab.run("return location.hash") == "#BAC/1s"
        await tab.press("End")
        await tab.eventually(f"{chosen} === 'SPY'")
        await tab.press("k")
        await tab.eventually(f"{chosen} === 'BAC'")
        await tab.press("2")
        await tab.eventually("document.querySelector('[data-interval=\"1m\"]').ariaPressed === 'true'")
        await tab.press("/")
        for key in "sp":
            await tab.press(key)
        shown = "[...document.querySelectorAll('#grid .space .row:not([hidden]) .name')]"
        rows = f"{shown}.map((cell) => cell.innerText.trim())"
        await tab.eventually(f"String({rows}) === 'SPY'")
        await tab.press("Escape")
        await tab.eventually(f"{rows}.length === 3")
        await tab.press("s")
        await tab.eventually("document.querySelector('[data-key=price]').ariaSort === 'descending'")
        await tab.press(" ")
        await tab.eventually("document.querySelector('#state').textContent === 'frozen'")
        frozen = await tab.run("return document.querySelector('#q-price').textContent")
        await some.tick(3)
        await asyncio.sleep(0.5)
        assert await tab.run("return document.querySelector('#q-price').textContent") == frozen
        await tab.press(" ")
        await tab.eventually(f"document.querySelector('#q-price').textContent !== '{frozen}'")
        await tab.press("?")
        assert await tab.run("return document.querySelector('#help').open")
        assert ours(tab) == []


async def test_a_phone_shows_one_view_at_a_time_and_nothing_is_wider_than_it(
    browser: Browser, page_url: str, market: Any
) -> None:
    await market(["AIG", "BAC.LONG.NAME.OF.24.CHR"]).tick(2)
    async with browser.tab(page_url, 390, 844, prefers_reduced_motion="reduce") as tab:
        await tab.eventually("document.querySelectorAll('#grid .space .row:not([hidden])').length === 2")
        for view, sign in (
            ("watch", "#grid"),
            ("chart", "#chart"),
            ("model", "#model-none"),
            ("health", "#health"),
        ):
            await tab.run(f"document.querySelector('.tabs [data-view={view}]').click()")
            await tab.eventually(f"document.querySelector('{sign}').checkVisibility()")
            sizes = await tab.run(
                "return [document.documentElement.scrollWidth, document.body.scrollWidth,"
                " ...[...document.querySelectorAll('main > *')].map((node) => node.scrollWidth)]"
            )
            assert max(sizes) <= 390, view
        assert not await tab.run("return document.querySelector('#grid').checkVisibility()")
        assert ours(tab) == []


async def test_the_page_says_what_is_away_and_what_comes_back(
    browser: Browser, start: Start, serve_page: Any, market: Any
) -> None:
    gateway = await start()
    port = int(gateway.where.feed.rpartition(":")[2].partition("/")[0])
    await market(["AIG"]).tick()
    async with browser.tab(await serve_page(gateway.where.feed)) as tab:
        await tab.eventually("document.querySelector('#state').textContent === 'live'")
        # There is no ClickHouse behind this API, and the page says so where history would be.
        await tab.eventually("document.querySelector('#chart-trouble').textContent.startsWith('no history: ')")
        await gateway.stop()
        await tab.eventually("document.querySelector('#state').textContent.startsWith('away, again in ')")
        assert "the feed is away: the gateway stops" in await tab.run(
            "return document.querySelector('#said').textContent"
        )
        await start(gateway_port=port)
        await tab.eventually("document.querySelector('#state').textContent === 'live'")
        await tab.eventually("document.querySelector('#alerts').innerText.includes('the feed is back')")
        assert ours(tab) == []


async def test_the_page_asks_for_a_token_and_uses_it(
    browser: Browser, start: Start, serve_page: Any, market: Any
) -> None:
    token = {"feed_token": SecretStr("open-sesame")}
    gateway = await start(**token)
    await market(["AIG"]).tick()
    async with browser.tab(await serve_page(gateway.where.feed, **token)) as tab:
        await tab.eventually("document.querySelector('#token').checkVisibility()")
        for typed, state in (("sesame", "token needed"), ("open-sesame", "live")):
            await tab.run(f"document.querySelector('#token').value = '{typed}'")
            await tab.run("document.querySelector('#token-form').requestSubmit()")
            await tab.eventually(f"document.querySelector('#state').textContent === '{state}'")
            if typed == "sesame":
                await tab.eventually(
                    "document.querySelector('#token-why').textContent === 'This is not the right token'"
                )
        assert not await tab.run("return document.querySelector('#token-form').checkVisibility()")
        assert "open-sesame" not in await tab.run("return document.documentElement.outerHTML + location.href")


async def test_halts_and_refused_ticks_are_told(
    browser: Browser, page_url: str, market: Any, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    symbol = fresh_name("H")
    some = market([symbol])
    await some.tick()
    ticks = empty_ticks(3)
    ticks["symbol"], ticks["kind"], ticks["source_seq"] = symbol, TickKind.TRADE, [1, 2, 3]
    ticks["price"] = ticks["size"] = 1.0
    ticks["event_ns"] = ticks["recv_ns"] = time.time_ns()
    rejected = np.zeros(2, REJECTED)
    rejected["tick"], rejected["reason"] = ticks[:2], Reject.CROSSED
    halt = ticks[2:].copy()
    halt["kind"], halt["price"] = TickKind.HALT, float("nan")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    async with browser.tab(page_url) as tab:
        await tab.eventually(f"document.querySelector('#q-symbol').textContent === '{symbol}'")
        await producer.start()
        alerts, deadline_s = "", time.monotonic() + 20
        while f"{symbol}: ticks refused, crossed" not in alerts or f"{symbol}: halted" not in alerts:
            assert time.monotonic() < deadline_s, alerts
            # What was there before the gateway read the topic is the past, and no news.
            await producer.send_and_wait("ticks.rejected", encode_block(rejected), partition=0)
            await producer.send_and_wait("ticks", encode_block(halt), partition=0)
            await some.tick()
            await asyncio.sleep(0.2)
            alerts = await tab.run("return document.querySelector('#alerts').innerText")
        await tab.eventually("document.querySelector('#q-flag').textContent === 'halted'")
        await producer.stop()
        assert ours(tab) == []


async def test_two_hundred_symbols_are_scrolled_and_drawn(
    browser: Browser, page_url: str, market: Any, record_property: Any
) -> None:
    some = market(SYMBOLS)
    await some.tick()
    async with browser.tab(page_url, 1600, 1000) as tab:
        await tab.eventually("document.querySelector('#grid').getAttribute('aria-rowcount') === '201'")
        # Rows in sight exist, and no others.
        assert await tab.run("return document.querySelectorAll('#grid .space .row').length") < 50
        await tab.run("""
            window.frames_ms = [];
            let last = performance.now();
            const look = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(look); };
            requestAnimationFrame(look);
        """)
        await some.run(3)
        await tab.press("End")
        await tab.eventually("document.querySelector('#q-symbol').textContent === 'SIM.199'")
        shown = "document.querySelector('#grid .row[aria-selected=true]').getBoundingClientRect().bottom"
        assert await tab.run(f"return {shown}") <= 1000
        frames_ms = np.array((await tab.run("return frames_ms"))[1:])
        # Recorded, not judged: it depends on what else the machine does.
        for name, value in {
            "frames": len(frames_ms),
            "frame_p50_ms": float(np.quantile(frames_ms, 0.5)),
            "frame_p99_ms": float(np.quantile(frames_ms, 0.99)),
        }.items():
            record_property(name, value)
        assert ours(tab) == []


def test_what_is_bundled_is_what_was_checked_in() -> None:
    lines = (PAGE / "vendor" / "SHA256SUMS").read_text("utf-8").splitlines()
    assert {line.split()[1] for line in lines} == {"LICENSE.txt", "lightweight-charts.mjs"}
    for line in lines:
        digest, name = line.split()
        assert sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == digest
