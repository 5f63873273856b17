"""The class archive: Java takes it, and its absence harms nothing."""

import subprocess
from pathlib import Path

import pytest

from stream.embedded.java import KafkaUnavailable, find_java
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.kafka_archive import archive_options
from stream.embedded.kafka_jars import ensure_jars
from stream.embedded.kafka_node import KafkaNode


def test_the_java_that_runs_kafka_accepts_the_archive(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    java, jars = find_java(), ensure_jars(print)
    options = archive_options(java, jars, print)
    assert [option.split("=")[0] for option in options] == ["-XX:SharedArchiveFile", "-Xshare:auto"]
    node = KafkaNode(tmp_path, 1, 2, java, jars)
    # Unlike "auto", "on" refuses to run with an archive that does not fit.
    checked = [*node._java([options[0], "-Xshare:on"]), "-version"]
    assert subprocess.run(checked, capture_output=True, check=False).returncode == 0


def test_an_archive_that_could_not_be_made_is_not_tried_again(tmp_path: Path) -> None:
    try:
        java = find_java()
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    (tmp_path / f"classes-{java.build}.jsa").touch()
    assert archive_options(java, tmp_path, pytest.fail) == []
