import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from exporters.feed_tail import Tail
from stream.settings import Settings


@pytest.mark.parametrize("steps", range(6))
async def test_the_watch_ends_when_it_is_cancelled_just_as_its_answer_comes(steps: int) -> None:
    answer: asyncio.Future[dict[Any, int]] = asyncio.get_running_loop().create_future()

    async def end_offsets(_: Any) -> dict[Any, int]:
        return await asyncio.shield(answer)

    nothing: Any = None
    tail = Tail(Settings(), ["predictions"], nothing, nothing, nothing, nothing)
    tail._consumer = SimpleNamespace(end_offsets=end_offsets)
    watch = asyncio.create_task(tail._watch([]))
    await asyncio.sleep(0.01)
    answer.set_result({})
    for _ in range(steps):
        await asyncio.sleep(0)
    watch.cancel()
    await asyncio.wait({watch}, timeout=2)
    ended = watch.done()
    watch.cancel()
    assert ended
