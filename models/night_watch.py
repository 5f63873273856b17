"""Each night one retraining, in a process of its own, however many workers there are.

Every worker hears the clock. The leader claims the night at once; another one does where nobody has after a
while, so that a night is not lost to a rebalance. To claim is to make a file in the registry, which one of
several can. Who has the night tells the topic ``models`` how far it is, again and again. Once it is silent the
next one claims the next attempt, which goes on with what it finds in its ``DATA_DIR/retrain/NIGHT``, and the old
owner, should it still be there, sees that and lets go. Two that ran at the same time would still not promote
both: `models.retrain` promotes only over the champion that it judged against.
"""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from agents.model_metrics import ModelMetrics
from models.journal import read_journal
from models.night import Night, State
from models.promotion import send_models
from models.registry import Registry
from stream.clock import Clock, wall_ns
from stream.errors import InvariantError, ModelError, ServerError, SettingsError, TickloomError
from stream.telemetry import Health

logger = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 10
_END_S: Final = 5.0  # what a child gets to end by itself
_TOO_OLD_NS: Final = 20 * 3600 * 1_000_000_000  # the next night is near
_FINAL_CODES: Final = frozenset(each.exit_code for each in (SettingsError, ModelError, InvariantError))
_LAUNCHER: Final = Path(__file__).resolve().parent.parent / "stream" / "embedded" / "launcher.py"


@dataclass(frozen=True)
class Job:
    """How a night's retraining is run."""

    command: Callable[[str], Sequence[str]]  # for a night: the process to start
    environment: Mapping[str, str]
    folder: Path  # of the runs
    beat_s: float = 10.0  # how often it is told how far it is
    silence_s: float = 60.0  # after which another worker goes on with it


class NightWatch:
    """One worker's part in it. ``async with`` watches."""

    def __init__(
        self,
        job: Job,
        nights: Callable[[], Mapping[str, Night]],
        registry: Registry,
        bootstrap: str,
        worker: str,
        health: Health,
        metrics: ModelMetrics,
        clock: Clock = wall_ns,
    ) -> None:
        """Make it; nothing is started yet.

        Args:
            job: how a retraining is run.
            nights: returns what the topic says now.
            registry: where nights are claimed: all workers have the same.
            bootstrap: brokers.
            worker: this one's name.
            health: where it is told that nobody watches any more.
            metrics: where a night that failed is told: no lane does worse for it, so that the worker stays healthy.
            clock: of now.
        """
        self._job, self._nights, self._registry = job, nights, registry
        self._bootstrap, self._worker, self._clock = bootstrap, worker, clock
        self._health, self._metrics = health, metrics
        self._due: dict[str, float] = {}  # night -> when to claim it, monotonic
        self._seen: dict[str, tuple[Any, float]] = {}  # night -> what was there, and since when, monotonic
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="nights")
        self._task.add_done_callback(self._on_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching, and a retraining that runs: whoever comes next goes on with it."""
        assert self._task is not None  # noqa: S101  (entered)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def due(self, night: str, is_leader: bool) -> None:
        """Say that a night's retraining is due: at once for the leader, for others only if nobody takes it."""
        self._due.setdefault(night, time.monotonic() + (0.0 if is_leader else self._job.silence_s))

    def figures(self) -> dict[str, Any]:
        """Return what `/health` tells: the newest night."""
        nights = self._nights()
        return {} if not nights else {"retrain": vars(nights[max(nights)])}

    async def _watch(self) -> None:
        while True:
            try:
                for night in self._candidates():
                    attempt = await self._free_attempt(night)
                    if attempt is not None and await asyncio.to_thread(
                        self._registry.claim_night, night, attempt, self._worker
                    ):
                        await self._retrain(night, attempt)
                nights = self._nights()
                self._metrics.night_failed = bool(nights) and nights[max(nights)].state in ("failed", "waiting")
            except (TickloomError, OSError) as error:
                self._metrics.night_failed = True
                logger.error("cannot look after nights: %s", error)
            await asyncio.sleep(self._job.beat_s / 5)

    def _candidates(self) -> list[str]:
        """Nights that may need somebody: those due, and the newest that the topic tells of."""
        nights = self._nights()
        for night in [night for night in self._due if night in nights]:
            del self._due[night]
        due = [night for night, at_s in self._due.items() if time.monotonic() >= at_s]
        newest = [max(nights)] if nights else []
        recent = [night for night in newest if self._clock() - nights[night].at_ns < _TOO_OLD_NS]
        return due + [night for night in recent if not nights[night].is_over]

    async def _free_attempt(self, night: str) -> int | None:
        """Return the attempt that is to be claimed now, if any."""
        attempts, is_done = await asyncio.to_thread(self._registry.attempts, night)
        told = self._nights().get(night)
        if is_done:
            self._due.pop(night, None)
            return None
        if attempts == 0:
            return 1
        mark = (attempts, told)
        before, since_s = self._seen.get(night, (None, 0.0))
        if mark != before:
            self._seen[night] = (mark, time.monotonic())
            since_s = time.monotonic()
        is_left = told is not None and told.state == "stopped" and told.attempt == attempts
        if is_left or time.monotonic() - since_s > self._job.silence_s:
            return attempts + 1
        return None

    async def _retrain(self, night: str, attempt: int) -> None:
        self._due.pop(night, None)
        if attempt > MOST_ATTEMPTS:
            await self._close(night, attempt, "failed", f"given up after {MOST_ATTEMPTS} attempts")
            return
        logger.info("night %s: retraining, attempt %d", night, attempt)
        folder = self._job.folder / night
        folder.mkdir(parents=True, exist_ok=True)
        child = await self._start(night, folder / "log.txt")
        try:
            is_mine = await self._accompany(child, night, attempt)
        finally:
            # By whatever this ends: nobody is left who looks after the child.
            await self._end(child)
            if child.returncode != 0 and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await self._tell(night, attempt, "stopped", f"{self._worker} was stopped")
        if is_mine:
            await self._conclude(child.returncode, night, attempt, folder)

    async def _start(self, night: str, log: Path) -> asyncio.subprocess.Process:
        with log.open("ab") as file:
            # It dies with this process, however that ends: two in one folder would be in each other's way.
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())),
                *self._job.command(night),
                env={**os.environ, **self._job.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    async def _accompany(self, child: asyncio.subprocess.Process, night: str, attempt: int) -> bool:
        """Tell how far it is until it ends; return False where the night is another worker's by now."""
        heard_s = time.monotonic()
        while child.returncode is None:
            if await self._tell(night, attempt, "running", ""):
                heard_s = time.monotonic()
            told = self._nights().get(night)
            if told is not None and told.attempt > attempt:
                logger.warning("night %s: %s has it by now", night, told.worker)
                return False
            if time.monotonic() - heard_s > self._job.silence_s:
                logger.warning("night %s: nobody can hear how far it is, so that another may have it", night)
                return False
            try:
                async with asyncio.timeout(self._job.beat_s):
                    await child.wait()
            except TimeoutError:
                continue
        return True

    async def _conclude(self, code: int | None, night: str, attempt: int, folder: Path) -> None:
        if code == 0:
            end = read_journal(folder)["steps"].get("end", {})
            await self._close(night, attempt, "done", f"{end.get('outcome')}: {end.get('reason')}")
        elif code in _FINAL_CODES:
            await self._close(night, attempt, "failed", f"exit code {code}: {_last_line(folder)}")
        elif code is not None and code < 0:
            await self._tell(night, attempt, "stopped", f"ended by signal {-code}")
        else:
            await self._tell(night, attempt, "waiting", f"exit code {code}: {_last_line(folder)}")

    async def _close(self, night: str, attempt: int, state: State, reason: str) -> None:
        await asyncio.to_thread(self._registry.close_night, night, self._worker)
        logger.log(logging.INFO if state == "done" else logging.ERROR, "night %s: %s: %s", night, state, reason)
        while not await self._tell(night, attempt, state, reason):
            await asyncio.sleep(self._job.beat_s)

    async def _tell(self, night: str, attempt: int, state: State, reason: str) -> bool:
        step = next(reversed(read_journal(self._job.folder / night)["steps"]), "")
        news = Night(night, attempt, self._worker, state, step, reason, self._clock())
        sending = asyncio.create_task(send_models(self._bootstrap, [(news.key, news.to_json())]))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            # aiokafka forgets connections that it was just making; it gives up by itself where no broker answers.
            await asyncio.gather(sending, return_exceptions=True)
            raise
        except ServerError as error:
            logger.warning("night %s: %s", night, error)
            return False
        return True

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is not None:
            return
        child.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._health.fail("retrain", f"nobody looks after nights: {task.exception()!r}; start the worker again")


def _last_line(folder: Path) -> str:
    lines = (folder / "log.txt").read_text("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
