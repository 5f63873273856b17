"""The REST API: what answers under ``/v1``, the page, and its description. `server.py` runs it."""

import time
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporters.feed_auth import Door
from exporters.rest import problems
from exporters.rest.admission import Admission
from exporters.rest.backends import Backends
from exporters.rest.docs import docs_router
from exporters.rest.engine_routes import engine_router, probe_router
from exporters.rest.explain_routes import Explainer, explain_router
from exporters.rest.front import FAULT, PREFIX, Front
from exporters.rest.model_routes import model_router
from exporters.rest.newest_routes import newest_router
from exporters.rest.openapi import openapi
from exporters.rest.page import page_router
from exporters.rest.problems import Problem, problem_response
from exporters.rest.query_routes import query_router
from exporters.rest.table_routes import table_router
from exporters.rest.telemetry import ApiMetrics
from stream.settings import Settings
from stream.telemetry import Health

_BY_STATUS: Final = {404: problems.NOT_FOUND, 405: problems.BAD_METHOD}


class Api:
    """An ASGI application with everything that it needs to answer."""

    def __init__(self, settings: Settings, health: Health, registry: CollectorRegistry) -> None:
        """Make it; it connects to servers when they are first needed.

        Args:
            settings: of the engine.
            health: of the process: what is away is told there.
            registry: of the process's metrics.

        Raises:
            SettingsError: an address or a key is not one.
        """
        self._settings, self._health = settings, health
        self._metrics = ApiMetrics(registry)
        self._backends = Backends(settings, health, self._metrics)
        door = Door(settings)
        admission = Admission(door, settings.api_rate_per_s, self._metrics, time.monotonic)
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        app.add_exception_handler(Problem, _on_problem)
        app.add_exception_handler(RequestValidationError, _on_bad_parameter)
        app.add_exception_handler(HTTPException, _on_http)
        app.add_exception_handler(Exception, _on_fault)
        app.include_router(probe_router(self._backends, health), prefix=PREFIX)
        for routes in (newest_router, table_router, model_router, query_router, engine_router):
            app.include_router(routes(self._backends, admission), prefix=PREFIX)
        self._explainer = Explainer(settings)
        app.include_router(explain_router(self._explainer, admission), prefix=PREFIX)
        app.include_router(docs_router(openapi(app, needs_token=not door.open)))
        app.include_router(page_router(settings, not door.open))
        around: ASGIApp = app if settings.api_origins is None else _cors(app, settings.api_origins)
        self._front = Front(
            around, self._metrics, settings.api_timeout_s, settings.api_explain_timeout_s, door.open
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._front(scope, receive, send)

    def figures(self) -> dict[str, Any]:
        """Return what ``/health`` of the process shows."""
        return {"requests": self._metrics.requests, "failed": self._metrics.failed}

    async def watch(self) -> None:
        """Look after the servers behind us for ever. Cancelling it is safe."""
        await self._backends.watch()

    async def close(self) -> None:
        """Close all connections."""
        self._explainer.close()
        await self._backends.close()


def _cors(app: ASGIApp, origins: str) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=[origin.strip() for origin in origins.split(",") if origin.strip()],
        allow_methods=["GET", "HEAD"],
        allow_headers=["Authorization", "If-None-Match", "X-Request-ID"],
        expose_headers=["ETag", "Link", "Retry-After", "X-Request-ID"],
    )


def _request_id(request: Request) -> str:
    return str(request.state.request_id)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  (it is registered for nothing else)
    return problem_response(error, request.url.path, _request_id(request))


async def _on_fault(request: Request, error: Exception) -> Response:
    # It is raised again after this, and logged in `front.py`.
    return problem_response(Problem(problems.INTERNAL, FAULT), request.url.path, _request_id(request))


async def _on_bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    wrong = [
        {
            "in": str(item["loc"][0]),
            "name": ".".join(map(str, item["loc"][1:])),
            "detail": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    words = "; ".join(f"{item['name']}: {item['detail']}" for item in wrong)
    problem = Problem(problems.BAD_PARAMETER, words, more={"errors": wrong})
    return problem_response(problem, request.url.path, _request_id(request))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    kind = _BY_STATUS.get(error.status_code, problems.BAD_REQUEST)
    words = f"{request.method} {request.url.path[:200]}: {error.detail}; /docs shows what there is"
    return problem_response(Problem(kind, words, error.headers or {}), request.url.path, _request_id(request))
