"""The servers behind the API, each of which may not be set, or may be away: then what needs it answers 503."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, TypeVar

from exporters.rest.problems import UNAVAILABLE, Problem
from exporters.rest.telemetry import ApiMetrics
from exporters.rest.warehouse import Warehouse
from stream.errors import TickloomError
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

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
        url = settings.clickhouse
        self._warehouse = (
            None
            if url is None
            else Warehouse(url.get_secret_value(), settings.api_queries, settings.api_timeout_s)
        )

    @property
    def warehouse(self) -> Warehouse:
        """ClickHouse.

        Raises:
            Problem: it is not set.
        """
        return _set(self._warehouse, "clickhouse")

    async def watch(self) -> None:
        """Look for ever whether the servers answer, and tell it. Cancelling it is safe."""
        while True:
            if self._warehouse is not None:
                await self._look("clickhouse", self._warehouse.check())
            await asyncio.sleep(_LOOK_EVERY_S)

    async def close(self) -> None:
        """Close all connections."""
        if self._warehouse is not None:
            await self._warehouse.close()

    async def _look(self, name: str, check: Awaitable[None]) -> None:
        try:
            await check
        except (Problem, TickloomError) as error:
            self._health.fail(name, error.detail if isinstance(error, Problem) else str(error))
            self._metrics.up.labels(name).set(0)
        else:
            self._health.recover(name)
            self._metrics.up.labels(name).set(1)


def _set(backend: T | None, name: str) -> T:
    if backend is None:
        raise Problem(UNAVAILABLE, f"the setting `{name}` of the API is not set, so it cannot answer this")
    return backend
