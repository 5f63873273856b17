"""Finding a Java that runs Kafka, and saying plainly why none does."""

from pathlib import Path

import pytest

from stream.embedded.java import KafkaUnavailable, find_java


def put_java(directory: Path, script: str) -> None:
    directory.mkdir(parents=True)
    java = directory / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)


def test_the_java_of_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_java(tmp_path / "bin", """echo 'openjdk version "21.0.3" 2024-04-16' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = find_java()
    assert (found.command, found.version) == (tmp_path / "bin" / "java", "21.0.3")
    assert len(found.build) == 8


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            """echo 'openjdk version "11.0.2" 2019-01-15' >&2""",
            r"is Java 11\.0\.2; Apache Kafka needs Java 17 or newer",
        ),
        ("""echo 'java version "1.8.0_402"' >&2""", "is Java 8.0_402; Apache Kafka needs Java 17"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "answers 'Unable to locate a Java Runtime.'"),
    ],
)
def test_a_java_that_will_not_do_is_named_with_the_reason(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_java(tmp_path / "bin", script)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(KafkaUnavailable, match=reason):
        find_java()


@pytest.mark.parametrize(
    ("java_home", "reason"), [("", "no java on the PATH"), ("/nowhere", "no java below JAVA_HOME=/nowhere")]
)
def test_no_java_at_all_is_said(
    java_home: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", java_home)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match=reason):
        find_java()
