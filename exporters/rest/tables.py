"""The tables that can be read page by page: which view each is of, its key, and how a page becomes a statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from exporters.feed_auth import Grant
from exporters.rest import rows
from exporters.rest.cursors import Key, cursor_of, key_of
from exporters.rest.moments import FIRST_NS, LAST_NS, Moment
from exporters.rest.problems import BAD_PARAMETER, Problem
from exporters.rest.representation import JSON
from exporters.rest.rows import Row

MOST_ROWS_JSON: Final = 10_000
MOST_ROWS: Final = 100_000  # of an Arrow stream or a Parquet file

SymbolName = Annotated[str, StringConstraints(min_length=1, max_length=24, pattern="^[!-~]+$")]
ModelId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class Order(StrEnum):
    """Which rows come first."""

    ASC = "asc"
    DESC = "desc"


class SpanQuery(BaseModel):
    """A span of time, and a page of it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_ns: Moment = Field(FIRST_NS, alias="from", description="rows from this moment on, UTC")
    to_ns: Moment = Field(LAST_NS, alias="to", description="rows before this moment, UTC")
    order: Order = Field(Order.ASC, description="oldest first, or newest first")
    limit: int = Field(
        1000,
        ge=1,
        le=MOST_ROWS,
        description=f"rows of a page; at the most {MOST_ROWS_JSON:,} as JSON",
        json_schema_extra={"maximum": MOST_ROWS_JSON},
    )
    cursor: str | None = Field(None, max_length=2000, description="`next` of the page before")

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return {}


class AnySymbolQuery(SpanQuery):
    """As `SpanQuery`, of all symbols or of one."""

    symbol: SymbolName | None = Field(None, description="only this symbol")

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return {} if self.symbol is None else {"symbol": self.symbol}


class SymbolQuery(SpanQuery):
    """As `SpanQuery`, of one symbol."""

    symbol: SymbolName = Field(description="the symbol", examples=["SIM.ALPHA"])

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return {"symbol": self.symbol}


class SymbolModelQuery(SymbolQuery):
    """As `SymbolQuery`, of all models or of one."""

    model: ModelId | None = Field(None, description="only of this model")

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return super().filters() | ({} if self.model is None else {"model": self.model})


class ModelQuery(SpanQuery):
    """As `SpanQuery`, of all models or of one."""

    model: ModelId | None = Field(None, description="only of this model")

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return {} if self.model is None else {"model": self.model}


class ScoreQuery(AnySymbolQuery, ModelQuery):
    """As `SpanQuery`, of all symbols and models or of one."""

    def filters(self) -> dict[str, Any]:
        """Return what is filtered by, besides time."""
        return AnySymbolQuery.filters(self) | ModelQuery.filters(self)


@dataclass(frozen=True)
class Table:
    """A table of the API."""

    path: str  # below /v1
    view: str
    row: type[Row]
    query: type[SpanQuery]
    time: str  # the column that pages go by
    key: tuple[tuple[str, type], ...]  # what tells rows of the same time apart, and its types
    channel: str  # what a token must grant, as in the feed
    title: str
    tag: str
    more: str = ""  # what else is asked for, where rows have columns that only the database knows

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(self.row.model_fields)

    @property
    def has_symbol(self) -> bool:
        """Whether rows are of a symbol."""
        return "symbol" in self.row.model_fields


@dataclass(frozen=True)
class Statement:
    """A SELECT with its parameters."""

    sql: str
    parameters: dict[str, Any]


_PLACE: Final = (("source_offset", int), ("source_index", int), ("epoch", str))


def _bars(length: str, channel: str, title: str) -> Table:
    view = f"v_bars_{length}"
    return Table(f"bars/{length}", view, rows.BarRow, SymbolQuery, "bar_time", (), channel, title, "market")


TABLES: Final = (
    Table(
        "predictions",
        "v_predictions",
        rows.PredictionRow,
        SymbolModelQuery,
        "event_time",
        (("seq", int),),
        "prediction",
        "Every prediction of a symbol",
        "predictions",
    ),
    Table(
        "outcomes",
        "v_outcomes",
        rows.OutcomeRow,
        SymbolModelQuery,
        "event_time",
        (("seq", int), ("model", str)),
        "prediction",
        "What came of the predictions of a symbol",
        "predictions",
    ),
    Table(
        "ticks", "v_ticks", rows.TickRow, SymbolQuery, "event_time", _PLACE, "tick", "Ticks of a symbol", "market"
    ),
    _bars("1s", "bar.1s", "Bars of a second"),
    _bars("1m", "bar.1m", "Bars of a minute"),
    _bars("1h", "bar.1h", "Bars of an hour"),
    Table(
        "features",
        "v_features",
        rows.FeatureRow,
        SymbolQuery,
        "event_time",
        (("seq", int),),
        "features",
        "What the model saw, where workers publish it (TICKLOOM_FEATURES_EVERY_MS)",
        "predictions",
        more=f"* EXCEPT ({', '.join(rows.FeatureRow.model_fields)}, ingested_time)",
    ),
    Table(
        "rejected",
        "v_rejected",
        rows.RejectedRow,
        AnySymbolQuery,
        "event_time",
        (("symbol", str), ("source_partition", int), *_PLACE),
        "status",
        "Ticks that were not believed, and why",
        "market",
    ),
    Table(
        "model-events",
        "v_model_events",
        rows.ModelEventRow,
        ModelQuery,
        "at_time",
        (("kind", str), ("model", str)),
        "model",
        "What happened to models: promotions, trips, rollbacks, drift",
        "models",
    ),
    Table(
        "model-scores",
        "model_scores",
        rows.ModelScoreRow,
        ScoreQuery,
        "hour",
        (("symbol", str), ("model", str), ("shadow", int)),
        "model",
        "How good models were, by symbol and hour, beside the fallback",
        "models",
    ),
    Table(
        "stage-latency",
        "v_stage_latency",
        rows.StageLatencyRow,
        SpanQuery,
        "minute",
        (("stage", str),),
        "status",
        "How long each stage took, by minute",
        "engine",
    ),
)

_FILTERS: Final = {"symbol": "symbol = {symbol:String}", "model": "model = {model:String}"}
# The driver has no Arrow type for an Enum, and it would be ordered by number.
_AS_TEXT: Final = {"kind": "toString(kind) AS kind"}
_MOMENT: Final = "fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')"


def statement(table: Table, query: SpanQuery, grant: Grant, media_type: str) -> Statement:
    """Return what to ask for a page: a row more than it has, so that one sees whether there is a next.

    Raises:
        Problem: the cursor is none, or the page is too large.
    """
    if media_type == JSON and query.limit > MOST_ROWS_JSON:
        words = f"limit is {query.limit}; as JSON at the most {MOST_ROWS_JSON}, as Arrow or Parquet {MOST_ROWS}"
        raise Problem(BAD_PARAMETER, words)
    filters = query.filters()
    parameters: dict[str, Any] = {"from": query.from_ns, "to": query.to_ns, "rows": query.limit + 1, **filters}
    conditions = [f"{table.time} >= {_MOMENT.format(name='from')}", f"{table.time} < {_MOMENT.format(name='to')}"]
    conditions += [_FILTERS[name] for name in filters]
    if table.has_symbol and "symbol" not in filters and "*" not in grant.symbols:
        conditions.append(_granted(grant, parameters))
    if query.cursor is not None:
        conditions += _after(table, query, parameters)
    direction = "ASC" if query.order is Order.ASC else "DESC"
    ordering = ", ".join(f"{name} {direction}" for name in (table.time, *(name for name, _ in table.key)))
    columns = ", ".join(
        [*(_AS_TEXT.get(name, name) for name in table.columns), *([table.more] if table.more else [])]
    )
    where = " AND ".join(conditions)
    sql = f"SELECT {columns} FROM {table.view} WHERE {where} ORDER BY {ordering} LIMIT {{rows:UInt32}}"  # noqa: S608
    return Statement(sql, parameters)


def page_of(table: Table, query: SpanQuery, found: pa.Table) -> tuple[pa.Table, str | None]:
    """Return the rows of a page, with the types of the description, and the next page's cursor, if there is one."""
    more = found.num_rows > query.limit
    page = _typed(table, found.slice(0, query.limit))
    if not more:
        return page, None
    last = page.slice(page.num_rows - 1)
    key: Key = [last.column(table.time).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())[0].as_py()]
    key += [kind(last.column(name)[0].as_py()) for name, kind in table.key]
    return page, cursor_of(_question(table, query), key)


def _typed(table: Table, found: pa.Table) -> pa.Table:
    """Name numbers and text as the description has them; ClickHouse has no type for yes and no in its views."""
    columns = []
    for name in found.column_names:
        column, field = found.column(name), table.row.model_fields.get(name)
        if field is not None and field.annotation is bool:
            column = column.cast(pa.bool_())
        elif pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ns", "UTC"))
        columns.append(column)
    return pa.table(columns, names=found.column_names)


def _question(table: Table, query: SpanQuery) -> Sequence[Any]:
    return [table.path, query.from_ns, query.to_ns, query.order, query.filters()]


def _after(table: Table, query: SpanQuery, parameters: dict[str, Any]) -> list[str]:
    assert query.cursor is not None  # noqa: S101
    key = key_of(_question(table, query), query.cursor, [int, *(kind for _, kind in table.key)])
    parameters |= {f"after_{place}": value for place, value in enumerate(key)}
    ascending = query.order is Order.ASC
    names = [table.time, *(name for name, _ in table.key)]
    values = [_MOMENT.format(name="after_0")]
    values += [
        f"{{after_{place}:{'Int64' if kind is int else 'String'}}}" for place, (_, kind) in enumerate(table.key, 1)
    ]
    beyond = ">" if ascending else "<"
    # The first alone as well: it is what the index of the table understands.
    if not table.key:
        return [f"{table.time} {beyond} {values[0]}"]
    return [f"{table.time} {beyond}= {values[0]}", f"({', '.join(names)}) {beyond} ({', '.join(values)})"]


def _granted(grant: Grant, parameters: dict[str, Any]) -> str:
    parameters["names"] = [name for name in grant.symbols if not name.endswith("*")]
    parameters["starts"] = [name[:-1] for name in grant.symbols if name.endswith("*")]
    begins = "arrayExists(start -> startsWith(symbol, start), {starts:Array(String)})"
    return f"(symbol IN {{names:Array(String)}} OR {begins})"
