"""What a gateway answers to plain HTTP on the port of the feed."""

from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Response

_SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


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
