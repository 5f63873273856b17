"""A running demo is found, one that has ended is not, and nobody's own servers are mixed with it."""

import os
import subprocess
import sys
from pathlib import Path

from pydantic import SecretStr

from stream.running import RUN_FILE, beside_demo, feed_url, run_file, running_demo
from stream.settings import Settings

ADDRESSES = {
    "kafka": "127.0.0.1:1111",
    "clickhouse": "clickhouse://default@127.0.0.1:2222/default",
    "clickhouse_analyst": "clickhouse://analyst@127.0.0.1:2222/default",
    "redis": "redis://127.0.0.1:3333/0",
    "feed": "ws://127.0.0.1:4444/feed",
}


def demo_folder(data_dir: Path, name: str = "simulator") -> Path:
    folder = data_dir / "demo" / name
    folder.mkdir(parents=True)
    return folder


def test_what_runs_is_found_and_what_has_ended_is_not(tmp_path: Path) -> None:
    with run_file(demo_folder(tmp_path), ADDRESSES):
        assert running_demo(tmp_path) == {**ADDRESSES, "pid": os.getpid()}
        found = beside_demo(Settings(data_dir=tmp_path))
        assert found.kafka == ADDRESSES["kafka"]
        for name in ("clickhouse", "clickhouse_analyst", "redis"):
            assert getattr(found, name).get_secret_value() == ADDRESSES[name]
        assert feed_url(found) == ADDRESSES["feed"]
    assert running_demo(tmp_path) is None
    assert beside_demo(Settings(data_dir=tmp_path)) == Settings(data_dir=tmp_path)
    assert feed_url(Settings(data_dir=tmp_path)) == "ws://127.0.0.1:8765/feed"


def test_the_file_of_a_killed_demo_counts_for_nothing(tmp_path: Path) -> None:
    folder = demo_folder(tmp_path)
    dies = (
        "import os, signal; from pathlib import Path; from stream.running import run_file\n"
        f"with run_file(Path({str(folder)!r}), {ADDRESSES!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", dies], check=False)
    assert (folder / RUN_FILE).is_file()
    assert running_demo(tmp_path) is None
    with run_file(folder, ADDRESSES):
        assert running_demo(tmp_path) is not None


def test_whoever_names_a_server_gets_no_other_for_it(tmp_path: Path) -> None:
    mine = SecretStr("clickhouse://me@db:9000/mine")
    with run_file(demo_folder(tmp_path), ADDRESSES):
        found = beside_demo(Settings(data_dir=tmp_path, clickhouse=mine))
        assert (found.clickhouse, found.clickhouse_analyst) == (mine, None)
        assert found.kafka == ADDRESSES["kafka"]


def test_the_youngest_of_several_demos_is_meant(tmp_path: Path) -> None:
    with run_file(demo_folder(tmp_path, "replay-a"), ADDRESSES):
        os.utime(tmp_path / "demo" / "replay-a" / RUN_FILE, (1, 1))
        with run_file(demo_folder(tmp_path), {**ADDRESSES, "kafka": "127.0.0.1:5555"}):
            told = running_demo(tmp_path)
            assert told is not None
            assert told["kafka"] == "127.0.0.1:5555"
        told = running_demo(tmp_path)
        assert told is not None
        assert told["kafka"] == "127.0.0.1:1111"


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    folder = demo_folder(tmp_path)
    with run_file(folder, ADDRESSES):
        assert (folder / RUN_FILE).stat().st_mode & 0o077 == 0
