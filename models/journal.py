"""What a retraining has done, in a file that is replaced as a whole: a killed one goes on after its last step."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stream.clock import Clock, wall_ns
from stream.errors import SettingsError

JOURNAL: Final = "journal.json"


class Journal:
    """The finished steps of one run, each with what is to be known of it."""

    def __init__(self, folder: Path, clock: Clock = wall_ns) -> None:
        """Open the journal in a folder, or an empty one where there is none.

        Args:
            folder: of the run.
            clock: of now, for the times in it.

        Raises:
            SettingsError: what is there is no journal.
        """
        self._path, self._clock = folder / JOURNAL, clock
        said = read_journal(folder)
        self.plan: dict[str, Any] = said["plan"]
        self.steps: dict[str, dict[str, Any]] = said["steps"]

    def begin(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Write down what is to be done, once; a run that goes on must have been asked for the same.

        Args:
            asked: what must be the same each time.
            found: what is found out only the first time, such as the time span.

        Raises:
            SettingsError: this run was begun with something else.
        """
        wanted = json.loads(json.dumps(dict(asked)))  # as JSON gives it back: tuples are lists
        if not self.plan:
            self.plan = {"asked": wanted, "found": dict(found)}
            self._write()
        theirs = self.plan["asked"]
        if theirs != wanted:
            different = sorted(
                name for name in theirs.keys() | wanted.keys() if theirs.get(name) != wanted.get(name)
            )
            raise SettingsError(
                f"{self._path.parent} was begun with other {', '.join(different)}; right would be the same, or "
                "another name of the run"
            )

    def finish(self, step: str, **what: Any) -> dict[str, Any]:
        """Write down that a step is finished, and return what was written."""
        self.steps[step] = {**what, "at_ns": self._clock()}
        self._write()
        return self.steps[step]

    def _write(self) -> None:
        part = self._path.with_name(JOURNAL + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump({"plan": self.plan, "steps": self.steps}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)


def read_journal(folder: Path) -> dict[str, Any]:
    """Return the ``plan`` and the ``steps`` of a run, both empty where it has not begun.

    Raises:
        SettingsError: what is there is no journal.
    """
    path = folder / JOURNAL
    try:
        said = json.loads(path.read_text("utf-8"))
        return {"plan": dict(said["plan"]), "steps": dict(said["steps"])}
    except FileNotFoundError:
        return {"plan": {}, "steps": {}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{path} is no journal of a retraining: {error!r}; move it away to begin anew"
        ) from None
