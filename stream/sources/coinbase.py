"""Coinbase Exchange: trades and best bid and ask of its public feed. A pure parser.

``BTC-USD`` is published as ``BTC-USD.coinbase``. Trades come from the channel ``matches``, quotes from ``ticker``
(one after each trade: the best bid and ask as the trade has left them), ``heartbeat`` tells once a second that
the connection is alive and which trade was the last.

- The ``side`` of a match is the maker's: a maker who sells was met by a buyer, so the aggressor is the other side.
- Trade ids are contiguous for a product and show gaps exactly. Sequence numbers rise and are not contiguous in
  these channels: they show stale tickers only.
- ``last_match``, the first message for a product, is a trade from before the subscription. After a reconnect it
  counts when it is new. At the start of a session it only says where trade ids stand: the run before this one may
  have published it.
- A heartbeat may overtake a match. Trades that are missing from it count as lost when the next one comes.
- A product that does not exist makes Coinbase refuse the whole subscription: the session subscribes again without
  the products that the refusal names.
"""

import json
import re
from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from stream.errors import SettingsError
from stream.records import encode_symbol
from stream.sources.venue import (
    Bad,
    Confirmed,
    Event,
    Gap,
    Ignored,
    Numbers,
    Quote,
    Refused,
    Route,
    Trade,
    book_side,
    checked_ns,
    number_of,
    whole,
)

URL: Final = "wss://ws-feed.exchange.coinbase.com"
CHANNELS: Final = ("matches", "ticker", "heartbeat")

_MAX_SYMBOLS: Final = 500  # no limit is published; a connection that falls behind is closed by Coinbase
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_AGGRESSOR: Final = {"sell": 1, "buy": -1}  # by the maker's side
_PRODUCT: Final = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")


class Coinbase:
    """The feed of some products."""

    name: Final = "coinbase"
    silence_s = 10.0  # heartbeats come each second
    max_age_s = float("inf")
    pause_s = 0.1

    def __init__(self, symbols: Sequence[str], url: str | None = None) -> None:
        """Name the products.

        Args:
            symbols: as BTC-USD, in any case.
            url: scheme and host of another server than Coinbase's own.

        Raises:
            SettingsError: no symbols, or too many.
            RecordError: a symbol does not fit into a record.
        """
        names = [name.upper() for name in symbols]
        if not 1 <= len(set(names)) <= _MAX_SYMBOLS:
            raise SettingsError(f"one source of coinbase takes 1 to {_MAX_SYMBOLS} symbols, not {len(set(names))}")
        self.symbols: dict[str, bytes] = {name: encode_symbol(f"{name}.coinbase") for name in names}
        self.routes = (Route("", URL if url is None else url),)
        self._numbers = Numbers()
        self._claimed: dict[bytes, int] = {}  # the last trade of the heartbeat before

    def subscriptions(self, route: Route, without: Set[str]) -> Sequence[str]:
        """Return one message for all products."""
        wanted = [name for name in self.symbols if name not in without]
        if not wanted:
            return ()
        return (json.dumps({"type": "subscribe", "product_ids": wanted, "channels": CHANNELS}),)

    def connected(self) -> None:
        """Accept any sequence number again."""
        self._numbers.forget_quotes()
        self._claimed.clear()

    def parse(self, message: bytes, recv_ns: int) -> Sequence[Event]:
        """Return what a message of the feed says."""
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            return (Bad("not_json", str(error)),)
        if not isinstance(body, dict):
            return (Bad("not_an_object", f"a JSON {type(body).__name__}"),)
        try:
            return self._parse(body)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            product = body.get("product_id")
            known = self.symbols.get(product, b"") if isinstance(product, str) else b""
            return (Bad("malformed", repr(error), known),)

    def _parse(self, body: dict[str, Any]) -> Sequence[Event]:
        kind = body.get("type")
        if kind == "error":
            return (self._error(body),)
        if kind == "subscriptions":
            return (Confirmed(),)
        if kind not in ("match", "last_match", "ticker", "heartbeat"):
            return (Ignored("unknown_type"),)
        symbol = self.symbols.get(body["product_id"])
        if symbol is None:
            return (Ignored("unknown_symbol"),)
        if kind == "ticker":
            return self._quote(symbol, body)
        if kind == "heartbeat":
            return self._heartbeat(symbol, whole(body["last_trade_id"]))
        return self._trade(symbol, body)

    def _trade(self, symbol: bytes, body: dict[str, Any]) -> Sequence[Event]:
        event_ns = _event_ns(body["time"])
        trade = Trade(symbol, event_ns, number_of(body["price"]), number_of(body["size"]), _AGGRESSOR[body["side"]])
        first = not self._numbers.knows(symbol)
        note = self._numbers.trade(symbol, whole(body["trade_id"]), event_ns)
        if first and body["type"] == "last_match":
            return (Ignored("before_session", symbol),)
        if note is None:
            return (trade,)
        return (note, trade) if isinstance(note, Gap) else (note,)

    def _quote(self, symbol: bytes, body: dict[str, Any]) -> Sequence[Event]:
        event_ns = _event_ns(body["time"])
        bid, bid_size = book_side(body["best_bid"], body.get("best_bid_size"))
        ask, ask_size = book_side(body["best_ask"], body.get("best_ask_size"))
        note = self._numbers.quote(symbol, whole(body["sequence"]))
        return (Quote(symbol, event_ns, bid, ask, bid_size, ask_size),) if note is None else (note,)

    def _heartbeat(self, symbol: bytes, last_trade: int) -> Sequence[Event]:
        claimed = self._claimed.get(symbol)
        self._claimed[symbol] = last_trade
        gap = None if claimed is None else self._numbers.claim(symbol, claimed)
        return (Ignored("heartbeat", symbol),) if gap is None else (gap,)

    def _error(self, body: dict[str, Any]) -> Event:
        why = " ".join(str(body[part]) for part in ("message", "reason") if part in body)
        if "subscribe" not in why.lower():
            return Bad("error_reply", why)
        named = _PRODUCT.findall(why.upper())
        return Refused(tuple(name for name in self.symbols if name in named), why)


def _event_ns(value: Any) -> int:
    """Return ISO 8601 with a time zone as ns since 1970 UTC; Coinbase gives microseconds."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not an ISO 8601 time")
    return checked_ns((datetime.fromisoformat(value) - _EPOCH) // _US * 1_000)
