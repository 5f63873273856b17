"""Moments as clients write them: ISO 8601 to the nanosecond, or ns since 1970; UTC where nothing else is said."""

import contextlib
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from stream.clock import NS_PER_S

_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_INTEGER: Final = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What DateTime64(9) of ClickHouse can hold; an earlier or later bound means the same as these.
FIRST_NS: Final = int((datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * NS_PER_S
LAST_NS: Final = int((datetime(2262, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * NS_PER_S


def moment_ns(value: Any) -> int:
    """Return ns since 1970 UTC, within what a column of times can hold.

    Raises:
        ValueError: it is no moment.
    """
    text = str(value).strip()
    if _INTEGER.fullmatch(text):
        return min(max(int(text), FIRST_NS), LAST_NS)
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:60]!r} is no moment; right would be as 2026-11-25T09:30:00.123456789Z, or ns since 1970"
        )
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{_no_leap(clock or '00:00:00')}{_offset(zone)}")
        ns = (moment - _EPOCH) // timedelta(seconds=1) * NS_PER_S + int((fraction or "0").ljust(9, "0"))
    except (ValueError, OverflowError):
        return _far(day, text)
    return min(max(ns, FIRST_NS), LAST_NS)


def _no_leap(clock: str) -> str:
    # A leap second is the last one before it again.
    return f"{clock[:6]}59" if clock.endswith(":60") else clock


def _offset(zone: str | None) -> str:
    return "+00:00" if zone is None or zone in "Zz" else zone


def _far(day: str, text: str) -> int:
    # The year 0 is a legal one of ISO 8601, and none of Python's.
    with contextlib.suppress(ValueError):
        if day.startswith("0000-") and date.fromisoformat(f"0004{day[4:]}"):
            return FIRST_NS
    raise ValueError(f"{text[:60]!r} is no moment: there is no such day, time or offset")


MOMENT_SCHEMA: Final[dict[str, Any]] = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}]}
Moment = Annotated[
    int,
    BeforeValidator(moment_ns),
    WithJsonSchema({**MOMENT_SCHEMA, "examples": ["2026-11-25T09:30:00Z"]}),
]
