"""The routes of the tables: a page of rows each, as JSON, Arrow or Parquet."""

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from exporters.rest.admission import Admission, Caller
from exporters.rest.backends import Backends
from exporters.rest.description import page_responses
from exporters.rest.representation import (
    JSON,
    TABLE_FORMS,
    Body,
    Wanted,
    dump_json,
    encode_table,
    respond,
    rows_of,
    wanted,
)
from exporters.rest.tables import TABLES, SpanQuery, Table, page_of, statement
from stream.clock import NS_PER_S

# A span that ended so long ago does not change any more, as a rule: late data may still come.
_SETTLED_NS: Final = 3600 * NS_PER_S
_SETTLED_FOR_S: Final = 60


def table_router(backends: Backends, admission: Admission) -> APIRouter:
    """Return a route for each of `TABLES`."""
    router = APIRouter()
    for table in TABLES:
        router.add_api_route(
            f"/{table.path}",
            _endpoint(table, backends, admission),
            methods=["GET"],
            summary=table.title,
            tags=[table.tag],
            operation_id=table.path.replace("/", "_").replace("-", "_"),
            responses=page_responses(table),
        )
    return router


def _endpoint(table: Table, backends: Backends, admission: Admission) -> Callable[..., Awaitable[Response]]:
    async def answer(
        request: Request,
        query: Annotated[table.query, Query()],  # type: ignore[name-defined]
        caller: Annotated[Caller, Depends(admission)],
    ) -> Response:
        symbols = [query.symbol] if getattr(query, "symbol", None) else []
        caller.must_see(table.channel, *symbols)
        form = wanted(request, TABLE_FORMS)
        asked = statement(table, query, caller.grant, form.media_type)

        def render(found: Any) -> tuple[Body, str | None]:
            page, following = page_of(table, query, found)
            return _render(page, following, form), following

        body, following = await backends.warehouse.ask(asked.sql, asked.parameters, render)
        return respond(request, body, _headers(request, query, following))

    answer.__doc__ = table.row.__doc__
    return answer


def _render(page: Any, following: str | None, form: Wanted) -> Body:
    if form.media_type == JSON:
        return form.body(dump_json({"data": rows_of(page), "next": following}))
    return form.body(encode_table(page, form.media_type))


def _headers(request: Request, query: SpanQuery, following: str | None) -> dict[str, str]:
    settled = query.to_ns < time.time_ns() - _SETTLED_NS
    headers = {"Cache-Control": f"private, max-age={_SETTLED_FOR_S}" if settled else "private, no-cache"}
    if following is not None:
        again = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        target = f"{request.url.path}?{urlencode([*again, ('cursor', following)])}"
        headers["Link"] = f'<{target}>; rel="next"'
    return headers
