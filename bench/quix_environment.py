"""An environment of its own for Quix Streams, which asks for an older pydantic and confluent-kafka than ours.

It is made once, by the project's own uv, below the cache directory; delete it there at any time.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from stream.cache import cache_dir

REQUIREMENTS: Final = ("quixstreams==3.28.1",)
_UV: Final = Path(__file__).resolve().parents[1] / "deploy" / "uv.py"
_PATIENCE_S: Final = 600.0


class NoEnvironment(Exception):
    """It cannot be made here; the message says why."""


def python() -> Path:
    """Return the interpreter of the environment, which is made where it is not there yet.

    Raises:
        NoEnvironment: there is no way to the package index, or something in it is not for this Python.
    """
    home = (
        cache_dir() / "bench" / f"{REQUIREMENTS[0].replace('==', '-')}-py{sys.version_info[0]}{sys.version_info[1]}"
    )
    found = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(home))
        _uv("pip", "install", "--python", str(found), *REQUIREMENTS)
        (home / "complete").touch()
    return found


def _uv(*arguments: str) -> None:
    command = [sys.executable, str(_UV), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if answer.returncode != 0:
        raise NoEnvironment(f"uv {arguments[0]}: {answer.stderr.strip()[-500:]}")
