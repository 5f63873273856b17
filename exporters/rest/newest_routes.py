"""The routes of what is newest: predictions and symbols."""

from bisect import bisect_right
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporters.feed_auth import Grant
from exporters.rest.admission import Admission, Caller
from exporters.rest.backends import Backends
from exporters.rest.cursors import cursor_of, key_of
from exporters.rest.description import error_responses, json_response
from exporters.rest.newest import Newest
from exporters.rest.problems import BAD_CURSOR, BUSY, NOT_FOUND, UNAVAILABLE, Problem
from exporters.rest.representation import respond_json
from exporters.rest.rows import EXAMPLES, LatestRow
from exporters.rest.tables import SymbolName

_CHANNEL: Final = "prediction"
_NAME: Final = r"[!-+\--~]{1,24}"  # of a symbol: printable ASCII, and no comma here
_FRESH: Final = {"Cache-Control": "private, no-cache"}


class SymbolsQuery(BaseModel):
    """Which symbols, and a page of them."""

    model_config = ConfigDict(extra="forbid")

    start: str = Field("", max_length=24, description="only symbols that begin with this")
    limit: int = Field(1000, ge=1, le=10_000, description="symbols of a page")
    cursor: str | None = Field(None, max_length=2000, description="`next` of the page before")


class LatestQuery(SymbolsQuery):
    """As `SymbolsQuery`, or the symbols by name."""

    symbols: str | None = Field(
        None,
        max_length=4000,
        pattern=f"^{_NAME}(,{_NAME})*$",
        description="only these symbols, with commas between",
        examples=["SIM.ALPHA,SIM.BRAVO"],
    )


class LatestPage(BaseModel):
    """A page of newest predictions."""

    data: list[LatestRow]
    next: str | None
    source: str = Field(
        description="redis, or clickhouse while Redis is away", json_schema_extra={"enum": ["redis", "clickhouse"]}
    )


class SymbolsPage(BaseModel):
    """A page of symbols that have a prediction."""

    data: list[str]
    next: str | None


_LATEST_EXAMPLE: Final = {"data": [EXAMPLES[LatestRow]], "next": None, "source": "redis"}


def newest_router(backends: Backends, admission: Admission) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    errors = error_responses(BAD_CURSOR, UNAVAILABLE, BUSY)

    @router.get(
        "/predictions/latest",
        summary="The newest prediction of each symbol",
        tags=["predictions"],
        operation_id="latest",
        responses={**json_response(LatestPage, _LATEST_EXAMPLE, "Newest predictions, by symbol"), **errors},
    )
    async def latest(
        request: Request, query: Annotated[LatestQuery, Query()], caller: Annotated[Caller, Depends(admission)]
    ) -> Response:
        """Symbols without a prediction are left out."""
        named = _names(query.symbols)
        caller.must_see(_CHANNEL, *named)
        if named:
            found, following = await backends.newest.of(sorted(set(named))), None
        else:
            names, following = await _page(backends, query, caller.grant)
            found = await backends.newest.of(names)
        said = {"data": found.rows, "next": following, "source": found.source}
        return respond_json(request, said, _FRESH)

    @router.get(
        "/predictions/latest/{symbol}",
        summary="The newest prediction of a symbol",
        tags=["predictions"],
        operation_id="latest_of",
        responses={
            **json_response(LatestRow, EXAMPLES[LatestRow], "The prediction"),
            **error_responses(NOT_FOUND, UNAVAILABLE, BUSY),
        },
    )
    async def latest_of(
        request: Request, symbol: Annotated[SymbolName, Path()], caller: Annotated[Caller, Depends(admission)]
    ) -> Response:
        """404 while there is none."""
        caller.must_see(_CHANNEL, symbol)
        found: Newest = await backends.newest.of([symbol])
        if not found.rows:
            raise Problem(NOT_FOUND, f"there is no prediction of {symbol}")
        return respond_json(request, found.rows[0], _FRESH)

    @router.get(
        "/symbols",
        summary="The symbols that have a prediction",
        tags=["market"],
        operation_id="symbols",
        responses={
            **json_response(SymbolsPage, {"data": ["SIM.ALPHA", "SIM.BRAVO"], "next": None}, "Symbols, sorted"),
            **errors,
        },
    )
    async def symbols(
        request: Request, query: Annotated[SymbolsQuery, Query()], caller: Annotated[Caller, Depends(admission)]
    ) -> Response:
        """Those that the token grants."""
        caller.must_see(_CHANNEL)
        names, following = await _page(backends, query, caller.grant)
        return respond_json(request, {"data": names, "next": following}, _FRESH)

    return router


async def _page(backends: Backends, query: SymbolsQuery, grant: Grant) -> tuple[list[str], str | None]:
    names = await backends.newest.names(query.start)
    if "*" not in grant.symbols:
        names = [name for name in names if grant.refusal(_CHANNEL, (name,)) is None]
    question: list[Any] = ["symbols", query.start]
    first = 0
    if query.cursor is not None:
        [after] = key_of(question, query.cursor, [str])
        first = bisect_right(names, str(after))
    page = names[first : first + query.limit]
    more = first + query.limit < len(names)
    return page, cursor_of(question, [page[-1]]) if more else None


def _names(symbols: str | None) -> list[str]:
    return [] if symbols is None else symbols.split(",")
