"""ClickHouse as a child process: the real server out of the ``chdb-core`` wheel, on native TCP and HTTP."""

import contextlib
import html
import http.client
import sys
from pathlib import Path
from typing import ClassVar

from stream.embedded import ports
from stream.embedded.ports import LOOPBACK, free_port
from stream.embedded.process import Child, Command
from stream.embedded.server import EmbeddedServer, Report

_CHILD = Path(__file__).with_name("clickhouse_child.py")
_CONFIG = """<clickhouse>
    <default_database>scratch</default_database>
    <tcp_port>{tcp_port}</tcp_port>
    <http_port>{http_port}</http_port>
    <listen_host>127.0.0.1</listen_host>
    <users_config>users.xml</users_config>
    <!-- At the top level: this engine ignores logger/level and would log at "trace". -->
    <log-level>warning</log-level>
    <logger>
        <log>{log}</log>
        <size>16M</size>
        <count>1</count>
        <levels>
            <logger><name>BackgroundSchedulePool/BgSchPool</name><level>error</level></logger>
        </levels>
    </logger>
    <max_server_memory_usage>{memory_bytes}</max_server_memory_usage>
    <mark_cache_size>67108864</mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <backups>
        <allowed_path>backups</allowed_path>
    </backups>
    <merge_tree>
        <!-- A replaced part stays for some minutes, as on a stock server: power loss must not take both copies. -->
        <old_parts_lifetime>480</old_parts_lifetime>
    </merge_tree>
</clickhouse>
"""
# Two users without a password, on the loopback only: one for tickloom, and one to look but not touch. `readonly` 2
# lets an analyst change the settings of a query, within the limits of the constraints; these have a minimum because
# 0 means "no limit". `poll_interval` is how long an idle connection takes to notice that the server stops: 10 s by
# default, and the stop waits 5 s for it.
_USERS = """<clickhouse>
    <profiles>
        <default>
            <implicit_select>0</implicit_select>
            <poll_interval>1</poll_interval>
            <async_insert>0</async_insert>
        </default>
        <analyst>
            <readonly>2</readonly>
            <implicit_select>0</implicit_select>
            <poll_interval>1</poll_interval>
            <max_execution_time>60</max_execution_time>
            <max_memory_usage>1073741824</max_memory_usage>
            <max_threads>2</max_threads>
            <max_result_rows>10000000</max_result_rows>
            <constraints>
                <max_execution_time><min>1</min><max>60</max></max_execution_time>
                <max_memory_usage><min>1</min><max>1073741824</max></max_memory_usage>
                <max_threads><min>1</min><max>2</max></max_threads>
                <max_result_rows><min>1</min><max>10000000</max></max_result_rows>
            </constraints>
        </analyst>
    </profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
        <analyst>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>analyst</profile>
            <quota>default</quota>
            <default_database>default</default_database>
            <!-- No more than these: without a list it could also read files and URLs through table functions. -->
            <grants>
                <query>GRANT SELECT, SHOW, dictGet ON *.*</query>
            </grants>
        </analyst>
    </users>
    <quotas><default></default></quotas>
</clickhouse>
"""


class EmbeddedClickHouse(EmbeddedServer):
    """A ClickHouse server on the loopback interface; keeps its tables in ``<data_dir>/clickhouse``.

    Args:
        port: the native TCP port, or 0 for a free one.
        http_port: the HTTP port, or 0 for a free one.
        memory_bytes: the most that the server may use.
    """

    name: ClassVar[str] = "clickhouse"
    ready_within_s: ClassVar[float] = 60.0
    stops_within_s: ClassVar[float] = 15.0  # up to 5 s while clients stay connected

    def __init__(
        self, data_dir: Path, port: int = 0, *, http_port: int = 0, memory_bytes: int = 2 * 1024 * 1024 * 1024
    ) -> None:
        super().__init__(data_dir, port)
        self._http_port = http_port
        self._memory_bytes = memory_bytes

    @property
    def url(self) -> str:
        """What a native client is given: ``clickhouse://default@127.0.0.1:PORT/default``."""
        return f"clickhouse://default@{LOOPBACK}:{self.port}/default"

    @property
    def analyst_url(self) -> str:
        """The same of the user who may only look."""
        return f"clickhouse://analyst@{LOOPBACK}:{self.port}/default"

    @property
    def http_url(self) -> str:
        """Where HTTP clients go: ``http://127.0.0.1:PORT``."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def http_port(self) -> int:
        """The HTTP port; chosen when it is first asked for."""
        if self._http_port == 0:
            self._http_port = free_port()
        return self._http_port

    def _command(self, report: Report) -> Command:
        config = _CONFIG.format(
            tcp_port=self.port,
            http_port=self.http_port,
            memory_bytes=self._memory_bytes,
            log=html.escape(str(self.log_path)),
        )
        (self.home / "config.xml").write_text(config)
        (self.home / "users.xml").write_text(_USERS)
        report(f"ClickHouse: starting on {LOOPBACK}:{self.port} and {self.http_url}")
        # -P: or else this directory would come first on the child's path, with modules named like other packages.
        return Command([sys.executable, "-P", str(_CHILD)], self.home)

    def _is_ready(self, child: Child) -> bool:
        try:
            connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=5.0)
            with contextlib.closing(connection):
                connection.request("GET", "/ping")
                return connection.getresponse().read() == b"Ok.\n" and ports.answers(self.port)
        except (http.client.HTTPException, OSError):
            return False
