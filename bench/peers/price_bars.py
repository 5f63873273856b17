"""Bars of prices for packages that want them closed, by the rules of `agents/features.py`."""

from typing import Final

BARS_S: Final = (1.0, 60.0)

Bar = tuple[float, float, float, float]


class BarMaker:
    """Makes the bars of one symbol and length."""

    def __init__(self, length_s: float) -> None:
        self._length_ns = round(length_s * 1e9)
        self._end_ns = 0
        self._has_traded = self._is_open = False
        self._open = self._high = self._low = self._close = 0.0

    def add(self, now_ns: int, ref: float, price: float | None) -> Bar | None:
        """Take a tick, ``price`` is None for a quote; return open, high, low, close of the bar that it closed."""
        closed = None
        if now_ns >= self._end_ns:
            if self._is_open:
                closed = (self._open, self._high, self._low, self._close)
                self._is_open = False
            self._end_ns = (now_ns // self._length_ns + 1) * self._length_ns
        if price is None:
            if self._has_traded:
                return closed
            price = ref
        elif not self._has_traded:
            self._has_traded = True
            self._is_open = False
        if not self._is_open:
            self._is_open = True
            self._open = self._high = self._low = price
        elif price > self._high:
            self._high = price
        elif price < self._low:
            self._low = price
        self._close = price
        return closed
