"""Who may ask what, and how often: tokens and JWTs exactly as in the feed, each with a budget of requests."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from exporters.feed_auth import Door, Grant, NotAdmitted, NothingGranted
from exporters.rest.problems import FORBIDDEN, RATE_LIMITED, UNAUTHORISED, Problem
from exporters.rest.telemetry import ApiMetrics

_CLIENTS_REMEMBERED: Final = 10_000
_BURST_S: Final = 2.0  # a silent client may ask so many seconds' worth at once


@dataclass(frozen=True)
class Caller:
    """Somebody who came in."""

    grant: Grant

    def must_see(self, channel: str, *symbols: str) -> None:
        """Refuse what the token does not grant.

        Raises:
            Problem: it does not.
        """
        refusal = self.grant.refusal(channel, symbols)
        if refusal is not None:
            raise Problem(FORBIDDEN, refusal)

    def must_see_all(self, what: str) -> None:
        """Refuse who may not see every channel and symbol.

        Raises:
            Problem: so it is.
        """
        if "*" not in self.grant.channels or "*" not in self.grant.symbols:
            raise Problem(
                FORBIDDEN, f"{what} may show any symbol; the token must grant all channels and symbols (*)"
            )


class Budgets:
    """Token buckets, the least recently used of which is forgotten."""

    def __init__(self, per_s: float, at_once: float, clock: Callable[[], float]) -> None:
        """Make them.

        Args:
            per_s: how fast a bucket fills.
            at_once: how much is in a full one.
            clock: monotonic, s.
        """
        self._per_s, self._at_once, self._clock = per_s, at_once, clock
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return how long until one may be taken; 0 for now."""
        return max(0.0, (1.0 - self._now(key)) / self._per_s)

    def take(self, key: str) -> None:
        """Take one."""
        left = self._now(key) - 1.0
        self._held[key] = (max(left, 0.0), self._clock())
        self._held.move_to_end(key)
        if len(self._held) > _CLIENTS_REMEMBERED:
            self._held.popitem(last=False)

    def _now(self, key: str) -> float:
        now_s = self._clock()
        left, at_s = self._held.get(key, (self._at_once, now_s))
        return min(self._at_once, left + (now_s - at_s) * self._per_s)


class Admission:
    """The door of the API."""

    def __init__(self, door: Door, rate_per_s: float, metrics: ApiMetrics, clock: Callable[[], float]) -> None:
        """Make it.

        Args:
            door: judges tokens.
            rate_per_s: requests that a client may make in the long run.
            metrics: where refusals are counted.
            clock: monotonic, s.
        """
        self._door, self._metrics = door, metrics
        self._requests = Budgets(rate_per_s, max(1.0, rate_per_s * _BURST_S), clock)

    async def __call__(self, request: Request) -> Caller:
        """Let a request in.

        Raises:
            Problem: no, or not the right, token; or too many requests.
        """
        address = "none" if request.client is None else request.client.host
        if self._door.open:
            self._spend(address)
            return Caller(Grant())
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise NotAdmitted("a token is needed, as in the header Authorization: Bearer TOKEN")
            grant = self._door.judge(token.strip())
        except NotAdmitted as error:
            # Of the address, which may be a proxy's: others' wrong tokens keep nobody out who has a good one.
            self._spend(address)
            self._metrics.refused.labels("token").inc()
            raise Problem(UNAUTHORISED, str(error), {"WWW-Authenticate": 'Bearer realm="tickloom"'}) from None
        except NothingGranted as error:
            self._metrics.refused.labels("grant").inc()
            raise Problem(FORBIDDEN, str(error)) from None
        self._spend(hashlib.blake2b(token.encode(), digest_size=16).hexdigest())
        return Caller(grant)

    def _spend(self, key: str) -> None:
        wait_s = self._requests.wait_s(key)
        if wait_s > 0:
            self._metrics.refused.labels("rate").inc()
            seconds = math.ceil(wait_s)
            words = f"this client asks too often; the next request may come in {seconds} s"
            raise Problem(RATE_LIMITED, words, {"Retry-After": str(seconds)})
        self._requests.take(key)
