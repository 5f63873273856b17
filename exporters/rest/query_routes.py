"""The query book as routes: what there is, and each query with its parameters."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from exporters.clickhouse.book import Parameter, Query, queries
from exporters.rest.admission import Admission, Caller
from exporters.rest.backends import Backends
from exporters.rest.description import error_responses, json_response
from exporters.rest.moments import MOMENT_SCHEMA, moment_ns
from exporters.rest.problems import BAD_PARAMETER, BUSY, NOT_FOUND, TOO_MUCH, UNAVAILABLE, Problem
from exporters.rest.representation import (
    ARROW,
    JSON,
    PARQUET,
    TABLE_FORMS,
    Body,
    dump_json,
    encode_table,
    respond,
    respond_json,
    rows_of,
    wanted,
)
from exporters.rest.tables import MOST_ROWS, MOST_ROWS_JSON
from stream.errors import SettingsError

_FRESH: Final = {"Cache-Control": "private, no-cache"}
_INTEGER: Final = re.compile(r"(U?)Int(8|16|32|64)")


class QueryParameter(BaseModel):
    """A parameter of a query."""

    name: str
    type: str = Field(description="of ClickHouse")
    default: str
    meaning: str


class QueryColumn(BaseModel):
    """A column of the answer."""

    name: str
    meaning: str


class BookQuery(BaseModel):
    """A query of the book."""

    name: str
    section: str
    title: str
    question: str
    parameters: list[QueryParameter]
    columns: list[QueryColumn]
    notes: str
    source: str
    sql: str


class Book(BaseModel):
    """The query book."""

    data: list[BookQuery]


class QueryAnswer(BaseModel):
    """What a query answered."""

    data: list[dict[str, Any]]
    truncated: bool = Field(description=f"there were more than {MOST_ROWS_JSON:,} rows")


_EXAMPLE: Final = {
    "name": "vwap",
    "section": "Prices",
    "title": "VWAP since the start",
    "question": "How does the price stand to the VWAP of all trades?",
    "parameters": [{"name": "symbol", "type": "String", "default": "SIM.ALPHA", "meaning": "the symbol"}],
    "columns": [{"name": "time", "meaning": "when the bar began"}],
    "notes": "",
    "source": "",
    "sql": "SELECT ...",
}


def query_router(backends: Backends, admission: Admission) -> APIRouter:
    """Return a route for the book, and one for each query.

    Raises:
        InvariantError: a file of the book is not as it should be.
    """
    router = APIRouter(tags=["queries"])

    @router.get(
        "/queries",
        summary="The query book",
        operation_id="queries",
        responses={**json_response(Book, {"data": [_EXAMPLE]}, "Every query"), **error_responses()},
    )
    async def book(request: Request, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """What can be asked, with parameters, columns and SQL."""
        return respond_json(request, {"data": [_described(query) for query in queries()]}, _FRESH)

    for query in queries():
        router.add_api_route(
            f"/queries/{query.name}",
            _endpoint(query, backends, admission),
            methods=["GET"],
            summary=query.title,
            operation_id=f"query_{query.name}",
            responses=_responses(),
            openapi_extra={"parameters": [_parameter(each) for each in query.parameters]},
        )
    return router


def _endpoint(query: Query, backends: Backends, admission: Admission) -> Callable[..., Awaitable[Response]]:
    async def answer(request: Request, caller: Annotated[Caller, Depends(admission)]) -> Response:
        caller.must_see_all("a query of the book")
        values = _values(query, request)
        form = wanted(request, TABLE_FORMS)
        most = MOST_ROWS_JSON if form.media_type == JSON else MOST_ROWS

        def render(found: pa.Table) -> Body:
            page = found.slice(0, most)
            if form.media_type != JSON:
                return form.body(encode_table(page, form.media_type))
            return form.body(dump_json({"data": rows_of(page), "truncated": found.num_rows > most}))

        return respond(request, await backends.warehouse.ask(query.sql, values, render, most + 1), _FRESH)

    answer.__doc__ = f"{query.question} {query.notes}".strip()
    return answer


def _values(query: Query, request: Request) -> dict[str, str]:
    """The value of each parameter, as ClickHouse reads it."""
    given = dict(request.query_params.multi_items())
    if len(given) != len(request.query_params.multi_items()):
        raise Problem(BAD_PARAMETER, "a parameter is given twice; right would be once")
    try:
        values = query.values(given)
    except SettingsError as error:
        raise Problem(BAD_PARAMETER, str(error)) from None
    for parameter in query.parameters:
        if parameter.type.startswith("DateTime64"):
            values[parameter.name] = _moment(parameter.name, values[parameter.name])
    return values


def _moment(name: str, text: str) -> str:
    try:
        return str(np.datetime64(moment_ns(text), "ns")).replace("T", " ")
    except ValueError as error:
        raise Problem(BAD_PARAMETER, f"{name}: {error}") from None


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = _schema(parameter.type)
    default: Any = parameter.default
    if schema.get("type") in ("integer", "number"):
        default = float(default) if schema["type"] == "number" else int(default)
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": f"{parameter.meaning} ({parameter.type})",
        "schema": {**schema, "default": default},
    }


def _schema(kind: str) -> dict[str, Any]:
    integer = _INTEGER.fullmatch(kind)
    if integer is not None:
        bits, unsigned = int(integer[2]), integer[1] == "U"
        lowest = 0 if unsigned else -(2 ** (bits - 1))
        return {"type": "integer", "minimum": lowest, "maximum": 2 ** (bits if unsigned else bits - 1) - 1}
    if kind.startswith("Float"):
        return {"type": "number"}
    if kind.startswith("DateTime64"):
        return dict(MOMENT_SCHEMA)
    return {"type": "string"}


def _responses() -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    described = json_response(QueryAnswer, {"data": [], "truncated": False}, "The rows of the answer")
    described[200]["content"] |= {ARROW: binary, PARQUET: binary}
    return {**described, **error_responses(TOO_MUCH, NOT_FOUND, UNAVAILABLE, BUSY)}


def _described(query: Query) -> dict[str, Any]:
    told = ("name", "section", "title", "question", "notes", "source", "sql")
    return {
        **{name: getattr(query, name) for name in told},
        "parameters": [vars(parameter) for parameter in query.parameters],
        "columns": [vars(column) for column in query.columns],
    }
