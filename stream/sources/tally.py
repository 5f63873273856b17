"""What a live source counts, and logs that a storm of bad messages cannot flood."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

logger = logging.getLogger(__name__)

_LOG_EVERY_S: Final = 10.0


class Tally:
    """The counters of one live source: by symbol and reason for Prometheus, as totals for ``/health``."""

    def __init__(self, registry: CollectorRegistry, symbols: list[bytes]) -> None:
        self.messages = 0
        self.missed_trades = 0
        self.ticks = dict.fromkeys(symbols, 0)
        by_symbol = ["symbol", "reason"]
        self._by_symbol = {
            "gaps": Counter("tickloom_source_gaps", "Gaps in a feed", by_symbol, registry=registry),
            "bad_messages": Counter(
                "tickloom_source_bad_messages", "Messages that cannot be read", by_symbol, registry=registry
            ),
            "ignored_messages": Counter(
                "tickloom_source_ignored_messages", "Messages without a tick", by_symbol, registry=registry
            ),
        }
        self._by_reason = {
            "disconnects": Counter(
                "tickloom_source_disconnects", "Connections lost", ["reason"], registry=registry
            ),
            "reconnects": Counter(
                "tickloom_source_reconnects", "Connections made again", ["reason"], registry=registry
            ),
        }
        self._totals = dict.fromkeys((*self._by_symbol, *self._by_reason), 0)
        self._messages = Counter("tickloom_source_messages", "Messages received", registry=registry)
        ticks = Counter("tickloom_source_ticks", "Ticks made of messages", ["symbol"], registry=registry)
        missed = Counter(
            "tickloom_source_missed_trades", "Trades known to be missing", ["symbol"], registry=registry
        )
        self._ticks = {symbol: ticks.labels(symbol.decode()) for symbol in symbols}
        self._missed = {symbol: missed.labels(symbol.decode()) for symbol in symbols}
        self.connected = Gauge("tickloom_source_connected", "1 while connected", ["connection"], registry=registry)

    def message(self) -> None:
        """Count a message."""
        self.messages += 1
        self._messages.inc()

    def tick(self, symbol: bytes) -> None:
        """Count a tick."""
        self.ticks[symbol] += 1
        self._ticks[symbol].inc()

    def missed(self, symbol: bytes, trades: int) -> None:
        """Count trades that are known to be missing."""
        self.missed_trades += trades
        self._missed[symbol].inc(trades)

    def count(self, what: str, symbol: bytes, reason: str) -> None:
        """Count one of ``what``: gaps, bad_messages or ignored_messages; the symbol is empty where not known."""
        self._totals[what] += 1
        self._by_symbol[what].labels(symbol.decode(), reason).inc()

    def connection(self, what: str, reason: str) -> None:
        """Count one of ``what``: disconnects or reconnects."""
        self._totals[what] += 1
        self._by_reason[what].labels(reason).inc()

    def figures(self) -> dict[str, Any]:
        """Return the totals."""
        return {
            "ticks_sent": sum(self.ticks.values()),
            "messages": self.messages,
            "missed_trades": self.missed_trades,
            **self._totals,
        }

    def quiet(self) -> list[str]:
        """Return the symbols that no tick has come for."""
        return [symbol.decode() for symbol, count in self.ticks.items() if count == 0]


class SparseLog:
    """Warnings by kind: the first at once, then one every ten seconds at most, with the number left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: dict[tuple[object, ...], float] = {}
        self._left_out: dict[tuple[object, ...], int] = {}

    def tell(self, kind: tuple[object, ...], text: str) -> None:
        """Log ``text``, unless one of this kind was logged less than ten seconds ago."""
        now_s = self._clock()
        last_s = self._last_s.get(kind)
        if last_s is not None and now_s - last_s < _LOG_EVERY_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last_s[kind] = now_s
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            logger.warning("%s (%d more of this kind were not logged)", text, left_out)
        else:
            logger.warning("%s", text)
