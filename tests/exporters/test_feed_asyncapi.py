"""The document is what the code says, every message is what the document says, and it only ever grows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from feed_driver import validate
from jsonschema import Draft202012Validator, ValidationError

from exporters.feed_asyncapi import as_json, asyncapi
from exporters.feed_messages import SCHEMA_VERSION
from exporters.feed_requests import CHANNEL_NAMES, parse_request
from exporters.protocol import BadMessage, Close, Code

DOCS = Path(__file__).resolve().parents[2] / "docs"
PINNED = Path(__file__).with_name("feed_schema_1.json")

REQUESTS: list[dict[str, Any]] = [
    {"op": "subscribe", "id": 1, "channel": "tick", "symbols": ["AIG", "BTC*"], "mode": "full"},
    {"op": "subscribe", "symbols": ["*"], "mode": "throttle", "throttle_ms": 250},
    {"op": "subscribe", "symbols": ["AIG"], "mode": "full", "resume": {"epoch": "e", "seqs": {"AIG": 7}}},
    {"op": "subscribe", "symbols": ["AIG"], "mode": "full", "replay_from_ns": 1_700_000_000_000_000_000},
    {"op": "unsubscribe", "id": "a", "channel": "bar.1m", "symbols": ["AIG"]},
    {"op": "list", "id": None},
    {"op": "ping"},
    {"op": "auth", "token": "open-sesame"},
]


def test_the_document_in_docs_is_that_of_the_code() -> None:
    written = (DOCS / "asyncapi.json").read_bytes()
    assert written == as_json(), "run: python -m exporters.feed_asyncapi > docs/asyncapi.json"


def test_every_reference_in_it_leads_somewhere_and_every_schema_is_one() -> None:
    document = asyncapi()

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    found = references(document)
    assert len(found) > 50
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_request_that_the_document_allows_is_understood(request_: dict[str, Any]) -> None:
    validate(request_)
    parse_request(json.dumps(request_))


@pytest.mark.parametrize(
    "changes", [{"mode": "fast"}, {"symbols": []}, {"throttle_ms": 5}, {"channel": "news"}, {"id": 1.5}], ids=str
)
def test_what_the_document_does_not_allow_is_refused(changes: dict[str, Any]) -> None:
    request = REQUESTS[1] | changes
    with pytest.raises(ValidationError):
        validate(request)
    with pytest.raises(BadMessage):
        parse_request(json.dumps(request))


def test_every_channel_is_in_the_document() -> None:
    types = {
        name
        for schema in asyncapi()["components"]["schemas"].values()
        for name in (lambda kind: kind.get("enum", [kind.get("const")]))(schema["properties"].get("type", {}))
    }
    assert set(CHANNEL_NAMES) <= types


def test_the_page_explains_every_channel_code_and_close() -> None:
    page = (DOCS / "feed.md").read_text("utf-8")
    missing = [name for name in (*CHANNEL_NAMES, *(code.value for code in Code)) if f"`{name}`" not in page]
    assert missing == []
    assert [close for close in Close if str(close.value) not in page] == []
    for code in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        validate(json.loads(code))
        parse_request(code)


def flat() -> dict[str, Any]:
    """Every field of every message, with what it may hold and whether it must be there."""
    fields = {}
    for name, schema in asyncapi()["components"]["schemas"].items():
        for field, spec in schema["properties"].items():
            kind = {key: value for key, value in spec.items() if key not in ("description", "title")}
            fields[f"{name}.{field}"] = {"must": field in schema.get("required", []), "is": kind}
    return fields


def test_fields_are_added_and_never_renamed_removed_or_changed() -> None:
    pinned, now = json.loads(PINNED.read_text("utf-8")), flat()
    assert SCHEMA_VERSION == 1, "a new version has a pinned file of its own"
    changed = {name: (spec, now.get(name)) for name, spec in pinned.items() if now.get(name) != spec}
    for name, (before, after) in list(changed.items()):
        # More names of channels, modes, reasons: additive too.
        if after is not None and set(before["is"].get("enum", ())) < set(after["is"].get("enum", ())):
            del changed[name]
    assert changed == {}, "clients of version 1 rely on these"
    fresh = {name: spec for name, spec in now.items() if name not in pinned}
    requests = [name for name, spec in fresh.items() if "Request." in name and spec["must"]]
    assert requests == [], "clients of version 1 do not send these"
    assert fresh == {}, f"add them to {PINNED.name}, from where on they stay"


def write_pinned() -> None:
    """Pin what there is now: python tests/exporters/test_feed_asyncapi.py."""
    PINNED.write_text(json.dumps(flat(), indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    write_pinned()
