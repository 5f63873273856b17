import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from stream.telemetry import Health, TelemetryServer


@pytest.fixture(scope="session")
def dockerfile(root: Path) -> str:
    return (root / "Dockerfile").read_text("utf-8")


def copied(dockerfile: str) -> list[str]:
    """Return what the image takes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", dockerfile, re.MULTILINE)
    return [source.removeprefix("./") for line in lines for source in line.split()[:-1]]


def test_what_the_image_takes_exists_and_is_not_ignored(dockerfile: str, root: Path) -> None:
    allowed = [
        line[1:] for line in (root / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    ]
    sources = copied(dockerfile)
    assert {"pyproject.toml", "uv.lock", "stream", "agents", "models", "exporters"} <= set(sources)
    assert [source for source in sources if not (root / source).exists()] == []
    assert [source for source in sources if not any(f"{source}/".startswith(f"{path}/") for path in allowed)] == []


def test_the_image_runs_as_nobody_in_particular(dockerfile: str) -> None:
    stage = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["10001:10001"], "a number: Kubernetes checks it"
    assert "apt-get" not in dockerfile, "every dependency has wheels: nothing is compiled"


def test_the_image_has_the_uv_that_everybody_has(dockerfile: str, root: Path) -> None:
    here = re.search(r"ARG UV_VERSION=(\S+)", dockerfile)
    there = re.search(r'^VERSION = "(.+)"$', (root / "deploy/uv.py").read_text("utf-8"), re.MULTILINE)
    assert here
    assert there
    assert here[1] == there[1]


@pytest.mark.parametrize(("given", "wanted"), [(None, socket.gethostname()), ("worker-7", "worker-7")])
def test_a_worker_is_named_after_its_container(given: str | None, wanted: str, root: Path, tmp_path: Path) -> None:
    program = tmp_path / "tickloom"
    program.write_text('#!/bin/sh\necho "$TICKLOOM_WORKER_NAME $*"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"TICKLOOM_WORKER_NAME": given} if given else {})
    command = [str(root / "deploy/docker/entrypoint.sh"), "worker", "--port", "9100"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == f"{wanted} worker --port 9100\n"


async def test_the_health_check_says_what_the_role_says(root: Path) -> None:
    health = Health("worker test")
    async with TelemetryServer(health, CollectorRegistry(), dict) as telemetry:
        command = [sys.executable, str(root / "deploy/docker/health.py"), str(telemetry.port)]
        good = await run(command)
        health.fail("lanes", "no model")
        bad = await run(command)
    gone = await run(command)
    assert (good[0], bad[0], gone[0]) == (0, 1, 1)
    assert '"ok"' in good[1]
    assert "no model" in bad[1]
    assert "no answer" in gone[1]


async def run(command: list[str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode, output.decode()
