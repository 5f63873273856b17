"""Run uv, the Python package manager: the one on the PATH if it is new enough, or else one of our own.

    python3 deploy/uv.py sync --locked

Ours goes into ``.tools/uv-VERSION`` once, by way of ``python3 -m venv`` and pip. Needs nothing but a Python 3.8 or
newer; which Python then runs tickloom is uv's choice, by ``requires-python`` in pyproject.toml.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# The one that wrote uv.lock. The Dockerfile names the same; tests/deploy/test_makefile.py compares them.
VERSION = "0.13.9"
TOOLS = Path(__file__).resolve().parents[1] / ".tools"


def main() -> None:
    """Become uv, with the arguments that we were given."""
    uv = _installed() or _our_own()
    # tickloom never downloads a Python behind anybody's back: it uses what the machine has.
    os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
    os.execv(uv, [uv, *sys.argv[1:]])  # noqa: S606  (becoming uv is the purpose)


def _installed() -> "str | None":
    """Return the uv on the PATH, unless it does not run or is older than the one that wrote the lock file."""
    found = shutil.which("uv")
    if found is None:
        return None
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    seen = re.match(r"uv (\d+)\.(\d+)\.(\d+)", answer.stdout)
    wanted = tuple(int(part) for part in VERSION.split("."))
    if answer.returncode != 0 or seen is None or tuple(int(part) for part in seen.groups()) < wanted:
        return None
    return found


def _our_own() -> str:
    home = TOOLS / ("uv-" + VERSION)
    uv = home / "bin" / "uv"
    if not uv.exists():
        print("uv " + VERSION + ": installing into " + os.path.relpath(home) + " (once)", file=sys.stderr)
        _install(home)
    return str(uv)


def _install(home: Path) -> None:
    try:
        import ensurepip  # noqa: F401  (Debian and Ubuntu take it out of Python)
    except ImportError:
        sys.exit(
            sys.executable + " cannot make virtual environments (there is no ensurepip); install python3-venv "
            "(apt-get install python3-venv), or uv itself, or name another Python: make PYTHON=python3.12 ..."
        )
    shutil.rmtree(home, ignore_errors=True)  # what an interrupted installation has left
    python = str(home / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv==" + VERSION]
    for command in ([sys.executable, "-m", "venv", str(home)], pip):
        if subprocess.run(command, check=False).returncode != 0:
            shutil.rmtree(home, ignore_errors=True)
            sys.exit("uv " + VERSION + " could not be installed: " + " ".join(command) + " failed")


if __name__ == "__main__":
    main()
