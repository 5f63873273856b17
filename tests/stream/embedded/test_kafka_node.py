"""One Kafka node: what Kafka reads must be what we meant."""

import uuid
from pathlib import Path

import pytest

from stream.embedded.java import find_java
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.kafka_archive import archive_options
from stream.embedded.kafka_jars import ensure_jars
from stream.embedded.kafka_node import KafkaNode


def test_storage_can_be_formatted_whatever_the_cluster_is_called(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its base64 form is "-_-_-...": begins like an option.
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=bytes([0xFB, 0xFF, 0xBF]) * 5 + b"\xfb"))
    java, jars = find_java(), ensure_jars(print)
    node = KafkaNode(tmp_path, 1, 2, java, jars)
    node.command(archive_options(java, jars, print))
    assert "cluster.id=-_-_-" in (tmp_path / "data" / "meta.properties").read_text()
