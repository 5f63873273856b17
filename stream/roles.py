"""How a role runs: until it is done, or until it is asked to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


def run_until_stopped(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a role until it is done, or until SIGTERM or Ctrl-C asks it to stop cleanly."""
    import uvloop

    from stream.kafka_loops import use_lean_clients
    from stream.scheduling import yield_to_no_waker

    use_lean_clients()
    yield_to_no_waker()

    async def supervised() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    uvloop.run(supervised())
