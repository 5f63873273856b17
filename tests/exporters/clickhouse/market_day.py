"""Real ticks, some of them out of order, and what the engine's own lane makes of them."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from agents.lane import Lane
from agents.windows import Windows
from bench.no_model import NoModel
from exporters.feed_bars import BarMaker
from exporters.feed_channels import BAR
from stream.clock import NS_PER_S
from stream.records import Records, join_records
from stream.sources.replay import Replay

PARTITION = 3
START_NS = 1_700_000_000 * NS_PER_S


@dataclass(frozen=True)
class MarketDay:
    """Some hours of AIG, BAC and SPY."""

    blocks: list[tuple[int, Records]]  # offset in `ticks`, TICK[N]
    predictions: Records  # PREDICTION[A], one for each accepted tick, in order
    ticks: Records  # TICK[A], which they follow
    rejected: Records  # REJECTED[R]


def market_day(data: Path, count: int, per_block: int = 300) -> MarketDay:
    """Let a lane take ``count`` ticks around the opening of a day; every 50th is out of order by up to 2 s."""
    replay = Replay([data / "ticks" / "us_equity"], date(2013, 10, 7))
    ticks = next(replay.days())
    opening = np.searchsorted(ticks["event_ns"], 1_381_152_590 * NS_PER_S)  # 10 s before 9:30 in New York
    ticks = ticks[opening : opening + count]
    rng = np.random.default_rng(3)
    delay_ns = np.where(rng.random(count) < 0.02, rng.integers(0, 2 * NS_PER_S, count), 0)
    ticks["recv_ns"] = ticks["event_ns"] + delay_ns
    ticks = ticks[np.argsort(ticks["recv_ns"], kind="stable")]
    ticks["source_seq"] = np.arange(1, count + 1)
    now_ns = iter(range(START_NS, 2 * START_NS, 310_000_000))
    lane = Lane(PARTITION, Windows(5 * NS_PER_S, 5 * NS_PER_S), NoModel(), lambda: next(now_ns))
    edges = range(0, count, per_block)
    blocks = [(offset, ticks[start : start + per_block]) for offset, start in enumerate(edges)]
    outputs = [lane.apply([block]) for block in blocks]
    predictions = join_records([output.predictions for output in outputs]).copy()
    predictions["published_ns"] = predictions["inferred_ns"] + predictions["seq"].astype(np.int64) % 50_000
    index = predictions["source_offset"] * per_block + predictions["source_index"]
    return MarketDay(blocks, predictions, ticks[index], np.concatenate([output.rejected for output in outputs]))


def feed_bars(predictions: Records, length_ns: int) -> Records:
    """Return the bars that the feed's channels would have: ``BAR[N]``."""
    maker = BarMaker(length_ns)
    _, slots = np.unique(predictions["symbol"], return_inverse=True)
    parts = [maker.add(predictions[at : at + 700], slots[at : at + 700]) for at in range(0, len(predictions), 700)]
    return np.concatenate([np.zeros(0, BAR), *parts])
