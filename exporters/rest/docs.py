"""The API's description for people, at ``/docs``: Swagger UI out of an installed package, nothing of another host.

`fastapi-offline` carries the files of Swagger UI; our page around them has no inline script, which its own has.
"""

import hashlib
from importlib.resources import files
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from exporters.rest.caching import not_modified
from exporters.rest.page import PAGE_POLICY
from exporters.rest.problems import NOT_FOUND, Problem

_INDEX: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tickloom API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><div id="docs"></div></body>
</html>
"""
_START: Final = b"""addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#docs",
    deepLinking: true,
    persistAuthorization: false,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
});
"""
# Swagger UI writes style attributes; its scripts need nothing unsafe.
_POLICY: Final = PAGE_POLICY + "; style-src 'self' 'unsafe-inline'"


def docs_router(description: dict[str, Any]) -> APIRouter:
    """Return the routes of ``/docs`` and ``/openapi.json``.

    Args:
        description: the OpenAPI document.
    """
    router = APIRouter(include_in_schema=False)
    held = _files()
    document = orjson.dumps(description)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        """The OpenAPI document."""
        return _answer(request, document, "application/json")

    @router.get("/docs")
    async def index(request: Request) -> Response:
        """The page."""
        return _answer(request, _INDEX, "text/html; charset=utf-8")

    @router.get("/docs/{name}")
    async def file(name: str, request: Request) -> Response:
        """A file that the page loads."""
        if name not in held:
            raise Problem(NOT_FOUND, f"the page of /docs has no file {name[:80]}")
        return _answer(request, *held[name])

    return router


def _files() -> dict[str, tuple[bytes, str]]:
    static = files("fastapi_offline") / "static"
    script, style = (static / name for name in ("swagger-ui-bundle.js", "swagger-ui.css"))
    return {
        "swagger-ui-bundle.js": (script.read_bytes(), "text/javascript; charset=utf-8"),
        "swagger-ui.css": (style.read_bytes(), "text/css; charset=utf-8"),
        "start.js": (_START, "text/javascript; charset=utf-8"),
    }


def _answer(request: Request, body: bytes, media_type: str) -> Response:
    headers = {
        "ETag": f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"',
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
    }
    return not_modified(request, headers) or Response(body, headers=headers, media_type=media_type)
