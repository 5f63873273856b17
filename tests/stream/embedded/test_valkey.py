"""The embedded Redis server, and with it what all embedded servers have in common."""

import socket
import threading
from pathlib import Path

import pytest
import redis

from stream.embedded.ports import LOOPBACK
from stream.embedded.valkey import EmbeddedValkey
from stream.errors import ServerError


def test_acknowledged_keys_survive_a_crash_and_a_restart_on_the_same_port(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "größe & 'platz' 💾") as server, redis.Redis.from_url(server.url) as client:
        client.set("last", "100.25")
        url, first_pid = server.url, server.pid
        server.kill()
        assert not server.alive()
        with pytest.raises(redis.ConnectionError):
            client.get("last")
        server.restart()
        assert (server.url, client.get("last")) == (url, b"100.25")
        assert server.pid != first_pid
    assert not server.alive()


def test_a_child_that_died_by_itself_can_be_started_again(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.shutdown(nosave=True)
        assert server._running()._process.wait(5) == 0
        assert not server.alive()
        server.start()
        assert client.ping()


def test_a_full_server_refuses_writes_and_evicts_nothing(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, maxmemory_bytes=2_000_000) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        with pytest.raises(redis.OutOfMemoryError):
            fill(client)
        assert client.get("kept") == b"yes"


def fill(client: redis.Redis) -> None:
    for number in range(100):
        client.set(f"filler{number}", b"x" * 100_000)


def test_a_port_in_use_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        server = EmbeddedValkey(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(ServerError, match=r"valkey ended while starting; .*valkey\.log:(.|\n)*already in use"):
            server.start()
    assert not server.alive()


def test_a_server_that_does_not_answer_in_time_is_stopped_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedValkey, "ready_within_s", 0.0)
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(ServerError, match="does not answer within 0 s"):
        server.start()
    assert not server.alive()


def test_starting_twice_is_an_error_and_leaves_the_running_one_alone(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        with pytest.raises(ServerError, match="already runs as process"):
            server.start()
        assert server.alive()


def test_it_may_be_started_from_a_thread_that_ends(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_server_that_was_never_started_has_no_process(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.stop()
    with pytest.raises(ServerError, match="never started"):
        _ = server.pid


def test_progress_is_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    EmbeddedValkey(tmp_path).start(lines.append).stop()
    assert len(lines) == 1
    assert lines[0].startswith("Valkey: starting on 127.0.0.1:")
