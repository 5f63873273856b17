"""Binance: trades and best bid and ask of its public streams. A pure parser.

``BTCUSDT`` is the spot market (published as ``BTCUSDT.binance``), ``BTCUSDT.usdm`` the USD-margined perpetual
(published under that name). One source serves one of the two markets: they live on different servers.

| market | trades | best bid and ask | time of a quote |
|---|---|---|---|
| spot | ``@trade``, contiguous ids, times in µs | ``@bookTicker`` | not told: the time of receipt stands for it |
| usdm | ``@aggTrade``, contiguous ids, times in ms | ``@bookTicker`` | matching engine's (T) |

The futures servers split these two over two addresses, so usdm needs two connections. Update ids of
``bookTicker`` rise and are not contiguous: they show stale quotes and no gaps; trade ids show gaps exactly.

A connection lives for 24 hours at most, and ``serverShutdown`` announces its end. Binance accepts subscriptions
to symbols that do not exist and then sends nothing: the source says which symbols stay quiet.
"""

import json
from collections.abc import Sequence, Set
from typing import Any, Final

import orjson

from stream.errors import SettingsError
from stream.records import encode_symbol
from stream.sources.venue import (
    Bad,
    Confirmed,
    Ending,
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

SPOT_URL: Final = "wss://stream.binance.com:9443"
USDM_URL: Final = "wss://fstream.binance.com"
USDM_SUFFIX: Final = ".usdm"

# Both markets allow 1024 streams on a connection; spot symbols take two of them.
_MAX_SYMBOLS: Final = 500
# Streams in one SUBSCRIBE: a refused one names none of them, so few are better; 4 KB.
_CHUNK: Final = 100
# From here on a time is in microseconds: as milliseconds it would be after the year 5000.
_FIRST_US: Final = 10**14
_TRADES, _QUOTES = "trades", "quotes"


class Binance:
    """The streams of some symbols of one market."""

    name: Final = "binance"
    silence_s = 60.0  # quiet markets are quiet: pings find dead connections sooner
    max_age_s = 23.5 * 3600
    pause_s = 0.3  # five messages a second are the limit, answers to pings included

    def __init__(self, symbols: Sequence[str], url: str | None = None) -> None:
        """Name the symbols.

        Args:
            symbols: as BTCUSDT (spot) or BTCUSDT.usdm (perpetual), in any case; of one market.
            url: scheme and host of another server than Binance's own.

        Raises:
            SettingsError: no symbols, too many, or of both markets.
            RecordError: a symbol does not fit into a record.
        """
        names = [name.upper().removesuffix(USDM_SUFFIX.upper()) for name in symbols]
        usdm = {name.upper().endswith(USDM_SUFFIX.upper()) for name in symbols}
        if not 1 <= len(set(names)) <= _MAX_SYMBOLS:
            raise SettingsError(f"one source of binance takes 1 to {_MAX_SYMBOLS} symbols, not {len(set(names))}")
        if len(usdm) > 1:
            raise SettingsError(f"spot symbols and {USDM_SUFFIX} symbols need a source each; got {list(symbols)}")
        self._usdm = True in usdm
        suffix = USDM_SUFFIX if self._usdm else ".binance"
        self.symbols: dict[str, bytes] = {name: encode_symbol(name + suffix) for name in names}
        self.routes: tuple[Route, ...]
        if self._usdm:
            base = USDM_URL if url is None else url
            self.routes = (Route(_TRADES, f"{base}/market/stream"), Route(_QUOTES, f"{base}/public/stream"))
        else:
            base = SPOT_URL if url is None else url
            self.routes = (Route("", f"{base}/stream?timeUnit=MICROSECOND"),)
        self._numbers = Numbers()
        self._requests: dict[int, tuple[str, ...]] = {}  # id of a SUBSCRIBE -> its symbols
        self._last_request = 0

    def subscriptions(self, route: Route, without: Set[str]) -> Sequence[str]:
        """Return SUBSCRIBE messages of a hundred streams each."""
        kinds = []
        if route.label != _QUOTES:
            kinds.append("aggTrade" if self._usdm else "trade")
        if route.label != _TRADES:
            kinds.append("bookTicker")
        wanted = [name for name in self.symbols if name not in without]
        step = _CHUNK // len(kinds)
        messages = []
        for start in range(0, len(wanted), step):
            names = wanted[start : start + step]
            self._last_request += 1
            self._requests[self._last_request] = tuple(names)
            streams = [f"{name.lower()}@{kind}" for name in names for kind in kinds]
            messages.append(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": self._last_request}))
        return messages

    def connected(self) -> None:
        """Accept any update id again."""
        self._numbers.forget_quotes()

    def parse(self, message: bytes, recv_ns: int) -> Sequence[Event]:
        """Return what a message of a combined or raw stream says."""
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            return (Bad("not_json", str(error)),)
        if not isinstance(body, dict):
            return (Bad("not_an_object", f"a JSON {type(body).__name__}"),)
        data = body.get("data", body)
        try:
            return self._parse(str(body.get("stream", "")), data, recv_ns)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            symbol = data.get("s") if isinstance(data, dict) else None
            known = self.symbols.get(symbol, b"") if isinstance(symbol, str) else b""
            return (Bad("malformed", repr(error), known),)

    def _parse(self, stream: str, data: dict[str, Any], recv_ns: int) -> Sequence[Event]:
        kind = data["e"] if "e" in data else stream.rpartition("@")[2]
        if kind == "bookTicker":
            return self._quote(data, recv_ns)
        if kind == "trade":
            return self._trade(data, "t")
        if kind == "aggTrade":
            return self._trade(data, "a")
        if kind == "serverShutdown":
            return (Ending("binance announces that the server will shut down"),)
        if "result" in data or "error" in data or "code" in data:
            return (self._answer(data),)
        return (Ignored("unknown_type"),)

    def _trade(self, data: dict[str, Any], number: str) -> Sequence[Event]:
        symbol = self.symbols.get(data["s"])
        if symbol is None:
            return (Ignored("unknown_symbol"),)
        event_ns = _event_ns(data["T"])
        if type(data["m"]) is not bool:
            raise TypeError(f"m is {data['m']!r}, not true or false")
        # m: the buyer was the maker, so the seller came to the market.
        trade = Trade(symbol, event_ns, number_of(data["p"]), number_of(data["q"]), -1 if data["m"] else 1)
        note = self._numbers.trade(symbol, whole(data[number]), event_ns)
        if note is None:
            return (trade,)
        return (note, trade) if isinstance(note, Gap) else (note,)

    def _quote(self, data: dict[str, Any], recv_ns: int) -> Sequence[Event]:
        symbol = self.symbols.get(data["s"])
        if symbol is None:
            return (Ignored("unknown_symbol"),)
        event_ns = _event_ns(data["T"]) if "T" in data else recv_ns
        bid, bid_size = book_side(data["b"], data["B"])
        ask, ask_size = book_side(data["a"], data["A"])
        note = self._numbers.quote(symbol, whole(data["u"]))
        return (Quote(symbol, event_ns, bid, ask, bid_size, ask_size),) if note is None else (note,)

    def _answer(self, data: dict[str, Any]) -> Event:
        number = data.get("id")
        symbols = self._requests.pop(number, ()) if isinstance(number, int) else ()
        error = data.get("error", data if "code" in data else None)
        if error is None:
            return Confirmed()
        why = error.get("msg", error) if isinstance(error, dict) else error
        return Refused(symbols, f"{why}")


def _event_ns(value: Any) -> int:
    stamp = whole(value)
    return checked_ns(stamp * (1_000 if stamp >= _FIRST_US else 1_000_000))
