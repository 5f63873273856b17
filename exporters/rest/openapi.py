"""The OpenAPI document of the API: FastAPI's, with the schemas of answers that routes write by themselves."""

from importlib import metadata
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from exporters.rest import engine_routes, explain_routes, model_routes, newest_routes, query_routes
from exporters.rest.description import ProblemBody
from exporters.rest.rows import EXAMPLES, LatestRow
from exporters.rest.tables import TABLES

_WORDS: Final = """Predictions, what came of them, and the market behind them. Everything here only reads.

**Pages.** Tables come page by page: `next` is the cursor of the following page, `null` on the last one. A cursor is
a place in the table, so that rows which come meanwhile neither repeat nor hide others.

**Forms.** `Accept: application/json`, `application/vnd.apache.arrow.stream` or `application/vnd.apache.parquet`.
Times are UTC, with nanoseconds; a number that is not there is null.

**Errors** are `application/problem+json` (RFC 9457); programs go by `code`.

**Again.** Send the `ETag` of the last answer as `If-None-Match`: what has not changed is 304, without a body.
"""
_TAGS: Final = [
    {"name": "predictions", "description": "What the models say, and what came of it"},
    {"name": "market", "description": "Ticks, bars, and ticks that were not believed"},
    {"name": "models", "description": "Which model serves, its card, and how good it is"},
    {"name": "queries", "description": "The query book: questions of analysts in SQL"},
    {"name": "engine", "description": "The engine itself"},
]
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    ProblemBody,
    LatestRow,
    *(table.row for table in TABLES),
    *(newest_routes.LatestPage, newest_routes.SymbolsPage),
    *(model_routes.ModelList, model_routes.ModelDetails),
    explain_routes.ExplanationBody,
    *(query_routes.Book, query_routes.QueryAnswer),
    *(engine_routes.Live, engine_routes.Ready, engine_routes.VersionBody, engine_routes.LagBody),
)


def openapi(app: FastAPI, needs_token: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        app: with all routes.
        needs_token: whether one must come with a request.
    """
    document = get_openapi(
        title="tickloom",
        version=metadata.version("tickloom"),
        description=_WORDS,
        tags=_TAGS,
        routes=app.routes,
    )
    _, schemas = models_json_schema(
        [(body, "serialization") for body in dict.fromkeys(_BODIES)], ref_template="#/components/schemas/{model}"
    )
    for row, example in EXAMPLES.items():
        if row.__name__ in schemas["$defs"]:
            schemas["$defs"][row.__name__]["example"] = example
    components = document.setdefault("components", {})
    # What FastAPI adds of its own errors is not what we answer.
    components["schemas"] = {
        name: schema
        for name, schema in components.get("schemas", {}).items()
        if not name.endswith("ValidationError")
    } | schemas["$defs"]
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the feed, or a JWT with its claims",
        }
    }
    document["security"] = [{"token": []}] if needs_token else [{}, {"token": []}]
    for path in ("/v1/live", "/v1/ready"):
        document["paths"][path]["get"]["security"] = []
    return document
