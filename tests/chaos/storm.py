"""A replay of real ticks through the whole engine while its parts are killed, paused and restarted."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from faults import SHOWS_IN, UNDER_FULL_LOAD, Fault, Kind, schedule
from flows import Flow, Topic, ask_clickhouse, ask_redis
from full_client import FullView, follow
from live_engine import Engine
from live_oracle import newest, real_ticks, undisturbed
from verdict import judge

from stream.clock import NS_PER_S, wall_ns
from stream.embedded.kafka import EmbeddedKafka

Tell = Callable[[str], None]
# Under other people's load as well: nothing that takes this long comes back by itself.
_PATIENCE_S: Final = 180.0
_WORKERS: Final = ("worker-1", "worker-2")


@dataclass(frozen=True)
class Recovery:
    """How long a fault was felt."""

    kind: Kind
    lasted_s: float  # from its begin to its end: what was paused goes on, the broker serves again
    recovery_s: float  # from its end until something of every symbol came that is newer than its end
    silence_s: float  # the longest time in which nothing new of a symbol came


class Storm:
    """One run."""

    def __init__(self, engine: Engine, files: Sequence[Path], speed: float, tell: Tell) -> None:
        """Make it.

        Args:
            engine: with nothing started.
            files: of ticks, to be replayed together.
            speed: of the replay: it must last until the faults are over; what is left then is sent at once.
            tell: is told what happens.
        """
        self.engine = engine
        self.recoveries: list[Recovery] = []
        self._files, self._speed, self._tell = files, speed, tell
        ticks = real_ticks(files)
        self._expected = asyncio.create_task(asyncio.to_thread(undisturbed, engine.settings, ticks))
        self._symbols = [symbol.decode() for symbol in np.unique(ticks["symbol"])]
        self._flows = {name: Flow(self._symbols) for name in ("predictions", "redis", "clickhouse", "feed")}
        self._topic = Topic(engine.settings, self._flows["predictions"])
        self._feed = FullView(self._flows["feed"])
        self._ended: dict[str, int] = {}

    async def run(self, seed: int, kinds: Sequence[Kind]) -> list[str]:
        """Run the replay and a fault of each kind; return what is wrong in the end, in words."""
        engine, settings = self.engine, self.engine.settings
        watchers = [
            asyncio.create_task(watch)
            for watch in (
                self._topic.follow(),
                ask_redis(settings, self._symbols, self._flows["redis"]),
                ask_clickhouse(settings, self._flows["clickhouse"]),
                follow(engine.feed_url, self._feed),
            )
        ]
        try:
            await self._start()
            for fault in schedule(seed, kinds):
                await self._inflict(fault)
            await self._hurry(schedule(seed + 1, UNDER_FULL_LOAD))
            expected = await self._expected
            self._tell("comparing everything with the undisturbed run")
            return await judge(engine, expected, self._feed)
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    @property
    def told(self) -> list[str]:
        """What the client of the feed was told that it cannot have."""
        return self._feed.told

    def own_stops(self) -> list[str]:
        """Return what the parts that stopped by themselves said, and how often they did."""
        told = []
        for name, part in self.engine.parts.items():
            times = part.restarts - self._ended.get(name, 0)
            if times > 0:
                log = (self.engine.root / "logs" / f"{name}.log").read_text("utf-8", "replace")
                said = [line for line in log.splitlines() if line.startswith("tickloom: ")]
                told.append(f"{name} stopped by itself {times} times: {said}")
        return told

    async def _start(self) -> None:
        engine = self.engine
        await engine.start_ways_out()
        for name in _WORKERS:
            await engine.start(name, "worker", "--name", name, ready=False)
        await engine.start("source", "replay", *map(str, self._files), "--speed", str(self._speed), ends=True)
        engine.supervised.update(engine.parts)
        await self._until_flowing(wall_ns(), "predictions", "everything flows")

    async def _inflict(self, fault: Fault) -> None:
        await self._while_waiting(fault.after_s)
        begin_ns = wall_ns()
        await self._do(fault)
        end_ns = wall_ns()
        flow = SHOWS_IN.get(fault.kind, "predictions")
        flowing_ns = await self._until_flowing(end_ns, flow, f"{flow} after: {fault.kind}")
        recovery = Recovery(
            fault.kind,
            (end_ns - begin_ns) / NS_PER_S,
            (flowing_ns - end_ns) / NS_PER_S,
            self._flows[flow].silence_s(begin_ns, flowing_ns),
        )
        self.recoveries.append(recovery)
        self._tell(
            f"{fault.kind}: lasted {recovery.lasted_s:.1f} s, flows again {recovery.recovery_s:.1f} s after that; "
            f"silent for {recovery.silence_s:.1f} s"
        )

    async def _hurry(self, faults: Sequence[Fault]) -> None:
        """Send what is left of the replay as fast as it goes, with more faults on the way."""
        engine, source = self.engine, self.engine.parts["source"]
        assert not source.finished, "the replay was over before the faults were: give it a lower speed"
        os.kill(source.pid, signal.SIGTERM)
        await engine.until(lambda: source.finished, "the source has stopped")
        rest = await engine.start("rest", "replay", *map(str, self._files), "--speed", "max", ends=True)
        for fault in faults:
            await self._while_waiting(fault.after_s)
            self._tell(f"{fault.kind}, under full load")
            await self._do(fault)
        await engine.until(lambda: rest.finished, "the replay is sent", _PATIENCE_S)
        expected = (await self._expected).predictions
        last = newest(expected)
        await engine.until(lambda: self._topic.newest == last, "every tick is predicted", _PATIENCE_S)

    async def _do(self, fault: Fault) -> None:
        busy = [name for name in _WORKERS if self.engine.parts[name].health.get("partitions")] or _WORKERS
        worker = busy[fault.victim % len(busy)]
        session_s = self.engine.settings.session_timeout_s
        actions: dict[Kind, Callable[[], Awaitable[None]]] = {
            Kind.WORKER_KILLED: lambda: self._kill(worker),
            Kind.WORKERS_KILLED: lambda: self._kill(*_WORKERS),
            Kind.WORKER_PAUSED: lambda: self._pause_worker(worker, fault.lasts_s(0.2, 0.6 * session_s)),
            Kind.WORKER_CUT_OFF: lambda: self._pause_worker(
                worker, fault.lasts_s(1.5 * session_s, 2.5 * session_s)
            ),
            Kind.WORKER_ASKED: lambda: self._ask(worker),
            Kind.JOINED_KILLED: lambda: self._join(fault.lasts_s(0.0, 4.0), self._kill),
            Kind.JOINED_ASKED: lambda: self._join(fault.lasts_s(0.0, 4.0), self._ask),
            Kind.BROKER_KILLED: lambda: self._kill_broker(fault.lasts_s(0.0, 4.0)),
            Kind.BROKER_PAUSED: lambda: self._pause(self._broker.pid, fault.lasts_s(0.5, 1.5 * session_s)),
            Kind.BROKER_AND_WORKER_KILLED: lambda: self._kill_broker(fault.lasts_s(0.0, 4.0), worker),
            Kind.REDIS_EXPORTER_KILLED: lambda: self._kill("redis"),
            Kind.CLICKHOUSE_EXPORTER_KILLED: lambda: self._kill("clickhouse"),
            Kind.GATEWAY_KILLED: lambda: self._kill("gateway"),
            Kind.SOURCE_KILLED: lambda: self._kill("source"),
        }
        await actions[fault.kind]()

    @property
    def _broker(self) -> EmbeddedKafka:
        kafka = self.engine.servers.kafka
        assert kafka is not None
        return kafka

    async def _pid(self, name: str) -> int:
        """Return the process of a part, which may be about to be started again."""
        part = self.engine.parts[name]
        await self.engine.until(lambda: part.alive, f"{name} runs")
        return part.pid

    async def _kill(self, *names: str) -> None:
        """Their supervisor starts them again a second later."""
        pids = [await self._pid(name) for name in names]
        for name, pid in zip(names, pids, strict=True):
            self._ended[name] = self._ended.get(name, 0) + 1
            os.kill(pid, signal.SIGKILL)

    async def _ask(self, name: str) -> None:
        part, pid = self.engine.parts[name], await self._pid(name)
        self._ended[name] = self._ended.get(name, 0) + 1
        os.kill(pid, signal.SIGTERM)
        await self.engine.until(lambda: not part.alive or part.pid != pid, f"{name} has stopped")

    async def _pause_worker(self, name: str, seconds: float) -> None:
        await self._pause(await self._pid(name), seconds)

    async def _pause(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)  # looking at its health would wait for an answer
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _join(self, stays_s: float, end: Callable[[str], Awaitable[None]]) -> None:
        await self.engine.start("worker-3", "worker", "--name", "worker-3")
        await self._while_waiting(stays_s)
        await end("worker-3")

    async def _kill_broker(self, away_s: float, *parts: str) -> None:
        await asyncio.to_thread(self._broker.kill)
        await self._kill(*parts)
        await self._while_waiting(away_s)
        starting = asyncio.create_task(asyncio.to_thread(self._broker.start))
        await self.engine.until(starting.done, "the broker serves again", _PATIENCE_S)
        await starting

    async def _while_waiting(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        await self.engine.until(lambda: time.monotonic() >= until_s, f"{seconds:.1f} s are over")

    async def _until_flowing(self, moment_ns: int, flow: str, what: str) -> int:
        source = self.engine.parts["source"]
        flows = self._flows[flow]
        await self.engine.until(
            lambda: source.finished or flows.flows_since(moment_ns) is not None, what, _PATIENCE_S
        )
        flowing_ns = flows.flows_since(moment_ns)
        assert flowing_ns is not None, "the replay was over before the faults were: give it a lower speed"
        return flowing_ns
