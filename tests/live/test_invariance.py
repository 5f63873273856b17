"""A whole real day gives the same bytes, however its ticks were cut into blocks and dealt to partitions."""

from pathlib import Path

import numpy as np
import pytest
from live_oracle import real_ticks

from agents.lane import Lane
from agents.windows import Windows
from models.predictor import load_predictor
from stream.clock import NS_PER_S
from stream.records import PREDICTION, PREDICTION_CONTENT_BYTES, Records, partition_of
from stream.settings import Settings

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def day(shared_data: Path) -> Records:
    """AIG, BAC and SPY, trades and quotes, merged by time."""
    ticks = real_ticks(sorted((shared_data / "ticks" / "us_equity").glob("*_20131007.parquet")))
    assert len(ticks) > 1_100_000
    return ticks


def contents(ticks: Records, block: int, partitions: int) -> np.ndarray:
    """Return what was predicted, ``uint8[N, content bytes]``, by symbol and seq."""
    settings = Settings()
    limits = int(settings.lateness_s * NS_PER_S), int(settings.future_s * NS_PER_S)
    owners = partition_of(ticks["symbol"], partitions)
    predictions, made = np.zeros(len(ticks), PREDICTION), 0
    for number in range(partitions):
        mine = ticks[owners == number]
        windows = Windows(*limits, 64, partition=number, partitions=partitions)
        lane = Lane(number, windows, load_predictor(settings.model))
        for start in range(0, len(mine), block):
            some = lane.apply([(start, mine[start : start + block])]).predictions
            predictions[made : made + len(some)] = some
            made += len(some)
    predictions = predictions[:made]
    order = np.lexsort((predictions["seq"], predictions["symbol"]))
    raw = predictions.view(np.uint8).reshape(len(predictions), PREDICTION.itemsize)
    return raw[order][:, PREDICTION_CONTENT_BYTES]


@pytest.fixture(scope="module")
def expected(day: Records) -> np.ndarray:
    """What comes of the day in large blocks and one partition."""
    made = contents(day, 4096, 1)
    assert len(made) == len(day) - 94  # crossed quotes
    return made


@pytest.mark.parametrize(("block", "partitions"), [(512, 4), (7, 4), (7, 1), (1, 4)])
def test_a_day_is_the_same_bytes_for_every_cut_and_number_of_partitions(
    day: Records, expected: np.ndarray, block: int, partitions: int
) -> None:
    assert np.array_equal(contents(day, block, partitions), expected)
