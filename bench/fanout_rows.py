"""What `bench.fanout` sends: predictions whose JSON is of one length, so that a client finds the numbers in it by
their place and costs next to nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from exporters.feed_channels import CHANNELS
from exporters.feed_encode import encode_predictions, encode_symbol_name
from exporters.feed_wire import items_frames
from stream.clock import NS_PER_S
from stream.records import PREDICTION, Records

SYMBOLS: Final = 100
EPOCH: Final = "fanout"
# All have seven digits, for as long as a run takes.
FIRST_SEQ: Final = 1_000_000
_TAIL: Final = b"]}"


def rows_of(first: int, count: int, due_ns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Records:
    """Return messages number ``first`` to ``first + count``, the symbols in turn: ``PREDICTION[count]``.

    Args:
        first: number of the first message.
        count: how many.
        due_ns: ``int64[count]``, when each was due: it is what its latency counts from.
    """
    number = np.arange(first, first + count)
    rows = np.zeros(count, PREDICTION)
    rows["symbol"] = _NAMES[number % SYMBOLS]
    rows["seq"] = FIRST_SEQ + number // SYMBOLS
    rows["ref_price"] = 100.25
    rows["horizon_ns"], rows["model_id"] = 10 * NS_PER_S, 0xFEDCBA9876543210
    rows["p_down"], rows["p_flat"], rows["p_up"], rows["expected_return_bps"] = 0.25, 0.25, 0.5, 0.125
    for name in ("event_ns", "recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns"):
        rows[name] = due_ns
    return rows


_NAMES: Final = np.array([f"SYM{number:02d}".encode() for number in range(SYMBOLS)], "S24")


def messages_of(rows: Records) -> Iterator[str]:
    """Yield each row as the text of a message of its own, as our feed says it."""
    names = [encode_symbol_name(symbol) for symbol in rows["symbol"].tolist()]
    for item in encode_predictions(rows, names):
        ((frame, _),) = items_frames(CHANNELS["prediction"], False, [item], EPOCH, rows["published_ns"][0])
        yield frame[4:].decode()  # without the header of a frame of 126 to 65,535 bytes


@dataclass(frozen=True)
class Layout:
    """Where in a message its numbers are, in bytes."""

    head: int  # before the first prediction
    item: int  # of a prediction
    tail: int  # after the last
    symbol: int  # of the two digits of the symbol, in a prediction
    seq: int  # of the seven digits of seq
    published: int  # of the 19 digits of published_ns

    def as_array(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return it for compiled code: ``int64[6]``."""
        return np.array([self.head, self.item, self.tail, self.symbol, self.seq, self.published])


def layout() -> Layout:
    """Return the layout of what `messages_of` and our feed send."""
    row = rows_of(0, 1, np.array([1_700_000_000_000_000_000]))
    (text,) = messages_of(row)
    start = text.index('{"symbol"')
    item = text[start : -len(_TAIL)]
    return Layout(
        start,
        len(item),
        len(_TAIL),
        item.index("SYM") + 3,
        item.index(str(FIRST_SEQ)),
        item.index('"published_ns":') + len('"published_ns":'),
    )
