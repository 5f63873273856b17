"""The page, over HTTP on the port of the feed: three files out of this package, and nothing from another host."""

from http import HTTPStatus
from importlib.resources import files
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_SAFE: Final = {
    # Scripts, styles and connections from here only: a symbol with markup in it cannot load anything.
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_response(path: str) -> Response:
    """Return the file at ``path`` (without a query), or 404."""
    if path in _FILES:
        name, content_type = _FILES[path]
        return http_response(HTTPStatus.OK, (files("exporters") / "page" / name).read_bytes(), content_type)
    return http_response(HTTPStatus.NOT_FOUND, b"the page is at / and the feed at /feed\n")


def http_response(
    status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8", **more: str
) -> Response:
    """Return a whole HTTP response; ``more`` are headers, with _ for -."""
    headers = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **_SAFE,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
    )
    return Response(status.value, status.phrase, headers, body)
