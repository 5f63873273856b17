"""What the query book is asked about in tests: real ticks through the engine's batch path, as rows of ClickHouse.

AIG and BAC are three quarters of an hour of 2013-10-07 (NBBO quotes and trades), BTCUSDT.usdm two minutes of
Binance, whose trades tell the aggressor, and DEFAULT the 502 bars of the public indicator references, each as four
trades within a minute. A few ticks are forged, so that there is something to refuse.
"""

import asyncio
import itertools
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agents.feature_names import names_id
from agents.features import FEATURES, NAMES
from agents.history import ANY_FUTURE_NS
from agents.lane import Lane
from agents.outcomes import Costs, OutcomeJoin
from agents.windows import Windows
from exporters.batch import Batch
from exporters.clickhouse.feature_sink import FeatureSink
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from exporters.intake import PLACED_TICK
from models.predictor import load_predictor
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import (
    FEATURES_HEAD,
    MODEL_EVENT,
    ModelEventKind,
    Records,
    TickKind,
    empty_ticks,
    features_record,
    join_records,
)
from stream.sources.replay import Replay

CHAMPION: Final = Path(__file__).parents[3] / "models" / "champion" / "model.onnx"
CHALLENGER: Final = 0x0123_4567_89AB_CDEF
S: Final = 1_000_000_000
MINUTE: Final = 60 * S
OPEN_NS: Final = 1_381_161_600 * S  # 2013-10-07 16:00 UTC, noon in New York
DEFAULT_NS: Final = 1_514_764_800 * S  # 2018-01-01
LATENESS_NS: Final = 5 * S
BLOCK_TICKS: Final = 1_000
COSTS: Final = Costs(fees_bps=0.1, unknown_bps=0.5)
SPAN_NS: Final = 45 * MINUTE
HALTED_AT: Final = OPEN_NS + 40 * MINUTE


@dataclass(frozen=True)
class Market:
    """Everything that was put into ClickHouse, as the engine's own records."""

    ticks: Records  # PLACED_TICK[N] in order of arrival
    rejected: Records
    predictions: Records  # PREDICTION[A]
    features: NDArray[np.float32]  # [A, F] of each prediction
    outcomes: Records
    shadow_outcomes: Records
    events: Records
    model: str
    challenger: str

    def ticks_of(self, symbol: str) -> Records:
        """The ticks of a symbol that were used, in order of arrival."""
        rows = self.ticks[self.ticks["tick"]["symbol"] == symbol.encode()]
        is_used = ~np.isin(_place(rows), _place(self.rejected)) & (rows["tick"]["kind"] <= TickKind.QUOTE)
        used: Records = rows["tick"][is_used]
        return used

    def predictions_of(self, symbol: str) -> Records:
        return self.predictions[self.predictions["symbol"] == symbol.encode()]

    def outcomes_of(self, symbol: str) -> Records:
        return self.outcomes[self.outcomes["symbol"] == symbol.encode()]


def make_market(data: Path) -> Market:
    """Run the ticks through the engine."""
    ticks = _all_ticks(data)
    predictor = load_predictor(CHAMPION)
    clock = itertools.count(1_700_000_000 * S, 1_000)
    lane = Lane(0, Windows(LATENESS_NS, ANY_FUTURE_NS), predictor, lambda: next(clock))
    blocks = [
        (offset, ticks[start : start + BLOCK_TICKS])
        for offset, start in enumerate(range(0, len(ticks), BLOCK_TICKS))
    ]
    predictions, rejected, features = [], [], []
    for block in blocks:
        output = lane.apply([block])
        predictions.append(output.predictions)
        rejected.append(output.rejected)
        features += [step.features.copy() for step in output.steps]
    served = _timed(np.concatenate(predictions))
    outcomes, shadow = _outcomes(served, predictor)
    return Market(
        _placed(blocks),
        join_records(rejected),
        served,
        np.concatenate(features),
        outcomes,
        shadow,
        _events(predictor.model_id),
        f"{predictor.model_id:016x}",
        f"{CHALLENGER:016x}",
    )


def load_market(server: EmbeddedClickHouse, database: str, market: Market) -> None:
    """Put it into a database of its own, through the exporters' sinks."""
    asyncio.run(_load(f"{server.url.removesuffix('/default')}/{database}", market))


async def _load(url: str, market: Market) -> None:
    sink, predictions = ClickHouseSink(url), PredictionSink(url, _KnownTicks(market.ticks))
    told = (market.outcomes, market.shadow_outcomes, market.events)
    for number, rows in enumerate((market.ticks, market.rejected, *told)):
        if len(rows):
            await sink.write(Batch(rows, ((0, number, number),), "one"))
    # An exporter that was killed writes some predictions again.
    for number, rows in enumerate((market.predictions, market.predictions[:500])):
        await predictions.write(Batch(rows, ((0, number, number),), "one"))
    await predictions.settle()
    if len(market.features) == len(market.predictions):
        features = FeatureSink(url, "no-kafka:1")
        features._names = _KnownNames()  # type: ignore[assignment]
        await features.write(Batch(_features_of_aig(market), ((0, 0, 0),), "one"))
        await features.close()
    await predictions.close()
    await sink.close()


def _features_of_aig(market: Market) -> Records:
    """Rows as a worker publishes them."""
    is_aig = market.predictions["symbol"] == b"AIG"
    predictions = market.predictions[is_aig]
    rows = np.zeros(len(predictions), features_record(len(NAMES)))
    for name in FEATURES_HEAD.names or ():
        if name != "names_id":
            rows[name] = predictions[name]
    rows["names_id"], rows["values"] = names_id(NAMES), market.features[is_aig]
    return rows


class _KnownNames:
    """What Kafka would tell of the names of features."""

    known: Final = {names_id(NAMES): FEATURES}

    async def learn(self, ids: set[int]) -> set[int]:
        return ids - set(self.known)

    async def close(self) -> None:
        pass


class _KnownTicks:
    """Finds the tick of a prediction among those of the market."""

    def __init__(self, ticks: Records) -> None:
        self._ticks, self._places = ticks["tick"], _place(ticks)

    async def find(self, rows: Records) -> Records:
        found: Records = self._ticks[np.searchsorted(self._places, _place(rows))]
        return found

    async def close(self) -> None:
        pass


def _place(rows: Records) -> NDArray[np.int64]:
    places: NDArray[np.int64] = rows["source_offset"] * BLOCK_TICKS + rows["source_index"]
    return places


def _all_ticks(data: Path) -> Records:
    stocks = next(Replay([data / "ticks" / "us_equity"], date(2013, 10, 7), ["AIG", "BAC"]).days())
    start = np.flatnonzero((stocks["event_ns"] >= OPEN_NS) & (stocks["kind"] == TickKind.TRADE))[0]
    stocks = stocks[start : np.searchsorted(stocks["event_ns"], OPEN_NS + SPAN_NS)]
    # From a first trade on, for each: the engine makes bars of the mid before it.
    first = {
        symbol: np.flatnonzero((stocks["symbol"] == symbol) & (stocks["kind"] == 1))[0]
        for symbol in (b"AIG", b"BAC")
    }
    place = np.arange(len(stocks))
    stocks = stocks[np.where(stocks["symbol"] == b"AIG", place >= first[b"AIG"], place >= first[b"BAC"])]
    crypto = next(Replay([data / "ticks" / "crypto"], date(2024, 8, 8), ["BTCUSDT.usdm"]).days())[:30_000]
    ticks = join_records([_with_odd_ones(stocks), _reference_bars(data), crypto]).copy()
    ticks["source_seq"], ticks["stream_id"] = 1 + np.arange(len(ticks)), 7
    generator = np.random.default_rng(1)
    ticks["recv_ns"] = ticks["event_ns"] + generator.exponential(2e6, len(ticks)).astype(np.int64)
    return ticks


def _with_odd_ones(stocks: Records) -> Records:
    """Put in ticks to refuse: a lost decimal point, late ones, crossed quotes, and a halt of a minute."""
    odd = stocks[5_000:53_000:3_000].copy()
    trades, places = odd["kind"] == TickKind.TRADE, np.arange(5_001, 53_001, 3_000)
    odd["price"][trades] *= 10
    odd["bid"][~trades] = odd["ask"][~trades] * 1.001
    odd["event_ns"][::4] -= 2 * LATENESS_NS
    orders = empty_ticks(2)
    orders["symbol"], orders["kind"] = b"BAC", (TickKind.HALT, TickKind.RESUME)
    orders["event_ns"] = HALTED_AT, HALTED_AT + MINUTE
    places = np.concatenate([places, np.searchsorted(stocks["event_ns"], orders["event_ns"])])
    return np.insert(stocks, places, join_records([odd, orders]))


def _reference_bars(data: Path) -> Records:
    bars = pq.read_table(data / "indicators" / "quotes_default.parquet").to_pandas()
    ticks = empty_ticks(4 * len(bars))
    ticks["symbol"], ticks["kind"], ticks["size"] = b"DEFAULT", TickKind.TRADE, 1.0
    for number, name in enumerate(("open", "high", "low", "close")):
        ticks["price"][number::4] = bars[name]
        ticks["event_ns"][number::4] = DEFAULT_NS + np.arange(len(bars)) * MINUTE + number * 10 * S
    return ticks


def _placed(blocks: list[tuple[int, Records]]) -> Records:
    placed = np.zeros(sum(len(block) for _, block in blocks), PLACED_TICK)
    placed["tick"] = np.concatenate([block for _, block in blocks])
    placed["source_offset"] = np.concatenate([np.full(len(block), offset) for offset, block in blocks])
    placed["source_index"] = np.concatenate([np.arange(len(block)) for _, block in blocks])
    return placed


def _timed(predictions: Records) -> Records:
    """Give the stages lengths of their own, as a live lane would."""
    generator = np.random.default_rng(2)
    before = predictions["recv_ns"] = 1_700_000_000 * S + np.arange(len(predictions)) * 100_000
    for name, mean_ns in (("consumed", 2e6), ("features", 3e5), ("inferred", 2e5), ("published", 5e4)):
        before = predictions[f"{name}_ns"] = before + generator.exponential(mean_ns, len(predictions)).astype(
            np.int64
        )
    return predictions


def _outcomes(served: Records, predictor: Any) -> tuple[Records, Records]:
    offsets = served["source_offset"].copy()
    shadow = served.copy()
    shadow["model_id"] = CHALLENGER
    shadow["p_down"], shadow["p_up"] = 0.7 * served["p_down"] + 0.1, 0.7 * served["p_up"] + 0.1
    shadow["p_flat"] = 1 - shadow["p_down"] - shadow["p_up"]
    found = []
    for rows, is_shadow in ((served, False), (shadow, True)):
        join = OutcomeJoin(0, COSTS, is_shadow)
        join.know({int(predictor.model_id): 1.0, CHALLENGER: 1.0})
        found.append(join.take(rows, offsets))
    return found[0], found[1]


def _events(model_id: int) -> Records:
    events = np.zeros(4, MODEL_EVENT)
    events["at_ns"] = 1_700_000_000 * S + np.array([0, 60, 90, 200]) * S
    events["kind"] = ModelEventKind.SERVED, ModelEventKind.SERVED, ModelEventKind.TRIPPED, ModelEventKind.SERVED
    events["model_id"] = model_id, CHALLENGER, CHALLENGER, model_id
    events["detail"] = b"a", b"b", b"worse", b"c"
    return events
