"""The servers behind the API, each of which may not be set, or may be away: then what needs it answers 503."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from exporters.redis_reader import RedisReader
from exporters.rest.lag import Lag
from exporters.rest.models import Models
from exporters.rest.newest import NewestPredictions
from exporters.rest.problems import BUSY, UNAVAILABLE, Problem
from exporters.rest.telemetry import ApiMetrics
from exporters.rest.warehouse import Warehouse
from stream.errors import TickloomError
from stream.settings import Settings
from stream.telemetry import Health

T = TypeVar("T")

_LOOK_EVERY_S: Final = 2.0


class Backends:
    """What the routes ask."""

    def __init__(self, settings: Settings, health: Health, metrics: ApiMetrics) -> None:
        """Make them; they connect when they are first asked.

        Raises:
            SettingsError: an address is not one.
        """
        self._health, self._metrics = health, metrics
        # As somebody who may only read, where that is set.
        url = settings.clickhouse_analyst or settings.clickhouse
        self._warehouse = (
            None if url is None else Warehouse(url.get_secret_value(), settings.api_queries, settings.api_timeout_s)
        )
        self._redis = None if settings.redis is None else RedisReader(settings.redis.get_secret_value())
        self._lag = None if settings.kafka is None else Lag(settings.kafka)
        self.newest = NewestPredictions(self._redis, self._warehouse)
        self.models = Models(settings)

    @property
    def warehouse(self) -> Warehouse:
        """ClickHouse.

        Raises:
            Problem: it is not set.
        """
        return _set(self._warehouse, "clickhouse")

    @property
    def lag(self) -> Lag:
        """Kafka, asked how far groups are behind.

        Raises:
            Problem: it is not set.
        """
        return _set(self._lag, "kafka")

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return how each server is, as of the last look."""
        servers = {"clickhouse": self._warehouse, "redis": self._redis, "kafka": self._lag}
        return {name: self._part(name, server is not None) for name, server in servers.items()}

    async def watch(self) -> None:
        """Look for ever whether the servers answer, and tell it. Cancelling it is safe."""
        while True:
            await asyncio.gather(*(self._look(name, check) for name, check in self._checks()))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def close(self) -> None:
        """Close all connections."""
        for server in (self._warehouse, self._redis, self._lag):
            if server is not None:
                await server.close()

    def _checks(self) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        checks: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        if self._warehouse is not None:
            checks.append(("clickhouse", self._warehouse.check))
        if self._redis is not None:
            redis = self._redis
            checks.append(("redis", lambda: redis.latest([""])))
        if self._lag is not None:
            checks.append(("kafka", self._lag.now))
        return checks

    async def _look(self, name: str, check: Callable[[], Awaitable[Any]]) -> None:
        try:
            await check()
        except (Problem, TickloomError) as error:
            if isinstance(error, Problem) and error.kind is BUSY:
                return  # it is asked too much already: that says nothing of the server
            self._health.fail(name, error.detail if isinstance(error, Problem) else str(error))
            self._metrics.up.labels(name).set(0)
        else:
            self._health.recover(name)
            self._metrics.up.labels(name).set(1)

    def _part(self, name: str, is_set: bool) -> dict[str, Any]:
        problem = self._health.problems.get(name)
        status = "not set" if not is_set else "ok" if problem is None else "failing"
        return {"status": status, "problem": problem}


def _set(backend: T | None, name: str) -> T:
    if backend is None:
        raise Problem(UNAVAILABLE, f"the setting `{name}` of the API is not set, so it cannot answer this")
    return backend
