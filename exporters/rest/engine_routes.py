"""The routes of the engine itself: whether the API lives and can answer, versions, how far exporters are behind."""

import time
from importlib import metadata
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from exporters.rest.admission import Admission, Caller
from exporters.rest.backends import Backends
from exporters.rest.description import error_responses, json_response
from exporters.rest.problems import UNAVAILABLE
from exporters.rest.representation import dump_json, respond_json
from exporters.rest.rows import Time
from stream.telemetry import Health

_NEVER: Final = {"Cache-Control": "no-store"}


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"]
    up_s: float


class Part(BaseModel):
    """A server behind the API."""

    status: Literal["ok", "failing", "not set"]
    problem: str | None


class Ready(BaseModel):
    """Which questions can be answered."""

    status: Literal["ok", "degraded", "failing"]
    parts: dict[str, Part]


class VersionBody(BaseModel):
    """What runs here."""

    tickloom: str
    api: Literal["v1"]


class GroupLag(BaseModel):
    """How far a consumer group is behind in a partition."""

    group: str
    topic: str
    partition: int
    committed: int = Field(description="offset of the next block that the group has not done with; -1 for none yet")
    end: int = Field(description="offset of the next block that will come")
    lag_blocks: int


class LagBody(BaseModel):
    """How far every group of tickloom is behind."""

    time: Time
    data: list[GroupLag]


_READY: Final = {
    "status": "degraded",
    "parts": {
        "clickhouse": {"status": "ok", "problem": None},
        "redis": {"status": "failing", "problem": "Redis at 127.0.0.1:6379 cannot be reached"},
        "kafka": {"status": "not set", "problem": None},
    },
}
_LAG: Final = {
    "time": "2026-11-25T09:30:00.123456789Z",
    "data": [
        {
            "group": "tickloom-clickhouse",
            "topic": "predictions",
            "partition": 0,
            "committed": 4711,
            "end": 4713,
            "lag_blocks": 2,
        }
    ],
}


def probe_router(backends: Backends, health: Health) -> APIRouter:
    """Return the routes for whoever supervises the process: they need no token, and tell nothing of the market."""
    router = APIRouter(tags=["engine"])

    @router.get(
        "/live",
        summary="Whether the process answers",
        operation_id="live",
        responses=json_response(Live, {"status": "ok", "up_s": 12.5}, "It does"),
    )
    async def live() -> Response:
        """Restart the process where this fails; a server that is away is none of its faults."""
        up_s = round(time.monotonic() - health.started_s, 1)
        return Response(dump_json({"status": "ok", "up_s": up_s}), headers=_NEVER, media_type="application/json")

    @router.get(
        "/ready",
        summary="Whether it can answer questions",
        operation_id="ready",
        responses={
            **json_response(Ready, _READY, "It can, at least those that the parts which are ok answer"),
            503: {
                "description": "No server behind it answers",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ready"}}},
            },
        },
    )
    async def ready() -> Response:
        """Send no requests here where this fails."""
        parts = backends.parts()
        failing = [part for part in parts.values() if part["status"] == "failing"]
        works = any(part["status"] == "ok" for part in parts.values())
        status = "degraded" if failing and works else "ok" if works else "failing"
        body: dict[str, Any] = {"status": status, "parts": parts}
        return Response(dump_json(body), 200 if works else 503, _NEVER, "application/json")

    return router


def engine_router(backends: Backends, admission: Admission) -> APIRouter:
    """Return the other routes."""
    router = APIRouter(tags=["engine"])

    @router.get(
        "/version",
        summary="What runs here",
        operation_id="version",
        responses={
            **json_response(VersionBody, {"tickloom": "0.1.0", "api": "v1"}, "Versions"),
            **error_responses(),
        },
    )
    async def version(request: Request, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """Versions of tickloom and of this API."""
        said = {"tickloom": metadata.version("tickloom"), "api": "v1"}
        return respond_json(request, said, {"Cache-Control": "private, no-cache"})

    @router.get(
        "/lag",
        summary="How far each consumer group is behind",
        operation_id="lag",
        responses={**json_response(LagBody, _LAG, "By group, topic and partition"), **error_responses(UNAVAILABLE)},
    )
    async def lag(request: Request, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """Of the groups of workers and exporters; as of a second ago at the most."""
        caller.must_see("status")
        return respond_json(request, await backends.lag.now(), {"Cache-Control": "private, no-cache"})

    return router
