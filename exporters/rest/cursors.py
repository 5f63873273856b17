"""Where a page ends and the next begins: the key of its last row, so that what comes meanwhile shifts nothing."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from exporters.rest.problems import BAD_CURSOR, Problem

_LONGEST: Final = 2000
_ADVICE: Final = "take `next` of the page before, with the same filters; without a cursor the first page comes"

Key = list[int | str]


def cursor_of(question: Sequence[Any], key: Key) -> str:
    """Return the cursor of the page after the row with ``key``.

    Args:
        question: what was asked, with all filters: a cursor goes with no other.
        key: of the last row, ints and text.
    """
    return base64.urlsafe_b64encode(orjson.dumps([_mark(question), *key])).decode().rstrip("=")


def key_of(question: Sequence[Any], cursor: str, types: Sequence[type]) -> Key:
    """Return the key in a cursor.

    Args:
        question: as it was when the cursor was made.
        cursor: from a client.
        types: of the key's parts, int or str.

    Raises:
        Problem: it is none, or of another question.
    """
    try:
        raw = base64.b64decode(cursor[:_LONGEST] + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mark, *rest = orjson.loads(raw)
        key: Key = list(rest)
    except (binascii.Error, ValueError, TypeError):
        raise Problem(BAD_CURSOR, f"the cursor {cursor[:40]!r} is none of ours; {_ADVICE}") from None
    if mark != _mark(question) or [type(part) for part in key] != list(types):
        raise Problem(BAD_CURSOR, f"the cursor is of another question; {_ADVICE}")
    return key


def _mark(question: Sequence[Any]) -> str:
    return hashlib.blake2b(orjson.dumps(list(question)), digest_size=6).hexdigest()
