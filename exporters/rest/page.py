"""The dashboard's files, at ``/``: out of this package, held in memory, and nothing from another host."""

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from exporters.rest.caching import not_modified
from exporters.rest.problems import NOT_FOUND, Problem
from stream.settings import Settings

# Scripts, styles and connections from here only: a symbol with markup in it cannot load anything. The feed is
# another port, which `connect-src` cannot name in advance.
PAGE_POLICY: Final = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'; object-src 'none'"
)
_TYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".woff2": "font/woff2"}
_TEXT: Final = ("text/", "application/json", "image/svg")


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    body: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """Return the files of the page by their path below ``/``; the index is there as the empty path too."""
    found = dict(_walk(files("exporters") / "page", ""))
    return {"": found["index.html"], **found}


def _walk(folder: Traversable, prefix: str) -> Any:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif not entry.name.endswith((".py", ".pyc")):
            yield path, _load(entry)


def _load(entry: Traversable) -> PageFile:
    suffix = f".{entry.name.rpartition('.')[2]}"
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
    if media_type.startswith(_TEXT):
        media_type += "; charset=utf-8"
    body = entry.read_bytes()
    return PageFile(body, media_type, f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"')


def page_router(settings: Settings, needs_token: bool) -> APIRouter:
    """Return the routes of the page: ``/config.json`` and the files. They come last: they match any path."""
    router = APIRouter(include_in_schema=False)
    held = page_files()

    @router.get("/config.json")
    async def config(request: Request) -> Response:
        """What the page must know of this installation."""
        said = {
            "title": settings.api_title,
            "feed_url": settings.api_feed_url or _feed_url(request, settings.gateway_port),
            "api_url": "/v1",
            "token_needed": needs_token,
        }
        return Response(orjson.dumps(said), headers={"Cache-Control": "no-cache"}, media_type="application/json")

    @router.get("/{path:path}")
    async def page(path: str, request: Request) -> Response:
        """A file of the page."""
        file = held.get(path)
        if file is None:
            raise Problem(
                NOT_FOUND, f"nothing is at /{path[:200]}; the page is at / and the API's description at /docs"
            )
        headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
        return not_modified(request, headers) or Response(file.body, headers=headers, media_type=file.media_type)

    return router


def _feed_url(request: Request, port: int) -> str:
    """Where the feed is if nobody says: on the gateway's port of the host that the browser asked."""
    scheme = "wss" if request.url.scheme == "https" else "ws"
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or "127.0.0.1"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/feed"
