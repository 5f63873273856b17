import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from stream.__main__ import cli


@pytest.fixture(scope="session")
def makefile(root: Path) -> str:
    return (root / "Makefile").read_text("utf-8")


@pytest.fixture(scope="session")
def targets(makefile: str) -> set[str]:
    """What there is to make, the internal ones (with a dot) left out."""
    return {
        name
        for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
        for name in line.split()
        if name[0] != "."
    }


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A directory with the scripts that ``make`` starts with, and nothing else."""
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/uv.py", "deploy/make_env.py", ".env.example"):
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def fake_uv(path: Path, version: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "uv {version} (a build)"; else echo "{version}: $*"; fi\n'
    )
    path.chmod(0o755)


def run_uv(checkout: Path, path: Path) -> str:
    command = [sys.executable, str(checkout / "deploy/uv.py"), "sync", "--locked"]
    answer = subprocess.run(command, env={"PATH": f"{path}:/bin"}, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_every_target_says_what_it_is_for(root: Path, targets: set[str]) -> None:
    answer = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    helped = dict(re.findall(r"^  make (\S+) +(.+)$", answer.stdout, re.MULTILINE))
    assert set(helped) == targets
    assert {"demo", "test", "lint", "help"} <= targets
    assert all(text.endswith(".") for text in helped.values())


def test_make_demo_passes_its_arguments_on(root: Path) -> None:
    command = ["make", "--dry-run", "demo", "ARGS=--replay ticks --day 2013-10-07"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert ".venv/bin/tickloom demo --replay ticks --day 2013-10-07" in answer.stdout


def test_every_command_of_ours_that_is_made_exists(makefile: str, root: Path) -> None:
    group: Any = typer.main.get_command(cli)
    named = set(re.findall(r"/tickloom (\w+)", makefile))
    assert "demo" in named
    assert named <= set(group.commands)
    benches = re.findall(r"-m bench\.(\w+)", makefile)
    assert benches
    assert [name for name in benches if not (root / f"bench/{name}.py").exists()] == []


def test_a_uv_that_is_new_enough_is_used(checkout: Path, tmp_path: Path) -> None:
    fake_uv(tmp_path / "bin/uv", "99.1.0")
    assert run_uv(checkout, tmp_path / "bin") == "99.1.0: sync --locked"


@pytest.mark.parametrize("installed", ["0.4.30", None])
def test_else_our_own_uv_is_used_and_not_installed_twice(
    checkout: Path, tmp_path: Path, installed: str | None
) -> None:
    found = re.search(r'^VERSION = "(.+)"$', (checkout / "deploy/uv.py").read_text("utf-8"), re.MULTILINE)
    assert found
    if installed:
        fake_uv(tmp_path / "bin/uv", installed)
    fake_uv(checkout / f".tools/uv-{found[1]}/bin/uv", found[1])
    assert run_uv(checkout, tmp_path / "bin") == f"{found[1]}: sync --locked"


def test_secrets_are_made_once_and_kept_from_others(checkout: Path) -> None:
    command = [sys.executable, str(checkout / "deploy/make_env.py")]
    subprocess.run(command, check=True, capture_output=True)
    path = checkout / ".env"
    first = path.read_text("utf-8")
    secrets = re.findall(r"^[A-Z_]+(?:PASSWORD|TOKEN)=(.*)$", first, re.MULTILINE)
    assert len(secrets) == 5
    assert all(re.fullmatch(r"[0-9a-f]{48}", secret) for secret in secrets)
    assert len(set(secrets)) == len(secrets)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(re.sub(r"^REDIS_PASSWORD=.*\n", "", first, flags=re.MULTILINE) + "MINE=1\n")
    subprocess.run(command, check=True, capture_output=True)
    second = path.read_text("utf-8")
    assert "MINE=1\nREDIS_PASSWORD=" in second
    assert set(first.splitlines()) - set(second.splitlines()) == {
        line for line in first.splitlines() if line.startswith("REDIS_PASSWORD=")
    }
    subprocess.run(command, check=True, capture_output=True)
    assert path.read_text("utf-8") == second


def test_the_ci_script_is_bash_and_runs_what_the_readme_says(root: Path, targets: set[str]) -> None:
    path = root / ".ci/run"
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK)
    commands = re.findall(r"^make (\w+)$", path.read_text("utf-8"), re.MULTILINE)
    assert commands == ["lint", "test"], "the tests last: their summary is the last line"
    assert set(commands) <= targets


def test_the_workflow_tests_every_python_that_we_promise(root: Path, targets: set[str]) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/ci.yml").read_text("utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    job = workflow["jobs"]["test"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    made = re.findall(r"make (\w+)", " ".join(step.get("run", "") for step in job["steps"]))
    assert made == ["lint", "test"]
    cached = next(step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", ""))
    assert cached.split() == ["~/.cache/tickloom", "~/.cache/uv"]


def test_the_hooks_before_a_commit_are_those_of_make_lint(root: Path, makefile: str) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    ours = [hook["entry"].split()[:2] for hook in hooks[0]["hooks"]]
    assert [entry[0].removeprefix(".venv/") for entry in ours] == ["bin/ruff", "bin/ruff", "bin/mypy"]
    assert "$(bin)/mypy" in makefile
