"""A child process: its log, its end, and that it never outlives us."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream.embedded import process
from stream.embedded.lock import FileLock
from stream.embedded.process import Child, Command

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FileLock]:
    held = FileLock(tmp_path / "lock")
    held.acquire(0.0, "the test")
    yield held
    held.release()


def python(code: str, tmp_path: Path, lock: FileLock) -> Child:
    return Child(
        "sample",
        Command([sys.executable, "-c", code], tmp_path, {"SAMPLE": "yes"}),
        tmp_path / "log",
        lock.fileno(),
    )


def wait_for(what: str, child: Child) -> None:
    deadline_s = time.monotonic() + 10
    while what not in child.logged():
        assert time.monotonic() < deadline_s, child.last_lines()
        time.sleep(0.01)


def test_its_output_goes_to_the_log_and_the_environment_is_extended(tmp_path: Path, lock: FileLock) -> None:
    code = "import os, sys; print(os.environ['SAMPLE'], 'PATH' in os.environ); print('oops', file=sys.stderr)"
    child = python(code, tmp_path, lock)
    wait_for("yes True", child)
    wait_for("oops", child)
    child.stop(5.0)
    assert not child.alive()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")
def test_it_takes_a_processor_from_nobody_only_because_it_was_woken(tmp_path: Path, lock: FileLock) -> None:
    child = python("import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)", tmp_path, lock)
    wait_for("True", child)
    child.stop(5.0)


def test_a_second_run_appends_to_the_log_but_tells_only_its_own_lines(tmp_path: Path, lock: FileLock) -> None:
    for word in ("first", "second"):
        child = python(f"print('{word}')", tmp_path, lock)
        wait_for(word, child)
        child.stop(5.0)
    assert child.logged() == "second\n"
    assert child.log_path.read_text() == "first\nsecond\n"


def test_a_log_that_has_grown_too_long_is_set_aside(
    tmp_path: Path, lock: FileLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_LIMIT_BYTES", 10)
    (tmp_path / "log").write_text("more than ten bytes\n")
    child = python("print('new')", tmp_path, lock)
    wait_for("new", child)
    child.stop(5.0)
    assert (tmp_path / "log").read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "more than ten bytes\n"


def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path: Path, lock: FileLock) -> None:
    child = python(STUBBORN, tmp_path, lock)
    wait_for("deaf", child)
    child.stop(0.2)
    assert not child.alive()


def test_it_has_a_session_of_its_own_so_that_an_interrupt_from_the_terminal_spares_it(
    tmp_path: Path, lock: FileLock
) -> None:
    child = python("import time; print('up', flush=True); time.sleep(60)", tmp_path, lock)
    wait_for("up", child)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.kill()
    assert not child.alive()


def test_it_outlives_the_thread_that_started_it(tmp_path: Path, lock: FileLock) -> None:
    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(python, "import time; print('up', flush=True); time.sleep(60)", tmp_path, lock).result()
    wait_for("up", child)
    time.sleep(0.1)
    assert child.alive()
    child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for the death of the parent")
def test_it_dies_with_a_parent_that_is_killed_and_the_lock_goes_with_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from stream.embedded.lock import FileLock\n"
            "from stream.embedded.process import Child, Command\n"
            "lock = FileLock(Path('lock')); lock.acquire(0, 'the test')\n"
            f"command = Command([sys.executable, '-c', {STUBBORN!r}], Path('.'))\n"
            "child = Child('sample', command, Path('log'), lock.fileno())\n"
            "while 'deaf' not in child.logged(): time.sleep(0.01)\n"
            "print(child.pid, flush=True); time.sleep(60)\n",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        os.kill(child_pid, 0)
        parent.send_signal(signal.SIGKILL)
    lock = FileLock(tmp_path / "lock")
    lock.acquire(5.0, "the test")  # the child had inherited it
    lock.release()
    assert not is_running(child_pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
