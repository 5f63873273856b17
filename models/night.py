"""A night's retraining as the topic ``models`` tells of it: by whom, how far, and what came of it."""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from stream.errors import RecordError

NIGHT_KEY: Final = "retrain/"

# stopped: in good order or by a kill, and to be gone on with at once; waiting: it failed by what may pass, and is
# tried again after a while; done: whatever came of it, a refusal too; failed: it needs somebody.
State = Literal["running", "stopped", "waiting", "done", "failed"]


@dataclass(frozen=True)
class Night:
    """What the worker that retrains tells, again and again while it does."""

    night: str  # its date, which is the run's name as well
    attempt: int  # from 1; the highest one counts
    worker: str
    state: State
    step: str  # the last one that is finished; empty before the first
    reason: str  # what came of it, or why not
    at_ns: int

    @property
    def is_over(self) -> bool:
        """Whether nobody goes on with it by itself."""
        return self.state in ("done", "failed")

    @property
    def key(self) -> str:
        """The key of its messages."""
        return f"{NIGHT_KEY}{self.night}"

    def to_json(self) -> bytes:
        """Return the value of the message."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Return what `to_json` wrote.

        Raises:
            RecordError: it is not that.
        """
        try:
            value: dict[str, Any] = json.loads(raw)
            night = cls(**value)
            if night.state not in get_args(State) or type(night.attempt) is not int or not night.night:
                raise ValueError(f"state {night.state!r}, attempt {night.attempt!r} of {night.night!r}")
        except (ValueError, TypeError) as error:
            raise RecordError(f"{raw[:200]!r} is no night: {error!r}") from None
        return night
