"""Some new predictions on their way to the clients: each is encoded at most once, when somebody wants it."""

from functools import cached_property
from typing import Any, Final

import orjson

from exporters.fields import prediction_fields
from exporters.ws_protocol import encode, frame
from stream.clock import Clock
from stream.records import Records

_NO_RESET: Final = b""


class Item:
    """One prediction as frames. A frame may begin with another that tells of a break in the numbering."""

    __slots__ = ("_body", "_full", "_latest", "burst", "index", "reset", "seq", "symbol")

    def __init__(self, burst: "Burst", index: int, symbol: str, seq: int) -> None:
        self.burst: Burst | None = burst  # until the body is encoded
        self.index, self.symbol, self.seq = index, symbol, seq
        self.reset = _NO_RESET
        self._body = b""
        self._full: bytes | None = None
        self._latest: tuple[int, bytes] = (-1, b"")

    def body(self) -> bytes:
        """Return the message without its closing brace."""
        if self.burst is not None:
            fields = self.burst.fields[self.index]
            fields["send_ns"] = self.burst.clock()
            self._body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)[:-1]
            self.burst = None
        return self._body

    def full(self) -> bytes:
        """Return the frame for clients that get every prediction."""
        if self._full is None:
            self._full = self.reset + frame(self.body() + b"}")
        return self._full

    def latest(self, skipped: int) -> bytes:
        """Return the frame for a client that missed ``skipped`` predictions before this one, on its own wish."""
        if self._latest[0] != skipped:
            self._latest = (skipped, frame(b'%b,"skipped":%d}' % (self.body(), skipped)))
        return self._latest[1]


class Burst:
    """New predictions in order of arrival."""

    def __init__(self, rows: Records, gateway_ns: int, clock: Clock) -> None:
        """Make a burst.

        Args:
            rows: ``PREDICTION[N]``, N >= 1, no duplicates.
            gateway_ns: when we read them.
            clock: stamps each message when it is encoded.
        """
        self.rows, self.gateway_ns, self.clock = rows, gateway_ns, clock
        self.by_symbol: dict[str, list[Item]] = {}
        self.items: list[Item] = []
        symbols, seqs = rows["symbol"].astype("U").tolist(), rows["seq"].tolist()
        for index, (symbol, seq) in enumerate(zip(symbols, seqs, strict=True)):
            item = Item(self, index, symbol, seq)
            self.items.append(item)
            self.by_symbol.setdefault(symbol, []).append(item)
        self.symbols = frozenset(self.by_symbol)
        self._blobs: dict[str, bytes] = {}

    @cached_property
    def fields(self) -> list[dict[str, Any]]:
        """Everything that a message says, but for when it was sent."""
        fields = prediction_fields(self.rows)
        return [{"type": "prediction", **values, "gateway_ns": self.gateway_ns} for values in fields]

    @cached_property
    def newest(self) -> dict[str, Item]:
        """The last item of each symbol."""
        return {symbol: items[-1] for symbol, items in self.by_symbol.items()}

    @cached_property
    def firsts(self) -> dict[str, int]:
        """The first seq of each symbol."""
        return {symbol: items[0].seq for symbol, items in self.by_symbol.items()}

    @cached_property
    def blob(self) -> bytes:
        """All frames in order, for clients of every symbol."""
        return b"".join([item.full() for item in self.items])

    def blob_of(self, symbol: str) -> bytes:
        """Return the frames of one symbol in order."""
        blob = self._blobs.get(symbol)
        if blob is None:
            blob = self._blobs[symbol] = b"".join([item.full() for item in self.by_symbol[symbol]])
        return blob

    def mark_breaks(self, seqs: dict[str, int]) -> None:
        """Put a reset before everything that does not follow on ``seqs``, and bring those up to date."""
        for symbol, items in self.by_symbol.items():
            last = seqs.get(symbol)
            if last is not None and items[0].seq == last + 1 and items[-1].seq - last == len(items):
                seqs[symbol] = items[-1].seq
                continue
            for item in items:
                if last is not None and item.seq != last + 1:
                    item.reset = frame(reset_message(symbol, last, item.seq))
                last = item.seq
            seqs[symbol] = items[-1].seq


def reset_message(symbol: str, last: int, seq: int) -> bytes:
    """Return the message that the numbering of a symbol breaks between ``last`` and ``seq``."""
    reason, missing = ("gap", seq - last - 1) if seq > last else ("restart", 0)
    return encode(
        "reset", channel="prediction", symbol=symbol, reason=reason, last_seq=last, seq=seq, missing=missing
    )
