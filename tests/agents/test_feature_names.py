"""What features are called: told by workers, read by whoever reads rows."""

import hashlib

import pytest

from agents.feature_names import names_id, read_catalogues, tell_names
from agents.features import NAMES, catalogue, names
from agents.periods import DEFAULT, Periods
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.errors import ServerError
from stream.topics import create_topics


def test_an_id_is_that_of_the_names_in_their_order() -> None:
    assert names_id(["a", "b"]) == int.from_bytes(hashlib.sha256(b"a\nb").digest()[:8], "little")
    assert len({names_id(each) for each in (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "c"])}) == 5


def test_rows_that_were_published_keep_their_names() -> None:
    assert names_id(NAMES) == 0x487697362DC57634


async def test_what_was_told_is_read_however_often_it_was(kafka: EmbeddedKafka) -> None:
    await create_topics(kafka.bootstrap, 4, 1, 24.0)  # as every test that shares this broker does
    others = Periods(tick_rsi=21)
    for periods in (DEFAULT, others, DEFAULT):
        await tell_names(kafka.bootstrap, periods)
    found = await read_catalogues(kafka.bootstrap)
    assert found[names_id(NAMES)] == catalogue(DEFAULT)
    assert found[names_id(names(others))] == catalogue(others)


async def test_that_nobody_takes_the_names_is_said() -> None:
    with pytest.raises(ServerError, match="did not take the names"):
        await tell_names(f"127.0.0.1:{free_port()}", DEFAULT)
