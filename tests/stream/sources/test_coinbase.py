"""Coinbase's messages, recorded and damaged, and what is made of them."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from stream.errors import RecordError, SettingsError
from stream.sources.coinbase import Coinbase
from stream.sources.venue import Bad, Confirmed, Event, Gap, Ignored, Quote, Refused, Trade

BTC = b"BTC-USD.coinbase"
MATCH = {
    "type": "match",
    "trade_id": 100,
    "side": "sell",
    "size": "450",
    "price": "0.791",
    "product_id": "BTC-USD",
    "sequence": 201390075,
    "time": "2021-04-17T16:43:37.121358Z",
}
TICKER = {
    "type": "ticker",
    "sequence": 500,
    "product_id": "BTC-USD",
    "price": "0.791",
    "best_bid": "0.7901",
    "best_ask": "0.7912",
    "side": "buy",
    "time": "2021-04-17T16:43:37.121358Z",
    "trade_id": 100,
}
TIME_NS = 1_618_677_817_121_358_000


def said(venue: Coinbase, body: Any) -> list[Event]:
    return list(venue.parse(orjson.dumps(body), 0))


def heartbeat(last_trade: int) -> dict[str, Any]:
    return {
        "type": "heartbeat",
        "sequence": 90,
        "last_trade_id": last_trade,
        "product_id": "BTC-USD",
        "time": "2021-04-17T16:43:38.000000Z",
    }


def test_a_recorded_session_gives_each_match_and_each_ticker(shared_data: Path) -> None:
    with gzip.open(shared_data / "payloads" / "ws" / "coinbase_20210417.txt.gz") as lines:
        messages = [line.partition(b": ")[2] for line in lines if line[:1].isdigit()]
    bodies = [json.loads(message) for message in messages]
    products = {body["product_id"] for body in bodies if body["type"] == "ticker"}
    venue = Coinbase(sorted(products))
    events = [event for message in messages for event in venue.parse(message, 0)]

    def time_ns(body: dict[str, Any]) -> int:
        return round(datetime.fromisoformat(body["time"]).timestamp() * 1e6) * 1000

    # The ticker that belongs to a match tells the taker's side: the aggressor, in the exchange's own words.
    taker = {(body["product_id"], body["trade_id"]): body["side"] for body in bodies if body["type"] == "ticker"}
    assert [event for event in events if isinstance(event, Trade)] == [
        Trade(
            f"{body['product_id']}.coinbase".encode(),
            time_ns(body),
            float(body["price"]),
            float(body["size"]),
            {"buy": 1, "sell": -1}[taker[body["product_id"], body["trade_id"]]],
        )
        for body in bodies
        if body["type"] == "match"
    ]
    quotes = [event for event in events if isinstance(event, Quote)]
    assert [quote[:4] for quote in quotes] == [
        (
            f"{body['product_id']}.coinbase".encode(),
            time_ns(body),
            float(body["best_bid"]),
            float(body["best_ask"]),
        )
        for body in bodies
        if body["type"] == "ticker"
    ]
    assert np.isnan([quote[4:] for quote in quotes]).all()
    assert not any(isinstance(event, Bad | Gap) for event in events)
    assert sum(event == Confirmed() for event in events) == 3


def test_sizes_of_the_best_bid_and_ask_are_taken_where_they_are_told() -> None:
    (quote,) = said(Coinbase(["BTC-USD"]), {**TICKER, "best_bid_size": "1.5", "best_ask_size": "2"})
    assert quote == Quote(BTC, TIME_NS, 0.7901, 0.7912, 1.5, 2.0)


def test_the_last_match_counts_after_a_reconnect_and_not_at_the_start() -> None:
    venue = Coinbase(["BTC-USD"])
    assert said(venue, {**MATCH, "type": "last_match"}) == [Ignored("before_session", BTC)]
    assert said(venue, {**MATCH, "trade_id": 101}) == [Trade(BTC, TIME_NS, 0.791, 450.0, 1)]
    venue.connected()
    assert said(venue, {**MATCH, "type": "last_match", "trade_id": 101}) == [Ignored("duplicate_trade", BTC)]
    gap, trade = said(venue, {**MATCH, "type": "last_match", "trade_id": 111})
    assert isinstance(gap, Gap)
    assert gap.missed == 9
    assert isinstance(trade, Trade)


def test_a_heartbeat_shows_lost_trades_once_the_next_one_has_come() -> None:
    venue = Coinbase(["BTC-USD"])
    said(venue, MATCH)
    beat = Ignored("heartbeat", BTC)
    assert said(venue, heartbeat(100)) == [beat]
    assert said(venue, heartbeat(103)) == [beat]  # the matches may still come
    (gap,) = said(venue, heartbeat(103))
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.missed) == ("trade_ids", 3)
    assert said(venue, heartbeat(103)) == [beat]
    assert said(venue, {**MATCH, "trade_id": 104}) == [Trade(BTC, TIME_NS, 0.791, 450.0, 1)]


def test_a_heartbeat_that_overtakes_a_match_is_no_gap() -> None:
    venue = Coinbase(["BTC-USD"])
    said(venue, MATCH)
    said(venue, heartbeat(101))
    assert len(said(venue, {**MATCH, "trade_id": 101})) == 1
    assert said(venue, heartbeat(101)) == [Ignored("heartbeat", BTC)]


def test_a_ticker_that_is_not_newer_is_dropped() -> None:
    venue = Coinbase(["BTC-USD"])
    assert len(said(venue, TICKER)) == 1
    assert said(venue, TICKER) == [Ignored("stale_quote", BTC)]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"nonsense",
        b"7",
        *(
            orjson.dumps({**MATCH, key: value})
            for key, value in [
                ("price", "x"),
                ("size", "inf"),
                ("side", "both"),
                ("side", []),
                ("time", "yesterday"),
                ("time", "2021-04-17T16:43:37.121358"),
                ("time", 1618677817),
                ("time", "1066-10-14T00:00:00Z"),
                ("trade_id", None),
                ("product_id", {}),
            ]
        ),
        orjson.dumps({"type": "match", "product_id": "BTC-USD"}),
        orjson.dumps({"type": "heartbeat", "product_id": "BTC-USD"}),
        orjson.dumps({**TICKER, "sequence": "500"}),
        orjson.dumps({"type": "error", "message": "ErrSlowConsume"}),
    ],
)
def test_what_cannot_be_read_is_bad_and_changes_nothing(message: bytes) -> None:
    venue = Coinbase(["BTC-USD"])
    said(venue, MATCH)
    (event,) = venue.parse(message, 0)
    assert isinstance(event, Bad)
    (event,) = said(venue, {**MATCH, "trade_id": 101})
    assert isinstance(event, Trade)


def test_a_refusal_names_the_products_that_it_is_about() -> None:
    venue = Coinbase(["BTC-USD", "BTC-USDT", "FOO-USD"])
    refusal = {"type": "error", "message": "Failed to subscribe", "reason": "FOO-USD is not a valid product"}
    assert said(venue, refusal) == [Refused(("FOO-USD",), "Failed to subscribe FOO-USD is not a valid product")]
    refusal["reason"] = " is not a valid product"
    assert said(venue, refusal) == [Refused((), "Failed to subscribe  is not a valid product")]


def test_one_message_subscribes_to_all_products_but_the_refused() -> None:
    venue = Coinbase(["btc-usd", "FOO-USD"])
    (message,) = venue.subscriptions(venue.routes[0], {"FOO-USD"})
    assert json.loads(message) == {
        "type": "subscribe",
        "product_ids": ["BTC-USD"],
        "channels": ["matches", "ticker", "heartbeat"],
    }
    assert venue.subscriptions(venue.routes[0], {"BTC-USD", "FOO-USD"}) == ()
    assert venue.routes[0].url == "wss://ws-feed.exchange.coinbase.com"


def test_symbols_that_cannot_be_served_are_refused() -> None:
    with pytest.raises(SettingsError, match="1 to 500 symbols, not 0"):
        Coinbase([])
    with pytest.raises(RecordError, match="1 to 24"):
        Coinbase(["A" * 20])
