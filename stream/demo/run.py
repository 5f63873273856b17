"""`tickloom demo`: everything on one machine, started in order, watched, shown, and stopped in order.

Each role runs as the process that it is in production, from the same command line; the demo only adds the
embedded servers, restarts what dies, and looks.
"""

import asyncio
import contextlib
import json
import logging
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import clickhouse_driver.errors
import redis
from pydantic import SecretStr
from rich.console import Console
from rich.live import Live

from stream.demo.listener import FeedView, listen
from stream.demo.outcome import Outcome, read_outcome, summary, without_password
from stream.demo.parts import Part, Role
from stream.demo.view import Glance, Rates, render
from stream.embedded.ports import answers, free_port
from stream.embedded.servers import EmbeddedServers
from stream.errors import ServerError, SettingsError
from stream.running import run_file
from stream.settings import Settings
from stream.topics import create_topics

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_READY_S = 300.0  # the first start compiles the kernels: 15 s, and minutes on a machine that has other work
# How long to wait until what was sent has arrived everywhere, before it is counted: an unattended run is judged by
# the count, while after Ctrl-C somebody waits (Kafka keeps what is under way for the next start).
_DRAIN_S = 60.0
_DRAIN_ON_STOP_S = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """What `tickloom demo` was asked for."""

    replay: Path | None
    day: str | None
    speed: str
    rate_per_s: float
    for_s: float | None
    workers: int
    fresh: bool
    as_json: bool

    @property
    def source(self) -> str:
        """A title for the source, which says whether it is real."""
        if self.replay is None:
            return "simulated market"
        return f"replay of {self.replay}" + (f", {self.day}" if self.day else "")

    def directory(self, data_dir: Path) -> Path:
        """Where this demo keeps its data: one place for each source, so that none mixes with another."""
        if self.replay is None:
            return data_dir / "demo" / "simulator"
        slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.replay.name}-{self.day or 'all'}").strip("-")
        return data_dir / "demo" / f"replay-{slug}"


def run_demo(settings: Settings, options: DemoOptions) -> int:
    """Run the demo until it is stopped; return the exit code.

    Raises:
        TickloomError: something did not start.
    """
    if options.day is not None and options.replay is None:
        raise SettingsError("--day selects a day of a replay; give --replay DIRECTORY as well")
    return asyncio.run(_Demo(settings, options).run())


class _Demo:
    def __init__(self, settings: Settings, options: DemoOptions) -> None:
        self.options = options
        self.root = options.directory(settings.data_dir.resolve())
        # One registry for all demos, where `tickloom models` looks for it too.
        registry = settings.registry or str(settings.data_dir.resolve() / "registry")
        self.settings = settings.model_copy(update={"data_dir": self.root, "registry": registry})
        self.console = Console(stderr=options.as_json)
        self.parts: list[Part] = []
        self.feed = FeedView()
        self.rates = Rates()
        self.warnings: list[str] = []
        self.stop = asyncio.Event()
        self.started_s = time.monotonic()
        self.servers: EmbeddedServers

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
        if self.options.fresh:
            shutil.rmtree(self.root, ignore_errors=True)
        wanted = self.settings
        self.servers = EmbeddedServers(
            self.root,
            kafka=wanted.kafka is None,
            clickhouse=wanted.clickhouse is None,
            redis=wanted.redis is None,
        )
        try:
            await asyncio.to_thread(self.servers.start, self._say)
            self._connect()
            with run_file(self.root, self._addresses()):
                await self._start_parts()
                return await self._watch_and_finish()
        finally:
            await self._stop_all()

    def _connect(self) -> None:
        """Fill the addresses of the embedded servers in where none was given."""
        update: dict[str, Any] = {}
        if self.servers.kafka is not None:
            update["kafka"] = self.servers.kafka.bootstrap
            if self.servers.kafka.degraded_reason is not None:
                self.warnings.append(self.servers.kafka.degraded_reason)
                update["idempotent_producer"] = False
        if self.servers.clickhouse is not None:
            update["clickhouse"] = SecretStr(self.servers.clickhouse.url)
        if self.servers.redis is not None:
            update["redis"] = SecretStr(self.servers.redis.url)
        if self.settings.early_to is None and self.settings.early_at is None:
            update["early_to"] = update["early_at"] = f"127.0.0.1:{free_port()}"
        for name in ("gateway_port", "api_port"):
            port = getattr(self.settings, name)
            if port == 0 or answers(port):
                update[name] = free_port()
        self.settings = self.settings.model_copy(update=update)

    def _addresses(self) -> dict[str, str]:
        """Return what other commands are told of this demo."""
        settings = self.settings
        assert settings.kafka is not None  # noqa: S101  (given, or filled in by `_connect`)
        assert settings.clickhouse is not None  # noqa: S101
        assert settings.redis is not None  # noqa: S101
        clickhouse = settings.clickhouse.get_secret_value()
        return {
            "kafka": settings.kafka,
            "clickhouse": clickhouse,
            "clickhouse_analyst": self._analyst_url(clickhouse),
            "redis": settings.redis.get_secret_value(),
            "feed": f"ws://{settings.host}:{settings.gateway_port}/feed",
        }

    def _analyst_url(self, clickhouse: str) -> str:
        analyst = self.settings.clickhouse_analyst
        if analyst is not None:
            return analyst.get_secret_value()
        return clickhouse if self.servers.clickhouse is None else self.servers.clickhouse.analyst_url

    async def _start_parts(self) -> None:
        settings = self.settings
        assert settings.kafka is not None  # noqa: S101  (given, or filled in by `_connect`)
        await create_topics(settings.kafka, settings.partitions, settings.replication, settings.retention_hours)
        roles = [
            Role(f"worker-{number}", ["worker", "--name", f"worker-{number}"], {})
            for number in range(1, self.options.workers + 1)
        ]
        roles += [
            Role("redis", ["export", "redis"], {}),
            Role("clickhouse", ["export", "clickhouse"], {}),
            Role("outcomes", ["outcomes"], {}),
            Role("gateway", ["gateway"], {}),
            Role("api", ["api"], {}),
        ]
        self._say("starting workers, exporters, the gateway and the API (the first start compiles the kernels)")
        await self._start([Part(role, settings, self.root) for role in roles])
        self._say(f"starting the source: {self.options.source}")
        await self._start([Part(self._source(), settings, self.root)])

    def _source(self) -> Role:
        if self.options.replay is None:
            return Role("source", ["ingest", "simulator", "--rate", str(self.options.rate_per_s)], {})
        arguments = ["replay", str(self.options.replay), "--speed", self.options.speed]
        if self.options.day is not None:
            arguments += ["--day", self.options.day]
        return Role("source", arguments, {}, ends_by_itself=True)

    async def _start(self, parts: list[Part]) -> None:
        self.parts += parts
        deadline_s = time.monotonic() + _READY_S
        for part in parts:
            part.start()
        async with aiohttp.ClientSession() as session:
            while not self.stop.is_set() and not all(part.healthy or part.finished for part in parts):
                for part in parts:
                    part.check_started()
                    await part.poll(session)
                    if part.role.ends_by_itself:
                        part.restart_if_dead()
                if time.monotonic() > deadline_s:
                    late = next(part for part in parts if not part.healthy)
                    raise ServerError(
                        f"{late.role.name} is not ready after {_READY_S:.0f} s: "
                        f"{late.health.get('problems')}; its log ends with:\n{late.last_lines()}"
                    )
                await asyncio.sleep(0.1)

    async def _watch_and_finish(self) -> int:
        token = self.settings.feed_token
        host, port = self.settings.host, self.settings.gateway_port
        secret = None if token is None else token.get_secret_value()
        listener = asyncio.create_task(listen(f"ws://{host}:{port}/feed", secret, self.feed))
        try:
            async with aiohttp.ClientSession() as session:
                await self._watch(session)
                watched_s = time.monotonic() - self.started_s
                outcome = await self._drain(session)
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
        return self._report(watched_s, outcome)

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Look at everything twice a second until it is time to stop."""
        live = Live(console=self.console, auto_refresh=False, screen=False)
        quiet = self.options.as_json or not self.console.is_terminal
        if quiet:
            self._say(f"the page is at {self._page_url}")
        with contextlib.nullcontext() if quiet else live:
            begun_s = time.monotonic()
            while not self.stop.is_set():
                await self._look(session)
                if not quiet:
                    live.update(render(self._glance(), self.parts, self.feed, self.rates), refresh=True)
                if self.options.for_s is not None and time.monotonic() - begun_s >= self.options.for_s:
                    return
                if self.parts[-1].finished and self.options.for_s is None and quiet:
                    return  # an unattended replay is over
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), _POLL_S)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(part.poll(session) for part in self.parts))
        for part in self.parts:
            part.restart_if_dead()
        if not self.servers.alive():
            await asyncio.to_thread(self.servers.revive, self._say)

    @property
    def _page_url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.api_port}/"

    def _glance(self) -> Glance:
        settings = self.settings
        assert settings.clickhouse is not None  # noqa: S101
        assert settings.redis is not None  # noqa: S101
        servers = {
            "kafka": settings.kafka or "",
            "redis": without_password(settings.redis.get_secret_value()),
            "clickhouse": without_password(settings.clickhouse.get_secret_value()),
            "api": f"http://{settings.host}:{settings.api_port}/docs",
        }
        return Glance(
            f"tickloom: {self.options.source}",
            self._page_url,
            self.warnings,
            servers,
            time.monotonic() - self.started_s,
        )

    async def _drain(self, session: aiohttp.ClientSession) -> Outcome | None:
        """Stop the source, let everything that is under way arrive, and count what has arrived."""
        source, others = self.parts[-1], self.parts[:-1]
        await source.poll(session)
        await asyncio.to_thread(source.stop)
        self._say("waiting until everything has arrived")
        outcome, settled = await self._settle(session, _DRAIN_ON_STOP_S if self.stop.is_set() else _DRAIN_S)
        if not settled and not self.stop.is_set():
            # The lanes have more to do than that, as after a replay at full speed: count what they have done.
            for part in others:
                if part.role.name.startswith("worker"):
                    await part.poll(session)
                    await asyncio.to_thread(part.stop)
            outcome, _ = await self._settle(session, _DRAIN_S)
        return outcome

    async def _settle(self, session: aiohttp.ClientSession, patience_s: float) -> tuple[Outcome | None, bool]:
        """Return what the sinks hold, and whether they hold the same and no more comes."""
        deadline_s = time.monotonic() + patience_s
        outcome: Outcome | None = None
        while time.monotonic() < deadline_s:
            await asyncio.gather(*(part.poll(session) for part in self.parts[:-1] if part.alive))
            before = outcome
            with contextlib.suppress(OSError, redis.RedisError, clickhouse_driver.errors.Error):
                outcome = await read_outcome(self.settings)
            same = outcome is not None and outcome.redis_latest_seq_sum == outcome.clickhouse_distinct
            if same and before == outcome:
                return outcome, True
            await asyncio.sleep(1.0)
        return outcome, False

    def _report(self, seconds: float, outcome: Outcome | None) -> int:
        good = outcome is not None and outcome.clickhouse_rows > 0 < outcome.redis_symbols
        good = good and self.feed.messages > 0
        if outcome is not None and self.servers.clickhouse is not None and self.servers.redis is not None:
            # Ours from the first tick on: every sink must hold exactly the same, without gap or double.
            good = good and outcome.clickhouse_rows == outcome.clickhouse_distinct == outcome.redis_latest_seq_sum
            good = good and outcome.clickhouse_gaps == 0
        healths = {part.role.name: part.health for part in self.parts}
        result = summary(
            seconds,
            self.options.source,
            healths,
            outcome,
            websocket_messages=self.feed.messages,
            websocket_symbols=len(self.feed.latest),
            restarts=sum(part.restarts for part in self.parts),
            warnings=self.warnings,
            ok=good,
        )
        if self.options.as_json:
            print(json.dumps(result))
        else:
            self.console.print_json(data=result)
            self.console.print(f"the data stays in {self.root}; the next demo goes on from here")
        return 0 if good else 1

    async def _stop_all(self) -> None:
        self._say("stopping")
        # In the direction of the data, so that each takes what the one before it still sent.
        for part in [*self.parts[-1:], *self.parts[:-1]]:
            await asyncio.to_thread(part.stop)
        await asyncio.to_thread(self.servers.stop)

    def _say(self, line: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.started_s:6.1f} s[/dim]  {line}", highlight=False)
