"""The newest prediction of each symbol: out of Redis, and while that is away out of ClickHouse."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from exporters.redis_reader import LatestPrediction, RedisReader
from exporters.rest.problems import UNAVAILABLE, Problem
from exporters.rest.representation import rows_of
from exporters.rest.rows import LatestRow
from exporters.rest.warehouse import Warehouse
from stream.errors import SinkUnavailable

_NAMES_FOR_S: Final = 1.0  # Redis looks at all of its keys to tell them
_WARMING: Final = 1  # bit of a prediction's flags

_COLUMNS: Final = ", ".join(LatestRow.model_fields)
# By when it was published: a replay or a late tick may be older in event time, and seq begins anew with each epoch.
_NEWEST: Final = f"""
SELECT {_COLUMNS} FROM v_predictions
WHERE (symbol, event_time, seq) IN
(
    SELECT symbol, newest.1, newest.2
    FROM
    (
        SELECT symbol, argMax((event_time, seq), (published_time, seq)) AS newest
        FROM predictions
        WHERE symbol IN {{symbols:Array(String)}}
        GROUP BY symbol
    )
)
"""  # noqa: S608
_NAMES: Final = "SELECT DISTINCT symbol FROM predictions WHERE startsWith(symbol, {start:String}) ORDER BY symbol"


@dataclass(frozen=True)
class Newest:
    """What was found, and where."""

    rows: list[dict[str, Any]]
    source: str  # redis or clickhouse


class NewestPredictions:
    """Reads from whichever of the two servers answers."""

    def __init__(self, redis: RedisReader | None, warehouse: Warehouse | None) -> None:
        """Make it from the servers that are set."""
        self._redis, self._warehouse = redis, warehouse
        self._names: dict[str, tuple[float, list[str]]] = {}

    async def of(self, symbols: Sequence[str]) -> Newest:
        """Return the newest prediction of each of ``symbols`` that has one, in this order. Cancelling it is safe.

        Raises:
            Problem: neither server answers.
        """
        try:
            found = {} if self._redis is None else await self._redis.latest(symbols)
        except SinkUnavailable as error:
            return await self._from_warehouse(symbols, str(error))
        if self._redis is None:
            return await self._from_warehouse(symbols, "the setting `redis` is not set")
        return Newest(_rows([found[symbol] for symbol in symbols if symbol in found]), "redis")

    async def names(self, start: str) -> list[str]:
        """Return the symbols that begin with ``start`` and have a prediction, sorted. Cancelling it is safe.

        Raises:
            Problem: neither server answers.
        """
        held = self._names.get(start)
        if held is not None and time.monotonic() - held[0] < _NAMES_FOR_S:
            return held[1]
        names = await self._read_names(start)
        # Of one prefix at a time: others are seldom asked for.
        self._names = {start: (time.monotonic(), names)}
        return names

    async def _read_names(self, start: str) -> list[str]:
        why = "the setting `redis` is not set"
        if self._redis is not None:
            try:
                return await self._redis.symbols(start)
            except SinkUnavailable as error:
                why = str(error)
        names: list[str] = await self._ask(_NAMES, {"start": start}, why, lambda found: found.column(0).to_pylist())
        return names

    async def _from_warehouse(self, symbols: Sequence[str], why: str) -> Newest:
        rows = await self._ask(_NEWEST, {"symbols": list(symbols)}, why, _latest_rows)
        by_symbol = {row["symbol"]: row for row in rows}
        return Newest([by_symbol[symbol] for symbol in symbols if symbol in by_symbol], "clickhouse")

    async def _ask(self, sql: str, parameters: Mapping[str, Any], why: str, then: Any) -> Any:
        if self._warehouse is None:
            raise Problem(UNAVAILABLE, f"{why}, and neither is `clickhouse`", {"Retry-After": "2"})
        try:
            return await self._warehouse.ask(sql, parameters, then)
        except Problem as problem:
            if problem.kind is not UNAVAILABLE:
                raise
            raise Problem(UNAVAILABLE, f"{why}; {problem.detail}", problem.headers) from None


def _latest_rows(found: pa.Table) -> list[dict[str, Any]]:
    warming = found.column_names.index("warming")
    return rows_of(found.set_column(warming, "warming", found.column(warming).cast(pa.bool_())))


def _rows(predictions: Sequence[LatestPrediction]) -> list[dict[str, Any]]:
    times = {
        name: np.datetime_as_string(np.array([each[name] for each in predictions], "datetime64[ns]")).tolist()
        for name in ("event_ns", "published_ns")
    }
    return [
        {
            "symbol": each["symbol"],
            "seq": each["seq"],
            "event_time": f"{event}Z",
            "published_time": f"{published}Z",
            "ref_price": each["ref_price"],
            "horizon_ns": each["horizon_ns"],
            "p_down": each["p_down"],
            "p_flat": each["p_flat"],
            "p_up": each["p_up"],
            "expected_return_bps": each["expected_return_bps"],
            "model": each["model_id"],
            "warming": bool(each["flags"] & _WARMING),
            "source_partition": each["source_partition"],
            "source_offset": each["source_offset"],
            "source_index": each["source_index"],
            "epoch": each["epoch"],
        }
        for each, event, published in zip(predictions, times["event_ns"], times["published_ns"], strict=True)
    ]
