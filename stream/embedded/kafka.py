"""Apache Kafka as a child process: one node that is broker and controller, with a small heap.

Where Kafka itself cannot run (no Java 17, its jars neither cached nor to be fetched), Tansu takes its place;
``kind`` and ``degraded_reason`` tell, and the callers of ``start`` show it.
"""

from pathlib import Path
from typing import ClassVar, Literal

from stream.embedded import ports
from stream.embedded.java import KafkaUnavailable, find_java
from stream.embedded.kafka_archive import archive_options
from stream.embedded.kafka_jars import KAFKA_VERSION, ensure_jars
from stream.embedded.kafka_node import KafkaNode, has_started
from stream.embedded.ports import LOOPBACK, free_port
from stream.embedded.process import Child, Command
from stream.embedded.server import EmbeddedServer, Report
from stream.embedded.tansu import SHORTCOMINGS, tansu_command


class EmbeddedKafka(EmbeddedServer):
    """One Kafka node on the loopback interface; keeps its topics and offsets in ``<data_dir>/kafka``."""

    name: ClassVar[str] = "kafka"
    ready_within_s: ClassVar[float] = 90.0
    stops_within_s: ClassVar[float] = 20.0

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        super().__init__(data_dir, port)
        self._controller_port = 0
        self._kind: Literal["kafka", "tansu"] = "kafka"
        self._degraded_reason: str | None = None

    @property
    def bootstrap(self) -> str:
        """What a client is given: ``127.0.0.1:PORT``."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def kind(self) -> Literal["kafka", "tansu"]:
        """Which broker runs: Apache Kafka, or the stand-in."""
        return self._kind

    @property
    def degraded_reason(self) -> str | None:
        """Why it is not Apache Kafka and what that costs, in words for the user; None for the real one."""
        return self._degraded_reason

    def _command(self, report: Report) -> Command:
        try:
            java = find_java()
            jars = ensure_jars(report)
        except KafkaUnavailable as error:
            self._kind = "tansu"
            self._degraded_reason = f"Apache Kafka cannot run here ({error}); {SHORTCOMINGS}"
            report(f"WARNING: {self._degraded_reason}")
            return tansu_command(self.home, self.port)
        self._kind, self._degraded_reason = "kafka", None
        if self._controller_port == 0:
            self._controller_port = free_port()
        options = archive_options(java, jars, report)
        report(f"Apache Kafka {KAFKA_VERSION}: starting on {self.bootstrap} (Java {java.version})")
        return KafkaNode(self.home, self.port, self._controller_port, java, jars).command(options)

    def _is_ready(self, child: Child) -> bool:
        if self._kind == "tansu":
            return ports.answers(self.port)
        return has_started(child)
