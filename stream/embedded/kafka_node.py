"""One Apache Kafka node: its settings, its Java command, its storage. Knows no life cycle; see ``kafka.py``."""

import base64
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from stream.embedded.java import Java
from stream.embedded.ports import LOOPBACK
from stream.embedded.process import Child, Command
from stream.errors import ServerError

_LOG_CONFIG = Path(__file__).with_name("kafka-log4j2.properties")
_FORMAT_LIMIT_S = 60.0

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
    # By default two records a second, each flushed to disk, by which other controllers notice that they lag.
    "metadata.max.idle.interval.ms": 5_000,
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
# A collector that works beside the broker: the simple one stopped it for 10 to 20 ms twice a second, and that was
# the slowest hundredth of all ticks. A build of Java without it chooses one itself. The first compiler only: quick
# to start; the second makes the broker quicker after half a minute in which it makes it slower.
_JVM = ["-Xms128m", "-Xmx512m", "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UseShenandoahGC"]
_JVM += ["-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"]
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}  # or else Java cannot open a path with letters outside ASCII


@dataclass(frozen=True)
class KafkaNode:
    """One node that is broker and controller, on the loopback interface.

    Args:
        home: its directory; the topics go to ``data`` below it.
        port: where clients connect.
        controller_port: where the node talks to itself.
        java: the Java to run it with.
        jars: the directory with Kafka's jars.
    """

    home: Path
    port: int
    controller_port: int
    java: Java
    jars: Path

    def command(self, jvm_options: list[str]) -> Command:
        """Write the settings, format the storage if that was never done, and say what to run.

        Args:
            jvm_options: options for the Java machine besides the usual ones.

        Raises:
            ServerError: the storage cannot be formatted.
        """
        settings = self._write_settings()
        java = self._java(jvm_options)
        if not (self._log_dir / "meta.properties").exists():
            self._format(java, settings)
        return Command([*java, "kafka.Kafka", str(settings)], self.home, _ENVIRONMENT)

    @property
    def _log_dir(self) -> Path:
        return self.home / "data"

    def _write_settings(self) -> Path:
        if "," in str(self._log_dir):
            raise ServerError(
                f"Kafka cannot keep its data in {self._log_dir}: the path has a comma; choose another"
            )
        controller = f"{LOOPBACK}:{self.controller_port}"
        own = {
            "listeners": f"BROKER://{LOOPBACK}:{self.port},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": self._log_dir,
        }
        path = self.home / "server.properties"
        lines = [f"{key}={_escaped(str(value))}\n" for key, value in (_SETTINGS | own).items()]
        path.write_text("".join(lines), encoding="ascii")
        return path

    def _java(self, jvm_options: list[str]) -> list[str]:
        # One by one and sorted: with a wildcard the order would be the file system's.
        class_path = ":".join(str(jar) for jar in sorted(self.jars.glob("*.jar")))
        logging_option = f"-Dlog4j2.configurationFile={_LOG_CONFIG.as_uri()}"
        return [str(self.java.command), *_JVM, *jvm_options, logging_option, "-cp", class_path]

    def _format(self, java: list[str], settings: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=", since an id may begin with "-" and would be taken for an option.
        options = [f"--cluster-id={cluster_id}", f"--config={settings}"]
        tool = [*java, "kafka.tools.StorageTool", "format", *options]
        try:
            done = subprocess.run(
                tool,
                env=os.environ | _ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=_FORMAT_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(f"Kafka's storage in {self._log_dir} cannot be formatted: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-1000:]
            raise ServerError(f"Kafka's StorageTool cannot format {self._log_dir}: {said}")


def _escaped(value: str) -> str:
    r"""As a Java properties file wants it: in Latin-1 at most, the rest as \uXXXX in UTF-16."""
    units = value.encode("utf-16-be")
    numbers = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(n) if 32 <= n < 127 and n != ord("\\") else f"\\u{n:04x}" for n in numbers)


def has_started(child: Child) -> bool:
    """Whether this node says that it serves: registered and unfenced, which is later than its port is open."""
    return "Kafka Server started" in child.logged()
