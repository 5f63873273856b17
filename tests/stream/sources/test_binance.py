"""Binance's messages, recorded and damaged, and what is made of them."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from stream.errors import RecordError, SettingsError
from stream.sources.binance import Binance
from stream.sources.venue import Bad, Confirmed, Ending, Event, Gap, Ignored, Quote, Refused, Trade

RECV_NS = 1_723_161_254_000_000_000
TRADE = {
    "e": "trade",
    "E": 1723161255343,
    "s": "BTCUSDT",
    "t": 100,
    "p": "61837.63",
    "q": "0.02",
    "T": 1723161255342,
    "m": True,
    "M": True,
}
QUOTE = {"u": 500, "s": "BTCUSDT", "b": "61837.63", "B": "3.78", "a": "61837.64", "A": "1.54"}


def said(venue: Binance, data: Any, stream: str = "btcusdt@trade") -> list[Event]:
    return list(venue.parse(orjson.dumps({"stream": stream, "data": data}), RECV_NS))


def recorded(path: Path, separator: bytes) -> list[tuple[bytes, bytes]]:
    with gzip.open(path) as lines:
        return [line.partition(separator)[::2] for line in lines if line[:1].isdigit()]


@pytest.mark.parametrize(
    ("capture", "symbol", "stem"),
    [
        ("binance_spot_btcusdt_20240808.gz", "BTCUSDT", "binance_spot_btcusdt_20240808"),
        ("binance_usdm_ethusdt_20240808.gz", "ETHUSDT.usdm", "binance_usdm_ethusdt_20240808"),
    ],
)
def test_a_recorded_session_agrees_with_its_normalised_ticks(
    shared_data: Path, capture: str, symbol: str, stem: str
) -> None:
    venue = Binance([symbol])
    trades, quotes = [], []
    for recv_ns, message in recorded(shared_data / "payloads" / "ws" / capture, b" "):
        for event in venue.parse(message, int(recv_ns)):
            if isinstance(event, Trade):
                trades.append(event[1:])
            elif isinstance(event, Quote):
                quotes.append(event[1:])
            else:
                assert event == Ignored("unknown_type")
    expected = pq.read_table(shared_data / "ticks" / "crypto" / f"trades_{stem}.parquet").to_pandas()
    side = np.where(expected["buyer_is_maker"], -1, 1)
    columns = (expected["exch_ts_ns"], expected["price"], expected["size"], side)
    assert trades == list(zip(*columns, strict=True))
    expected = pq.read_table(shared_data / "ticks" / "crypto" / f"quotes_{stem}.parquet").to_pandas()
    event_ns = expected["exch_ts_ns" if "exch_ts_ns" in expected else "ts_ns"]  # spot: the time of receipt
    columns = (event_ns, expected["bid"], expected["ask"], expected["bid_size"], expected["ask_size"])
    assert quotes == list(zip(*columns, strict=True))


def test_aggregated_trades_of_the_futures_are_read_without_a_gap(shared_data: Path) -> None:
    venue = Binance([f"{name}.usdm" for name in ("SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT")])
    counts: Counter[str] = Counter()
    path = shared_data / "payloads" / "ws" / "binance_futures.ws.1.0.txt.gz"
    for _, message in recorded(path, b": "):
        counts.update(type(event).__name__ for event in venue.parse(message, RECV_NS))
    assert counts == {"Trade": 91, "Quote": 613, "Ignored": 831}


def test_several_spot_symbols_share_a_connection(shared_data: Path) -> None:
    venue = Binance(["NKNUSDT", "BLZETH", "LRCBTC"])
    counts: Counter[tuple[str, str]] = Counter()
    for _, message in recorded(shared_data / "payloads" / "ws" / "binance.ws.1.0.txt.gz", b": "):
        for event in venue.parse(message, RECV_NS):
            counts[type(event).__name__, getattr(event, "symbol", b"").decode()] += 1
    assert counts["Quote", "NKNUSDT.binance"] == 74
    assert counts["Quote", "LRCBTC.binance"] == 9
    assert counts["Quote", "BLZETH.binance"] == 1
    assert counts["Trade", "LRCBTC.binance"] == counts["Trade", "NKNUSDT.binance"] == 1
    assert {kind for kind, _ in counts} == {"Quote", "Trade", "Ignored"}


def test_the_aggressor_bought_where_the_buyer_was_not_the_maker() -> None:
    (event,) = said(Binance(["BTCUSDT"]), {**TRADE, "m": False})
    assert event == Trade(b"BTCUSDT.binance", 1_723_161_255_342_000_000, 61837.63, 0.02, 1)


def test_times_in_microseconds_are_told_from_milliseconds() -> None:
    (event,) = said(Binance(["BTCUSDT"]), {**TRADE, "T": 1723161255342123})
    assert isinstance(event, Trade)
    assert event.event_ns == 1_723_161_255_342_123_000


def test_a_skipped_trade_id_is_a_gap_of_known_size_and_a_repeated_one_is_dropped() -> None:
    venue = Binance(["BTCUSDT"])
    assert len(said(venue, TRADE)) == 1
    gap, trade = said(venue, {**TRADE, "t": 105})
    assert isinstance(gap, Gap)
    assert isinstance(trade, Trade)
    assert (gap.reason, gap.missed) == ("trade_ids", 4)
    assert said(venue, {**TRADE, "t": 105}) == [Ignored("duplicate_trade", b"BTCUSDT.binance")]
    assert said(venue, {**TRADE, "t": 99}) == [Ignored("duplicate_trade", b"BTCUSDT.binance")]


def test_trade_ids_that_start_anew_are_taken_with_newer_trades() -> None:
    venue = Binance(["BTCUSDT"])
    said(venue, TRADE)
    gap, trade = said(venue, {**TRADE, "t": 1, "T": TRADE["T"] + 60_000})
    assert isinstance(gap, Gap)
    assert gap.reason == "renumbered"
    assert isinstance(trade, Trade)
    (after,) = said(venue, {**TRADE, "t": 2, "T": TRADE["T"] + 60_000})
    assert isinstance(after, Trade)


def test_a_quote_that_is_not_newer_is_dropped_until_the_next_connection() -> None:
    venue = Binance(["BTCUSDT"])
    (quote,) = said(venue, QUOTE, "btcusdt@bookTicker")
    assert quote == Quote(b"BTCUSDT.binance", RECV_NS, 61837.63, 61837.64, 3.78, 1.54)
    assert said(venue, QUOTE, "btcusdt@bookTicker") == [Ignored("stale_quote", b"BTCUSDT.binance")]
    venue.connected()
    assert len(said(venue, {**QUOTE, "u": 1}, "btcusdt@bookTicker")) == 1


def test_an_empty_side_of_the_book_is_not_a_price_of_zero() -> None:
    (quote,) = said(Binance(["BTCUSDT"]), {**QUOTE, "b": "0.00000000", "B": "0.00000000"}, "btcusdt@bookTicker")
    assert isinstance(quote, Quote)
    assert np.isnan([quote.bid, quote.bid_size]).all()
    assert (quote.ask, quote.ask_size) == (61837.64, 1.54)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b'{"data":null}',
        b'{"stream":"btcusdt@trade","data":[1,2]}',
        b'{"stream":"btcusdt@bookTicker","data":"b"}',
        b"[" * 100_000,
        *(
            orjson.dumps({"stream": "btcusdt@trade", "data": {**TRADE, key: value}})
            for key, value in [
                ("p", "abc"),
                ("p", "nan"),
                ("p", None),
                ("p", "1e999"),
                ("q", []),
                ("t", "100"),
                ("t", 1.5),
                ("t", -1),
                ("t", True),
                ("T", 0),
                ("T", 2**63),
                ("m", 1),
                ("s", ["BTCUSDT"]),
            ]
        ),
        orjson.dumps({"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT"}}),
        orjson.dumps({"stream": "btcusdt@bookTicker", "data": {**QUOTE, "u": None}}),
    ],
)
def test_what_cannot_be_read_is_bad_and_changes_nothing(message: bytes) -> None:
    venue = Binance(["BTCUSDT"])
    said(venue, TRADE)
    (event,) = venue.parse(message, RECV_NS)
    assert isinstance(event, Bad)
    (event,) = said(venue, {**TRADE, "t": 101})
    assert isinstance(event, Trade)


def test_other_types_and_other_symbols_are_no_errors() -> None:
    venue = Binance(["BTCUSDT"])
    assert said(venue, {"e": "kline", "s": "BTCUSDT"}) == [Ignored("unknown_type")]
    assert said(venue, {**TRADE, "s": "ETHUSDT"}) == [Ignored("unknown_symbol")]


def test_the_notice_of_a_shutdown_is_understood_in_both_forms() -> None:
    notice = {"e": "serverShutdown", "E": 1770123456789}
    (raw,) = Binance(["BTCUSDT"]).parse(orjson.dumps(notice), RECV_NS)
    (combined,) = said(Binance(["BTCUSDT"]), notice, "!serverShutdown")
    assert isinstance(raw, Ending)
    assert isinstance(combined, Ending)


def test_answers_are_matched_with_the_symbols_that_they_are_about() -> None:
    venue = Binance(["BTCUSDT", "ETHUSDT"])
    (request,) = map(json.loads, venue.subscriptions(venue.routes[0], set()))
    assert request["params"] == ["btcusdt@trade", "btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"]
    refusal = {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": request["id"]}
    assert venue.parse(orjson.dumps(refusal), RECV_NS) == (
        Refused(("BTCUSDT", "ETHUSDT"), "Invalid request: invalid stream"),
    )
    assert venue.parse(b'{"code":3,"msg":"Invalid JSON"}', RECV_NS) == (Refused((), "Invalid JSON"),)
    assert venue.parse(b'{"result":null,"id":9}', RECV_NS) == (Confirmed(),)


def test_many_symbols_are_subscribed_in_several_small_messages() -> None:
    venue = Binance([f"A{number}USDT" for number in range(120)])
    requests = [json.loads(message) for message in venue.subscriptions(venue.routes[0], {"A0USDT"})]
    assert [len(request["params"]) for request in requests] == [100, 100, 38]
    assert len({request["id"] for request in requests}) == 3
    assert not any("a0usdt" in stream for request in requests for stream in request["params"])


def test_futures_use_the_two_addresses_that_binance_splits_them_over() -> None:
    venue = Binance(["btcusdt.USDM"])
    trades, quotes = venue.routes
    assert (trades.url, quotes.url) == (
        "wss://fstream.binance.com/market/stream",
        "wss://fstream.binance.com/public/stream",
    )
    assert json.loads(venue.subscriptions(trades, set())[0])["params"] == ["btcusdt@aggTrade"]
    assert json.loads(venue.subscriptions(quotes, set())[0])["params"] == ["btcusdt@bookTicker"]
    assert venue.symbols == {"BTCUSDT": b"BTCUSDT.usdm"}


def test_symbols_that_cannot_be_served_are_refused() -> None:
    with pytest.raises(SettingsError, match="1 to 500 symbols, not 0"):
        Binance([])
    with pytest.raises(SettingsError, match="need a source each"):
        Binance(["BTCUSDT", "BTCUSDT.usdm"])
    with pytest.raises(RecordError, match="1 to 24"):
        Binance(["A" * 20])
    with pytest.raises(RecordError, match="ASCII"):
        Binance(["币安USDT"])
