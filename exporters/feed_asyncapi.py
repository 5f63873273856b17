"""The AsyncAPI 3 document of the feed, made from the types in `exporters.feed_messages` and `exporters.feed_data`.

``python -m exporters.feed_asyncapi`` prints it: docs/asyncapi.json is that, and a gateway has it at /asyncapi.json.
"""

import functools
import re
from typing import Any, Final, get_args

import orjson
from pydantic import TypeAdapter

from exporters import feed_data
from exporters import feed_messages as wire
from exporters.feed_channels import CHANNELS, Channel
from exporters.feed_wire import FEED_HEADER
from exporters.protocol import BINARY_PROTOCOL, JSON_PROTOCOL, MAX_INBOUND_BYTES, MAX_INBOUND_PER_S, Close, Code

_REQUESTS: Final = get_args(wire.Request)
_SAID: Final = get_args(wire.Said)
_DATA: Final = get_args(feed_data.Data)
_CLOSES: Final = {
    Close.GOING_AWAY: "the gateway stops, as announced by going_away",
    Close.INTERNAL: "a fault of the gateway",
    Close.SLOW: "more waited for the client than its queue holds; the reason names the last delivered seq",
    Close.TOO_MANY_MESSAGES: f"the client sent more than {MAX_INBOUND_PER_S} messages a second",
    Close.UNAUTHORISED: "no token, not the right one, or its time is over",
    Close.FORBIDDEN: "the token grants nothing here, or less than what is followed",
    Close.NO_SUBSCRIPTION: "nothing was subscribed to in time",
}


@functools.cache
def asyncapi() -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {}
    for message in (*_REQUESTS, *_SAID, *_DATA):
        schema = TypeAdapter(message).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[message.__name__] = schema
    received = [message.__name__ for message in _REQUESTS]
    sent = [message.__name__ for message in (*_SAID, *_DATA)]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tickloom feed",
            "version": str(wire.SCHEMA_VERSION),
            "description": "Predictions and what they come from, live. docs/feed.md explains.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": "localhost:8765",
                "protocol": "wss",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": {
            "feed": {
                "address": "/feed",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*received, *sent)},
            }
        },
        "operations": {
            "receive": _operation("receive", received, "What clients say"),
            "send": _operation("send", sent, "What the gateway says"),
        },
        "components": {
            "messages": {
                message.__name__: {
                    "name": message.__name__,
                    "summary": re.sub(r"\s+", " ", message.__doc__ or "").strip(),
                    "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
                }
                for message in (*_REQUESTS, *_SAID, *_DATA)
            },
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "x-error-codes": [code.value for code in Code],
        "x-close-codes": {str(close.value): text for close, text in _CLOSES.items()},
        "x-limits": {"inbound_bytes": MAX_INBOUND_BYTES, "inbound_per_s": MAX_INBOUND_PER_S},
        "x-subprotocols": {
            JSON_PROTOCOL: "text messages; what is spoken where none is asked for",
            BINARY_PROTOCOL: "data as binary messages: header, count records, and count uint32 where has_skipped",
        },
        "x-binary": {
            "header": FEED_HEADER.descr,
            "channels": {name: _binary(channel) for name, channel in CHANNELS.items() if channel.has_binary},
        },
    }


def as_json() -> bytes:
    """Return the document as text."""
    return orjson.dumps(asyncapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _operation(action: str, messages: list[str], summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/feed"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/feed/messages/{name}"} for name in messages],
    }


def _binary(channel: Channel) -> dict[str, Any]:
    return {"number": channel.number, "record_bytes": channel.dtype.itemsize, "record": channel.dtype.descr}


if __name__ == "__main__":
    print(as_json().decode(), end="")
