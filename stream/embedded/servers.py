"""The embedded servers that a run needs, started side by side and stopped in reverse order."""

from pathlib import Path
from types import TracebackType
from typing import Self

from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.server import EmbeddedServer, Report, report_to_log
from stream.embedded.valkey import EmbeddedValkey


class EmbeddedServers:
    """Kafka, ClickHouse and Redis below one data directory, on free ports; those not wanted are None.

    Args:
        data_dir: the directory below which they keep their data and logs.
        kafka: whether to run Kafka.
        clickhouse: whether to run ClickHouse.
        redis: whether to run Valkey, the Redis server.
    """

    def __init__(self, data_dir: Path, *, kafka: bool = True, clickhouse: bool = True, redis: bool = True) -> None:
        self.kafka = EmbeddedKafka(data_dir) if kafka else None
        self.clickhouse = EmbeddedClickHouse(data_dir) if clickhouse else None
        self.redis = EmbeddedValkey(data_dir) if redis else None

    def start(self, report: Report = report_to_log) -> Self:
        """Start them all and wait until all serve. Blocks; may be called from any thread.

        Raises:
            ServerError: one did not start; the others are stopped again.
        """
        servers = self._in_order()
        try:
            for server in servers:
                server.launch(report)
            for server in servers:
                server.await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop them in reverse order."""
        for server in reversed(self._in_order()):
            server.stop()

    def revive(self, report: Report = report_to_log) -> None:
        """Start those again that have died, on the same ports and data.

        Raises:
            ServerError: one did not come back.
        """
        for server in self._in_order():
            if not server.alive():
                report(f"the embedded {server.name} has died and is started again; see {server.log_path}")
                server.restart(report)

    def alive(self) -> bool:
        """Whether every one of them runs."""
        return all(server.alive() for server in self._in_order())

    def __enter__(self) -> Self:
        return self if self.alive() else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _in_order(self) -> list[EmbeddedServer]:
        # Kafka last: its launch may have to fetch and format first, and the others start meanwhile.
        return [server for server in (self.redis, self.clickhouse, self.kafka) if server is not None]
