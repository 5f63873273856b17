"""A headless Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import orjson
from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_WITHIN_S = 30.0

Event = dict[str, Any]


def find_chromium() -> str | None:
    """The browser of this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium(executable: str, folder: Path) -> Iterator[str]:
    """Run the browser; yield the address of its DevTools."""
    command = [
        *(executable, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"),
        *("--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--mute-audio"),
        # Whatever is not on this machine cannot be found.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "about:blank",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        where, deadline_s = folder / "DevToolsActivePort", time.monotonic() + START_WITHIN_S
        while not where.exists() or where.read_text().count("\n") < 1:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline_s, "the browser does not start"
            time.sleep(0.05)
        port, path = where.read_text().split("\n")[:2]
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        process.terminate()
        process.wait(20)


class Browser:
    """A connection to the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[Event]] = {}
        self._tabs: dict[str, Tab] = {}

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        async with connect(url, max_size=None, ping_interval=None) as socket:
            browser = cls(socket)
            reading = asyncio.create_task(browser._read())
            try:
                yield browser
            finally:
                reading.cancel()

    async def _read(self) -> None:
        async for raw in self._socket:
            message = orjson.loads(raw)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            elif message.get("sessionId") in self._tabs:
                self._tabs[message["sessionId"]].on_event(message)

    async def call(self, method: str, session: str | None = None, within_s: float = 30.0, **params: Any) -> Event:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send(orjson.dumps(message | ({"sessionId": session} if session else {})).decode())
        answer = await asyncio.wait_for(self._answers[number], within_s)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]  # type: ignore[no-any-return]

    @asynccontextmanager
    async def tab(self, url: str, width: int = 1280, height: int = 800, **media: str) -> AsyncIterator["Tab"]:
        """Open a page in a profile of its own; ``media`` are features of CSS, with _ for -."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        try:
            for domain in ("Page", "Runtime", "Network", "Log"):
                await tab.call(f"{domain}.enable")
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
            await tab.call("Emulation.setEmulatedMedia", features=features)
            await tab.go(url)
            yield tab
        finally:
            del self._tabs[attached["sessionId"]]
            await self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """A page that is open."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []  # uncaught errors, and what the console has as errors or warnings
        self.requested: list[str] = []  # URLs

    def on_event(self, event: Event) -> None:
        params = event["params"]
        match event["method"]:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(" ".join(str(arg.get("value")) for arg in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requested.append(params["url"])

    async def call(self, method: str, within_s: float = 30.0, **params: Any) -> Event:
        return await self._browser.call(method, self._session, within_s, **params)

    async def go(self, url: str) -> None:
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 30)

    async def run(self, script: str, within_s: float = 30.0) -> Any:
        """Run the body of an async function in the page; return what it returns."""
        answer = await self.call(
            "Runtime.evaluate",
            within_s,
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def eventually(self, expression: str, within_s: float = 40.0) -> Any:
        """Wait until an expression is true; return its value."""
        deadline_s = time.monotonic() + within_s
        while not (value := await self.run(f"return {expression}")):
            assert time.monotonic() < deadline_s, f"{expression} is {value!r} after {within_s} s; {self.complaints}"
            await asyncio.sleep(0.03)
        return value

    async def press(self, key: str) -> None:
        text = key if len(key) == 1 else ""
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def screenshot(self, path: Path) -> None:
        data = (await self.call("Page.captureScreenshot", format="png"))["data"]
        path.write_bytes(base64.b64decode(data))
