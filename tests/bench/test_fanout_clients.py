import numpy as np
import pytest

from bench.fanout_clients import _BUCKETS, _bucket, _upper_ns, percentiles
from bench.fanout_rows import FIRST_SEQ, layout, messages_of, rows_of


@pytest.mark.parametrize(
    "latency_ns", [1, 1_024, 100_000, 262_143, 262_144, 5_000_000, 123_456_789, 40_000_000_000]
)
def test_a_latency_is_kept_to_one_per_cent(latency_ns: int) -> None:
    upper_ns = _upper_ns(_bucket(latency_ns))
    assert latency_ns <= upper_ns <= latency_ns * 1.01 + 1_024


def test_percentiles_are_those_of_what_was_counted() -> None:
    buckets = np.zeros(_BUCKETS, np.int64)
    for latency_us in range(1, 1001):
        buckets[_bucket(latency_us * 1000)] += 1
    found = percentiles(buckets)
    assert found["p50"] == pytest.approx(500, rel=0.02)
    assert found["p99"] == pytest.approx(990, rel=0.02)
    assert found["max"] == pytest.approx(1000, rel=0.02)
    assert percentiles(np.zeros(_BUCKETS, np.int64)) == {}


def test_the_numbers_stand_where_the_layout_says() -> None:
    places = layout()
    rows = rows_of(
        12_345, 3, np.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 1_700_000_000_000_000_003])
    )
    for row, text in zip(rows, messages_of(rows), strict=True):
        item = text[places.head : len(text) - places.tail]
        assert len(item) == places.item
        assert item[places.symbol : places.symbol + 2] == row["symbol"].decode()[3:]
        assert int(item[places.seq : places.seq + 7]) == row["seq"] > FIRST_SEQ
        assert int(item[places.published : places.published + 19]) == row["published_ns"]
