"""How a role runs: until it is done, or until it is asked to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

_STARTED_WITHIN_S: Final = 5.0  # most roles; those that take longer see to their garbage themselves


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a role until it is done, or until SIGTERM or Ctrl-C asks it to stop cleanly."""
    import uvloop

    from stream.garbage import freeze_garbage
    from stream.kafka_loops import use_lean_clients
    from stream.scheduling import yield_to_no_waker

    use_lean_clients()
    yield_to_no_waker()

    async def supervised() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.call_later(_STARTED_WITHIN_S, freeze_garbage)
        await main(stop)

    uvloop.run(supervised())
