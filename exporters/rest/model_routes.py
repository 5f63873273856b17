"""The routes of the models: the registry's versions, roles, manifests and cards."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from exporters.rest.admission import Admission, Caller
from exporters.rest.backends import Backends
from exporters.rest.description import error_responses, json_response
from exporters.rest.problems import NOT_FOUND, UNAVAILABLE
from exporters.rest.representation import Wanted, respond, respond_json, wanted
from exporters.rest.rows import Hex64, Time

_CHANNEL: Final = "model"
_FRESH: Final = {"Cache-Control": "private, no-cache"}
_HTML: Final = "text/html"
# A card is somebody's file: it has styles of its own, and runs nothing.
_CARD_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
)

Which = Annotated[
    str,
    StringConstraints(min_length=1, max_length=120, pattern="^[A-Za-z0-9._/-]+$"),
    Path(
        description="a version (NAME/NNNNNN-ID), a role (champion, previous, default), a name, or a model id",
        examples=["champion"],
    ),
]


class ModelVersion(BaseModel):
    """A version of a model. It never changes, but for its roles."""

    version: str | None = Field(description="null for the model of the settings, which is in no registry")
    name: str
    number: int | None
    model: Hex64 | None = Field(description="as in the column `model` of predictions")
    roles: list[str] = Field(
        description="champion, previous, challenger, or default: what serves where nobody was promoted"
    )
    horizon_ns: int | None
    published_time: Time | None
    published_by: str | None
    metrics: dict[str, Any]
    has_card: bool


class ModelChange(BaseModel):
    """A change of roles in which a version had one."""

    generation: int
    time: Time | None
    champion: str | None
    by: str
    reason: str


class ModelDetails(ModelVersion):
    """A version with all that is known of it."""

    manifest: dict[str, Any]
    history: list[ModelChange]


class ModelList(BaseModel):
    """Every version, newest first, and who has which role."""

    data: list[ModelVersion]
    champion: str | None
    previous: str | None
    challengers: list[str]
    generation: int = Field(description="counts the changes of roles")
    reason: str = Field(description="of the last change")


_VERSION: Final[dict[str, Any]] = {
    "version": "lstm/000003-718e0a2ddc1319ff",
    "name": "lstm",
    "number": 3,
    "model": "718e0a2ddc1319ff",
    "roles": ["champion"],
    "horizon_ns": 10_000_000_000,
    "published_time": "2026-11-25T02:47:11.000000000Z",
    "published_by": "night",
    "metrics": {"log_loss": 1.043},
    "has_card": True,
}
_LIST: Final = {
    "data": [_VERSION],
    "champion": "lstm/000003-718e0a2ddc1319ff",
    "previous": None,
    "challengers": [],
    "generation": 4,
    "reason": "a better log loss",
}


def model_router(backends: Backends, admission: Admission) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["models"])
    errors = error_responses(NOT_FOUND, UNAVAILABLE)
    models = backends.models

    @router.get(
        "/models",
        summary="Versions of models, and their roles",
        operation_id="models",
        responses={**json_response(ModelList, _LIST, "Every version"), **error_responses(UNAVAILABLE)},
    )
    async def every(request: Request, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """Newest first."""
        caller.must_see(_CHANNEL)
        return respond_json(request, await models.all(), _FRESH)

    @router.get(
        "/models/{which:path}/card",
        summary="The card of a model: JSON, or a page",
        operation_id="model_card",
        responses={
            200: {
                "description": "What the model is worth beside baselines, by `tickloom models evaluate`",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    _HTML: {"schema": {"type": "string"}},
                },
            },
            **errors,
        },
    )
    async def card(request: Request, which: Which, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """The page for who accepts text/html, such as a browser; its numbers as JSON for everybody else."""
        caller.must_see(_CHANNEL)
        form = wanted(request, ("application/json", _HTML))
        if form.media_type != _HTML:
            return respond_json(request, await models.card(which), _FRESH)
        body = Wanted(f"{_HTML}; charset=utf-8", form.gzip).body(await models.card_page(which))
        return respond(
            request, body, {**_FRESH, "Content-Security-Policy": _CARD_POLICY, "X-Frame-Options": "SAMEORIGIN"}
        )

    @router.get(
        "/models/{which:path}",
        summary="A version with its manifest and history",
        operation_id="model",
        responses={
            **json_response(ModelDetails, {**_VERSION, "manifest": {}, "history": []}, "The version"),
            **errors,
        },
    )
    async def one(request: Request, which: Which, caller: Annotated[Caller, Depends(admission)]) -> Response:
        """By version, role, name or model id."""
        caller.must_see(_CHANNEL)
        return respond_json(request, await models.one(which), _FRESH)

    return router
