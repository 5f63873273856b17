"""`compiled`: numba's decorator, with a cache on disk that is right after every edit.

numba keys its cache by the text of the file that a function stands in. A function or a constant that it compiled in
from another file stays as it was when that one is edited or upgraded. Here the cache's directory is named for the
text of all files with compiled code and of all that they import from us, so that kernels may use each other.
"""

import functools
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Final

import numba

from stream.cache import cache_dir

_ROOT: Final = Path(__file__).resolve().parents[1]
_OURS: Final = re.compile(rb"^from ((?:stream|agents|models|exporters)[\w.]*) import", re.MULTILINE)


def fingerprint(root: Path) -> str:
    """Return what changes with the compiled code of the packages below ``root``, and with numba's version."""
    files = [path for name in ("stream", "agents", "models", "exporters") for path in (root / name).rglob("*.py")]
    texts = {path: path.read_bytes() for path in files}
    todo = [path for path, text in texts.items() if b"stream.compiled" in _OURS.findall(text)]
    reached: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in texts and path not in reached:
            reached.add(path)
            names = (name.decode().replace(".", "/") for name in _OURS.findall(texts[path]))
            todo += [root / f"{name}.py" for name in names]
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(reached):
        digest.update(texts[path])
    return digest.hexdigest()[:12]


# Decorators look at it when they are applied. $NUMBA_CACHE_DIR says where the directory is to be, as usual.
numba.config.CACHE_DIR = str(Path(os.environ.get("NUMBA_CACHE_DIR") or cache_dir()) / f"numba-{fingerprint(_ROOT)}")

# Without the interpreter's lock, and with numpy's rules for a division by zero: infinity or NaN, and no exception.
compiled: Any = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy")
inlined: Any = functools.partial(numba.njit, cache=True, inline="always", error_model="numpy")
