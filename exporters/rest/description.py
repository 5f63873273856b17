"""What the API's description says of answers: their forms, examples, and every error that a route may give."""

from typing import Any, Final

from pydantic import BaseModel, Field

from exporters.rest import problems
from exporters.rest.problems import KINDS, PROBLEM_TYPE, Kind
from exporters.rest.representation import ARROW, JSON, PARQUET
from exporters.rest.rows import EXAMPLES
from exporters.rest.tables import Table

Responses = dict[int | str, dict[str, Any]]


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457). Programs go by `code`, people read `detail`."""

    type: str = Field(description="a name of the kind of error; it leads nowhere")
    title: str
    status: int
    code: str = Field(json_schema_extra={"enum": [kind.code for kind in KINDS]})
    detail: str = Field(description="what was seen, and what would be right")
    instance: str = Field(description="the path that was asked")
    request_id: str = Field(description="also in the header X-Request-ID, and in the log of the API")
    errors: list[dict[str, str]] | None = Field(
        None, description="of `bad-parameter`: each parameter that is not valid"
    )


_DETAILS: Final = {
    "bad-cursor": "the cursor is of another question; take `next` of the page before, with the same filters",
    "unauthorised": "a token is needed, as in the header Authorization: Bearer TOKEN",
    "forbidden": "the token grants the symbols BTC*; not AIG",
    "not-found": "there is no prediction of AIG",
    "not-acceptable": "Accept is 'text/csv'; there is application/json",
    "bad-parameter": "limit: Input should be greater than or equal to 1",
    "too-much": "Limit for rows exceeded; ask for a shorter span or fewer rows",
    "rate-limited": "this client asks too often; the next request may come in 1 s",
    "unavailable": "ClickHouse at 127.0.0.1:9000 cannot be reached",
    "busy": "64 questions wait already; try again soon",
    "request-too-large": "path and query have 9000 bytes; 8192 may be",
    "timeout": "no answer within 15 s; ask for less",
}
_ALWAYS: Final = (
    *(problems.UNAUTHORISED, problems.FORBIDDEN, problems.NOT_ACCEPTABLE, problems.BAD_PARAMETER),
    *(problems.TOO_LARGE, problems.RATE_LIMITED, problems.TIMEOUT),
)
_OF_TABLES: Final = (
    problems.BAD_CURSOR,
    problems.TOO_MUCH,
    problems.NOT_FOUND,
    problems.UNAVAILABLE,
    problems.BUSY,
)
_RETRY: Final = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "string"}}}


def error_responses(*kinds: Kind) -> Responses:
    """Return the descriptions of errors, those of each route among them, by status."""
    described: Responses = {}
    for kind in (*_ALWAYS, *kinds):
        entry = described.setdefault(
            kind.status.value,
            {
                "description": kind.title,
                "content": {PROBLEM_TYPE: {"schema": _reference("ProblemBody"), "examples": {}}},
            },
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; or: {kind.title[0].lower()}{kind.title[1:]}"
        entry["content"][PROBLEM_TYPE]["examples"][kind.code] = {"value": _example(kind)}
        if kind in (problems.RATE_LIMITED, problems.UNAVAILABLE, problems.BUSY):
            entry["headers"] = _RETRY
    described[304] = {"description": "The client has this answer already (If-None-Match)"}
    return described


def page_responses(table: Table) -> Responses:
    """Return the descriptions of the answers of a table's route."""
    example = {"data": [EXAMPLES[table.row]], "next": None}
    binary = {"schema": {"type": "string", "format": "binary"}}
    schema = {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": _reference(table.row.__name__)},
            "next": {"type": ["string", "null"], "description": "cursor of the next page; null on the last one"},
        },
        "required": ["data", "next"],
        "additionalProperties": False,
    }
    found = {
        "description": 'A page of rows. `Link: <...>; rel="next"` leads to the next one in every form.',
        "content": {JSON: {"schema": schema, "example": example}, ARROW: binary, PARQUET: binary},
        "headers": {
            "ETag": {"schema": {"type": "string"}},
            "Link": {"schema": {"type": "string"}},
        },
    }
    return {200: found, **error_responses(*_OF_TABLES)}


def json_response(model: type[BaseModel], example: dict[str, Any], words: str) -> Responses:
    """Return the description of an answer in JSON."""
    return {
        200: {"description": words, "content": {JSON: {"schema": _reference(model.__name__), "example": example}}}
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _example(kind: Kind) -> dict[str, Any]:
    return {
        "type": f"urn:tickloom:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status.value,
        "code": kind.code,
        "detail": _DETAILS.get(kind.code, kind.title),
        "instance": "/v1/predictions",
        "request_id": "2cdda0f6ee81405a9faf59f6748e1c99",
    }
