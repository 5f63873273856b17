"""Where things are kept that are expensive to get and can be had again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/tickloom``, or ``~/.cache/tickloom``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tickloom"
