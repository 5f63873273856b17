import dataclasses

import pytest

from models.night import Night
from models.promotion import ModelsTopic
from stream.errors import RecordError

NIGHT = Night("2026-11-25", 2, "worker-1", "running", "train", "", 17)


def test_a_night_comes_back_as_it_was() -> None:
    assert Night.from_json(NIGHT.to_json()) == NIGHT


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        NIGHT.to_json().replace(b"running", b"asleep"),
        NIGHT.to_json().replace(b'"attempt": 2', b'"attempt": "2"'),
    ],
)
def test_what_is_no_night_is_refused_with_what_was_seen(raw: bytes) -> None:
    with pytest.raises(RecordError, match="is no night"):
        Night.from_json(raw)


def test_the_highest_attempt_counts_whatever_a_worker_that_was_cut_off_says_later() -> None:
    said = ModelsTopic()
    done = dataclasses.replace(NIGHT, state="done")
    for night in (NIGHT, done, dataclasses.replace(NIGHT, attempt=1, worker="worker-0")):
        said.take(night.key.encode(), night.to_json())
    assert said.nights == {"2026-11-25": done}
    assert said.refused == 0
