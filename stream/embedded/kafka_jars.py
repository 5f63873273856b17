"""Apache Kafka's jars: fetched once through Maven, kept in the user's cache directory.

    ~/.cache/tickloom/kafka-4.4.0-<hash of our pom>/*.jar

The directory appears whole or not at all (written elsewhere, then renamed), and a lock keeps two processes from
fetching at the same time. The hash makes a changed list of jars a new directory, not a mixture.
"""

import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from stream.cache import cache_dir
from stream.embedded.java import KafkaUnavailable
from stream.embedded.lock import FileLock
from stream.errors import ServerError

KAFKA_VERSION = "4.4.0"

_POM = Path(__file__).with_name("kafka-pom.xml")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MAVEN_OPTIONS = [
    "-B",  # no questions
    "-C",  # a wrong checksum is an error
    "-U",  # a failure that Maven remembers from an earlier time does not count
    # Without limits, a repository that swallows our packets keeps Maven waiting for half an hour. Older versions of
    # Maven take the greater of the first two for the connection, and the third for an answer.
    "-Daether.connector.connectTimeout=10000",
    "-Daether.connector.requestTimeout=20000",
    "-Dmaven.wagon.rto=20000",
]
_FETCH_LIMIT_S = 600.0
_JAR_FETCHED = re.compile(r"Downloaded from \S+: \S+/([^/\s]+\.jar)")


def ensure_jars(report: Callable[[str], None]) -> Path:
    """The directory with Kafka's jars; fetches them first when it is not there.

    Raises:
        KafkaUnavailable: they are not there and Maven cannot fetch them.
        ServerError: another process has been fetching them for ten minutes.
    """
    pom_hash = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    jars = cache_dir() / f"kafka-{KAFKA_VERSION}-{pom_hash}"
    if jars.is_dir():
        return jars
    lock = FileLock(jars.with_name(jars.name + ".lock"))
    what = f"the cache of Kafka's jars {jars}"
    try:
        lock.acquire(0.0, what)
    except ServerError:
        report(f"Apache Kafka {KAFKA_VERSION}: another process is fetching its jars; waiting for it")
        lock.acquire(_FETCH_LIMIT_S, what)
    try:
        if not jars.is_dir():  # somebody else may have fetched them while we waited for the lock
            _fetch(jars, report)
    finally:
        lock.release()
    return jars


def _fetch(jars: Path, report: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "Apache Kafka's jars are not in the cache and there is no mvn on the PATH to fetch them"
        )
    report(f"Apache Kafka {KAFKA_VERSION}: fetching its jars through Maven (about 45 MB, once)")
    staging = Path(tempfile.mkdtemp(prefix=f".{jars.name}-", dir=jars.parent))
    try:
        count = _run_maven(maven, staging, report)
        staging.chmod(0o755)  # mkdtemp's 0700 would keep others out of a shared cache
        staging.rename(jars)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(f"Apache Kafka {KAFKA_VERSION}: {count} jars are in {jars}")


def _run_maven(maven: str, target: Path, report: Callable[[str], None]) -> int:
    command = [
        maven,
        *_MAVEN_OPTIONS,
        "-f",
        str(_POM),
        _COPY,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={target}",
    ]
    errors: list[str] = []
    fetched = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        limit = threading.Timer(_FETCH_LIMIT_S, process.kill)
        limit.start()
        try:
            for line in process.stdout or ():
                if _JAR_FETCHED.search(line):
                    fetched += 1
                    if fetched % 10 == 0:
                        report(f"Apache Kafka {KAFKA_VERSION}: {fetched} files fetched")
                if line.startswith("[ERROR]"):
                    errors.append(line.removeprefix("[ERROR]").strip())
        finally:
            limit.cancel()
    count = len(list(target.glob("*.jar")))
    if process.returncode != 0 or count == 0:
        said = (
            errors[0].removesuffix(" -> [Help 1]")[:1000]
            if errors
            else f"exit code {process.returncode}, without a message"
        )
        raise KafkaUnavailable(f"Maven cannot fetch Apache Kafka's jars: {said}")
    return count
