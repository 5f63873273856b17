"""Errors as answers: one shape for all of them (RFC 9457), with a code that programs can act on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

PROBLEM_TYPE: Final = "application/problem+json"
_NAMESPACE: Final = "urn:tickloom:problem:"


@dataclass(frozen=True)
class Kind:
    """A kind of error: its code never changes its meaning."""

    code: str
    status: HTTPStatus
    title: str


BAD_REQUEST: Final = Kind("bad-request", HTTPStatus.BAD_REQUEST, "The request cannot be understood")
BAD_CURSOR: Final = Kind("bad-cursor", HTTPStatus.BAD_REQUEST, "The cursor is not one of this question")
UNAUTHORISED: Final = Kind("unauthorised", HTTPStatus.UNAUTHORIZED, "A token is needed")
FORBIDDEN: Final = Kind("forbidden", HTTPStatus.FORBIDDEN, "The token does not grant this")
NOT_FOUND: Final = Kind("not-found", HTTPStatus.NOT_FOUND, "There is no such thing")
BAD_METHOD: Final = Kind("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The API only reads")
NOT_ACCEPTABLE: Final = Kind("not-acceptable", HTTPStatus.NOT_ACCEPTABLE, "No such representation")
TOO_LARGE: Final = Kind("request-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large")
WRONG_HOST: Final = Kind("wrong-host", HTTPStatus.MISDIRECTED_REQUEST, "The request is meant for another host")
BAD_PARAMETER: Final = Kind("bad-parameter", HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter is not valid")
TOO_MUCH: Final = Kind("too-much", HTTPStatus.UNPROCESSABLE_ENTITY, "The answer would need too much")
RATE_LIMITED: Final = Kind("rate-limited", HTTPStatus.TOO_MANY_REQUESTS, "Too many requests")
INTERNAL: Final = Kind("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of ours")
UNAVAILABLE: Final = Kind("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "A server behind the API is away")
BUSY: Final = Kind("busy", HTTPStatus.SERVICE_UNAVAILABLE, "Too many questions wait already")
TIMEOUT: Final = Kind("timeout", HTTPStatus.GATEWAY_TIMEOUT, "The answer took too long")

KINDS: Final = (
    *(BAD_REQUEST, BAD_CURSOR, UNAUTHORISED, FORBIDDEN, NOT_FOUND, BAD_METHOD, NOT_ACCEPTABLE, TOO_LARGE),
    *(WRONG_HOST, BAD_PARAMETER, TOO_MUCH, RATE_LIMITED, INTERNAL, UNAVAILABLE, BUSY, TIMEOUT),
)


@dataclass
class Problem(Exception):
    """An error that the client is told about."""

    kind: Kind
    detail: str  # what was seen, and what would be right
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)  # further members of the answer


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """Return the answer that tells of a problem."""
    kind = problem.kind
    body = {
        "type": _NAMESPACE + kind.code,
        "title": kind.title,
        "status": kind.status.value,
        "code": kind.code,
        "detail": problem.detail,
        "instance": path,
        "request_id": request_id,
        **problem.more,
    }
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(orjson.dumps(body), kind.status.value, headers, PROBLEM_TYPE)
