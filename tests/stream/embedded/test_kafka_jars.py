"""Kafka's jars: fetched once, whole or not at all, and a plain word when Maven cannot."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream.cache import cache_dir
from stream.embedded import kafka_jars
from stream.embedded.java import KafkaUnavailable
from stream.embedded.kafka_jars import KAFKA_VERSION, ensure_jars

# Answers like Maven: says what it fetches, and writes what dependency:copy-dependencies would.
MAVEN = f"""#!{sys.executable}
import pathlib, sys, time
target = pathlib.Path(next(a for a in sys.argv if a.startswith("-DoutputDirectory=")).split("=", 1)[1])
with open({{runs!r}}, "a") as runs:
    runs.write("run\\n")
time.sleep(0.3)
for number in range(12):
    (target / f"part{{{{number}}}}.jar").touch()
    print(f"[INFO] Downloaded from central: https://somewhere/part{{{{number}}}}.jar (1 kB at 1 kB/s)")
"""


def put_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(script)
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(maven.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_pom_asks_for_the_version_that_we_say() -> None:
    assert f"<artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>" in "".join(
        kafka_jars._POM.read_text().split()
    )


def test_two_that_need_them_at_once_fetch_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_maven(tmp_path, monkeypatch, MAVEN.format(runs=str(tmp_path / "runs")))
    reports: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: ensure_jars(reports.append), range(2))
    assert first == second
    assert len(list(first.glob("*.jar"))) == 12
    assert (tmp_path / "runs").read_text() == "run\n"
    for part in (
        "fetching its jars through Maven",
        "another process is fetching",
        "10 files fetched",
        "12 jars are in",
    ):
        assert sum(part in report for report in reports) == 1
    assert ensure_jars(pytest.fail) == first


def test_nothing_is_left_in_the_cache_when_maven_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Could not transfer artifact org.apache.kafka:kafka_2.13: Network is unreachable"
    put_maven(tmp_path, monkeypatch, f"#!/bin/sh\necho '[ERROR] {said}'\nexit 1\n")
    with pytest.raises(KafkaUnavailable, match=f"Maven cannot fetch Apache Kafka's jars: {said}"):
        ensure_jars(lambda _: None)
    assert [path.suffix for path in cache_dir().iterdir()] == [".lock"]


def test_without_maven_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match="there is no mvn on the PATH"):
        ensure_jars(lambda _: None)
