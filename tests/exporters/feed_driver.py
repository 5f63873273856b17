"""A gateway that runs, and a client that talks to it over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
from jsonschema import Draft202012Validator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from exporters.feed_asyncapi import asyncapi
from exporters.gateway import Addresses

PARTITIONS = 2  # of conftest's topic, and of the topics that a gateway creates

Message = dict[str, Any]
Start = Callable[..., Awaitable["Running"]]


def _validators() -> dict[str, Draft202012Validator]:
    """By `type`, or `op`: nothing may be there that is not in the document, but figures in a heartbeat."""
    schemas = {}
    for name, schema in asyncapi()["components"]["schemas"].items():
        schemas[name] = schema if name == "Heartbeat" else {**schema, "additionalProperties": False}
    found = {}
    for schema in schemas.values():
        kind = schema["properties"].get("type") or schema["properties"].get("op") or {}
        for value in kind.get("enum", [kind.get("const")]):
            found[value] = Draft202012Validator({**schema, "components": {"schemas": schemas}})
    return found


_VALIDATORS = _validators()


def validate(message: Message) -> None:
    """Hold a message to the AsyncAPI document; of long lists the first two items."""
    short = {key: value[:2] if isinstance(value, list) else value for key, value in message.items()}
    _VALIDATORS[message.get("type") or message["op"]].validate(short)


class Running:
    """A gateway that runs."""

    def __init__(self, where: Addresses, stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
        self.where, self._stop, self._task = where, stop, task

    async def stop(self) -> None:
        self._stop.set()
        done, _ = await asyncio.wait({self._task}, timeout=20)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=20)
            pytest.fail("the gateway did not stop within 20 s")
        # A CancelledError out of a fixture keeps pytest from ending the others: the next test would get our topic.
        if not self._task.cancelled():
            self._task.result()

    async def health(self) -> Message:
        async with aiohttp.ClientSession() as session, session.get(f"{self.where.telemetry}/health") as reply:
            return orjson.loads(await reply.read())  # type: ignore[no-any-return]

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.where.telemetry}/metrics") as reply:
            return await reply.text()

    @asynccontextmanager
    async def client(self, *symbols: str, mode: str = "latest", **more: Any) -> AsyncIterator["Client"]:
        async with connect(self.where.feed, **more) as socket:
            client = Client(socket)
            assert (await client.next("hello"))["schema_version"] == 1
            if symbols:
                await client.follow(*symbols, mode=mode)
            yield client


class Client:
    """One WebSocket, and what came through it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send(orjson.dumps(message).decode())

    async def follow(self, *symbols: str, channel: str = "prediction", mode: str = "full", **more: Any) -> None:
        await self.say(op="subscribe", id=1, channel=channel, symbols=symbols, mode=mode, **more)
        assert (await self.next("subscribed"))["id"] == 1

    async def next(self, *types: str, within_s: float = 20.0) -> Message:
        """The next message of one of these types; others are passed over."""
        async with asyncio.timeout(within_s):
            while True:
                message: Message = orjson.loads(await self.socket.recv())
                validate(message)
                if message["type"] in types:
                    return message

    async def items(self, count: int, *types: str) -> list[Message]:
        """The next predictions, at least so many, each with its message's type."""
        got: list[Message] = []
        while len(got) < count:
            message = await self.next(*(types or ("snapshot", "prediction")))
            got += [item | {"type": message["type"]} for item in message["predictions"]]
        return got

    async def until(self, symbol: str, seq: int) -> list[Message]:
        """All predictions up to and with this one."""
        got = await self.items(1)
        while (symbol, seq) not in [(item["symbol"], item["seq"]) for item in got]:
            got += await self.items(1)
        return got

    async def rest(self) -> list[Message]:
        """Everything until the connection is closed."""
        got: list[Message] = []
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    got.append(orjson.loads(await self.socket.recv()))
        return got

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason of the close that comes."""
        await self.rest()
        return self.socket.close_code, self.socket.close_reason


def seqs(items: list[Message], symbol: str) -> list[int]:
    return [item["seq"] for item in items if item["symbol"] == symbol]


async def known(gateway: Running, eventually: Any, **figures: Any) -> None:
    """Wait until the gateway's figures are these."""

    async def are() -> bool:
        health = await gateway.health()
        return all(health[name] == value for name, value in figures.items())

    await eventually(are)
