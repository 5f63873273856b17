"""A day as people write it on a command line."""

from datetime import date

from stream.errors import SettingsError


def day_of(text: str | None) -> date | None:
    """Return the day; None where there is none.

    Raises:
        SettingsError: it is none.
    """
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"the day {text!r}; right would be YYYY-MM-DD, as in 2013-10-07") from None
