"""What every request goes through first: its id, its limits, safe headers, and what is counted.

A request whose client goes away, or that takes too long, is cancelled, and with it whatever it asks of a server.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from exporters.rest.problems import INTERNAL, TIMEOUT, TOO_LARGE, WRONG_HOST, Problem, problem_response
from exporters.rest.telemetry import ApiMetrics

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]

PREFIX: Final = "/v1"
FAULT: Final = "see the log of the API for this request_id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_LONGEST_TARGET_BYTES: Final = 8 << 10  # path and query
_LARGEST_HEAD_BYTES: Final = 32 << 10
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# An answer that is no page loads nothing and is shown in nobody's frame.
_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


class Front:
    """An ASGI application around the API's."""

    def __init__(
        self, app: ASGIApp, metrics: ApiMetrics, timeout_s: float, explain_timeout_s: float, only_loopback: bool
    ) -> None:
        """Make it.

        Args:
            app: what answers.
            metrics: where requests are counted.
            timeout_s: a request may take so long.
            explain_timeout_s: an explanation may, which reads all ticks of a symbol.
            only_loopback: the ``Host`` must be this machine: else a page of any site could have its own name
                point here and read what needs no token.
        """
        self._app, self._metrics, self._only_loopback = app, metrics, only_loopback
        self._timeout_s, self._explain_timeout_s = timeout_s, max(timeout_s, explain_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, send)
        self._metrics.in_flight.inc()
        try:
            await self._answer(exchange, receive)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.on_answered(exchange.route, exchange.method, exchange.status, exchange.seconds)

    async def _answer(self, exchange: "_Exchange", receive: Receive) -> None:
        refusal = self._refusal(exchange.scope)
        if refusal is not None:
            await exchange.tell(refusal)
            return
        timeout_s = self._explain_timeout_s if exchange.scope["path"].endswith("/explain") else self._timeout_s
        work: asyncio.Task[None] = asyncio.ensure_future(_run(self._app(exchange.scope, _no_body, exchange.send)))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            done, _ = await asyncio.wait({work, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                work.result()
            elif gone in done:
                exchange.status = _CLIENT_CLOSED
            else:
                await exchange.tell(Problem(TIMEOUT, f"no answer within {timeout_s:g} s; ask for less"))
        except Exception:  # the boundary of a request: it is told, logged, and the next one is answered
            logger.exception("request %s of %s failed", exchange.request_id, exchange.scope["path"])
            await exchange.tell(Problem(INTERNAL, FAULT))
        finally:
            for task in (work, gone):
                task.cancel()

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        target_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        if target_bytes > _LONGEST_TARGET_BYTES:
            return Problem(TOO_LARGE, f"path and query have {target_bytes} bytes; {_LONGEST_TARGET_BYTES} may be")
        head_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        if head_bytes > _LARGEST_HEAD_BYTES:
            return Problem(TOO_LARGE, f"the headers have {head_bytes} bytes; {_LARGEST_HEAD_BYTES} may be")
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return Problem(TOO_LARGE, "the request has a body; the API only reads, and no route takes one")
        if self._only_loopback and _host_of(headers) not in _LOOPBACK:
            return Problem(
                WRONG_HOST,
                f"the Host is {headers.get('host', '')[:100]!r}; without a token this API answers to "
                "127.0.0.1 and localhost only",
            )
        return None


_CLIENT_CLOSED: Final = 499  # as nginx counts a client that went away; it is never sent


class _Exchange:
    """One request, and what becomes of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send, self._begun_s = send, time.perf_counter()
        self.method: str = scope["method"]
        self._is_head = self.method == "HEAD"
        asked = Headers(scope=scope).get("x-request-id", "")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        # HEAD is GET without the body, on every route.
        self.scope = {**scope, "method": "GET"} if self._is_head else dict(scope)
        self.scope["state"] = {**scope.get("state", {}), "request_id": self.request_id}
        self.status = 0

    @property
    def route(self) -> str:
        """The route's template: a label of metrics must not have a value for each symbol."""
        template: str = getattr(self.scope.get("route"), "path", "none")
        # A route of a router that was included knows its path below the router's prefix only.
        below = (
            self.scope["path"].startswith(PREFIX) and template.startswith("/") and not template.startswith(PREFIX)
        )
        return PREFIX + template if below else template

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun_s

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            for name, value in _SAFE.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", _DATA_POLICY)
            headers.setdefault("Cache-Control", "no-store")
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)

    async def tell(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has begun already."""
        if self.status == 0:
            response = problem_response(problem, self.scope["path"], self.request_id)
            await response(self.scope, _no_body, self.send)


async def _run(answering: Awaitable[None]) -> None:
    await answering


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _host_of(headers: Headers) -> str | None:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None
