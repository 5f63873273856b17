"""``GET /state/SYMBOL`` of any worker: the live `STATE` row of any symbol, asked of the worker that owns it.

Faust's assignor tells every worker which partitions of the table the others have, and at which address they answer.
"""

from typing import Any, Final

import aiohttp
import numpy as np
import orjson
from aiohttp import web

from agents.lanes import Lanes
from agents.periods import DEFAULT, Periods
from agents.state_reader import describe_state
from stream.app import TickloomApp
from stream.errors import RecordError
from stream.records import TICK, encode_symbol, partition_of
from stream.topics import STATE_CHANGELOG

_TIMEOUT_S: Final = 5.0
# What was passed on once is not passed on again: two workers that are at odds must not ask each other for ever.
_PASSED_ON: Final = "Tickloom-Passed-On"


class StateView:
    """Answers for the states of symbols."""

    def __init__(self, app: TickloomApp, lanes: Lanes, partitions: int, periods: Periods = DEFAULT) -> None:
        self._app = app
        self._lanes = lanes
        self._partitions = partitions
        self._periods = periods

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request: 200 with the row, 400 no symbol, 404 it never ticked, 503 nobody has its lane now."""
        name = request.match_info["symbol"]
        try:
            symbol = encode_symbol(name)
        except RecordError as error:
            return _json(400, {"error": str(error)})
        partition = int(partition_of(np.array([symbol], TICK["symbol"]), self._partitions)[0])
        owned = await self._lanes.lane_of(partition)
        if owned is not None:
            row = owned.windows.row_of(symbol)
            if row is None:
                return _json(404, {"error": f"{name} has not ticked; it would live in partition {partition}"})
            state = describe_state(owned.windows.states[row : row + 1], self._periods)
            return _json(200, {"partition": partition, **state})
        owner = self._owner(partition)
        if owner is None or _PASSED_ON in request.headers:
            why = f"no worker has partition {partition} at this moment (a rebalance, or too few workers): try again"
            return _json(503, {"error": why})
        return await self._pass_on(f"{owner}/state/{name}", partition)

    def _owner(self, partition: int) -> str | None:
        for url, topics in self._app.assignor.tables_metadata().items():
            if partition in topics.get(STATE_CHANGELOG, ()):
                return str(url).rstrip("/")
        return None

    async def _pass_on(self, url: str, partition: int) -> web.Response:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.get(url, headers={_PASSED_ON: "1"}) as response,
            ):
                body = await response.read()
                return web.Response(status=response.status, body=body, content_type="application/json")
        except (aiohttp.ClientError, TimeoutError) as error:
            why = f"the worker of partition {partition}, {url}, does not answer: {error!r}"
            return _json(503, {"error": why})


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
