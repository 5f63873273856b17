"""Ending a Kafka consumer completely, whether its broker answers or not."""

import asyncio
from typing import Any, Final

_PATIENCE_S: Final = 5.0  # for leaving the group; the broker notices in the end without being told


async def end_consumer(consumer: Any) -> None:
    """End a consumer of aiokafka, started or not, and close its connections.

    What goes wrong is nobody's business any more: nothing is raised but the cancellation of the caller itself.
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=_PATIENCE_S)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
        # While a broker is away, aiokafka 0.14 stumbles over its own cancelled fetches: `stop` raises
        # CancelledError, which would end whoever waits for it, and leaves the connections open.
        stopping.cancel()
        await consumer._client.close()  # noqa: SLF001
