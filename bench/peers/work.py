"""What a peer in plain Python is to do for each tick: the whole job, or ten indicators of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.peers import features, indicators

State = dict[str, Any]
Values = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A job. The arguments of ``advance`` are those of `features.advance`."""

    new_state: Callable[[], State]
    advance: Callable[..., Values]
    outgoing: Callable[[Values], Values]  # what is sent for a tick


def _note(values: Values) -> Values:
    # A worker without a model sends no features either.
    return {"ticks": values["ticks"], "event_ns": values["event_ns"], "ref": values["ref"]}


def _all(values: Values) -> Values:
    return values


ALL: Final = "all"
TEN: Final = "ten"
WORKS: Final = {
    ALL: Work(features.new_state, features.advance, _note),
    TEN: Work(indicators.new_state, indicators.advance, _all),
}


def arguments_of(tick: dict[str, Any]) -> tuple[Any, ...]:
    """Return a tick of JSON as the arguments of ``advance``."""
    get = tick.get
    return (
        tick["event_ns"],
        get("price"),
        get("size"),
        get("side"),
        get("bid"),
        get("ask"),
        get("bid_size"),
        get("ask_size"),
    )
