"""A client of the feed in mode `full` that notes every promise of the protocol that is broken."""

from typing import Any

from flows import Flow

from exporters.client import Batch, Connected, Feed, Gap, Item, Reset

_CONTENT = (
    "symbol",
    "seq",
    "event_ns",
    "ref_price",
    "horizon_ns",
    "p_down",
    "p_flat",
    "p_up",
    "expected_return_bps",
    "model",
    "warming",
)


class FullView:
    """What has come through the feed, by (symbol, seq), and what was wrong with it."""

    def __init__(self, flow: Flow) -> None:
        """Begin with nothing."""
        self.seen: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.newest: dict[str, int] = {}
        self.broken: list[str] = []
        self.told: list[str] = []  # losses that were told
        self.connections = 0
        self._flow = flow
        self._last: dict[str, int] = {}  # seq of each symbol, since it began

    def take(self, item: Item) -> None:
        """Account for one item."""
        match item:
            case Batch():
                for row in item.rows():
                    self._follow(row, item.is_snapshot)
            case Connected():
                self.connections += 1
            case Gap():
                # The engine numbers without holes, so there is none to tell of.
                self.broken.append(str(item))
                self._last[item.symbol] = item.before_seq - 1
            case Reset():
                self.told.append(str(item))
                for symbol in item.symbols:
                    self._last.pop(symbol, None)

    def _follow(self, row: dict[str, Any], is_snapshot: bool) -> None:
        last = self._last.get(row["symbol"])
        if is_snapshot is not (last is None) or (last is not None and row["seq"] != last + 1):
            kind = "snapshot" if is_snapshot else "prediction"
            self.broken.append(f"{row['symbol']}: {kind} of seq {row['seq']} came after {last}")
        self._last[row["symbol"]] = row["seq"]
        self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        key = row["symbol"], row["seq"]
        content = tuple(row[name] for name in _CONTENT)
        if self.seen.setdefault(key, content) != content:
            self.broken.append(f"{key} is {content}, and was {self.seen[key]}")
        self.newest[key[0]] = row["seq"]
        self._flow.note(key[0], row["recv_ns"])


async def follow(url: str, view: FullView) -> None:
    """Follow every symbol for ever. Cancelling it is safe."""
    async with Feed(url) as feed:
        await feed.subscribe("*", mode="full")
        async for item in feed:
            view.take(item)
