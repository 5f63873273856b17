"""The embedded servers together: side by side, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stream.embedded
from stream.embedded.lock import FileLock
from stream.embedded.servers import EmbeddedServers
from stream.errors import ServerError

STARTER = """
import json, sys, threading, time
from pathlib import Path
from stream.embedded.servers import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]))
thread = threading.Thread(target=servers.start)
thread.start()
thread.join()
started = (servers.kafka, servers.clickhouse, servers.redis)
print(json.dumps({server.name: server.pid for server in started}), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for the death of the parent")
def test_a_killed_parent_leaves_no_orphan_and_the_data_can_be_used_again(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(stream.embedded.__path__[0]).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pids: dict[str, int] = json.loads(parent.stdout.readline())
        assert sorted(pids) == ["clickhouse", "kafka", "valkey"]
        assert all(is_running(pid) for pid in pids.values())
        parent.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while any(is_running(pid) for pid in pids.values()):
        assert time.monotonic() < deadline_s, pids
        time.sleep(0.02)
    for name in pids:
        lock = FileLock(tmp_path / f"{name}.lock")
        lock.acquire(1.0, name)
        lock.release()


def test_only_those_wanted_are_started_and_all_are_stopped(tmp_path: Path) -> None:
    lines: list[str] = []
    servers = EmbeddedServers(tmp_path, kafka=False)
    assert not servers.alive()
    servers.start(lines.append)
    assert servers.kafka is None
    assert servers.clickhouse is not None
    assert servers.redis is not None
    assert servers.alive()
    assert len(lines) == 2
    servers.stop()
    assert not servers.clickhouse.alive()
    assert not servers.redis.alive()


def test_when_one_cannot_start_the_others_are_stopped(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, kafka=False, redis=False):
        second = EmbeddedServers(tmp_path, kafka=False)
        with pytest.raises(ServerError, match=r"clickhouse is in use by a running tickloom"):
            second.start()
        assert second.redis is not None
        assert not second.redis.alive()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
