"""The process that runs the simulated market on our clock and publishes it to Kafka.

Simulated time passes as fast as ours, and ``event_ns`` is simulated time shifted to now. A market that was stopped
goes on where it was, at its last prices; for the time between there are no ticks, so the shift grows by it.

Its state is written to ``<data_dir>/simulator.npz`` every few seconds, always *after* Kafka has acknowledged every
tick up to it. After a crash the ticks behind the last checkpoint are made again, the same to the bit, and those
that Kafka holds already are left out (`resume`). Without the file, or with another seed, rate or number of symbols,
a new market with a new ``stream_id`` opens.
"""

import asyncio
import contextlib
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stream.clock import Clock, wall_ns
from stream.errors import InvariantError
from stream.settings import Settings
from stream.sources.delivery import Delivery, Progress
from stream.sources.pacing import Pace
from stream.sources.simulator import Simulator, symbol_names
from stream.topics import TICKS

logger = logging.getLogger(__name__)

_CHECKPOINT_NAME: Final = "simulator.npz"
# What has to be made again after a crash; the pause for a checkpoint is a round trip to Kafka.
_CHECKPOINT_NS: Final = 10 * 1_000_000_000
# Room for the ticks of one step: a burst that does not fit is taken in more steps.
_LEAST_ROOM: Final = 64
_MOST_ROOM: Final = 8_192
_STEP_S: Final = 0.004


@dataclass
class _Market:
    """A simulator, and how far its time is behind ours."""

    simulator: Simulator
    shift_ns: int


async def run_simulator(
    settings: Settings,
    bootstrap: str,
    stop: asyncio.Event,
    *,
    symbols: int = 16,
    seed: int = 1,
    rate_per_s: float = 2_000.0,
    port: int = 0,
    progress: Progress | None = None,
    topic: str = TICKS,
    clock: Clock = wall_ns,
) -> dict[str, Any]:
    """Run the simulated market until ``stop``; return the last figures.

    Args:
        settings: data directory, partitions, linger, host.
        bootstrap: ``HOST:PORT[,HOST:PORT]`` of the brokers.
        stop: ends it; what was accepted is acknowledged before it returns.
        symbols: how many, 1 to 10,000.
        seed: of the market.
        rate_per_s: ticks of all symbols in a second, in the long run.
        port: of ``/metrics`` and ``/health``; 0 picks a free one.
        progress: called with the figures about once a second, and at the end.
        topic: that ticks go to.
        clock: what time it is.

    Raises:
        SettingsError: a number is out of bounds.
        SinkUnavailable: stopped while Kafka was away.
        SinkRejected: Kafka will never take the ticks.
    """
    path = settings.data_dir / _CHECKPOINT_NAME
    market = _open_market(path, symbols, seed, rate_per_s, clock())
    simulator = market.simulator
    stream_id = simulator.stream_id
    delivery = Delivery(
        settings, bootstrap, "simulator", stop, stream_id=stream_id, port=port, progress=progress, topic=topic
    )
    delivery.details = lambda: {"regime": simulator.regime, "symbols": len(simulator.symbols)}
    async with delivery:
        known = int(delivery.already_there.max())
        market.shift_ns = max(market.shift_ns, clock() - _time_after(market.simulator, known))
        # Before the first tick: a crash must find the market that the ticks are of.
        await asyncio.to_thread(_save, path, market)
        await _run(delivery, market, path, known, clock)
        await delivery.finish("stopped")
        await asyncio.to_thread(_save, path, market)
        return delivery.figures()


async def _run(delivery: Delivery, market: _Market, path: Path, known: int, clock: Clock) -> None:
    simulator = market.simulator
    room = int(min(max(_LEAST_ROOM, simulator.rate_per_s * _STEP_S), _MOST_ROOM))
    while simulator.position < known:
        await _send(delivery, market, simulator.chunk(min(_MOST_ROOM, known - simulator.position)), clock)
    pace = Pace(clock() - market.shift_ns)
    saved_ns = clock()
    while not delivery.stop.is_set():
        ticks = simulator.until(pace.due_ns(), room)
        if len(ticks):
            delivery.behind_s = pace.behind_s(int(ticks["event_ns"][-1]))
            await _send(delivery, market, ticks, clock)
        if len(ticks) < room:
            await pace.wait_for(simulator.next_ns)
        if clock() - saved_ns > _CHECKPOINT_NS:
            await delivery.settle()
            await asyncio.to_thread(_save, path, market)
            saved_ns = clock()


async def _send(delivery: Delivery, market: _Market, ticks: Any, clock: Clock) -> None:
    ticks["event_ns"] += market.shift_ns
    ticks["recv_ns"] = clock()
    await delivery.send(delivery.without_known(ticks))


def _time_after(simulator: Simulator, position: int) -> int:
    """Return the simulated time at which a market goes on after ``position``; the simulator itself stays."""
    snapshot = simulator.snapshot()
    while simulator.position < position:
        simulator.chunk(min(_MOST_ROOM, position - simulator.position))
    now_ns = simulator.next_ns
    simulator.restore(snapshot)
    return now_ns


def _open_market(path: Path, symbols: int, seed: int, rate_per_s: float, now_ns: int) -> _Market:
    """Return the market of the checkpoint where it is the one that is asked for, else a new one."""
    names = symbol_names(symbols)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            simulator = Simulator(names, seed, int(saved["start_ns"]), rate_per_s)
            if int(saved["stream_id"]) == simulator.stream_id:
                simulator.restore(saved)
                logger.info("simulated market %08x goes on at tick %d", simulator.stream_id, simulator.position)
                return _Market(simulator, int(saved["shift_ns"]))
            logger.info("%s is of another market: a new one opens", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, InvariantError) as error:
        logger.warning("%s cannot be used, a new market opens: %r", path, error)
    return _Market(Simulator(names, seed, now_ns, rate_per_s), 0)


def _save(path: Path, market: _Market) -> None:
    """Replace the checkpoint; a crash leaves the old one or the new one."""
    simulator = market.simulator
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    try:
        with draft.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                stream_id=np.uint32(simulator.stream_id),
                start_ns=np.int64(simulator.start_ns),
                shift_ns=np.int64(market.shift_ns),
                **simulator.snapshot(),
            )
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        # A full disk must not stop the market: the older checkpoint is good, only further back.
        logger.warning("no checkpoint of the simulated market in %s: %s", path, error)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
