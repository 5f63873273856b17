"""A real headless Chromium for tests of what runs in browsers."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent))

from browser import NAMES, Browser, chromium, find_chromium

PAGE = Path(__file__).resolve().parents[3] / "exporters" / "page"


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running browser; its DevTools' address. Without one these tests are left out, in CI they fail."""
    executable = find_chromium()
    if executable is None:
        reason = f"there is no browser to test the page with: none of {', '.join(NAMES)} is on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with chromium(executable, tmp_path_factory.mktemp("chromium")) as url:
        yield url


@pytest.fixture
async def browser(devtools: str) -> AsyncIterator[Browser]:
    """The browser."""
    async with Browser.connect(devtools) as connected:
        yield connected


@pytest.fixture
async def files_url() -> AsyncIterator[str]:
    """An empty page with the files of the package beside it: where scripts of others import feed.js from."""

    async def empty(_: web.Request) -> web.Response:
        page = '<!doctype html><title>empty</title><link rel="icon" href="data:,">'
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", empty)
    app.router.add_static("/", PAGE)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/"
    await runner.cleanup()
