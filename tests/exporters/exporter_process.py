"""An exporter in a process of its own, to be stopped and killed."""

import asyncio
import os
import signal
import sys

from stream.settings import Settings, to_environment

_MAIN = """
import asyncio, logging, signal, sys
from exporters.clickhouse.export import run_clickhouse
from exporters.redis_sink import run_redis
from stream.settings import load_settings

async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    run = {"redis": run_redis, "clickhouse": run_clickhouse}[sys.argv[1]]
    await run(load_settings().settings, stop, lambda url: print(url, flush=True))

asyncio.run(main())
"""


class Exporter:
    """An exporter in a process of its own."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self._settings = name, settings
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _MAIN,
            self.name,
            env={**os.environ, **to_environment(self._settings)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.url = (await self.process.stdout.readline()).decode().strip()

    def abandon(self) -> None:
        """Leave nothing behind when a test fails."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.process.wait()
