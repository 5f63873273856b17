"""Find a Java that runs Apache Kafka 4: version 17 or newer."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ServerError

MINIMUM_JAVA = 17  # what the brokers of Kafka 4 are compiled for
_VERSION = re.compile(r'version "(?:1\.)?((\d+)[^"]*)"')


class KafkaUnavailable(ServerError):
    """Apache Kafka itself cannot run here; the message is the reason, in words for the user."""


@dataclass(frozen=True)
class Java:
    """A ``java`` command, its version like ``17.0.15``, and a short name of its very build."""

    command: Path
    version: str
    build: str


def find_java() -> Java:
    """The ``java`` of JAVA_HOME, or else the one on the PATH.

    Raises:
        KafkaUnavailable: there is none, it does not run, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"below JAVA_HOME={home}" if home else "on the PATH"
        raise KafkaUnavailable(f"there is no java {where}; Apache Kafka needs Java {MINIMUM_JAVA} or newer")
    try:
        answer = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaUnavailable(f"{found} does not run: {error}") from error
    seen = _VERSION.search(answer.stderr + answer.stdout)
    if answer.returncode != 0 or seen is None:
        raise KafkaUnavailable(f"{found} -version answers {(answer.stderr or answer.stdout).strip()[:200]!r}")
    version, major = seen.groups()
    if int(major) < MINIMUM_JAVA:
        raise KafkaUnavailable(f"{found} is Java {version}; Apache Kafka needs Java {MINIMUM_JAVA} or newer")
    build = hashlib.sha256((answer.stderr + answer.stdout).encode()).hexdigest()[:8]
    return Java(Path(found), version, build)
