"""Write ``.env``, which Docker Compose reads: ``.env.example`` with a fresh secret for each empty value.

    python3 deploy/make_env.py

What ``.env`` has already stays as it is; only names that are new in ``.env.example`` are added.
"""

import os
import re
import secrets
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_ASSIGNMENT = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
# Hexadecimal: these secrets become parts of URLs, where other characters would need an escape.
_SECRET_BYTES = 24


def main() -> None:
    """Complete ``.env`` and say what was added."""
    path = ROOT / ".env"
    before = path.read_text("utf-8") if path.exists() else ""
    known = {name for name, _ in _ASSIGNMENT.findall(before)}
    example = (ROOT / ".env.example").read_text("utf-8")
    added = [(name, value) for name, value in _ASSIGNMENT.findall(example) if name not in known]
    if not added:
        return
    lines = "".join(f"{name}={value}\n" for name, value in added)
    text = before.rstrip("\n") + "\n" + lines if before else example
    new = {name for name, _ in added}
    _write(path, _ASSIGNMENT.sub(lambda found: _filled(found, new), text))
    print(f".env: added {', '.join(name for name, _ in added)}")


def _filled(found: "re.Match[str]", new: "set[str]") -> str:
    name, value = found.groups()
    return found.group() if value or name not in new else f"{name}={secrets.token_hex(_SECRET_BYTES)}"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(".env.new")
    temporary.unlink(missing_ok=True)
    # Nobody else on this machine may read it, at no time.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


if __name__ == "__main__":
    main()
