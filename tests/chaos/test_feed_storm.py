"""The short version of the feed's storm in `make chaos`: gateways are killed while clients listen to them."""

import secrets
from pathlib import Path

import pytest
from feed_storm import SHORT, FeedStorm, Witness

from exporters.client import Gap, Reset

pytestmark = pytest.mark.timeout(600)


async def test_gateways_are_killed_and_every_client_gets_everything(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"repeat it with: tests/chaos/feed_run.py --short --seed {seed}")
    report = await FeedStorm(tmp_path, clients=30, of_two=5, seed=seed, tell=print).run(SHORT)
    assert report.lost == []
    # Kafka has everything and memory most of it: nobody had to be told of a loss.
    assert (report.told, report.told_of_two) == (0, 0)
    assert report.kills == len(SHORT)
    # Each client alone lost its gateway once, each of both gateways twice; but for one that was not in yet by then.
    assert report.connections > 30 + 2 * 5 + 30


def test_a_witness_sees_what_is_missing_and_what_was_told() -> None:
    witness = Witness("ws://nowhere/feed")
    for symbol, seq in (("A", 3), ("A", 4), ("A", 6)):
        witness._follow(symbol, seq)
    assert witness.lost == ["A: 6 came after 4"]
    witness.take(Reset("prediction", ("A",), "gone"))
    witness._follow("A", 9)
    assert len(witness.lost) == 1
    witness.take(Gap("prediction", "A", 9, 11))
    assert len(witness.lost) == 2
