"""Conditional requests: an answer that the client has already is not sent again."""

import re
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')
# What a 304 repeats of the answer that it stands for (RFC 9110, 15.4.5).
_REPEATED: Final = ("ETag", "Cache-Control", "Vary", "Content-Security-Policy", "Link")


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Return 304 where the client has this ``ETag``, else None."""
    asked = request.headers.get("if-none-match")
    if asked is None:
        return None
    if asked.strip() != "*" and headers["ETag"].removeprefix("W/") not in _TAG.findall(asked):
        return None
    return Response(status_code=304, headers={name: headers[name] for name in _REPEATED if name in headers})
