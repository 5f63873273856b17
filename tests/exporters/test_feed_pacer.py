"""When the feed sends: at once when it is idle, in portions when it works hard."""

import asyncio
import time

import pytest

from exporters.feed_pacer import FLUSH_EVERY_S, Rest


async def rest_after(worked_s: float) -> float:
    rest = Rest()
    rest.begin()
    time.sleep(worked_s)  # noqa: ASYNC251
    began_s = asyncio.get_running_loop().time()
    await rest.end()
    return asyncio.get_running_loop().time() - began_s


async def test_an_idle_feed_takes_no_rest() -> None:
    assert min([await rest_after(0.0) for _ in range(5)]) < 0.0005


async def test_a_busy_one_rests_as_long_as_it_worked() -> None:
    # The shortest of some: a busy machine only makes a rest longer.
    assert 0.002 <= min([await rest_after(0.003) for _ in range(5)]) < 0.02


@pytest.mark.parametrize("worked_s", [FLUSH_EVERY_S, 3 * FLUSH_EVERY_S])
async def test_one_that_works_all_the_time_takes_none(worked_s: float) -> None:
    assert min([await rest_after(worked_s) for _ in range(5)]) < 0.002
