"""Live sources against a real websocket server that plays recordings, falls silent, refuses and goes away."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import Records, TickKind, partition_of
from stream.settings import Settings
from stream.sources.binance import Binance
from stream.sources.coinbase import Coinbase
from stream.sources.delivery import Delivery
from stream.sources.exchange import ExchangeFeed, run_exchange
from stream.sources.session import Patience
from stream.sources.venue import Venue

PARTITIONS = 2
QUICK = Patience(open_s=2, ping_s=5, pong_s=5, silence_s=5, backoff_s=0.05, longest_backoff_s=0.2, overlap_s=0.3)

Script = Callable[["Exchange", ServerConnection, int], Awaitable[None]]


class Exchange:
    """A websocket server that notes what is asked of it and follows a script, called for each connection."""

    def __init__(self, script: Script) -> None:
        self.paths: list[str] = []
        self.requests: list[Any] = []
        self._script = script
        self._server: Server | None = None
        self.port = 0

    async def __aenter__(self) -> "Exchange":
        self._server = await serve(self._handle, "127.0.0.1", self.port, ping_interval=None, close_timeout=0.1)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def request(self, connection: ServerConnection) -> Any:
        body = json.loads(await connection.recv())
        self.requests.append(body)
        return body

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        with contextlib.suppress(ConnectionClosed):
            await self._script(self, connection, len(self.paths))
            await connection.wait_closed()


class Live:
    """A running feed and the Kafka topic that it writes to."""

    def __init__(self, feed: ExchangeFeed, delivery: Delivery) -> None:
        self.feed = feed
        self.delivery = delivery

    @property
    def problems(self) -> dict[str, str]:
        return self.delivery.health.problems

    def figure(self, name: str) -> Any:
        return self.feed.figures()[name]

    def counted(self, metric: str, **labels: str) -> float:
        return self.delivery.registry.get_sample_value(f"tickloom_source_{metric}_total", labels) or 0.0

    async def until(self, reached: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not reached():
                await asyncio.sleep(0.01)


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tick_topic: Any) -> Any:
    return await tick_topic(kafka.bootstrap, PARTITIONS)


@pytest.fixture
def start(kafka: EmbeddedKafka, topic: str) -> Any:
    """Run a feed for the time of an `async with`; afterwards everything is in Kafka."""

    @contextlib.asynccontextmanager
    async def run(venue: Venue, patience: Patience = QUICK) -> AsyncIterator[Live]:
        stop = asyncio.Event()
        delivery = Delivery(Settings(partitions=PARTITIONS), kafka.bootstrap, venue.name, stop, topic=topic)
        async with delivery:
            feed = ExchangeFeed(venue, delivery, patience)
            running = asyncio.create_task(feed.run())
            try:
                yield Live(feed, delivery)
            finally:
                stop.set()
                await running
            await delivery.finish("stopped")

    return run


@pytest.fixture
def published(kafka: EmbeddedKafka, topic: str, read_blocks: Any) -> Any:
    """Read all ticks in the order of their numbers, each in the partition where it belongs."""

    async def read() -> Records:
        blocks = await read_blocks(kafka.bootstrap, topic)
        for partition, parts in enumerate(blocks):
            for part in parts:
                assert (partition_of(part["symbol"], PARTITIONS) == partition).all()
        ticks = np.concatenate([part for parts in blocks for part in parts])
        return ticks[np.argsort(ticks["source_seq"])]

    return read


def recorded(path: Path, separator: bytes = b" ") -> list[str]:
    with gzip.open(path) as lines:
        return [line.partition(separator)[2].decode() for line in lines if line[:1].isdigit()]


def trade(number: int, symbol: str = "BTCUSDT") -> str:
    data = {"e": "trade", "s": symbol, "t": number, "p": "100.5", "q": "2", "T": 1723161255342 + number, "m": False}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data})


def match(number: int, product: str = "BTC-USD", kind: str = "match") -> str:
    when = f"2021-04-17T16:43:37.{number:06}Z"
    body = {"side": "sell", "size": "1", "price": "9", "product_id": product, "sequence": number, "time": when}
    return json.dumps({"type": kind, "trade_id": number, **body})


def tick_columns(ticks: Records, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(ticks[name].tolist() for name in names), strict=True))


async def accept(exchange: Exchange, connection: ServerConnection) -> None:
    body = await exchange.request(connection)
    await connection.send(json.dumps({"result": None, "id": body["id"]}))


async def send_all(connection: ServerConnection, messages: Sequence[str]) -> None:
    for message in messages:
        await connection.send(message)


async def test_a_recorded_spot_session_reaches_kafka_as_its_normalised_ticks(
    kafka: EmbeddedKafka, topic: str, published: Any, shared_data: Path
) -> None:
    messages = recorded(shared_data / "payloads" / "ws" / "binance_spot_btcusdt_20240808.gz")

    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await send_all(connection, messages)

    stop = asyncio.Event()
    told: list[dict[str, Any]] = []

    def progress(figures: dict[str, Any]) -> None:
        told.append(figures)
        if figures["messages"] == len(messages) + 1:
            stop.set()

    settings = Settings(partitions=PARTITIONS, kafka=kafka.bootstrap)
    before_ns = time.time_ns()
    async with Exchange(play) as exchange, asyncio.timeout(120):
        figures = await run_exchange(
            settings, stop, "binance", ["btcusdt"], exchange.url + "/", progress=progress, topic=topic
        )
        assert exchange.paths == ["/stream?timeUnit=MICROSECOND"]
    assert told[-2]["state"] == "streaming"
    assert figures["state"] == "stopped"
    assert figures["ticks_sent"] == figures["ticks"] == 37_797
    assert figures["gaps"] == figures["bad_messages"] == figures["reconnects"] == 0
    ticks = await published()
    assert ticks["source_seq"].tolist() == list(range(1, 37_798))
    assert len(np.unique(ticks["stream_id"])) == 1
    assert set(ticks["symbol"]) == {b"BTCUSDT.binance"}
    assert ((ticks["recv_ns"] >= before_ns) & (ticks["recv_ns"] <= time.time_ns())).all()

    crypto = shared_data / "ticks" / "crypto"
    expected = pq.read_table(crypto / "trades_binance_spot_btcusdt_20240808.parquet").to_pandas()
    trades = ticks[ticks["kind"] == TickKind.TRADE]
    assert (trades["price"] == expected["price"]).all()
    assert (trades["size"] == expected["size"]).all()
    assert (trades["event_ns"] == expected["exch_ts_ns"]).all()
    assert (trades["side"] == np.where(expected["buyer_is_maker"], -1, 1)).all()
    assert np.isnan(trades["bid"]).all()
    expected = pq.read_table(crypto / "quotes_binance_spot_btcusdt_20240808.parquet").to_pandas()
    quotes = ticks[ticks["kind"] == TickKind.QUOTE]
    for column in ("bid", "ask", "bid_size", "ask_size"):
        assert (quotes[column] == expected[column]).all()
    assert (quotes["event_ns"] == quotes["recv_ns"]).all()
    assert np.isnan(quotes["price"]).all()
    assert not quotes["side"].any()


async def test_futures_come_over_two_connections_and_each_breaks_alone(
    start: Any, published: Any, shared_data: Path
) -> None:
    messages = recorded(shared_data / "payloads" / "ws" / "binance_usdm_ethusdt_20240808.gz")[:4_000]
    by_path = {
        "/market/stream": [message for message in messages if "@trade" in message],
        "/public/stream": [message for message in messages if "@bookTicker" in message],
    }
    connections: dict[str, int] = defaultdict(int)

    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        path = exchange.paths[-1]
        connections[path] += 1
        await accept(exchange, connection)
        if path == "/market/stream" and connections[path] == 1:
            await send_all(connection, by_path[path][:100])
            connection.transport.abort()
        else:
            await send_all(connection, by_path[path][100 if path == "/market/stream" else 0 :])

    async with Exchange(play) as exchange, start(Binance(["ETHUSDT.usdm"], exchange.url)) as live:
        sent = sum(len(part) for part in by_path.values())
        await live.until(lambda: live.figure("ticks_sent") == sent)
        assert connections == {"/market/stream": 2, "/public/stream": 1}
        assert live.figure("missed_trades") == 0
        assert live.figure("gaps") == 1  # quiet or not: nobody knows what was missed
        assert live.problems == {}
    ticks = await published()
    expected = [json.loads(message)["data"] for message in by_path["/market/stream"]]
    trades = ticks[ticks["kind"] == TickKind.TRADE]
    assert tick_columns(trades, "event_ns", "price", "size", "side") == [
        (data["T"] * 1_000_000, float(data["p"]), float(data["q"]), -1 if data["m"] else 1) for data in expected
    ]
    assert len(ticks) - len(trades) == len(by_path["/public/stream"])


async def test_a_recorded_coinbase_session_reaches_kafka(start: Any, published: Any, shared_data: Path) -> None:
    messages = recorded(shared_data / "payloads" / "ws" / "coinbase_20210417.txt.gz", b": ")
    bodies = [json.loads(message) for message in messages]

    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await exchange.request(connection)
        await send_all(connection, messages)

    products = sorted({body["product_id"] for body in bodies if body["type"] == "ticker"})
    async with Exchange(play) as exchange, start(Coinbase([*products, "NU-GBP"], exchange.url)) as live:
        await live.until(lambda: live.figure("messages") == len(messages))
        assert live.figure("quiet_symbols") == ["NU-GBP.coinbase"]
    ticks = await published()
    matches = [body for body in bodies if body["type"] == "match"]
    trades = ticks[ticks["kind"] == TickKind.TRADE]
    assert tick_columns(trades, "symbol", "price", "size", "side") == [
        (
            f"{body['product_id']}.coinbase".encode(),
            float(body["price"]),
            float(body["size"]),
            1 if body["side"] == "sell" else -1,
        )
        for body in matches
    ]
    assert len(ticks) == len(trades) + sum(body["type"] == "ticker" for body in bodies)


async def test_a_connection_that_breaks_is_made_again_and_what_was_missed_is_counted(
    start: Any, published: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        await accept(exchange, connection)
        if number == 1:
            await send_all(connection, [trade(index) for index in range(1, 51)])
            await asyncio.sleep(0.2)
            connection.transport.abort()
        else:
            await send_all(connection, [trade(index) for index in range(61, 101)])

    async with Exchange(play) as exchange, start(Binance(["BTCUSDT", "ETHUSDT"], exchange.url)) as live:
        await live.until(lambda: live.figure("ticks_sent") == 90)
        assert live.figure("state") == "streaming"
        assert live.figure("reconnects") == 1
        assert live.figure("missed_trades") == 10
        assert live.counted("disconnects", reason="dropped") == 1
        assert live.counted("gaps", symbol="BTCUSDT.binance", reason="reconnect") == 1
        assert live.counted("gaps", symbol="ETHUSDT.binance", reason="reconnect") == 1
        assert live.counted("gaps", symbol="BTCUSDT.binance", reason="trade_ids") == 1
        assert live.counted("missed_trades", symbol="BTCUSDT.binance") == 10
        assert live.counted("ticks", symbol="BTCUSDT.binance") == 90
        assert live.problems == {}
    first, second = exchange.requests
    assert first["params"] == second["params"]
    assert "gap (trade_ids), 10 trades missing: after trade 50 came 61" in caplog.text
    ticks = await published()
    assert ticks["source_seq"].tolist() == list(range(1, 91))
    assert ticks["event_ns"].tolist() == [
        (1723161255342 + number) * 10**6 for number in [*range(1, 51), *range(61, 101)]
    ]


async def test_coinbase_tells_after_a_reconnect_how_many_trades_were_missed(start: Any, published: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        await exchange.request(connection)
        if number == 1:
            await send_all(connection, [match(10, kind="last_match"), *(match(index) for index in (11, 12, 13))])
            await connection.close(1001, "going away")
        else:
            await send_all(connection, [match(18, kind="last_match"), match(19)])

    async with Exchange(play) as exchange, start(Coinbase(["BTC-USD"], exchange.url)) as live:
        await live.until(lambda: live.figure("ticks_sent") == 5)
        assert live.figure("missed_trades") == 4
        assert live.counted("disconnects", reason="closed") == 1
    ticks = await published()
    assert (ticks["event_ns"] // 1000 % 1_000_000).tolist() == [11, 12, 13, 18, 19]


async def test_a_server_that_stops_answering_pings_is_left(start: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(number))
        if number == 1:
            connection.transport.pause_reading()
            await asyncio.sleep(3)
            connection.transport.abort()

    patience = Patience(ping_s=0.2, pong_s=0.3, backoff_s=0.01)
    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url), patience) as live:
        await live.until(lambda: live.figure("ticks_sent") == 2)
        assert live.counted("disconnects", reason="no_pong") == 1
        assert live.figure("gaps") == 1


async def test_a_server_that_answers_pings_and_sends_nothing_is_left(start: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(number))

    patience = Patience(ping_s=0.1, silence_s=0.5, backoff_s=0.01)
    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url), patience) as live:
        await live.until(lambda: live.figure("ticks_sent") == 3)
        assert live.counted("disconnects", reason="silence") == 2
        assert live.figure("missed_trades") == 0


async def test_garbage_is_counted_and_named_and_stops_nothing(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(1))
        for number in range(200):
            await connection.send(f"garbage {number}")
        await connection.send(b"\x00\xff\xfe")
        await connection.send('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","p":"x"}}')
        await connection.send('{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT"}}')
        await connection.send(trade(2))

    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url)) as live:
        await live.until(lambda: live.figure("ticks_sent") == 2)
        assert live.figure("bad_messages") == 202
        assert live.figure("ignored_messages") == 1
        assert live.counted("bad_messages", symbol="", reason="not_json") == 201
        assert live.counted("bad_messages", symbol="BTCUSDT.binance", reason="malformed") == 1
        assert len(exchange.paths) == 1
        assert live.problems == {}
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("not_json" in record.getMessage() for record in told) == 1
    assert "the message: b'garbage 0'" in caplog.text


async def test_a_refused_product_is_left_out_and_the_others_go_on(start: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        body = await exchange.request(connection)
        while bad := sorted(name for name in body["product_ids"] if name.startswith("FOO")):
            reason = f"{bad[0]} is not a valid product"
            await connection.send(json.dumps({"type": "error", "message": "Failed to subscribe", "reason": reason}))
            body = await exchange.request(connection)
        await connection.send(json.dumps({"type": "subscriptions", "channels": []}))
        await connection.send(match(1))

    venue_symbols = ["FOO-USD", "BTC-USD", "FOO-EUR"]
    async with Exchange(play) as exchange, start(Coinbase(venue_symbols, exchange.url)) as live:
        await live.until(lambda: live.figure("ticks_sent") == 1)
        assert [body["product_ids"] for body in exchange.requests] == [
            ["FOO-USD", "BTC-USD", "FOO-EUR"],
            ["FOO-USD", "BTC-USD"],
            ["BTC-USD"],
        ]
        assert live.problems == {
            "coinbase subscription": (
                "refused by coinbase: FOO-EUR: Failed to subscribe FOO-EUR is not a valid product; "
                "FOO-USD: Failed to subscribe FOO-USD is not a valid product"
            )
        }


async def test_a_refusal_without_names_is_a_problem_until_the_exchange_accepts(start: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        body = await exchange.request(connection)
        if number == 1:
            await connection.send(json.dumps({"error": {"code": 2, "msg": "Too many streams"}, "id": None}))
            await asyncio.sleep(0.5)
            await connection.close()
        else:
            await connection.send(json.dumps({"result": None, "id": body["id"]}))
            await connection.send(trade(1))

    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url)) as live:
        await live.until(lambda: "binance subscription" in live.problems)
        assert live.problems["binance subscription"] == "refused by binance: all symbols: Too many streams"
        await live.until(lambda: live.figure("ticks_sent") == 1)
        assert live.problems == {}


@pytest.mark.parametrize("announced", [True, False])
async def test_a_connection_that_will_end_is_replaced_before_it_does_and_nothing_is_missed(
    start: Any, published: Any, announced: bool
) -> None:
    latest = 0
    ended: list[int] = []

    async def play(exchange: Exchange, connection: ServerConnection, number: int) -> None:
        nonlocal latest
        await accept(exchange, connection)
        if number == 1 and announced:
            await connection.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
        # One clock of trades for all connections, as at an exchange.
        seen = latest
        with contextlib.suppress(ConnectionClosed):
            while True:
                if number == len(exchange.paths):
                    latest += 1
                for index in range(seen + 1, latest + 1):
                    await connection.send(trade(index))
                seen = latest
                await asyncio.sleep(0.005)
        ended.append(number)

    patience = Patience(overlap_s=0.3, silence_s=5, max_age_s=None if announced else 1.0)
    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url), patience) as live:
        await live.until(lambda: ended)
        seen = latest
        await live.until(lambda: live.figure("ticks_sent") > seen)
        assert live.counted("reconnects", reason="replaced") == 1
        assert live.counted("ignored_messages", symbol="BTCUSDT.binance", reason="duplicate_trade") > 0
        assert live.figure("gaps") == live.figure("disconnects") == 0
        assert live.problems == {}
    ticks = await published()
    assert np.all(np.diff(ticks["event_ns"]) == 10**6)
    assert np.all(np.diff(ticks["source_seq"]) == 1)


async def test_an_exchange_that_is_away_is_waited_for(start: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(1))

    async with Exchange(play) as earlier:
        pass
    exchange = Exchange(play)
    exchange.port = earlier.port
    async with start(Binance(["BTCUSDT"], earlier.url)) as live:
        await live.until(lambda: live.problems)
        assert "cannot be reached" in live.problems["binance"]
        assert live.figure("state") == "connecting"
        async with exchange:
            await live.until(lambda: live.figure("ticks_sent") == 1)
            assert live.problems == {}
            assert live.figure("reconnects") == live.figure("gaps") == 0
        await live.until(lambda: live.figure("state") == "reconnecting")


async def test_a_stalled_kafka_stops_the_reading_and_loses_nothing(
    kafka: EmbeddedKafka,
    start: Any,
    published: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("stream.publisher._MAX_PENDING_TICKS", 20)
    monkeypatch.setattr("stream.publisher._MAX_UNACKNOWLEDGED_BLOCKS", 1)
    monkeypatch.setattr("stream.sources.exchange._MAX_WAITING", 50)

    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(1))
        await stalled.wait()
        await send_all(connection, [trade(number) for number in range(2, 1001)])

    stalled = asyncio.Event()
    patience = Patience(silence_s=0.5)  # not to be mistaken for the exchange's
    async with Exchange(play) as exchange, start(Binance(["BTCUSDT"], exchange.url), patience) as live:
        await live.until(lambda: live.delivery.publisher.acknowledged(0) or live.delivery.publisher.acknowledged(1))
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            stalled.set()
            await live.until(lambda: live.figure("waiting_ticks") == 50)
            await asyncio.sleep(1.5)
            assert live.figure("waiting_ticks") == 50
            assert live.figure("disconnects") == 0
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        await live.until(lambda: live.figure("ticks_sent") == 1000)
    assert "50 ticks wait for Kafka: binance is not read" in caplog.text
    assert (await published())["source_seq"].tolist() == list(range(1, 1001))


async def test_symbols_that_nothing_comes_for_are_named(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await connection.send(trade(1))

    patience = Patience(quiet_s=0.3)
    async with Exchange(play) as exchange, start(Binance(["BTCUSDT", "BTCUSD"], exchange.url), patience) as live:
        await live.until(lambda: "nothing has come for" in caplog.text)
        assert live.figure("quiet_symbols") == ["BTCUSD.binance"]
    assert "nothing has come for BTCUSD.binance; are they symbols of binance?" in caplog.text


async def test_each_run_is_a_stream_of_its_own(start: Any, published: Any) -> None:
    async def play(exchange: Exchange, connection: ServerConnection, _: int) -> None:
        await accept(exchange, connection)
        await send_all(connection, [trade(1), trade(2)])

    async with Exchange(play) as exchange:
        for _ in range(2):
            async with start(Binance(["BTCUSDT"], exchange.url)) as live:
                await live.until(lambda live=live: live.figure("ticks_sent") == 2)
    ticks = await published()
    assert sorted(ticks["source_seq"].tolist()) == [1, 1, 2, 2]
    assert len(np.unique(ticks["stream_id"])) == 2


async def test_bad_arguments_are_refused() -> None:
    stop = asyncio.Event()
    with pytest.raises(SettingsError, match="there are binance, coinbase"):
        await run_exchange(Settings(kafka="127.0.0.1:9"), stop, "kraken", ["XBTUSD"])
    with pytest.raises(SettingsError, match="right would be ws://HOST:PORT"):
        await run_exchange(Settings(kafka="127.0.0.1:9"), stop, "binance", ["BTCUSDT"], "http://127.0.0.1")
    with pytest.raises(SettingsError, match="no Kafka"):
        await run_exchange(Settings(), stop, "binance", ["BTCUSDT"])
