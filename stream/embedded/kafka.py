"""Apache Kafka as a child process: one node that is broker and controller, with a small heap.

Where Kafka itself cannot run (no Java 17, its jars neither cached nor to be fetched), Tansu takes its place;
``kind`` and ``degraded_reason`` tell, and the callers of ``start`` show it.
"""

import base64
import logging
import subprocess
import uuid
from pathlib import Path
from typing import ClassVar, Literal

from stream.embedded import ports
from stream.embedded.java import Java, KafkaUnavailable, find_java
from stream.embedded.kafka_jars import KAFKA_VERSION, ensure_jars
from stream.embedded.ports import LOOPBACK, free_port
from stream.embedded.process import Child, Command
from stream.embedded.server import EmbeddedServer, Report
from stream.embedded.tansu import SHORTCOMINGS, tansu_command
from stream.errors import ServerError

logger = logging.getLogger(__name__)

_LOG_CONFIG = Path(__file__).with_name("kafka-log4j2.properties")
_FORMAT_LIMIT_S = 60.0
_READY = "Kafka Server started"  # logged when the broker is registered and unfenced, later than its port is open

_MIB = 1024 * 1024
_SETTINGS: dict[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One node: nothing to replicate to. Few partitions for Kafka's own topics: each costs start time.
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # A broker that was killed is let in again only when its old session is over (9 s by default, and then some).
    "broker.session.timeout.ms": 2_500,
    "broker.heartbeat.interval.ms": 500,
    # Our code creates its topics with the right number of partitions; a mistyped name must fail.
    "auto.create.topics.enable": "false",
    # Groups form at once, and tests may ask for short sessions.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 500,
    "message.max.bytes": 8 * _MIB,
    # Disk is bounded by size alone. By age would delete replayed history at once, as its records carry old times.
    "log.segment.bytes": 32 * _MIB,
    "log.retention.bytes": 256 * _MIB,
    "log.retention.ms": -1,
    "log.retention.check.interval.ms": 30_000,
    "log.segment.delete.delay.ms": 10_000,
    "log.index.size.max.bytes": 1 * _MIB,
    # A heap of 512 MiB: the cleaner's default buffer alone would take 128.
    "log.cleaner.dedupe.buffer.size": 16 * _MIB,
    "log.cleaner.threads": 1,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
}
_JVM = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]


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
        settings = self._write_settings()
        run = _java_command(java, jars)
        self._format(run, settings, report)
        report(f"Apache Kafka {KAFKA_VERSION}: starting on {self.bootstrap} (Java {java.version})")
        return Command([*run, "kafka.Kafka", str(settings)], self.home)

    def _is_ready(self, child: Child) -> bool:
        if self._kind == "tansu":
            return ports.answers(self.port)
        return _READY in child.logged()

    def _write_settings(self) -> Path:
        if self._controller_port == 0:
            self._controller_port = free_port()
        controller = f"{LOOPBACK}:{self._controller_port}"
        own = {
            "listeners": f"BROKER://{self.bootstrap},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": self._log_dir,
        }
        path = self.home / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in (_SETTINGS | own).items()))
        return path

    @property
    def _log_dir(self) -> Path:
        return self.home / "data"

    def _format(self, run: list[str], settings: Path, report: Report) -> None:
        if (self._log_dir / "meta.properties").exists():
            return
        report(f"Apache Kafka {KAFKA_VERSION}: formatting {self._log_dir}")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [
            *run,
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            cluster_id,
            "--config",
            str(settings),
        ]
        try:
            done = subprocess.run(tool, capture_output=True, text=True, timeout=_FORMAT_LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(f"Kafka's storage in {self._log_dir} cannot be formatted: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-1000:]
            raise ServerError(f"Kafka's StorageTool cannot format {self._log_dir}: {said}")


def _java_command(java: Java, jars: Path) -> list[str]:
    # One by one and sorted: with a wildcard the order would be the file system's.
    class_path = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
    logging_options = [f"-Dlog4j2.configurationFile={_LOG_CONFIG.as_uri()}"]
    return [str(java.command), *_JVM, *logging_options, "-cp", class_path]
