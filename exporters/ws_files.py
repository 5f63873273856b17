"""The page and its files, as plain HTTP answers of the feed's port."""

from importlib.resources import files
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_NAMES: Final = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css", "/icon.svg": "icon.svg"}
# The page needs nothing from anywhere else, so nothing else may be loaded or spoken to.
_POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"


def load_files() -> dict[str, tuple[str, bytes]]:
    """Return name and content of the file for each path of the page."""
    folder = files("exporters") / "ws_page"
    return {path: (name, (folder / name).read_bytes()) for path, name in _NAMES.items()}


def file_response(name: str, body: bytes) -> Response:
    """Return a file as an answer; a new one each time, for the server adds headers to it."""
    return _response(200, "OK", _TYPES["." + name.rsplit(".")[-1]], body)


def text_response(status: int, reason: str, text: str) -> Response:
    """Return a short answer in plain text."""
    return _response(status, reason, "text/plain", text.encode() + b"\n")


def _response(status: int, reason: str, kind: str, body: bytes) -> Response:
    headers = Headers(
        {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
            "Connection": "close",
        }
    )
    return Response(status, reason, headers, body)
