"""The route that says why a prediction is what it is: made again from its ticks, and compared to the bit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, Literal

from aiokafka.errors import KafkaError
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporters.rest.admission import Admission, Caller
from exporters.rest.description import error_responses, json_response
from exporters.rest.problems import BUSY, NOT_FOUND, UNAVAILABLE, Problem
from exporters.rest.representation import respond_json
from exporters.rest.rows import EXAMPLES, PredictionRow
from exporters.rest.tables import SymbolName
from stream.errors import TickloomError
from stream.settings import Settings

_CHANNEL: Final = "prediction"
_AT_MOST: Final = 2  # one is made, and one waits: each may read all ticks of a symbol


class ExplanationBody(BaseModel):
    """A prediction with everything that it came from."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="SYMBOL:SEQ@EPOCH")
    symbol: str
    seq: int
    epoch: str
    verdict: Literal["identical", "different", "gone"] = Field(
        description="whether its ticks give the very same again; gone: not all that it takes is stored any more"
    )
    differences: list[dict[str, Any]]
    reason: str = Field(description="of what is gone, in words")
    stored: dict[str, Any]
    recomputed: dict[str, Any] | None
    model: dict[str, Any]
    features: list[dict[str, Any]]
    source: dict[str, Any] = Field(description="topic, partition, offset and index of its tick")
    latencies_us: dict[str, float]
    outcome: dict[str, Any] | None


_STORED: Final = {name: EXAMPLES[PredictionRow][name] for name in ("symbol", "seq", "ref_price", "p_up")}
_EXAMPLE: Final = {
    "id": "SIM.ALPHA:877@5f2b9c",
    "symbol": "SIM.ALPHA",
    "seq": 877,
    "epoch": "5f2b9c",
    "verdict": "identical",
    "differences": [],
    "reason": "",
    "stored": _STORED,
    "recomputed": _STORED,
    "model": {"id": "718e0a2ddc1319ff", "version": "", "switches": []},
    "features": [{"name": "rsi_14", "unit": "1", "value": 54.2, "taken": True}],
    "source": {"topic": "ticks", "source_partition": 2, "source_offset": 4711, "source_index": 0},
    "latencies_us": {"features": 3.1, "inference": 4.0, "tick_to_prediction": 5200.0},
    "outcome": None,
}


class Explainer:
    """Makes one explanation at a time, beside the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Make it; it needs ClickHouse or Kafka once it is asked."""
        self._settings = settings
        self._executor = ThreadPoolExecutor(1, "explain")
        self._asked = 0

    async def explain(self, symbol: str, seq: int, epoch: str | None) -> dict[str, Any]:
        """Return an explanation as plain values. Cancelling it is safe; what has begun is finished all the same.

        Raises:
            Problem: there is no such prediction, or no server answers, or too many wait.
        """
        if self._asked >= _AT_MOST:
            raise Problem(BUSY, f"{self._asked} explanations are being made; try again soon", {"Retry-After": "5"})
        self._asked += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, _explain, self._settings, symbol, seq, epoch
        )
        work.add_done_callback(self._on_done)
        return await asyncio.shield(work)

    def close(self) -> None:
        """Take nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _on_done(self, done: "asyncio.Future[dict[str, Any]]") -> None:
        self._asked -= 1
        if not done.cancelled():
            done.exception()  # it was told already, or nobody waits for it any more


def _explain(settings: Settings, symbol: str, seq: int, epoch: str | None) -> dict[str, Any]:
    # Here, because it brings the compiler and onnxruntime: an API of which nobody asks this does without them.
    from exporters.explain import UnknownPrediction, explain

    try:
        return explain(settings, symbol, seq, epoch).plain()
    except UnknownPrediction:
        raise Problem(NOT_FOUND, f"no prediction {seq} of {symbol} is stored") from None
    except (TickloomError, KafkaError) as error:
        raise Problem(UNAVAILABLE, str(error)[:500], {"Retry-After": "5"}) from error


def explain_router(explainer: Explainer, admission: Admission) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["predictions"])

    @router.get(
        "/predictions/{symbol}/{seq}/explain",
        summary="Why a prediction is what it is",
        operation_id="explain",
        responses={
            **json_response(ExplanationBody, _EXAMPLE, "The prediction, made again from its ticks"),
            **error_responses(NOT_FOUND, UNAVAILABLE, BUSY),
        },
    )
    async def explain(
        request: Request,
        symbol: Annotated[SymbolName, Path()],
        seq: Annotated[int, Path(ge=1, lt=2**63)],
        caller: Annotated[Caller, Depends(admission)],
        epoch: Annotated[
            str | None, Query(max_length=64, description="of which Kafka cluster; none is the newest")
        ] = None,
    ) -> Response:
        """Its features, its model and the source offsets of its tick; and whether it comes out the same to the bit.

        It takes as long as it takes to read the symbol's ticks from the first one on.
        """
        caller.must_see(_CHANNEL, symbol)
        found = await explainer.explain(symbol, seq, epoch)
        return respond_json(request, found, {"Cache-Control": "private, no-cache"})

    return router
